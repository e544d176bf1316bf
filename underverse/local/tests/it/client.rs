//! The client of the base against a base that speaks gRPC.

use std::sync::{Arc, Mutex};

use crux_wire::document::v1::{Address, Document, RnodeRecord, SignedDocument};
use crux_wire::fulcrum::v1::fulcrum_server::{Fulcrum, FulcrumServer};
use crux_wire::fulcrum::v1::{self as fulcrum, GetDocumentReply, HordeState};
use crux_wire::keeper::v1::{Execution, Outcome, OutcomeKind};
use crux_wire::rexec::v1::rexec_server::{Rexec, RexecServer};
use crux_wire::rexec::v1::{self as rexec, SignalRequest, StartRequest};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use prost::Message as _;
use tokio::task::JoinSet;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use underverse::{Effect, Kind};
use underverse_local::{Base as _, BaseClient, EndSignal, HostPort, Label, Start, Subject};

type Answer<'a, T> = BoxFuture<'a, Result<Response<T>, Status>>;

macro_rules! lacks {
    ($($name:ident($request:ty) -> $reply:ty),+ $(,)?) => {
        $(fn $name<'s, 'f>(&'s self, _: Request<$request>) -> Answer<'f, $reply>
        where
            's: 'f,
            Self: 'f,
        {
            Box::pin(async { Err(Status::unimplemented("not here")) })
        })+
    };
}

/// What the base was asked, and what it holds.
#[derive(Debug, Default)]
struct Asked {
    starts: Vec<StartRequest>,
    signals: Vec<SignalRequest>,
    states: Vec<HordeState>,
    executions: Vec<Execution>,
    prefixes: Vec<String>,
}

#[derive(Clone, Default)]
struct GrpcBase(Arc<Mutex<Asked>>);

#[tonic::async_trait]
impl Fulcrum for GrpcBase {
    type WatchDocumentsStream = BoxStream<'static, Result<GetDocumentReply, Status>>;
    type EventsStream = BoxStream<'static, Result<fulcrum::Event, Status>>;
    type MemoirStream = BoxStream<'static, Result<fulcrum::MemoirLine, Status>>;
    type TunnelStream = BoxStream<'static, Result<fulcrum::TunnelBytes, Status>>;

    async fn access(
        &self,
        _: Request<fulcrum::AccessRequest>,
    ) -> Result<Response<fulcrum::AccessReply>, Status> {
        Err(Status::unimplemented("not asked by a backend"))
    }

    async fn describe(
        &self,
        _: Request<fulcrum::DescribeRequest>,
    ) -> Result<Response<fulcrum::DescribeReply>, Status> {
        let address = |service: &str, port| Address {
            host: "127.64.0.1".to_owned(),
            port,
            service: service.to_owned(),
            ..Address::default()
        };
        let addresses = vec![address("flock", 7400), address("fulcrum", 7401)];
        let rnode = Some(RnodeRecord {
            addresses,
            ..RnodeRecord::default()
        });
        let owner = "0123456789".to_owned();
        Ok(Response::new(fulcrum::DescribeReply {
            rnode,
            owner,
            ..Default::default()
        }))
    }

    async fn watch_documents(
        &self,
        _: Request<fulcrum::WatchDocumentsRequest>,
    ) -> Result<Response<Self::WatchDocumentsStream>, Status> {
        let document = Document {
            namespace: "stix".to_owned(),
            ..Document::default()
        };
        let signed = SignedDocument {
            payload: document.encode_to_vec(),
            ..Default::default()
        };
        let replies = [
            GetDocumentReply::default(),
            GetDocumentReply {
                document: Some(signed),
                found: true,
                ..GetDocumentReply::default()
            },
        ];
        Ok(Response::new(stream::iter(replies.map(Ok)).boxed()))
    }

    async fn invite(
        &self,
        request: Request<fulcrum::InviteRequest>,
    ) -> Result<Response<fulcrum::InviteReply>, Status> {
        let fulcrum::InviteRequest { namespace, label } = request.into_inner();
        if namespace == "foreign" {
            return Err(Status::permission_denied("no grant is held"));
        }
        let invitation = format!("{namespace}/{label}");
        Ok(Response::new(fulcrum::InviteReply { invitation }))
    }

    async fn put_horde_state(
        &self,
        request: Request<fulcrum::PutHordeStateRequest>,
    ) -> Result<Response<fulcrum::PutHordeStateReply>, Status> {
        self.0
            .lock()
            .unwrap()
            .states
            .extend(request.into_inner().state);
        Ok(Response::new(fulcrum::PutHordeStateReply {}))
    }

    lacks! {
        flock(fulcrum::FlockRequest) -> fulcrum::FlockReply,
        services(fulcrum::ServicesRequest) -> fulcrum::ServicesReply,
        status(fulcrum::StatusRequest) -> fulcrum::StatusReply,
        entries(fulcrum::EntriesRequest) -> fulcrum::EntriesReply,
        put_document(fulcrum::PutDocumentRequest) -> fulcrum::PutDocumentReply,
        get_document(fulcrum::GetDocumentRequest) -> GetDocumentReply,
        events(fulcrum::EventsRequest) -> Self::EventsStream,
        memoir(fulcrum::MemoirRequest) -> Self::MemoirStream,
        metrics(fulcrum::MetricsRequest) -> fulcrum::MetricsReply,
        hint(fulcrum::HintRequest) -> fulcrum::HintReply,
        hordes(fulcrum::HordesRequest) -> fulcrum::HordesReply,
        tunnel(Streaming<fulcrum::TunnelBytes>) -> Self::TunnelStream,
        exit(fulcrum::ExitRequest) -> fulcrum::ExitReply,
        get_authority(fulcrum::GetAuthorityRequest) -> fulcrum::GetAuthorityReply,
        put_authority(fulcrum::PutAuthorityRequest) -> fulcrum::PutAuthorityReply,
    }
}

#[tonic::async_trait]
impl Rexec for GrpcBase {
    type RunStream = BoxStream<'static, Result<rexec::RunOutput, Status>>;
    type OutputStream = BoxStream<'static, Result<rexec::OutputChunk, Status>>;

    async fn start(
        &self,
        request: Request<StartRequest>,
    ) -> Result<Response<rexec::StartReply>, Status> {
        let start = request.into_inner();
        let execution = Execution {
            execution: start.execution.clone(),
            label: start.label.clone(),
            pid: 7,
            ..Execution::default()
        };
        let mut asked = self.0.lock().unwrap();
        asked.executions.push(execution);
        asked.starts.push(start);
        Ok(Response::new(rexec::StartReply::default()))
    }

    async fn list(
        &self,
        request: Request<rexec::ListRequest>,
    ) -> Result<Response<rexec::ListReply>, Status> {
        let asked = request.into_inner();
        assert!(asked.finished && asked.configuration == "radix");
        let mut table = self.0.lock().unwrap();
        table.prefixes = asked.prefixes;
        let executions = table.executions.clone();
        drop(table);
        Ok(Response::new(rexec::ListReply { executions }))
    }

    async fn signal(
        &self,
        request: Request<SignalRequest>,
    ) -> Result<Response<rexec::SignalReply>, Status> {
        let signal = request.into_inner();
        if signal.execution == "gone" {
            return Err(Status::not_found("find execution gone"));
        }
        self.0.lock().unwrap().signals.push(signal);
        Ok(Response::new(rexec::SignalReply {}))
    }

    async fn wait(
        &self,
        request: Request<rexec::WaitRequest>,
    ) -> Result<Response<rexec::WaitReply>, Status> {
        if request.into_inner().execution == "ends" {
            return Ok(Response::new(rexec::WaitReply::default()));
        }
        std::future::pending().await
    }

    lacks! {
        configurations(rexec::ConfigurationsRequest) -> rexec::ConfigurationsReply,
        run(Streaming<rexec::RunInput>) -> Self::RunStream,
        output(rexec::OutputRequest) -> Self::OutputStream,
    }
}

fn base(tasks: &mut JoinSet<()>) -> (BaseClient, GrpcBase) {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    let base = GrpcBase::default();
    let server = Server::builder()
        .add_service(FulcrumServer::new(base.clone()))
        .add_service(RexecServer::new(base.clone()))
        .serve_with_incoming(incoming);
    tasks.spawn(async { server.await.unwrap() });
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy();
    (BaseClient::new(channel), base)
}

fn label() -> Label {
    Label {
        namespace: "stix".to_owned(),
        generation: (4, 0),
        attempt: 2,
        subject: Subject::Cell { ordinal: 3 },
    }
}

#[tokio::test]
async fn a_cell_is_started_detached_under_its_name_and_found_again_by_its_label() {
    let mut tasks = JoinSet::new();
    let (client, base) = base(&mut tasks);
    let env = vec![("RADIX_RNODE".to_owned(), "stix/n3@01234567".to_owned())];
    let args = vec!["cell".to_owned(), "--dir".to_owned(), "/d".to_owned()];
    client
        .start(Start {
            label: label(),
            args: args.clone(),
            env,
        })
        .await
        .unwrap();
    {
        let mut asked = base.0.lock().unwrap();
        let start = &asked.starts[0];
        assert_eq!(start.execution, "cell-stix-n3-g4.0-2");
        assert_eq!(
            (start.configuration.as_str(), start.command.as_str()),
            ("radix", "radix")
        );
        assert!(start.detached && start.args == args);
        assert_eq!(start.env[0].value, "stix/n3@01234567");
        let other = Execution {
            execution: "backend-local-1".to_owned(),
            ..Default::default()
        };
        asked.executions.push(other);
        let outcome = Outcome {
            code: 3,
            ended_unix_ms: 9,
            ..Outcome::default()
        };
        asked.executions[0].outcome = Some(Outcome {
            kind: OutcomeKind::Exited.into(),
            ..outcome
        });
    }
    let list = client.list(None).await.unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!((&list[0].label, list[0].pid), (&label(), 7));
    assert_eq!(list[0].ended.as_ref().unwrap().how, "exited with code 3");
    // An older agent knows no prefixes and lists all: what is of another namespace is left out here, too.
    assert_eq!(client.list(Some("stix")).await.unwrap(), list);
    assert_eq!(client.list(Some("sti")).await.unwrap(), []);
    let asked = base.0.lock().unwrap().prefixes.clone();
    assert_eq!(asked, ["cell-sti-", "forward-sti-"]);
}

#[tokio::test]
async fn asking_ends_the_first_process_and_force_the_group() {
    let mut tasks = JoinSet::new();
    let (client, base) = base(&mut tasks);
    client.signal("cell", EndSignal::Ask).await.unwrap();
    client.signal("cell", EndSignal::Force).await.unwrap();
    let gone = client.signal("gone", EndSignal::Ask).await.unwrap_err();
    assert_eq!(
        (gone.kind(), gone.what_changed()),
        (Kind::NotFound, Effect::None)
    );
    let asked = base.0.lock().unwrap();
    let sent: Vec<_> = asked
        .signals
        .iter()
        .map(|sent| (sent.signal, sent.group))
        .collect();
    assert_eq!(sent, [(15, false), (9, true)]);
}

#[tokio::test]
async fn the_base_says_who_it_is_what_is_asked_and_whom_it_invites() {
    let mut tasks = JoinSet::new();
    let (client, base) = base(&mut tasks);
    let view = client.describe().await.unwrap();
    let address = HostPort {
        host: "127.64.0.1".to_owned(),
        port: 7401,
    };
    assert_eq!(
        (view.owner.as_str(), view.address),
        ("0123456789", Some(address))
    );
    let documents: Vec<_> = client.documents().await.unwrap().collect().await;
    assert_eq!(documents.len(), 1);
    assert_eq!(documents[0].as_ref().unwrap().namespace, "stix");
    assert_eq!(client.invite("stix", "n3").await.unwrap(), "stix/n3");
    let denied = client.invite("foreign", "n3").await.unwrap_err();
    assert_eq!(denied.kind(), Kind::Denied);
    assert!(denied.to_string().contains("foreign/n3"), "{denied}");
    let state = HordeState {
        namespace: "stix".to_owned(),
        ..HordeState::default()
    };
    client.report(state.clone(), Vec::new()).await.unwrap();
    assert_eq!(base.0.lock().unwrap().states, [state]);
}

#[tokio::test]
async fn waiting_ends_with_the_first_that_ends() {
    let mut tasks = JoinSet::new();
    let (client, _base) = base(&mut tasks);
    client
        .until_ended(&["lives".to_owned(), "ends".to_owned()])
        .await;
}

#[tokio::test]
async fn a_base_that_is_not_there_is_unavailable_and_a_start_then_unknown() {
    let channel = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    let client = BaseClient::new(channel);
    let error = client.list(None).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.what_changed()),
        (Kind::Unavailable, Effect::None)
    );
    let start = Start {
        label: label(),
        args: Vec::new(),
        env: Vec::new(),
    };
    let error = client.start(start).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.what_changed()),
        (Kind::Unavailable, Effect::Unknown)
    );
    client.until_ended(&["any".to_owned()]).await;
}
