//! A gRPC answer as JSON, or as NDJSON while it comes.

use bytes::{Buf as _, Bytes};
use crux_wire::rest::{Malformed, Method, Problem, Shape};
use crux_wire::status::{Effect, Kind};
use futures_util::stream::unfold;
use http::{Response, StatusCode};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tonic::body::Body;
use tonic::codec::{DecodeBuf, Decoder, Streaming};
use tonic::{Code, Status};

use super::requests::Slot;
use super::{json, problem, with_headers};

/// Largest reply message that is turned into JSON, in bytes. 64 MiB: our services stay far below.
pub(super) const REST_REPLY_BYTES_MAX: usize = 64 << 20;

/// Takes each message as it stands on the wire.
#[derive(Debug)]
struct Raw;

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}

/// The failure that came instead of any reply, if one did.
fn failure(response: &Response<Body>) -> Option<Status> {
    Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok)
}

fn messages(response: Response<Body>) -> Streaming<Bytes> {
    let most = Some(REST_REPLY_BYTES_MAX);
    Streaming::new_response(Raw, response.into_body(), StatusCode::OK, None, most)
}

fn bug(malformed: &Malformed) -> Problem {
    Problem {
        effect: Effect::Unknown,
        ..Problem::new(Kind::Bug.http(), Kind::Bug, malformed.to_string())
    }
}

/// The answer of a method with one reply.
pub(super) async fn one(response: Response<Body>, method: &Method, slot: &Slot) -> Response<Body> {
    if let Some(status) = failure(&response) {
        return problem(&slot.problem_or(&status));
    }
    match only(&mut messages(response)).await {
        Ok(wire) => match method.reply_to_json(wire) {
            Ok(text) => json(StatusCode::OK, &text),
            Err(malformed) => problem(&bug(&malformed)),
        },
        Err(status) => problem(&slot.problem_or(&status)),
    }
}

async fn only(messages: &mut Streaming<Bytes>) -> Result<Bytes, Status> {
    let first = messages.message().await?;
    // The status comes after the message.
    let second = messages.message().await?;
    match (first, second) {
        (Some(wire), None) => Ok(wire),
        _ => Err(Status::internal("answer: not exactly one reply")),
    }
}

/// The answer of a method whose replies stream, a line each.
pub(super) fn stream(response: Response<Body>, method: Method, slot: Slot) -> Response<Body> {
    if let Some(status) = failure(&response) {
        return problem(&slot.problem_or(&status));
    }
    let state = Some((messages(response), method, slot));
    let lines = unfold(state, |state| async {
        let (mut messages, method, slot) = state?;
        let (line, state) = match messages.message().await {
            Ok(None) => return None,
            Ok(Some(wire)) => match method.reply_to_json(wire) {
                Ok(mut text) => {
                    text.push(b'\n');
                    (text, Some((messages, method, slot)))
                }
                Err(malformed) => (bug(&malformed).to_last_line(), None),
            },
            Err(status) => (slot.problem_or(&status).to_last_line(), None),
        };
        let frame = Frame::data(Bytes::from(line));
        Some((Ok::<_, std::convert::Infallible>(frame), state))
    });
    let body = Body::new(StreamBody::new(lines));
    with_headers(StatusCode::OK, Shape::Stream, body)
}
