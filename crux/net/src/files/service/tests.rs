//! One suite, which each adapter passes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crux_core::files::path::RelPath;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::files::Root;
use crate::task::{self, Policy};

/// Names of what a fake holds: all of it, less than it tells, nothing.
const WHOLE: &str = "whole";
const SHORT: &str = "short";
const ABSENT: &str = "absent";
/// More than one read brings.
const BYTES: usize = 300_000;

fn content() -> Vec<u8> {
    (0..BYTES)
        .map(|at| u8::try_from(at % 251).unwrap())
        .collect()
}

async fn read(service: &dyn DataService) -> io::Result<(Vec<u8>, Option<u64>)> {
    let mut content = service.open().await?;
    let mut bytes = Vec::new();
    content.bytes.read_to_end(&mut bytes).await?;
    Ok((bytes, content.total))
}

/// Every line of the trait's behaviour; `of` makes the service for a name.
async fn suite(of: impl Fn(&str) -> Box<dyn DataService>) {
    let whole = of(WHOLE);
    for _ in 0..2 {
        let (bytes, total) = read(&*whole).await.unwrap();
        assert_eq!(bytes, content());
        assert_eq!(total, Some(BYTES as u64));
    }
    let error = read(&*of(ABSENT)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
    // A folder knows no other length than a file has: it cannot be short.
    if let Ok((bytes, total)) = read(&*of(SHORT)).await {
        assert_eq!(total, Some(bytes.len() as u64));
        assert!(format!("{:?}", of(SHORT)).starts_with("Folder"));
    }
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let at = std::env::temp_dir().join(format!("radix-service-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&at).unwrap();
        std::fs::write(at.join(WHOLE), content()).unwrap();
        std::fs::write(at.join(SHORT), &content()[..1000]).unwrap();
        Self(at)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

// Shows: DAT-06
#[tokio::test]
async fn a_folder_passes_the_suite_and_is_not_left() {
    let scratch = Scratch::new("folder");
    let root = Arc::new(Root::open(&scratch.0).unwrap());
    let of = |name: &str| {
        let path = RelPath::new(name).unwrap();
        Box::new(Folder::new(Arc::clone(&root), path)) as Box<dyn DataService>
    };
    suite(of).await;
    std::os::unix::fs::symlink("/etc/passwd", scratch.0.join("out")).unwrap();
    let error = read(&*of("out")).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
}

// Shows: DAT-06
#[tokio::test]
async fn a_block_device_passes_the_suite_and_gives_no_more_than_its_data() {
    let scratch = Scratch::new("block");
    let mut device = content();
    device.extend_from_slice(&[0; 4096]);
    std::fs::write(scratch.0.join(WHOLE), device).unwrap();
    let root = Arc::new(Root::open(&scratch.0).unwrap());
    let of = |name: &str| -> Box<dyn DataService> {
        let path = RelPath::new(name).unwrap();
        Box::new(Block::new(Arc::clone(&root), path, BYTES as u64))
    };
    suite(of).await;
    let folder = Block::new(Arc::clone(&root), RelPath::ROOT, 1);
    assert_eq!(
        read(&folder).await.unwrap_err().kind(),
        io::ErrorKind::PermissionDenied
    );
}

/// Answers each request on a connection of its own, as a file server would; with TLS, if it has what that takes.
async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>) {
    loop {
        let (connection, _) = listener.accept().await.unwrap();
        match &tls {
            None => answer(connection).await.unwrap(),
            // A client that does not believe us breaks off.
            Some(tls) => {
                if let Ok(connection) = tls.accept(connection).await {
                    drop(answer(connection).await);
                }
            }
        }
    }
}

async fn answer(mut connection: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(connection.read_u8().await?);
    }
    let request = String::from_utf8(request).unwrap();
    let name = request.split(' ').nth(1).map(Path::new).unwrap();
    let (status, sent) = match name.file_name().and_then(|name| name.to_str()) {
        Some(WHOLE) => ("200 OK", BYTES),
        Some(SHORT) => ("200 OK", 1000),
        Some("away") => ("302 Found", 0),
        _ => ("404 Not Found", 0),
    };
    let told = if status == "200 OK" { BYTES } else { 0 };
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {told}\r\nlocation: /whole\r\n\r\n");
    connection.write_all(head.as_bytes()).await?;
    connection.write_all(&content()[..sent]).await?;
    connection.shutdown().await
}

// Shows: DAT-06
#[tokio::test]
async fn an_object_service_passes_the_suite_and_leads_nowhere_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let _serving = task::spawn("serve", Policy::ABORT, serve(listener, None));
    let of = |name: &str| -> Box<dyn DataService> {
        Box::new(Object::new(&format!("http://{address}/bucket/{name}")).unwrap())
    };
    suite(of).await;
    assert!(read(&*of("away")).await.is_err());
    for url in ["ftp://h/x", "http:///x", "https://u:p@h/x", "file:/x", "x"] {
        assert!(Object::new(url).is_none(), "{url}");
    }
}

/// An authority, and a server that it vouches for under these names.
struct Vouched {
    authority: String,
    acceptor: TlsAcceptor,
}

impl Vouched {
    fn of(names: &[&str]) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let name = format!("authority of {}", names[0]);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let authority = params.self_signed(&key).unwrap();
        let issuer = rcgen::Issuer::new(params, key);
        let own = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let leaf = rcgen::CertificateParams::new(names).unwrap();
        let leaf = leaf.signed_by(&own, &issuer).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(own.serialize_der());
        let config = rustls::ServerConfig::builder_with_provider(crate::identity::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key.into())
            .unwrap();
        Self {
            authority: authority.pem(),
            acceptor: TlsAcceptor::from(Arc::new(config)),
        }
    }
}

// Shows: DAT-06
#[tokio::test]
async fn an_object_service_with_tls_passes_the_suite_and_must_prove_who_it_is() {
    let scratch = Scratch::new("tls");
    let ours = Vouched::of(&["localhost", "127.0.0.1"]);
    let other = Vouched::of(&["elsewhere.example"]);
    let trusted = scratch.0.join("ca.pem");
    std::fs::write(&trusted, format!("# ours\n{}", ours.authority)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let _serving = task::spawn("serve", Policy::ABORT, serve(listener, Some(ours.acceptor)));
    for host in ["localhost", "127.0.0.1"] {
        let of = |name: &str| -> Box<dyn DataService> {
            let object = Object::new(&format!("https://{host}:{port}/bucket/{name}")).unwrap();
            Box::new(object.trusting(trusted.clone()))
        };
        suite(of).await;
    }

    let url = format!("https://localhost:{port}/{WHOLE}");
    let refused = async |trusting: &Path| {
        let object = Object::new(&url).unwrap().trusting(trusting.to_owned());
        read(&object).await.unwrap_err().to_string()
    };
    // Vouched for by nobody whom we believe.
    let foreign = scratch.0.join("foreign.pem");
    std::fs::write(&foreign, &other.authority).unwrap();
    let error = refused(&foreign).await;
    assert!(error.contains("UnknownIssuer"), "{error}");
    // Vouched for, as somebody else.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let _other = task::spawn(
        "serve",
        Policy::ABORT,
        serve(listener, Some(other.acceptor)),
    );
    let object = Object::new(&format!("https://localhost:{port}/{WHOLE}")).unwrap();
    let error = read(&object.trusting(foreign))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("not valid for name"), "{error}");
    // A file without authorities, and none.
    let empty = scratch.0.join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    assert!(
        refused(&empty)
            .await
            .contains("empty.pem: it holds no certificate")
    );
    assert!(
        refused(&scratch.0.join("absent.pem"))
            .await
            .contains("absent.pem")
    );
    // Who speaks no TLS is not spoken to without.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let _plain = task::spawn("plain", Policy::ABORT, async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        connection
            .write_all(b"HTTP/1.1 200 OK\r\n\r\n")
            .await
            .unwrap();
    });
    let object = Object::new(&format!("https://localhost:{port}/{WHOLE}")).unwrap();
    assert!(read(&object.trusting(trusted)).await.is_err());
}
