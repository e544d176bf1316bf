//! An object of a service that answers GET over HTTP/1.1, as object stores and file servers do, with TLS or without.
//!
//! What comes is compared with its digest in any case; TLS hides what is asked for, and proves who is asked. Whom to
//! believe is for the host to say: the authorities in `SSL_CERT_FILE`, or else in the bundle that its distribution keeps.
//! No redirects are followed, and no secrets have a place in a URL.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::io::StreamReader;

use super::{Content, DataService};
use crate::identity::provider;
use crate::task::{self, Policy};

/// How long connecting, shaking hands and the first answer may take, each.
const PATIENCE: Duration = Duration::from_secs(5);
/// Names a file of authorities, as other programs read it.
const AUTHORITIES: &str = "SSL_CERT_FILE";
/// Where distributions keep theirs: Debian, Fedora, Alpine and SUSE.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];
/// Largest file of authorities, in bytes; distributions' have 200 KiB.
const AUTHORITIES_BYTES_MAX: u64 = 16 << 20;

/// See the module.
#[derive(Debug)]
pub struct Object {
    uri: http::Uri,
    /// Who must have vouched for the service; `None`: whom the host believes.
    authorities: Option<PathBuf>,
}

impl Object {
    /// The object at `http://HOST:PORT/PATH` or `https://…`; `None` for anything else.
    #[must_use]
    pub fn new(url: &str) -> Option<Self> {
        let uri: http::Uri = url.parse().ok()?;
        let authority = uri.authority()?;
        let known = matches!(uri.scheme_str(), Some("http" | "https"))
            && !authority.as_str().contains('@')
            && !authority.host().is_empty();
        known.then_some(Self {
            uri,
            authorities: None,
        })
    }

    /// The same, which believes the authorities in a PEM file and nobody else.
    #[must_use]
    pub fn trusting(mut self, authorities: PathBuf) -> Self {
        self.authorities = Some(authorities);
        self
    }

    async fn connect(&self) -> io::Result<http1::SendRequest<Empty<Bytes>>> {
        let host = self.uri.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let tls = self.uri.scheme_str() == Some("https");
        let port = self.uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        if !tls {
            return speak(within(TcpStream::connect((bare, port))).await??).await;
        }
        let name = ServerName::try_from(bare.to_owned());
        let name = name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let named = self.authorities.clone();
        let config = tokio::task::spawn_blocking(move || config(named)).await??;
        // Only now: whom nobody is believed to be is not called.
        let connected = within(TcpStream::connect((bare, port))).await??;
        let shaking = TlsConnector::from(Arc::new(config)).connect(name, connected);
        speak(within(shaking).await??).await
    }
}

async fn speak(
    connected: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> io::Result<http1::SendRequest<Empty<Bytes>>> {
    let shaken = within(http1::handshake(TokioIo::new(connected))).await?;
    let (sender, connection) = shaken.map_err(io::Error::other)?;
    // It ends with the body, or with whoever reads it.
    let driving = async {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a data service closed a connection");
        }
    };
    drop(task::spawn("data-service", Policy::DRAIN, driving));
    Ok(sender)
}

/// What a service must prove; the file is read each time, for distributions renew theirs.
fn config(named: Option<PathBuf>) -> io::Result<ClientConfig> {
    let named = named.or_else(|| std::env::var_os(AUTHORITIES).map(PathBuf::from));
    let bundles = || BUNDLES.map(PathBuf::from).into_iter();
    let found = named.or_else(|| bundles().find(|path| path.is_file()));
    let found = found.ok_or_else(|| {
        let text = format!(
            "no authorities are known here: {AUTHORITIES} names none, and no bundle is installed"
        );
        io::Error::new(io::ErrorKind::NotFound, text)
    })?;
    let roots = roots(&found)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", found.display())))?;
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(io::Error::other)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn roots(path: &Path) -> io::Result<RootCertStore> {
    if std::fs::metadata(path)?.len() > AUTHORITIES_BYTES_MAX {
        return Err(io::Error::other("it is too large"));
    }
    let bytes = std::fs::read(path)?;
    let mut roots = RootCertStore::empty();
    // A bundle may hold some that this library does not take; the others count.
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok));
    if roots.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it holds no certificate of an authority",
        ));
    }
    Ok(roots)
}

#[tonic::async_trait]
impl DataService for Object {
    async fn open(&self) -> io::Result<Content> {
        let mut sender = self.connect().await?;
        let authority = self
            .uri
            .authority()
            .map_or("", |authority| authority.as_str());
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let request = http::Request::get(path)
            .header(http::header::HOST, authority)
            .body(Empty::new())
            .map_err(io::Error::other)?;
        let answer = within(sender.send_request(request)).await?;
        let answer = answer.map_err(io::Error::other)?;
        let kind = match answer.status() {
            http::StatusCode::OK => None,
            http::StatusCode::NOT_FOUND | http::StatusCode::GONE => Some(io::ErrorKind::NotFound),
            http::StatusCode::UNAUTHORIZED | http::StatusCode::FORBIDDEN => {
                Some(io::ErrorKind::PermissionDenied)
            }
            _ => Some(io::ErrorKind::Other),
        };
        if let Some(kind) = kind {
            return Err(io::Error::new(
                kind,
                format!("it answered {}", answer.status()),
            ));
        }
        let total = hyper::body::Body::size_hint(answer.body()).exact();
        let pieces = Box::pin(answer.into_body().into_data_stream());
        let pieces = futures_util::TryStreamExt::map_err(pieces, io::Error::other);
        Ok(Content {
            bytes: Box::new(StreamReader::new(pieces)),
            total,
        })
    }
}

async fn within<T>(waiting: impl Future<Output = T>) -> io::Result<T> {
    let done = tokio::time::timeout(PATIENCE, waiting).await;
    done.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "it does not answer"))
}
