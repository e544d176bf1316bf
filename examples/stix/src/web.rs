//! A small HTTP server: GET only, one handler for all paths, a bound on connections.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections served at once; others wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// Time a client has to send its request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a handler answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Status code.
    pub status: StatusCode,
    /// `text/plain` or `application/json`.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl Page {
    /// A page of plain text.
    #[must_use]
    pub fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }

    /// A page of JSON.
    #[must_use]
    pub fn json(status: StatusCode, value: &impl serde::Serialize) -> Self {
        let mut body = serde_json::to_string_pretty(value).unwrap_or_default();
        body.push('\n');
        Self {
            status,
            content_type: "application/json",
            body,
        }
    }
}

/// Serves `handler` until the future is dropped; it is given the path of each GET.
///
/// # Errors
/// When the listener fails for good.
///
/// # Cancel safety
/// Dropping it closes every connection.
pub async fn serve<H, F>(listener: TcpListener, handler: H) -> std::io::Result<()>
where
    H: Fn(String) -> F + Send + Sync + 'static,
    F: Future<Output = Page> + Send + 'static,
{
    let handler = Arc::new(handler);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let permit = Arc::clone(&room)
            .acquire_owned()
            .await
            .map_err(std::io::Error::other)?;
        let (stream, _): (TcpStream, SocketAddr) = match listener.accept().await {
            Ok(accepted) => accepted,
            // A client that gave up, or no descriptor left: neither ends the server.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let handler = Arc::clone(&handler);
        connections.spawn(async move {
            connection(stream, handler).await;
            drop(permit);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn connection<H, F>(stream: TcpStream, handler: Arc<H>)
where
    H: Fn(String) -> F + Send + Sync + 'static,
    F: Future<Output = Page> + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let page =
            (request.method() == Method::GET).then(|| handler(request.uri().path().to_owned()));
        async move {
            let page = match page {
                Some(page) => page.await,
                None => Page::text(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "only GET is answered here\n",
                ),
            };
            Ok::<_, Infallible>(response(page))
        }
    });
    // A broken connection is its client's affair.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn response(page: Page) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(page.body)));
    *response.status_mut() = page.status;
    let content_type = http::HeaderValue::from_static(page.content_type);
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, content_type);
    response
}
