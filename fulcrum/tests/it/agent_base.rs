//! What a base rnode does for its hordes: hands documents on, watches classes, relays the operator.

use crux_net::identity::Expect;
use crux_wire::document::v1::Document;
use crux_wire::fulcrum::v1::fulcrum_client::FulcrumClient;
use crux_wire::fulcrum::v1::{
    DescribeRequest, ExitRequest, HordesRequest, InviteRequest, PutDocumentRequest,
    PutHordeStateRequest, TunnelBytes,
};
use crux_wire::rexec::v1::{OutputRequest, StartRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::agent_rig::{APP, Base, Nested};
use crate::rig::{until, within};

/// Gives the base a document with the grant to host its namespace; nobody else is told.
async fn hand_over(base: &Base, generation: u64, words: &str) {
    let mut fulcrum = base.fulcrum().await;
    let key = fulcrum
        .describe(DescribeRequest {})
        .await
        .unwrap()
        .into_inner()
        .public_key_der;
    let invite_grant = base.owner.grant_host(&key, &APP.parse().unwrap()).unwrap();
    let put = base.put(&base.application(generation, words));
    fulcrum
        .put_document(PutDocumentRequest {
            invite_grant,
            ..put
        })
        .await
        .unwrap();
}

/// Starts a stand-in for the backend that knows of one rnode, at `port`.
pub(crate) async fn start_backend(base: &Base, port: &str) {
    let start = StartRequest {
        execution: "horde".to_owned(),
        configuration: "radix".to_owned(),
        command: "radix".to_owned(),
        args: ["horde", APP, port, "prog1"].map(str::to_owned).to_vec(),
        ..StartRequest::default()
    };
    base.rexec().await.start(start).await.unwrap();
}

async fn output(base: &Base) -> String {
    let request = OutputRequest {
        execution: "horde".into(),
        ..OutputRequest::default()
    };
    let mut chunks = base
        .rexec()
        .await
        .output(request)
        .await
        .unwrap()
        .into_inner();
    let mut text = Vec::new();
    while let Some(chunk) = within(chunks.message()).await.unwrap() {
        text.extend(chunk.bytes);
    }
    String::from_utf8(text).unwrap()
}

/// A stream of bytes through the base's relay to `target`.
async fn tunnel(base: &Base, target: &str) -> Result<DuplexStream, Status> {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (mut from, mut to) = tokio::io::split(far);
    let (tx, rx) = mpsc::channel(8);
    tx.send(TunnelBytes {
        target: target.to_owned(),
        bytes: Vec::new(),
    })
    .await
    .unwrap();
    let mut replies = base
        .fulcrum()
        .await
        .tunnel(ReceiverStream::new(rx))
        .await?
        .into_inner();
    #[expect(
        clippy::disallowed_methods,
        reason = "a test's task ends with its runtime"
    )]
    tokio::spawn(async move {
        let mut bytes = vec![0; 1 << 14];
        while let Ok(length @ 1..) = from.read(&mut bytes).await {
            let piece = TunnelBytes {
                target: String::new(),
                bytes: bytes[..length].to_vec(),
            };
            if tx.send(piece).await.is_err() {
                return;
            }
        }
    });
    #[expect(
        clippy::disallowed_methods,
        reason = "a test's task ends with its runtime"
    )]
    tokio::spawn(async move {
        while let Ok(Some(piece)) = replies.message().await {
            if to.write_all(&piece.bytes).await.is_err() {
                return;
            }
        }
    });
    Ok(near)
}

#[tokio::test]
async fn a_base_asked_to_end_when_idle_goes_on_while_it_holds_what_has_not_ended() {
    let mut base = Base::start();
    base.ready().await;
    let end = ExitRequest {
        end_rnode: true,
        only_idle: true,
    };
    let refused = async || {
        let refused = base.fulcrum().await.exit(end).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().starts_with("occupied:"), "{refused}");
        refused.message().to_owned()
    };
    // Somebody else's, accepted a moment before the end was asked for.
    hand_over(&base, 1, "wait").await;
    let named = refused().await;
    assert!(named.contains("app generation 1"), "{named}");
    // It goes on as if it had not been asked.
    hand_over(&base, 2, "wait").await;
    let live = base.application(2, "wait");
    let gone = Document {
        generation: 3,
        base: 2,
        dissolved: true,
        ..live
    };
    base.fulcrum()
        .await
        .put_document(base.put(&gone))
        .await
        .unwrap();
    // Asked to end is not ended.
    let named = refused().await;
    assert!(named.contains("app generation 3"), "{named}");

    let report = StartRequest {
        execution: "backend".to_owned(),
        configuration: "radix".to_owned(),
        command: "radix".to_owned(),
        args: ["dissolved", APP, "3"].map(str::to_owned).to_vec(),
        ..StartRequest::default()
    };
    base.rexec().await.start(report).await.unwrap();
    until(async || {
        let hordes = base.fulcrum().await.hordes(HordesRequest::default()).await;
        hordes.unwrap().into_inner().hordes.is_empty()
    })
    .await;
    base.fulcrum().await.exit(end).await.unwrap();
    assert!(base.keeper_ended().await.success());
    let ends = base.memoir().into_iter();
    assert_eq!(ends.filter(|record| record.kind == "exit").count(), 1);
}

// Shows in part: NET-11
#[tokio::test]
async fn a_base_hands_documents_on_and_watches_a_class_of_its_horde() {
    let base = Base::start();
    base.ready().await;
    let nested = Nested::start(&base, "n1").await;
    hand_over(&base, 1, "wait").await;
    let port = nested.contact().await["port"].to_string();
    start_backend(&base, &port).await;
    nested
        .status(&base, |status| status.settled && status.generation == 1)
        .await;
    until(async || output(&base).await.ends_with("ready 0=127.0.0.1\n")).await;

    // A version that never gets ready: the forwarder learns that nobody is left.
    hand_over(&base, 2, "exit 1").await;
    nested.status(&base, |status| status.generation == 2).await;
    until(async || output(&base).await.ends_with("ready \n")).await;

    // The base's agent dies: its successor goes on handing over.
    let pid = base.contact().await["pid"].as_i64().unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    until(async || base.contact().await["pid"].as_i64() != Some(pid.as_raw().into())).await;
    hand_over(&base, 3, "wait").await;
    nested
        .status(&base, |status| status.generation == 3 && status.settled)
        .await;
    let hordes = base
        .fulcrum()
        .await
        .hordes(HordesRequest::default())
        .await
        .unwrap();
    assert_eq!(hordes.into_inner().hordes[0].rnodes.len(), 1);
}

#[tokio::test]
async fn the_operator_reaches_a_nested_rnode_through_the_base_and_nothing_else() {
    let base = Base::start();
    base.ready().await;
    let nested = Nested::start(&base, "n1").await;
    let port = nested.contact().await["port"].to_string();
    let target = format!("127.0.0.1:{port}");
    assert_eq!(
        tunnel(&base, &target).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    hand_over(&base, 1, "wait").await;
    start_backend(&base, &port).await;
    let mut stream = None;
    until(async || {
        stream = tunnel(&base, &target).await.ok();
        stream.is_some()
    })
    .await;
    let expect = Expect::Label {
        namespace: APP.parse().unwrap(),
        label: "n1".parse().unwrap(),
    };
    let connected = crux_net::rpc::connect_over(stream.unwrap(), &base.operator(), expect).await;
    let mut fulcrum = FulcrumClient::new(connected.unwrap());
    let described = fulcrum
        .describe(DescribeRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(described.rnode.unwrap().label, "n1");
    assert_eq!(
        tunnel(&base, "127.0.0.1:1").await.unwrap_err().code(),
        Code::PermissionDenied
    );
}

#[tokio::test]
async fn what_is_a_backends_to_say_is_refused_to_the_operator() {
    let base = Base::start();
    base.ready().await;
    let mut fulcrum = base.fulcrum().await;
    let put = fulcrum
        .put_horde_state(PutHordeStateRequest::default())
        .await
        .unwrap_err();
    assert_eq!(put.code(), Code::PermissionDenied);
    let invite = InviteRequest {
        namespace: APP.to_owned(),
        label: "n1".to_owned(),
    };
    assert_eq!(
        fulcrum.invite(invite).await.unwrap_err().code(),
        Code::PermissionDenied
    );
}
