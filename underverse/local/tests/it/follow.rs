//! A forwarder and an agent that comes and goes.

use std::net::SocketAddr;
use std::sync::Arc;

use crux_wire::document::v1::ServiceRecord;
use crux_wire::process::v1::process_server::{Process, ProcessServer};
use crux_wire::process::v1::{
    CompareAndSetReply, CompareAndSetRequest, GetReply, GetRequest, LeafReply, LeafRequest,
    ListReply, ListRequest, LookupReply, LookupRequest, PutReply, PutRequest, RegisterReply,
    RegisterRequest, UnregisterReply, UnregisterRequest, WhoamiReply, WhoamiRequest,
};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};
use underverse_local::forward::{Followed, follow};

/// An agent that only tells members.
#[derive(Clone)]
struct Agent(Arc<watch::Sender<Vec<ServiceRecord>>>);

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

#[tonic::async_trait]
impl Process for Agent {
    type WatchStream = BoxStream<'static, Result<LookupReply, Status>>;

    async fn watch(
        &self,
        request: Request<LookupRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        assert_eq!(request.into_inner().name, "stix/class:prog1");
        let state = (self.0.subscribe(), true);
        let replies = stream::unfold(state, |(mut members, first)| async move {
            if !first {
                members.changed().await.ok()?;
            }
            let services = members.borrow_and_update().clone();
            Some((Ok(LookupReply { services }), (members, false)))
        });
        Ok(Response::new(replies.boxed()))
    }

    lacks! {
        whoami(WhoamiRequest) -> WhoamiReply,
        register(RegisterRequest) -> RegisterReply,
        unregister(UnregisterRequest) -> UnregisterReply,
        lookup(LookupRequest) -> LookupReply,
        leaf(LeafRequest) -> LeafReply,
        put(PutRequest) -> PutReply,
        get(GetRequest) -> GetReply,
        list(ListRequest) -> ListReply,
        compare_and_set(CompareAndSetRequest) -> CompareAndSetReply,
    }
}

fn records(hosts: &[&str]) -> Vec<ServiceRecord> {
    let record = |host: &&str| ServiceRecord {
        host: (*host).to_owned(),
        ..Default::default()
    };
    hosts.iter().map(record).collect()
}

fn addresses(hosts: &[&str]) -> Vec<SocketAddr> {
    hosts
        .iter()
        .map(|host| SocketAddr::new(host.parse().unwrap(), 45_271))
        .collect()
}

/// An agent process: its connections end with it.
struct AgentProcess {
    address: SocketAddr,
    told: Agent,
    runtime: Option<Runtime>,
}

impl AgentProcess {
    fn start(address: SocketAddr, hosts: &[&str]) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let told = Agent(Arc::new(watch::channel(records(hosts)).0));
        let incoming = {
            let _inside = runtime.enter();
            // The one before lets go of its address when its threads have ended.
            loop {
                match TcpIncoming::bind(address) {
                    Ok(incoming) => break incoming,
                    Err(_) => std::thread::yield_now(),
                }
            }
        };
        let address = incoming.local_addr().unwrap();
        let serve = Server::builder().add_service(ProcessServer::new(told.clone()));
        runtime.handle().spawn(serve.serve_with_incoming(incoming));
        Self {
            address,
            told,
            runtime: Some(runtime),
        }
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[tokio::test]
async fn members_follow_the_agent_and_stay_while_it_is_away() {
    let mut tasks = JoinSet::new();
    let first = AgentProcess::start("127.0.0.1:0".parse().unwrap(), &["127.64.0.16"]);
    let address = first.address;
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy();
    let (sender, mut members) = watch::channel(Vec::new());
    tasks.spawn(async move {
        let followed = Followed {
            namespace: "stix".to_owned(),
            class: "prog1".to_owned(),
            port: 45_271,
            exposure: "127.0.0.1:8080".parse().unwrap(),
            carries: underverse_local::Carries::Tcp,
        };
        follow(channel, &followed, &sender).await;
    });
    members
        .wait_for(|held| *held == addresses(&["127.64.0.16"]))
        .await
        .unwrap();
    first
        .told
        .0
        .send_replace(records(&["127.64.0.17", "127.64.0.16"]));
    let both = addresses(&["127.64.0.16", "127.64.0.17"]);
    members.wait_for(|held| *held == both).await.unwrap();
    // The agent dies; another one at the same place knows one member only.
    drop(first);
    assert_eq!(*members.borrow(), both);
    let second = AgentProcess::start(address, &["127.64.0.18"]);
    members
        .wait_for(|held| *held == addresses(&["127.64.0.18"]))
        .await
        .unwrap();
    // Nobody forwards any more: following ends by itself.
    drop(members);
    second.told.0.send_replace(records(&[]));
    tasks.join_next().await.unwrap().unwrap();
}
