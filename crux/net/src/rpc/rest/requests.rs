//! A JSON body as a gRPC body, made while it is read, so that an upload of any length needs the memory of one message.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use crux_wire::rest::{Method, Place, Problem, Shape};
use crux_wire::status::{Effect, Kind};
use futures_util::stream::try_unfold;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tonic::Status;
use tonic::body::Body;

/// Largest JSON text of one request message, in bytes. 6 MiB: what a gRPC message of 4 MiB needs in base64.
pub const REST_MESSAGE_BYTES_MAX: usize = 6 << 20;
/// Time in which the body of a call with one request must be there. 10 s: the sender is there already, only slow.
pub const REST_BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// Largest gRPC message that services take, in bytes: tonic's own bound.
const GRPC_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Bytes before each gRPC message: a flag and a length.
const GRPC_HEAD_BYTES: usize = 5;

/// Where the reader of a body leaves what was wrong with it.
#[derive(Debug, Clone, Default)]
pub(super) struct Slot(Arc<Mutex<Option<Problem>>>);

impl Slot {
    /// What was wrong with the body, or else what the answer says.
    pub(super) fn problem_or(&self, status: &Status) -> Problem {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.clone().unwrap_or_else(|| Problem::of_status(status))
    }

    fn fill(&self, problem: Problem) -> Status {
        let status = problem.status();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
        status
    }
}

/// `body` as `method`'s gRPC requests. What is wrong with it ends the requests with an error and is left in `slot`.
pub(super) fn body(body: Body, method: Method, slot: Slot) -> Body {
    let reader = Reader {
        body,
        method,
        slot,
        buffer: BytesMut::new(),
        searched: 0,
        line: 0,
        ended: false,
    };
    match reader.method.requests() {
        Shape::One => Body::new(StreamBody::new(try_unfold(Some(reader), whole))),
        Shape::Stream => Body::new(StreamBody::new(try_unfold(reader, next_line))),
    }
}

struct Reader {
    body: Body,
    method: Method,
    slot: Slot,
    buffer: BytesMut,
    /// How much of `buffer` is known to hold no end of line.
    searched: usize,
    line: u64,
    ended: bool,
}

type Step<S> = Result<Option<(Frame<Bytes>, S)>, Status>;

/// The one request that the whole body is.
async fn whole(reader: Option<Reader>) -> Step<Option<Reader>> {
    let Some(mut reader) = reader else {
        return Ok(None);
    };
    let reading = async {
        while !reader.ended {
            reader.read_some().await?;
        }
        Ok::<_, Status>(())
    };
    if let Ok(read) = tokio::time::timeout(REST_BODY_TIME_MAX, reading).await {
        read?;
    } else {
        let text = format!("read the body: it was not there within {REST_BODY_TIME_MAX:?}");
        let problem = Problem::new(408, Kind::Timeout, text);
        return Err(reader.slot.fill(problem));
    }
    let json = reader.buffer.split().freeze();
    reader.message(&json).map(|frame| Some((frame, None)))
}

/// The request on the next line that is not blank.
async fn next_line(mut reader: Reader) -> Step<Reader> {
    loop {
        let end = reader.buffer[reader.searched..]
            .iter()
            .position(|byte| *byte == b'\n')
            .map(|found| reader.searched + found);
        let json = match end {
            Some(end) => reader.buffer.split_to(end + 1).freeze(),
            None if !reader.ended => {
                reader.searched = reader.buffer.len();
                reader.read_some().await?;
                continue;
            }
            None if reader.buffer.is_empty() => return Ok(None),
            None => reader.buffer.split().freeze(),
        };
        reader.searched = 0;
        reader.line += 1;
        if !json.trim_ascii().is_empty() {
            let frame = reader.message(&json)?;
            return Ok(Some((frame, reader)));
        }
    }
}

impl Reader {
    /// Reads on; more than one message may hold is refused.
    async fn read_some(&mut self) -> Result<(), Status> {
        match self.body.frame().await {
            None => self.ended = true,
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.buffer.extend_from_slice(&data);
                }
            }
            // The caller is gone; nobody reads what we say.
            Some(Err(error)) => {
                let problem = Problem {
                    effect: Effect::Unknown,
                    ..Problem::new(400, Kind::Cancelled, format!("read the body: {error}"))
                };
                return Err(self.slot.fill(problem));
            }
        }
        let longest = self.buffer.len() - self.earlier();
        if longest > REST_MESSAGE_BYTES_MAX {
            return Err(self.too_large(REST_MESSAGE_BYTES_MAX));
        }
        Ok(())
    }

    /// Bytes that certainly belong to earlier messages: those up to the last end of line of a stream.
    ///
    /// Only what was read last can have one, so that a message in many small pieces is not searched again with each.
    fn earlier(&self) -> usize {
        match self.method.requests() {
            Shape::One => 0,
            Shape::Stream => self.buffer[self.searched..]
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |end| self.searched + end + 1),
        }
    }

    fn too_large(&self, most: usize) -> Status {
        let text = format!("read the body: a message has at most {most} bytes");
        self.slot.fill(Problem::new(413, Kind::Limit, text))
    }

    /// One message in its frame.
    fn message(&self, json: &[u8]) -> Result<Frame<Bytes>, Status> {
        let wire = self.method.request_from_json(json).map_err(|malformed| {
            let mut problem = Problem::from(malformed);
            problem.place = problem.place.map(|place| self.in_body(place));
            self.slot.fill(problem)
        })?;
        if wire.len() > GRPC_MESSAGE_BYTES_MAX {
            return Err(self.too_large(GRPC_MESSAGE_BYTES_MAX));
        }
        let mut framed = BytesMut::with_capacity(GRPC_HEAD_BYTES + wire.len());
        framed.put_u8(0);
        framed.put_u32(u32::try_from(wire.len()).unwrap_or(u32::MAX));
        framed.put(wire);
        Ok(Frame::data(framed.freeze()))
    }

    /// A place in one message of a stream as a place in the body.
    fn in_body(&self, place: Place) -> Place {
        match self.method.requests() {
            Shape::One => place,
            Shape::Stream => Place {
                line: self.line,
                ..place
            },
        }
    }
}
