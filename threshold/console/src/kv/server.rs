//! HTTP in front of [`Api`]: bounded connections, bounded bodies, one answer a request.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::api::{Answer, Api, Asked};
use super::board::VALUE_BYTES_MAX;

/// Connections served at once; others wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// Time a client has to send its request's head, and again for its body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a connection could not be taken: no descriptor is left, or its client gave up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Serves until the future is dropped.
pub(super) async fn serve(listener: TcpListener, api: Api) -> io::Result<()> {
    let api = Arc::new(api);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let permit = Arc::clone(&room)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let api = Arc::clone(&api);
        connections.spawn(async move {
            connection(stream, api).await;
            drop(permit);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, api: Arc<Api>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let api = Arc::clone(&api);
        async move { Ok::<_, Infallible>(response(answer(&api, request).await)) }
    });
    // A broken connection is its client's affair.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(api: &Api, request: Request<Incoming>) -> Answer {
    let asked = Asked {
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
    };
    // A page in a browser must not write here for whoever looks at it.
    if request.headers().contains_key(http::header::ORIGIN) {
        return Answer::error(StatusCode::FORBIDDEN, "requests with an Origin are refused");
    }
    let body = Limited::new(request.into_body(), VALUE_BYTES_MAX).collect();
    match tokio::time::timeout(REQUEST_TIMEOUT, body).await {
        Ok(Ok(body)) => api.answer(&asked, &body.to_bytes()).await,
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let reason = format!("the value is longer than {VALUE_BYTES_MAX} bytes");
            Answer::error(StatusCode::PAYLOAD_TOO_LARGE, reason)
        }
        Ok(Err(_)) => Answer::error(StatusCode::BAD_REQUEST, "the body did not arrive"),
        Err(_) => Answer::error(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not arrive in time",
        ),
    }
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = answer.status;
    let content_type = HeaderValue::from_static(answer.content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
