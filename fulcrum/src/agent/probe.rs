//! Readiness probes: one asks until the instance answers.

use std::net::IpAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::limits::{ALIVE_READY, PROBE_INTERVAL, PROBE_INTERVAL_MAX, PROBE_TIMEOUT};

/// How an instance shows that it is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// It registers a service.
    Register,
    /// It accepts connections on a port.
    Tcp(u16),
    /// It answers 2xx or 3xx to a GET.
    Http {
        /// The port.
        port: u16,
        /// The path, with its slash.
        path: String,
    },
    /// It has run for a moment, or has registered a service.
    Alive,
}

/// Returns once the instance at `host` is ready; never for [`Readiness::Register`].
///
/// # Cancel safety
/// Safe: a probe changes nothing here.
pub(crate) async fn until_ready(readiness: &Readiness, host: IpAddr) {
    let mut pause = PROBE_INTERVAL;
    loop {
        let ready = match readiness {
            Readiness::Register => std::future::pending().await,
            Readiness::Alive => {
                tokio::time::sleep(ALIVE_READY).await;
                true
            }
            Readiness::Tcp(port) => within(TcpStream::connect((host, *port))).await.is_some(),
            Readiness::Http { port, path } => within(http_answers(host, *port, path))
                .await
                .unwrap_or(false),
        };
        if ready {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 5 / 4).min(PROBE_INTERVAL_MAX);
    }
}

async fn within<T>(probe: impl Future<Output = std::io::Result<T>>) -> Option<T> {
    tokio::time::timeout(limit(), probe).await.ok()?.ok()
}

const fn limit() -> Duration {
    PROBE_TIMEOUT
}

async fn http_answers(host: IpAddr, port: u16, path: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((host, port)).await?;
    let request =
        format!("GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    // "HTTP/1.x NNN" is all that matters.
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    Ok(head.starts_with(b"HTTP/1.") && matches!(head[9], b'2' | b'3'))
}
