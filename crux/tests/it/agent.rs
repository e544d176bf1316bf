//! An agent with the contract of `radix.process.v1`, a registry and a blackboard in memory; it can be killed and replaced.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crux::core::identity::{Principal, Who};
use crux::core::names::Label;
use crux::net::identity::{LeafIssuer, OwnerStore, RnodeIdentity};
use crux::net::rpc::{ProcessListener, ProcessSocket, serve_stream};
use crux::net::task::{self, Policy, Task};
use crux::wire::document::v1::ServiceRecord;
use crux::wire::process::v1::process_server::{Process, ProcessServer};
use crux::wire::process::v1::*;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

pub(crate) fn label(text: &str) -> Label {
    Label::new(text).expect("a label")
}

type Registry = BTreeMap<(String, String), ServiceRecord>;

/// One rnode with processes; the directory goes with the test.
pub(crate) struct World {
    dir: PathBuf,
    rnode: RnodeIdentity,
    registry: watch::Sender<Registry>,
    board: Arc<Mutex<BTreeMap<String, Item>>>,
}

impl World {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "radix-crux-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let dir = std::env::temp_dir().join(name);
        let owner = OwnerStore::open_or_create(&dir.join("home")).expect("an owner");
        let invitation = owner
            .invite_named(&label("stix"), &label("n1"))
            .expect("an invitation");
        let rnode = RnodeIdentity::claim(&dir.join("n1"), &invitation, None).expect("a claim");
        Self {
            dir,
            rnode,
            registry: watch::Sender::new(Registry::new()),
            board: Arc::default(),
        }
    }

    /// Starts a process of `class`: its agent serves it.
    pub(crate) fn process(&self, class: &str, index: u32) -> Proc {
        let who = Who::App {
            namespace: label("stix"),
            application: label("stix"),
            class: label(class),
            index,
            rnode: self.rnode.id(),
        };
        let principal = Principal::local_app(self.rnode.owner(), who);
        let (process, ours) = ProcessSocket::pair().expect("a pair");
        let fake = Fake {
            issuer: self.rnode.leaf_issuer(),
            charter: self.rnode.trust().charter().encoded().to_vec(),
            registry: self.registry.clone(),
            board: self.board.clone(),
        };
        let mut made = Proc {
            agent: crux::Agent::over(&ProcessSocket::new(process)),
            ours,
            fake,
            principal,
            serving: None,
        };
        made.start_agent();
        made
    }

    /// What the registry says of all services.
    pub(crate) fn registered(&self) -> Vec<ServiceRecord> {
        self.registry.borrow().values().cloned().collect()
    }

    /// Waits until the registry is as `wanted` says.
    pub(crate) async fn until(&self, wanted: impl Fn(&Registry) -> bool) {
        self.registry
            .subscribe()
            .wait_for(|registry| wanted(registry))
            .await
            .expect("the registry lives");
    }

    /// Changes the registry behind everyone's back.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Registry)) {
        self.registry.send_modify(change);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A process, and the agent that serves it.
pub(crate) struct Proc {
    pub(crate) agent: crux::Agent,
    ours: OwnedFd,
    fake: Fake,
    principal: Principal,
    serving: Option<Task<()>>,
}

impl Proc {
    pub(crate) fn start_agent(&mut self) {
        let listener = self.ours.try_clone().expect("a duplicate");
        let (fake, principal) = (self.fake.clone(), self.principal.clone());
        self.serving = Some(task::spawn("fake agent", Policy::ABORT, async move {
            let listener = ProcessListener::new(listener).expect("a listener");
            let mut tasks = tokio::task::JoinSet::new();
            while let Ok(stream) = listener.accept().await {
                let routes = Routes::new(ProcessServer::new(fake.clone()));
                tasks.spawn(serve_stream(stream, principal.clone(), routes));
            }
        }));
    }

    /// Ends the agent at once; its keeper would start the next one.
    pub(crate) async fn kill_agent(&mut self) {
        if let Some(task) = self.serving.take() {
            task.abort();
            assert!(task.await.is_err());
        }
    }
}

#[derive(Clone)]
struct Fake {
    issuer: LeafIssuer,
    charter: Vec<u8>,
    registry: watch::Sender<Registry>,
    board: Arc<Mutex<BTreeMap<String, Item>>>,
}

fn caller<T>(request: &Request<T>) -> Result<(Label, Label, u32, String), Status> {
    let principal = request
        .extensions()
        .get::<Principal>()
        .ok_or_else(|| Status::internal("no principal"))?;
    match &principal.who {
        Who::App {
            application,
            class,
            index,
            ..
        } => Ok((
            application.clone(),
            class.clone(),
            *index,
            principal.to_string(),
        )),
        _ => Err(Status::internal("not a process")),
    }
}

fn members(registry: &Registry, name: &str) -> LookupReply {
    let services = registry
        .values()
        .filter(|record| record.name == name)
        .cloned()
        .collect();
    LookupReply { services }
}

#[tonic::async_trait]
impl Process for Fake {
    async fn whoami(
        &self,
        request: Request<WhoamiRequest>,
    ) -> Result<Response<WhoamiReply>, Status> {
        let (application, class, index, _) = caller(&request)?;
        Ok(Response::new(WhoamiReply {
            namespace: "stix".to_owned(),
            application: application.to_string(),
            class: class.to_string(),
            index,
            ..WhoamiReply::default()
        }))
    }

    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterReply>, Status> {
        let (application, class, index, principal) = caller(&request)?;
        let asked = request.into_inner();
        if asked.name == "forbidden" {
            return Err(Status::permission_denied("the document does not offer it"));
        }
        let record = ServiceRecord {
            name: asked.name.clone(),
            namespace: "stix".to_owned(),
            application: application.to_string(),
            class: class.to_string(),
            index,
            host: "127.0.0.1".to_owned(),
            port: asked.port,
            principal: principal.clone(),
            tls: asked.tls,
            ..ServiceRecord::default()
        };
        self.registry.send_modify(|registry| {
            registry.insert((asked.name, principal), record);
        });
        Ok(Response::new(RegisterReply {}))
    }

    async fn unregister(
        &self,
        request: Request<UnregisterRequest>,
    ) -> Result<Response<UnregisterReply>, Status> {
        let (.., principal) = caller(&request)?;
        self.registry.send_modify(|registry| {
            registry.remove(&(request.into_inner().name, principal));
        });
        Ok(Response::new(UnregisterReply {}))
    }

    async fn lookup(
        &self,
        request: Request<LookupRequest>,
    ) -> Result<Response<LookupReply>, Status> {
        Ok(Response::new(members(
            &self.registry.borrow(),
            &request.get_ref().name,
        )))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<LookupReply, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<LookupRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let name = request.into_inner().name;
        let changes = WatchStream::new(self.registry.subscribe());
        Ok(Response::new(Box::pin(
            changes.map(move |registry| Ok(members(&registry, &name))),
        )))
    }

    async fn leaf(&self, request: Request<LeafRequest>) -> Result<Response<LeafReply>, Status> {
        let (application, class, index, _) = caller(&request)?;
        let leaf = self
            .issuer
            .issue(
                &application,
                &class,
                index,
                &request.get_ref().public_key_der,
            )
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Response::new(LeafReply {
            chain: leaf.chain,
            charter: self.charter.clone(),
            ..LeafReply::default()
        }))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutReply>, Status> {
        let (.., writer) = caller(&request)?;
        let PutRequest { key, value, remove } = request.into_inner();
        let mut board = self.board.lock().expect("ours");
        if remove {
            board.remove(&key);
        } else {
            board.insert(
                key.clone(),
                Item {
                    key,
                    value,
                    writer,
                    sequence: 1,
                },
            );
        }
        Ok(Response::new(PutReply {}))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetReply>, Status> {
        let board = self.board.lock().expect("ours");
        let reply = board
            .get(&request.get_ref().key)
            .map_or_else(GetReply::default, |item| GetReply {
                found: true,
                value: item.value.clone(),
                writer: item.writer.clone(),
            });
        Ok(Response::new(reply))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListReply>, Status> {
        let board = self.board.lock().expect("ours");
        let items = board
            .values()
            .filter(|item| item.key.starts_with(&request.get_ref().prefix))
            .cloned()
            .collect();
        Ok(Response::new(ListReply { items }))
    }

    async fn compare_and_set(
        &self,
        _: Request<CompareAndSetRequest>,
    ) -> Result<Response<CompareAndSetReply>, Status> {
        Err(Status::unimplemented("not before seats exist"))
    }
}
