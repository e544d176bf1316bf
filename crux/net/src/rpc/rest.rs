//! The HTTP half of the REST twins: a JSON request becomes a gRPC request to the same routes, and its answer JSON again.
//!
//! Not for what messages look like: that is [`crux_wire::rest`]. Nothing is decided here about who may call what;
//! the routes see the same path, principal and address as over gRPC. Read [`answer`] first; `rest/requests.rs` makes
//! the gRPC body while it is read, `rest/replies.rs` reads the answer.

mod replies;
mod requests;

use crux_wire::rest::{Api, Method, OPENAPI_PATH, Problem, Shape};
use crux_wire::status::Kind;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN, TE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Method as Verb, Request, Response, StatusCode};
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt as _;

use requests::Slot;
pub use requests::{REST_BODY_TIME_MAX, REST_MESSAGE_BYTES_MAX};

/// Whether a request is gRPC and none of ours.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|media| media.starts_with("application/grpc"))
}

/// The refusal of a request that a browser page makes; `None`: none made it.
///
/// A browser would add its user's certificate to what any page asks. Programs send no `Origin`.
pub(super) fn refused_origin(headers: &HeaderMap) -> Option<Problem> {
    headers.get(ORIGIN).map(|origin| {
        let text = format!("answer a page of {origin:?}: requests with an Origin are refused");
        Problem::new(403, Kind::Refused, text)
    })
}

/// Answers one request that is not gRPC.
pub(super) async fn answer(request: Request<Body>, api: &Api, routes: Routes) -> Response<Body> {
    let path = request.uri().path();
    if path == OPENAPI_PATH
        && let Some(document) = api.openapi()
    {
        return match *request.method() {
            Verb::GET | Verb::HEAD => json(StatusCode::OK, document.as_bytes()),
            _ => wrong_verb("GET, HEAD"),
        };
    }
    let Some(method) = api.method(path) else {
        let text = format!("find {path:?}: no such method; {OPENAPI_PATH} lists them");
        return problem(&Problem::new(404, Kind::NotFound, text));
    };
    if request.method() != Verb::POST {
        return wrong_verb("POST");
    }
    match checked(request.headers(), method) {
        Ok(()) => call(request, method.clone(), routes).await,
        Err(wrong) => problem(&wrong),
    }
}

/// What the headers must say of the body.
fn checked(headers: &HeaderMap, method: &Method) -> Result<(), Problem> {
    let unsupported = |text: String| Problem::new(415, Kind::Invalid, text);
    let wanted = method.requests().media_type();
    let plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        return Err(unsupported("read the body: it is compressed".to_owned()));
    }
    let media = media_type(headers).unwrap_or_default();
    if media != wanted {
        let text = format!("read the body: Content-Type must be {wanted}, not {media:?}");
        return Err(unsupported(text));
    }
    let charset = parameter(headers, "charset").unwrap_or_else(|| "utf-8".to_owned());
    if charset != "utf-8" {
        let text = format!("read the body: charset must be utf-8, not {charset:?}");
        return Err(unsupported(text));
    }
    Ok(())
}

async fn call(request: Request<Body>, method: Method, routes: Routes) -> Response<Body> {
    let slot = Slot::default();
    let request = to_grpc(request, &method, &slot);
    let response = match routes.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    match method.replies() {
        Shape::One => replies::one(response, &method, &slot).await,
        Shape::Stream => replies::stream(response, method, slot),
    }
}

/// The same request as gRPC: path and extensions stay, of the headers nothing does.
fn to_grpc(request: Request<Body>, method: &Method, slot: &Slot) -> Request<Body> {
    let (mut parts, body) = request.into_parts();
    parts.headers.clear();
    let grpc = HeaderValue::from_static("application/grpc");
    parts.headers.insert(CONTENT_TYPE, grpc);
    parts
        .headers
        .insert(TE, HeaderValue::from_static("trailers"));
    Request::from_parts(parts, requests::body(body, method.clone(), slot.clone()))
}

/// A whole answer of JSON.
fn json(status: StatusCode, body: &[u8]) -> Response<Body> {
    let mut line = body.to_vec();
    if !line.ends_with(b"\n") {
        line.push(b'\n');
    }
    with_headers(
        status,
        Shape::One,
        Body::new(http_body_util::Full::from(line)),
    )
}

fn with_headers(status: StatusCode, shape: Shape, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let media = HeaderValue::from_static(shape.media_type());
    headers.insert(CONTENT_TYPE, media);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The answer that says what is wrong.
pub(super) fn problem(problem: &Problem) -> Response<Body> {
    let status = StatusCode::from_u16(problem.http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(status, &problem.to_json())
}

fn wrong_verb(allowed: &'static str) -> Response<Body> {
    let text = format!("answer: the verb must be {allowed}");
    let mut response = problem(&Problem::new(405, Kind::Invalid, text));
    let allowed = HeaderValue::from_static(allowed);
    response.headers_mut().insert(ALLOW, allowed);
    response
}

/// The media type in lower case, without parameters.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let media = value.split(';').next().unwrap_or_default();
    Some(media.trim().to_ascii_lowercase())
}

/// A parameter of the media type, in lower case, without quotes.
fn parameter(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    value.split(';').skip(1).find_map(|part| {
        let (key, value) = part.split_once('=')?;
        let value = value.trim().trim_matches('"').to_ascii_lowercase();
        key.trim().eq_ignore_ascii_case(name).then_some(value)
    })
}
