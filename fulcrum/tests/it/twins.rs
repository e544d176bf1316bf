//! One call made as gRPC and as REST, and what the two answers have in common.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use crux_wire::rest::{Method, Problem, Shape};
use hyper::body::Body as _;
use prost::bytes::{Buf as _, BufMut as _, Bytes};
use serde_json::{Value, json};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};
use tower::ServiceExt as _;

/// Far longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a pair may differ because something changed between its two calls.
const TRIES: usize = 5;

/// A call: its requests, and how many replies are read of a stream that never ends.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) requests: Vec<Value>,
    pub(crate) replies_read: usize,
}

impl Call {
    pub(crate) fn new(method: &Method, requests: Vec<Value>) -> Self {
        Self {
            method: method.clone(),
            requests,
            replies_read: usize::MAX,
        }
    }

    pub(crate) fn reading(mut self, replies: usize) -> Self {
        self.replies_read = replies;
        self
    }
}

/// Bytes as JSON has them.
pub(crate) fn base64(bytes: &[u8]) -> String {
    // Whatever writes bytes in a message will do.
    let chunk = crux_wire::fileio::v1::Chunk {
        bytes: bytes.to_vec(),
        total: 0,
    };
    let get = crux_wire::rest::Api::radix().find("FileIo/Get")[0];
    let json = get
        .reply_to_json(prost::Message::encode_to_vec(&chunk).into())
        .unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    json["bytes"].as_str().unwrap_or_default().to_owned()
}

/// What came back: replies as JSON, and the failure if one came.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(crate) struct Answer {
    pub(crate) replies: Vec<Value>,
    pub(crate) problem: Option<Value>,
}

/// Both answers, and whether they say the same.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Compared {
    pub(crate) path: String,
    pub(crate) same: bool,
    pub(crate) failed: bool,
    pub(crate) grpc: Value,
    pub(crate) rest: Value,
}

/// Calls both ways. What two gRPC calls, one before and one after, agree on, REST must agree on.
pub(crate) async fn compare(channel: impl AsyncFn() -> Channel, call: &Call) -> Compared {
    let mut tries = 0;
    loop {
        tries += 1;
        let before = grpc(channel().await, call).await;
        let rest = rest(channel().await, call).await;
        let after = grpc(channel().await, call).await;
        let same = agree(&before, &rest, &after);
        if same || tries == TRIES {
            return Compared {
                path: call.method.path().to_owned(),
                same,
                failed: before.problem.is_some(),
                grpc: json!(before),
                rest: json!(rest),
            };
        }
    }
}

fn agree(before: &Answer, rest: &Answer, after: &Answer) -> bool {
    let (fewest, most) = (
        before.replies.len().min(after.replies.len()),
        before.replies.len().max(after.replies.len()),
    );
    let replies = |answer: &Answer| Value::from(answer.replies[..fewest].to_vec());
    (fewest..=most).contains(&rest.replies.len())
        && alike(&replies(before), &replies(rest), &replies(after))
        && alike(
            &json!(before.problem),
            &json!(rest.problem),
            &json!(after.problem),
        )
}

/// Whether the middle one has all that the outer ones agree on.
fn alike(left: &Value, middle: &Value, right: &Value) -> bool {
    match (left, middle, right) {
        (Value::Object(l), Value::Object(m), Value::Object(r)) => {
            let always = l.keys().filter(|key| r.contains_key(*key));
            let known = |key: &String| l.contains_key(key) || r.contains_key(key);
            m.keys().all(known)
                && always.into_iter().all(|key| {
                    m.get(key)
                        .is_some_and(|value| alike(&l[key], value, &r[key]))
                })
        }
        (Value::Array(l), Value::Array(m), Value::Array(r)) if l.len() == r.len() => {
            l.len() == m.len() && (0..l.len()).all(|at| alike(&l[at], &m[at], &r[at]))
        }
        _ if left == right => left == middle,
        // It changes from call to call: only its kind can be compared.
        _ => std::mem::discriminant(left) == std::mem::discriminant(middle),
    }
}

fn problem(problem: &Problem) -> Value {
    json!([problem.kind.name(), problem.effect.text(), problem.message])
}

async fn grpc(channel: Channel, call: &Call) -> Answer {
    let wire: Vec<Bytes> = call
        .requests
        .iter()
        .map(|json| call.method.request_from_json(json.to_string().as_bytes()))
        .collect::<Result<_, _>>()
        .unwrap();
    let mut answer = Answer {
        replies: Vec::new(),
        problem: None,
    };
    let asking = async {
        let mut grpc = Grpc::new(channel);
        grpc.ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let path = call.method.path().parse().unwrap();
        let requests = Request::new(tokio_stream::iter(wire));
        let mut replies = grpc.streaming(requests, path, Raw).await?.into_inner();
        while answer.replies.len() < call.replies_read
            && let Some(reply) = replies.message().await?
        {
            let json = call.method.reply_to_json(reply).unwrap();
            answer.replies.push(serde_json::from_slice(&json).unwrap());
        }
        Ok::<_, Status>(())
    };
    let asked = tokio::time::timeout(PATIENCE, asking)
        .await
        .unwrap_or_else(|_| panic!("{} does not end: say how much to read", call.method.path()));
    answer.problem = asked
        .err()
        .map(|status| problem(&Problem::of_status(&status)));
    answer
}

async fn rest(channel: Channel, call: &Call) -> Answer {
    let lines: Vec<_> = call.requests.iter().map(Value::to_string).collect();
    let request = http::Request::post(call.method.path())
        .header("content-type", call.method.requests().media_type())
        .body(Body::new(lines.join("\n")))
        .unwrap();
    let asking = async {
        let response = channel.oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let streams = status == 200 && call.method.replies() == Shape::Stream;
        let media = if streams {
            "application/x-ndjson"
        } else {
            "application/json"
        };
        assert_eq!(response.headers()["content-type"], media);
        let lines = lines_of(response.into_body(), call.replies_read).await;
        answer_of(status, &lines)
    };
    tokio::time::timeout(PATIENCE, asking)
        .await
        .unwrap_or_else(|_| panic!("{} does not end: say how much to read", call.method.path()))
}

/// The lines of a body, at most so many.
pub(crate) async fn lines_of(mut body: Body, most: usize) -> Vec<Vec<u8>> {
    let mut text = Vec::new();
    let ends = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
    while ends(&text) < most
        && let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {
        if let Ok(data) = frame.unwrap().into_data() {
            text.extend_from_slice(&data);
        }
    }
    let lines = text.split(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty()).take(most);
    lines.map(<[u8]>::to_vec).collect()
}

fn answer_of(status: u16, lines: &[Vec<u8>]) -> Answer {
    let mut answer = Answer {
        replies: Vec::new(),
        problem: None,
    };
    for line in lines {
        let json: Value = serde_json::from_slice(line).unwrap();
        if status != 200 || json.get("error").is_some() {
            let read = Problem::from_json(status, line).unwrap();
            assert!(status == 200 || status == read.kind.http(), "{read:?}");
            answer.problem = Some(problem(&read));
        } else {
            answer.replies.push(json);
        }
    }
    answer
}

/// Messages as they stand on the wire.
#[derive(Debug, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}
