//! Handles and servers: found, followed, spread over, repeated when that is right and only then.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crux::core::identity::Principal;
use crux::net::rpc::ProcessSocket;
use crux::net::task::{self, Policy, Task};
use crux::wire::process::v1::process_server::{Process, ProcessServer};
use crux::wire::process::v1::*;
use crux::wire::status::Kind;
use crux::{Agent, Error, Idempotence, Service};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio_stream::Stream;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::agent::{Proc, World};

/// Long enough for anything that succeeds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks a worker who it is; asking twice does no harm.
#[derive(Clone, PartialEq, prost::Message)]
struct Ask {}

/// The same on the wire, but not to be repeated.
#[derive(Clone, PartialEq, prost::Message)]
struct AskOnce {}

#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(string, tag = "1")]
    worker: String,
    #[prost(string, tag = "2")]
    caller: String,
}

impl crux::Request for Ask {
    type Reply = Answer;
    const METHOD: &'static str = "/radix.process.v1.Process/Whoami";
    const IDEMPOTENCE: Idempotence = Idempotence::Idempotent;
}

impl crux::Request for AskOnce {
    type Reply = Answer;
    const METHOD: &'static str = Ask::METHOD;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Answers,
    Fails,
    Hangs,
}

/// A worker's service; it tells when it is asked.
#[derive(Clone)]
struct Worker {
    name: String,
    mood: Mood,
    asked: Arc<Notify>,
    count: Arc<Mutex<u32>>,
}

/// A worker that serves until it is dropped or stopped.
struct Working {
    worker: Worker,
    stop: Option<oneshot::Sender<()>>,
    task: Task<Result<(), crux::net::error::Error>>,
    process: Proc,
}

impl Working {
    /// Starts instance `index` of class `worker`, and waits until it is offered.
    async fn start(world: &World, index: u32, mood: Mood) -> Self {
        let process = world.process("worker", index);
        let worker = Worker {
            name: format!("worker {index}"),
            mood,
            asked: Arc::default(),
            count: Arc::default(),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = u32::from(listener.local_addr().expect("an address").port());
        let routes = Routes::new(ProcessServer::new(worker.clone()));
        // A worker that serves a contract of its own would read its own descriptor set.
        let answers = crux::Answers::new(routes).twins(crux::wire::rest::Api::radix);
        let agent = process.agent.clone();
        let task = task::spawn("worker", Policy::ABORT, async move {
            crux::serve(&agent, "lookup", listener, answers, async {
                drop(stopped.await)
            })
            .await
        });
        world
            .until(|registry| registry.values().any(|record| record.port == port))
            .await;
        Self {
            worker,
            stop: Some(stop),
            task,
            process,
        }
    }

    /// Ends it at once, as a kill would; the registry still offers it.
    async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.is_err());
    }

    /// Ends it in good order.
    async fn stop(mut self) {
        drop(self.stop.take());
        (&mut self.task)
            .await
            .expect("no panic")
            .expect("it withdraws");
    }

    fn count(&self) -> u32 {
        *self.worker.count.lock().expect("ours")
    }
}

fn handle(process: &Proc) -> Service {
    Service::through(&process.agent, "lookup").deadline(PATIENCE)
}

// Shows in part: SVC-01
#[tokio::test]
async fn a_service_is_found_by_name_and_each_side_knows_the_other() {
    let world = World::new();
    let _worker = Working::start(&world, 0, Mood::Answers).await;
    let slave = world.process("slave", 7);
    let answer = handle(&slave).req(AskOnce {}).await.expect("an answer");
    assert_eq!(
        answer,
        Answer {
            worker: "worker 0".to_owned(),
            caller: "stix/stix/slave/7".to_owned()
        }
    );
}

// Shows in part: FUL-05
#[tokio::test]
async fn a_service_of_an_application_answers_as_rest_too() {
    use tower::ServiceExt as _;
    let world = World::new();
    let _worker = Working::start(&world, 0, Mood::Answers).await;
    let slave = world.process("slave", 7);
    let credentials = slave.agent.credentials().await.expect("credentials");
    let address = format!("127.0.0.1:{}", world.registered()[0].port);
    let expect = crux::net::identity::Expect::Owner;
    let channel = crux::net::rpc::connect(&address, &credentials, expect)
        .await
        .expect("a channel");
    let whoami = crux::wire::rest::Api::radix().find("Whoami")[0];
    let request = http::Request::post(whoami.path())
        .header("content-type", "application/json")
        .body(tonic::body::Body::new("{}".to_owned()))
        .expect("a request");
    let response = channel.oneshot(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/json");
}

// Shows in part: SVC-02
#[tokio::test]
async fn a_request_waits_for_a_server_that_is_not_ready_yet() {
    let world = World::new();
    let slave = world.process("slave", 0);
    let handle = handle(&slave);
    let (asking, worker) = tokio::join!(handle.req(AskOnce {}), async {
        tokio::task::yield_now().await;
        Working::start(&world, 0, Mood::Answers).await
    });
    assert_eq!(asking.expect("an answer").worker, "worker 0");
    worker.stop().await;
    assert!(world.registered().is_empty());
}

// Shows: SVC-03
#[tokio::test]
async fn a_handle_follows_a_server_that_moves_to_another_port() {
    let world = World::new();
    let slave = world.process("slave", 0);
    let handle = handle(&slave);
    let before = Working::start(&world, 0, Mood::Answers).await;
    assert_eq!(
        handle.req(AskOnce {}).await.expect("an answer").worker,
        "worker 0"
    );
    let old_port = world.registered()[0].port;
    before.kill().await;
    let after = Working::start(&world, 0, Mood::Answers).await;
    assert_ne!(world.registered()[0].port, old_port);
    assert_eq!(
        handle.req(AskOnce {}).await.expect("an answer").worker,
        "worker 0"
    );
    assert_eq!(after.count(), 1);
}

/// Requests of one handle: half of them one after the other, half at once, over which one of three workers is killed.
const REQUESTS: u32 = 300;

// Shows: SVC-12
#[tokio::test]
async fn requests_are_spread_over_all_members_and_none_is_lost_with_one_of_them() {
    let world = World::new();
    let mut workers = Vec::new();
    for index in 0..3 {
        workers.push(Working::start(&world, index, Mood::Answers).await);
    }
    let slave = world.process("slave", 0);
    let handle = handle(&slave);
    for _ in 0..REQUESTS / 2 {
        handle.req(AskOnce {}).await.expect("an answer");
    }
    let counts = |workers: &[Working]| workers.iter().map(Working::count).collect::<Vec<_>>();
    assert_eq!(counts(&workers), [REQUESTS / 6; 3]);

    let victim = workers.remove(1);
    let worker = victim.worker.clone();
    let asking = futures_util::future::join_all((0..REQUESTS / 2).map(|_| handle.req(Ask {})));
    let (answers, ()) = tokio::join!(asking, async {
        while *worker.count.lock().expect("ours") == REQUESTS / 6 {
            tokio::task::yield_now().await;
        }
        victim.kill().await;
    });
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let after = counts(&workers);
    assert!(after.iter().all(|count| *count > REQUESTS / 6), "{after:?}");
    assert_eq!(
        handle.req(Ask {}).await.expect("an answer").caller,
        "stix/stix/slave/0"
    );
}

#[tokio::test]
async fn when_the_worker_that_answered_is_killed_the_other_answers() {
    let world = World::new();
    let slave = world.process("slave", 0);
    let handle = handle(&slave);
    let one = Working::start(&world, 0, Mood::Answers).await;
    let _other = Working::start(&world, 1, Mood::Answers).await;
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        seen.insert(handle.req(AskOnce {}).await.expect("an answer").worker);
    }
    one.kill().await;
    // The registry still lists the dead one; nothing reaches it, so even what must not be repeated is sent elsewhere.
    for _ in 0..4 {
        assert_eq!(
            handle.req(Ask {}).await.expect("an answer").worker,
            "worker 1"
        );
    }
    assert_eq!(world.registered().len(), 2);
}

#[tokio::test]
async fn a_server_that_dies_over_a_request_leaves_open_whether_it_was_done() {
    let world = World::new();
    let slave = world.process("slave", 0);
    let handle = handle(&slave);
    let hanging = Working::start(&world, 0, Mood::Hangs).await;
    let asked = hanging.worker.asked.clone();
    let (answer, ()) = tokio::join!(handle.req(AskOnce {}), async {
        asked.notified().await;
        hanging.kill().await;
    });
    assert!(matches!(answer, Err(Error::Unknown { .. })), "{answer:?}");
    // An idempotent one goes to the next.
    let hanging = Working::start(&world, 0, Mood::Hangs).await;
    let asked = hanging.worker.asked.clone();
    let (answer, other) = tokio::join!(handle.req(Ask {}), async {
        asked.notified().await;
        let other = Working::start(&world, 1, Mood::Answers).await;
        hanging.kill().await;
        other
    });
    assert_eq!(answer.expect("an answer").worker, "worker 1");
    assert_eq!(other.count(), 1);
}

#[tokio::test]
async fn a_server_that_hangs_leaves_time_for_another_where_that_is_right() {
    let world = World::new();
    let slave = world.process("slave", 0);
    let hanging = Working::start(&world, 0, Mood::Hangs).await;
    let short = handle(&slave).deadline(Duration::from_millis(300));
    let answer = short.req(AskOnce {}).await;
    assert!(matches!(answer, Err(Error::Unknown { .. })), "{answer:?}");
    assert_eq!(hanging.count(), 1);
    let _other = Working::start(&world, 1, Mood::Answers).await;
    let handle = handle(&slave).deadline(Duration::from_secs(4));
    for _ in 0..2 {
        assert_eq!(
            handle.req(Ask {}).await.expect("an answer").worker,
            "worker 1"
        );
    }
}

#[tokio::test]
async fn failures_of_the_server_are_given_back_and_not_repeated() {
    let world = World::new();
    let slave = world.process("slave", 0);
    let failing = Working::start(&world, 0, Mood::Fails).await;
    let answer = handle(&slave).req(Ask {}).await;
    assert!(
        matches!(&answer, Err(Error::Failed { source, .. }) if source.message() == "no such row"),
        "{answer:?}"
    );
    assert_eq!(failing.count(), 1);
}

#[tokio::test]
async fn nobody_and_nobody_there_are_told_apart() {
    let world = World::new();
    let slave = world.process("slave", 0);
    let short = handle(&slave).deadline(Duration::from_millis(200));
    assert!(
        matches!(short.req(Ask {}).await, Err(Error::NoSuchService { service }) if service == "lookup")
    );
    Working::start(&world, 0, Mood::Answers).await.kill().await;
    let answer = short.req(AskOnce {}).await;
    assert!(
        matches!(answer, Err(Error::NotArrived { .. })),
        "{answer:?}"
    );
}

// Shows in part: SEC-01
#[tokio::test]
async fn whoever_sits_at_the_address_of_another_class_is_refused() {
    let world = World::new();
    let slave = world.process("slave", 0);
    let impostor = Working::start(&world, 0, Mood::Answers).await;
    let mut record = world.registered().remove(0);
    record.name = "treasury".to_owned();
    record.principal = "stix/stix/treasurer/0".to_owned();
    world.change(|registry| {
        registry.insert((record.name.clone(), record.principal.clone()), record);
    });
    let handle = Service::through(&slave.agent, "treasury").deadline(PATIENCE);
    let answer = handle.req(Ask {}).await;
    assert!(matches!(answer, Err(Error::Refused { .. })), "{answer:?}");
    assert_eq!(impostor.count(), 0);
}

#[tokio::test]
async fn a_service_the_document_does_not_offer_cannot_be_served() {
    let world = World::new();
    let process = world.process("worker", 0);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let routes = Routes::new(ProcessServer::new(Worker {
        name: String::new(),
        mood: Mood::Answers,
        asked: Arc::default(),
        count: Arc::default(),
    }));
    let refused = crux::serve(
        &process.agent,
        "forbidden",
        listener,
        routes,
        std::future::pending(),
    )
    .await;
    assert_eq!(refused.expect_err("not offered").kind(), Kind::Refused);
}

#[tokio::test]
async fn an_offer_and_a_handle_outlive_their_agents() {
    let world = World::new();
    let mut slave = world.process("slave", 0);
    let mut working = Working::start(&world, 0, Mood::Answers).await;
    let handle = handle(&slave);
    handle.req(AskOnce {}).await.expect("an answer");
    // Both agents go, and the registry with them; the handle still knows the way.
    slave.kill_agent().await;
    working.process.kill_agent().await;
    world.change(std::collections::BTreeMap::clear);
    assert_eq!(
        handle.req(AskOnce {}).await.expect("an answer").worker,
        "worker 0"
    );
    // A new agent is told of the offer again.
    working.process.start_agent();
    world.until(|registry| registry.len() == 1).await;
    slave.start_agent();
    assert_eq!(
        slave.agent.whoami().await.expect("an answer").class,
        "slave"
    );
    assert_eq!(
        handle.req(AskOnce {}).await.expect("an answer").worker,
        "worker 0"
    );
}

#[tokio::test]
async fn a_call_waits_for_the_next_agent() {
    let world = World::new();
    let mut process = world.process("slave", 4);
    assert_eq!(process.agent.whoami().await.expect("an answer").index, 4);
    process.kill_agent().await;
    let agent = process.agent.clone();
    let (answer, ()) = tokio::join!(agent.whoami(), async {
        tokio::task::yield_now().await;
        process.start_agent();
    });
    assert_eq!(answer.expect("an answer").index, 4);
}

#[tokio::test]
async fn without_an_agent_it_is_said_at_once() {
    assert!(Agent::inherited().is_err_and(|error| error.kind() == Kind::Precondition));
    let answer = Service::named("lookup").req(Ask {}).await;
    assert!(
        matches!(answer, Err(Error::NotArrived { .. })),
        "{answer:?}"
    );
    let (process, ours) = ProcessSocket::pair().expect("a pair");
    drop(ours);
    let refused = Service::through(&Agent::over(&ProcessSocket::new(process)), "lookup")
        .deadline(Duration::from_millis(100));
    assert!(refused.req(Ask {}).await.is_err());
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not in this test"))
}

#[tonic::async_trait]
impl Process for Worker {
    async fn whoami(
        &self,
        request: Request<WhoamiRequest>,
    ) -> Result<Response<WhoamiReply>, Status> {
        *self.count.lock().expect("ours") += 1;
        self.asked.notify_one();
        match self.mood {
            Mood::Answers => {}
            Mood::Fails => return Err(Status::not_found("no such row")),
            Mood::Hangs => std::future::pending().await,
        }
        let principal = request
            .extensions()
            .get::<Principal>()
            .ok_or_else(|| Status::internal("no principal"))?;
        let (namespace, application) = (self.name.clone(), principal.to_string());
        Ok(Response::new(WhoamiReply {
            namespace,
            application,
            ..WhoamiReply::default()
        }))
    }

    type WatchStream = Streamed<LookupReply>;

    async fn watch(
        &self,
        _: Request<LookupRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        not_here()
    }
    async fn register(
        &self,
        _: Request<RegisterRequest>,
    ) -> Result<Response<RegisterReply>, Status> {
        not_here()
    }
    async fn unregister(
        &self,
        _: Request<UnregisterRequest>,
    ) -> Result<Response<UnregisterReply>, Status> {
        not_here()
    }
    async fn lookup(&self, _: Request<LookupRequest>) -> Result<Response<LookupReply>, Status> {
        not_here()
    }
    async fn leaf(&self, _: Request<LeafRequest>) -> Result<Response<LeafReply>, Status> {
        not_here()
    }
    async fn put(&self, _: Request<PutRequest>) -> Result<Response<PutReply>, Status> {
        not_here()
    }
    async fn get(&self, _: Request<GetRequest>) -> Result<Response<GetReply>, Status> {
        not_here()
    }
    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListReply>, Status> {
        not_here()
    }
    async fn compare_and_set(
        &self,
        _: Request<CompareAndSetRequest>,
    ) -> Result<Response<CompareAndSetReply>, Status> {
        not_here()
    }
}
