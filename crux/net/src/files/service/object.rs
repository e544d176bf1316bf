//! An object of a service that answers GET over HTTP/1.1, as object stores and file servers do.
//!
//! Without TLS: what comes is compared with its digest, and secrets have no place there. No redirects are followed.

use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::io::StreamReader;

use super::{Content, DataService};
use crate::task::{self, Policy};

/// How long connecting and the first answer may take, each.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct Object {
    uri: http::Uri,
}

impl Object {
    /// The object at `http://HOST:PORT/PATH`; `None` for anything else.
    #[must_use]
    pub fn new(url: &str) -> Option<Self> {
        let uri: http::Uri = url.parse().ok()?;
        let authority = uri.authority()?;
        let plain = uri.scheme_str() == Some("http")
            && !authority.as_str().contains('@')
            && !authority.host().is_empty();
        plain.then_some(Self { uri })
    }

    async fn connect(&self) -> io::Result<http1::SendRequest<Empty<Bytes>>> {
        let host = self.uri.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let port = self.uri.port_u16().unwrap_or(80);
        let connected = within(TcpStream::connect((bare, port))).await??;
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
