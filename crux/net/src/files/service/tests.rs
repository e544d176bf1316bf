//! One suite, which each adapter passes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crux_core::files::path::RelPath;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

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

/// Answers each request on a connection of its own, as a file server would.
async fn serve(listener: TcpListener) {
    loop {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(connection.read_u8().await.unwrap());
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
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-length: {told}\r\nlocation: /whole\r\n\r\n");
        connection.write_all(head.as_bytes()).await.unwrap();
        connection.write_all(&content()[..sent]).await.unwrap();
        connection.shutdown().await.unwrap();
    }
}

// Shows: DAT-06
#[tokio::test]
async fn an_object_service_passes_the_suite_and_leads_nowhere_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let _serving = task::spawn("serve", Policy::ABORT, serve(listener));
    let of = |name: &str| -> Box<dyn DataService> {
        Box::new(Object::new(&format!("http://{address}/bucket/{name}")).unwrap())
    };
    suite(of).await;
    assert!(read(&*of("away")).await.is_err());
    for url in ["https://h/x", "http:///x", "http://u:p@h/x", "file:/x", "x"] {
        assert!(Object::new(url).is_none(), "{url}");
    }
}
