//! An owner with rnodes in a temporary directory, and a service that says who called.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};

use crux_core::identity::Principal;
use crux_core::names::Label;
use crux_net::identity::{OwnerStore, RnodeIdentity, WallClock};
use crux_wire::process::v1::process_server::{Process, ProcessServer};
use crux_wire::process::v1::*;
use crux_wire::status::{Effect, Kind, status};
use tokio_stream::Stream;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// A directory that goes with the test, pass or fail.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "radix-net-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn label(text: &str) -> Label {
    Label::new(text).expect("a label")
}

/// An owner, and where its things lie.
pub(crate) struct World {
    pub(crate) dir: Dir,
    pub(crate) owner: OwnerStore,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = Dir::new();
        let owner = OwnerStore::open_or_create(&dir.join("home")).expect("an owner");
        Self { dir, owner }
    }

    /// A rnode of `namespace`, invited by the operator.
    pub(crate) fn rnode(&self, namespace: &str, name: &str) -> RnodeIdentity {
        let invitation = self
            .owner
            .invite_named(&label(namespace), &label(name))
            .expect("an invitation");
        RnodeIdentity::claim(&self.rnode_dir(namespace, name), &invitation, None).expect("a claim")
    }

    /// The same rnode, opened with a clock that starts now and is set by hand.
    pub(crate) fn with_clock(&self, rnode: &RnodeIdentity, clock: &WallClock) -> RnodeIdentity {
        let dir = self.rnode_dir(rnode.namespace().as_str(), rnode.label().as_str());
        reopen(&dir, clock)
    }

    pub(crate) fn rnode_dir(&self, namespace: &str, name: &str) -> PathBuf {
        self.dir.join(&format!("{namespace}-{name}"))
    }
}

pub(crate) fn reopen(dir: &Path, clock: &WallClock) -> RnodeIdentity {
    RnodeIdentity::open_with(dir, clock.clone())
        .expect("it opens")
        .expect("it was claimed")
}

/// Says who called, and otherwise nothing.
#[derive(Default)]
pub(crate) struct WhoCalls;

impl WhoCalls {
    pub(crate) fn routes() -> Routes {
        Routes::new(ProcessServer::new(Self))
    }
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not in this test"))
}

#[tonic::async_trait]
impl Process for WhoCalls {
    async fn whoami(
        &self,
        request: Request<WhoamiRequest>,
    ) -> Result<Response<WhoamiReply>, Status> {
        let principal = request
            .extensions()
            .get::<Principal>()
            .ok_or_else(|| Status::internal("no principal"))?;
        Ok(Response::new(WhoamiReply {
            namespace: principal.to_string(),
            ..WhoamiReply::default()
        }))
    }

    type WatchStream = Streamed<LookupReply>;

    /// One reply, and then nothing for as long as it is let.
    async fn watch(
        &self,
        _: Request<LookupRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let first = tokio_stream::once(Ok(LookupReply::default()));
        let stream = tokio_stream::StreamExt::chain(first, tokio_stream::pending());
        Ok(Response::new(Box::pin(stream)))
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
    /// Fails in the kind that the key names, as something that was done.
    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutReply>, Status> {
        let kind = Kind::of_name(&request.into_inner().key);
        Err(status(kind, Effect::Done, format!("show {kind}")))
    }
    async fn get(&self, _: Request<GetRequest>) -> Result<Response<GetReply>, Status> {
        not_here()
    }
    /// One item, of everything that JSON writes differently.
    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListReply>, Status> {
        let item = Item {
            key: request.into_inner().prefix,
            value: vec![255, 0],
            writer: "\"é\u{1}".to_owned(),
            sequence: u64::MAX,
        };
        Ok(Response::new(ListReply { items: vec![item] }))
    }
    async fn compare_and_set(
        &self,
        _: Request<CompareAndSetRequest>,
    ) -> Result<Response<CompareAndSetReply>, Status> {
        not_here()
    }
}
