//! Every method of a real agent, called as gRPC and as REST. The list of methods is the descriptor set.

use std::collections::BTreeSet;

use crux_net::store::Put;
use crux_wire::fileio::v1::PutChunk;
use crux_wire::fulcrum::v1::DescribeRequest;
use crux_wire::rest::{Api, Method};
use crux_wire::rexec::v1::rexec_client::RexecClient;
use crux_wire::rexec::v1::{OutputRequest, StartRequest, WaitRequest};
use prost::Message as _;
use serde_json::{Value, json};

use crate::agent_rig::{Base, Nested};
use crate::rig::{until, within};
use crate::twins::{Call, Compared, base64, compare, lines_of};

/// What is known of the base that requests speak of.
struct Known {
    digest: String,
    document: Value,
    address: String,
}

impl Known {
    async fn prepare(base: &Base) -> Self {
        base.ready().await;
        let put = Put {
            expected: None,
            executable: false,
        };
        let blob = base.store().put_reader(&mut &b"twins"[..], put).unwrap();
        let start = StartRequest {
            execution: "twins".to_owned(),
            configuration: "radix".to_owned(),
            command: "radix".to_owned(),
            args: ["print", "out", "err"].map(str::to_owned).to_vec(),
            ..StartRequest::default()
        };
        let mut rexec = base.rexec().await;
        rexec.start(start).await.unwrap();
        let execution = "twins".to_owned();
        within(rexec.wait(WaitRequest { execution })).await.unwrap();
        let document = base.put(&base.document(1, 0)).encode_to_vec();
        let put_document = Api::radix().find("PutDocument")[0];
        let document = put_document.request_to_json(document.into()).unwrap();
        let contact = base.contact().await;
        Self {
            digest: blob.digest.to_string(),
            document: serde_json::from_slice(&document).unwrap(),
            address: format!("127.0.0.1:{}", contact["port"]),
        }
    }

    /// A call that changes nothing, or the same each time. What needs nothing special gets an empty request.
    fn call(&self, method: &Method) -> Call {
        let twins = json!({"execution": "twins"});
        let requests = match method.short_name() {
            "Fulcrum/PutDocument" => vec![self.document.clone()],
            "Fulcrum/Hint" => vec![json!({"address": "127.0.0.1:9"})],
            "Fulcrum/Access" => vec![json!({"path": "/bin/sh", "wish": "execute"})],
            "Fulcrum/Invite" => vec![json!({"namespace": "app", "label": "n1"})],
            "Fulcrum/Tunnel" => {
                let garbage = base64(b"\x00 is not TLS");
                vec![json!({"target": self.address}), json!({"bytes": garbage})]
            }
            "Rexec/Start" => vec![json!({
                "execution": "twins", "configuration": "radix", "command": "radix",
                "args": ["print", "out", "err"],
            })],
            "Rexec/Run" => vec![json!({"attach": "twins"})],
            "Rexec/List" => vec![json!({"finished": true})],
            "Rexec/Wait" | "Rexec/Output" => vec![twins],
            "Rexec/Signal" => vec![json!({"execution": "twins", "signal": 15})],
            "FileIo/Have" => vec![json!({"digests": [self.digest, "no digest"]})],
            "FileIo/Need" => vec![json!({"digests": [self.digest]})],
            "FileIo/Get" => vec![json!({"digest": self.digest, "offset": "1"})],
            "FileIo/Put" => vec![
                json!({"digest": self.digest, "total": "5"}),
                json!({"bytes": base64(b"tw")}),
                json!({"bytes": base64(b"ins")}),
            ],
            _ => vec![json!({})],
        };
        let call = Call::new(method, requests);
        match method.short_name() {
            "Fulcrum/WatchDocuments" => call.reading(1),
            _ => call,
        }
    }
}

/// Ends the agent after each call but the last, and waits for the next one.
async fn compare_exit(base: &Base, call: &Call) -> Compared {
    let last = std::sync::Mutex::new(0);
    let fresh = async || {
        let mut channel = None;
        until(async || {
            let connected = base.connect(&base.operator()).await;
            let mut fulcrum =
                crux_wire::fulcrum::v1::fulcrum_client::FulcrumClient::new(connected.clone());
            let Ok(described) = fulcrum.describe(DescribeRequest {}).await else {
                return false;
            };
            let pid = described.into_inner().agent_pid;
            let another = *last.lock().unwrap() != pid;
            *last.lock().unwrap() = pid;
            channel = Some(connected);
            another
        })
        .await;
        channel.unwrap()
    };
    compare(fresh, call).await
}

// Shows: FUL-05
#[tokio::test]
async fn every_method_answers_the_same_as_grpc_and_as_rest() {
    let base = Base::start();
    let known = Known::prepare(&base).await;
    let exits = |method: &&Method| method.short_name() == "Fulcrum/Exit";
    let mut differ = Vec::new();
    let mut answered = BTreeSet::new();
    for method in Api::radix().methods().filter(|method| !exits(method)) {
        let call = known.call(method);
        let channel = async || base.connect(&base.operator()).await;
        let compared = compare(channel, &call).await;
        if !compared.failed {
            answered.insert(method.short_name());
        }
        if !compared.same {
            differ.push(compared);
        }
    }
    let exit = Api::radix().methods().find(exits).unwrap();
    let compared = compare_exit(&base, &known.call(exit)).await;
    assert!(compared.same && !compared.failed, "{compared:#?}");
    assert!(differ.is_empty(), "{differ:#?}");
    // Of the methods that this test knows how to ask, each was answered, not only refused the same.
    for name in [
        "Fulcrum/PutDocument",
        "Fulcrum/WatchDocuments",
        "Fulcrum/Memoir",
        "Fulcrum/Events",
        "Fulcrum/Describe",
        "Fulcrum/Tunnel",
        "Rexec/Start",
        "Rexec/Run",
        "Rexec/Output",
        "FileIo/Get",
        "FileIo/Put",
    ] {
        assert!(answered.contains(name), "{name} is not in {answered:?}");
    }
}

// Shows in part: FUL-05
#[tokio::test]
async fn a_process_asks_its_agent_either_way() {
    let base = Base::start();
    base.ready().await;
    let nested = Nested::start(&base, "n1").await;
    base.apply(&nested, &base.application(1, "twins")).await;
    let status = nested
        .status(&base, |status| {
            let mut instances = status.instances.iter();
            instances.any(|instance| !instance.execution.is_empty())
        })
        .await;
    let execution = status.instances[0].execution.clone();
    let mut text = String::new();
    until(async || {
        let request = OutputRequest {
            execution: execution.clone(),
            ..OutputRequest::default()
        };
        let mut rexec = RexecClient::new(nested.channel(&base).await);
        let mut bytes = Vec::new();
        if let Ok(chunks) = rexec.output(request).await {
            let mut chunks = chunks.into_inner();
            while let Ok(Some(chunk)) = chunks.message().await {
                bytes.extend(chunk.bytes);
            }
        }
        text = String::from_utf8(bytes).unwrap();
        text.ends_with("end\n")
    })
    .await;
    let lines = text.lines().filter(|line| *line != "end");
    let compared: Vec<Compared> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(compared.iter().all(|one| one.same), "{compared:#?}");
    let of_process = |method: &&Method| method.is_for_processes();
    let methods: Vec<_> = Api::radix().methods().filter(of_process).collect();
    assert_eq!(compared.len(), methods.len());
    let failed = compared.iter().filter(|one| one.failed);
    let failed: Vec<_> = failed.map(|one| one.path.as_str()).collect();
    // Seats do not exist yet.
    assert_eq!(failed, ["/radix.process.v1.Process/CompareAndSet"]);
}

// Shows in part: FUL-05, FUL-06
#[tokio::test]
async fn an_upload_that_breaks_off_or_is_misspelt_leaves_nothing() {
    use tower::ServiceExt as _;
    let base = Base::start();
    base.ready().await;
    let digest = crux_core::digest::Digest::of(b"a whole file").to_string();
    let first = PutChunk {
        digest: digest.clone(),
        total: 12,
        ..PutChunk::default()
    };
    let put = Api::radix().find("FileIo/Put")[0];
    let first = put.request_to_json(first.encode_to_vec().into()).unwrap();
    let first = String::from_utf8(first).unwrap();
    let part = base64(b"a whole ");
    let send = async |second: String| {
        let lines = format!("{first}\n\n{second}");
        let request = http::Request::post(put.path())
            .header("content-type", "application/x-ndjson")
            .body(tonic::body::Body::new(lines))
            .unwrap();
        let channel = base.connect(&base.operator()).await;
        let response = channel.oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = lines_of(response.into_body(), usize::MAX).await;
        let body: Value = serde_json::from_slice(&body[0]).unwrap();
        assert!(!base.store().has(&digest.parse().unwrap()), "{body}");
        (status, body)
    };
    let (status, misspelt) = send(format!("{{\"bytes\":\"{part}\",\n\"byts\":1}}")).await;
    assert_eq!(status, 400);
    // A message is one line: it ends in the middle of the third.
    assert_eq!(misspelt["line"], 3, "{misspelt}");
    let (status, short) = send(format!("{{\"bytes\":\"{part}\"}}")).await;
    assert_eq!(status, 400);
    assert_eq!(short["kind"], "invalid", "{short}");
    let (status, _) = send(format!("{{\"bytes\":\"{part}\"")).await;
    assert_eq!(status, 400);
}
