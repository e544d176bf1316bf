//! `rest`: what JSON costs, for a small call and for a stream of bytes, both over one HTTP/2 session.

use std::time::{Duration, Instant};

use crux_wire::fileio::v1::GetRequest;
use crux_wire::fileio::v1::file_io_client::FileIoClient;
use crux_wire::fulcrum::v1::DescribeRequest;
use crux_wire::fulcrum::v1::fulcrum_client::FulcrumClient;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tonic::body::Body;
use tonic::transport::Channel;
use tower::ServiceExt as _;

use crate::measure::{median, p99};
use crate::radix::Radix;
use crate::row::{Row, show};
use crate::session;

/// Pairs of small calls, after as many as a tenth of it to warm up.
const CALLS: usize = 2_000;
/// Pairs of transfers of the executable that the base runs.
const TRANSFERS: usize = 9;
const FOLDER: &str = "examples/stix";

type Said<T> = Result<T, String>;

pub(super) fn run() -> Said<Vec<Row>> {
    let radix = Radix::fresh()?;
    radix.up(FOLDER)?;
    session::block_on(async {
        let channel = session::base(&radix).await?;
        Ok(vec![small(&channel).await?, bytes(&channel).await?])
    })
}

async fn small(channel: &Channel) -> Said<Row> {
    let (mut grpc, mut rest) = (Vec::new(), Vec::new());
    let mut fulcrum = FulcrumClient::new(channel.clone());
    for round in 0..CALLS + CALLS / 10 {
        // Whoever goes second may find the caches warm: they take turns.
        let rest_first = round % 2 == 0;
        let mut by_rest = Duration::ZERO;
        if rest_first {
            by_rest = describe_by_rest(channel).await?;
        }
        let began = Instant::now();
        let reply = fulcrum.describe(DescribeRequest {}).await;
        reply.map_err(|status| status.to_string())?;
        let by_grpc = began.elapsed();
        if !rest_first {
            by_rest = describe_by_rest(channel).await?;
        }
        if round >= CALLS / 10 {
            grpc.push(by_grpc);
            rest.push(by_rest);
        }
    }
    let what = format!(
        "Describe as REST, p50 (p99 {}; gRPC's {})",
        show(p99(rest.clone())),
        show(p99(grpc.clone()))
    );
    let theirs = median(grpc);
    Ok(Row::times(&what, median(rest), "the same as gRPC", theirs))
}

/// How long the description takes as REST.
async fn describe_by_rest(channel: &Channel) -> Said<Duration> {
    let began = Instant::now();
    let lines = post(channel, "/radix.fulcrum.v1.Fulcrum/Describe", &json!({})).await?;
    let took = began.elapsed();
    if lines.first().is_none_or(|reply| reply["owner"].is_null()) {
        return Err(format!("not a description: {lines:?}"));
    }
    Ok(took)
}

async fn bytes(channel: &Channel) -> Said<Row> {
    let mut fulcrum = FulcrumClient::new(channel.clone());
    let described = fulcrum.describe(DescribeRequest {}).await;
    let described = described.map_err(|status| status.to_string())?.into_inner();
    let digest = described.executable_digest;
    let (mut grpc, mut rest, mut total) = (Vec::new(), Vec::new(), 0);
    for _ in 0..TRANSFERS {
        let began = Instant::now();
        total = get(channel, &digest).await?;
        grpc.push(began.elapsed());
        let began = Instant::now();
        let request = json!({ "digest": digest });
        let lines = post(channel, "/radix.fileio.v1.FileIo/Get", &request).await?;
        rest.push(began.elapsed());
        let encoded = |line: &Value| line["bytes"].as_str().map_or(0, str::len);
        let letters: usize = lines.iter().map(encoded).sum();
        if letters / 4 * 3 < total {
            return Err(format!("{letters} letters of base64 for {total} bytes"));
        }
    }
    let what = format!("FileIo/Get of {} MiB as NDJSON, p50", total >> 20);
    let theirs: Duration = median(grpc);
    Ok(Row::times(&what, median(rest), "the same as gRPC", theirs))
}

/// Brings a file as gRPC; how many bytes came.
async fn get(channel: &Channel, digest: &str) -> Said<usize> {
    let request = GetRequest {
        digest: digest.to_owned(),
        ..GetRequest::default()
    };
    let mut chunks = FileIoClient::new(channel.clone())
        .get(request)
        .await
        .map_err(|status| status.to_string())?
        .into_inner();
    let mut total = 0;
    while let Some(chunk) = chunks
        .message()
        .await
        .map_err(|status| status.to_string())?
    {
        total += chunk.bytes.len();
    }
    Ok(total)
}

/// One REST call; its replies, parsed as a client would.
async fn post(channel: &Channel, path: &str, request: &Value) -> Said<Vec<Value>> {
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(Body::new(request.to_string()))
        .map_err(|error| error.to_string())?;
    let response = channel.clone().oneshot(request).await;
    let response = response.map_err(|error| error.to_string())?;
    let status = response.status();
    let mut body = response.into_body();
    let (mut lines, mut text) = (Vec::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        text.extend_from_slice(&data);
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            lines.push(serde_json::from_slice(&line).map_err(|error| error.to_string())?);
        }
    }
    if status.is_success() {
        Ok(lines)
    } else {
        Err(format!("{path}: {status}: {lines:?}"))
    }
}
