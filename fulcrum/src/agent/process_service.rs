//! What a process may ask of its agent, over the socket it inherited.

use std::sync::Arc;

use crux_core::names::Label;
use crux_wire::document::v1::ServiceRecord;
use crux_wire::keeper::v1::Execution;
use crux_wire::process::v1::process_server::Process;
use crux_wire::process::v1::{
    CompareAndSetReply, CompareAndSetRequest, GetReply, GetRequest, Item, LeafReply, LeafRequest,
    ListReply, ListRequest, LookupReply, LookupRequest, PutReply, PutRequest, RegisterReply,
    RegisterRequest, UnregisterReply, UnregisterRequest, WhoamiReply, WhoamiRequest,
};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::blackboard;
use super::context::{Agent, background, fields};
use super::label::InstanceLabel;
use super::limits::{
    BLACKBOARD_ENTRIES_MAX, BLACKBOARD_KEY_MAX, BLACKBOARD_VALUE_MAX, STREAM_CHUNKS,
};
use super::registrations::Registration;
use super::rexec_service::Replies;
use super::services;

/// The service, bound to one execution.
#[derive(Debug, Clone)]
pub(crate) struct ProcessService {
    agent: Arc<Agent>,
    execution: Arc<Execution>,
    label: Option<InstanceLabel>,
}

impl ProcessService {
    /// Binds the service to an execution.
    pub(crate) fn new(agent: &Arc<Agent>, execution: &Arc<Execution>) -> Self {
        Self {
            agent: Arc::clone(agent),
            execution: Arc::clone(execution),
            label: InstanceLabel::of(execution),
        }
    }

    /// The instance it is.
    fn instance(&self) -> Result<&InstanceLabel, Status> {
        self.label
            .as_ref()
            .ok_or_else(|| Status::permission_denied("serve a process that is no instance"))
    }

    /// The full key of a blackboard entry.
    fn blackboard(&self, key: &str) -> Result<String, Status> {
        if key.is_empty() || key.len() > BLACKBOARD_KEY_MAX {
            return Err(Status::invalid_argument(format!(
                "take the key: 1 to {BLACKBOARD_KEY_MAX} bytes are allowed"
            )));
        }
        Ok(format!("{}{key}", self.blackboard_prefix()?))
    }

    fn blackboard_prefix(&self) -> Result<String, Status> {
        Ok(format!(
            "{}{}/",
            blackboard::PREFIX,
            self.instance()?.application
        ))
    }
}

#[tonic::async_trait]
impl Process for ProcessService {
    async fn whoami(&self, _: Request<WhoamiRequest>) -> Result<Response<WhoamiReply>, Status> {
        let me = &self.agent.me;
        let label = self.label.as_ref();
        Ok(Response::new(WhoamiReply {
            namespace: me.namespace.to_string(),
            application: label.map_or_else(
                || self.execution.configuration.clone(),
                |label| label.application.clone(),
            ),
            class: label.map(|label| label.class.clone()).unwrap_or_default(),
            index: label.map_or(0, |label| label.index),
            rnode: self.agent.id(),
            rnode_label: me.label.to_string(),
            host: self.agent.config.host.to_string(),
            execution: self.execution.execution.clone(),
            executable_digest: self.execution.digest.clone(),
        }))
    }

    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterReply>, Status> {
        let label = self.instance()?;
        let wanted = request.into_inner();
        let port = u16::try_from(wanted.port).ok().filter(|port| *port != 0);
        let port = port.ok_or_else(|| Status::invalid_argument("register: the port is no port"))?;
        offered(&self.agent, label, &wanted.name, port)?;
        let id = self.execution.execution.as_str();
        if self
            .agent
            .executions
            .get(id)
            .is_none_or(|known| known.outcome.is_some())
        {
            return Err(Status::failed_precondition(
                "register: the execution has ended",
            ));
        }
        let record = fields! {
            "execution": id, "name": wanted.name.clone(), "port": port,
            "instance": self.execution.instance.clone(),
        };
        let recorded = self.agent.record("service.register", record).await;
        recorded.map_err(|error| Status::internal(format!("write the memoir: {error}")))?;
        let registration = Registration {
            name: wanted.name,
            port,
            version: wanted.version,
            tls: wanted.tls,
        };
        let kept = self.agent.registrations.put(id, registration);
        kept.map_err(|error| Status::resource_exhausted(format!("register: {error}")))?;
        services::publish(&self.agent);
        Ok(Response::new(RegisterReply {}))
    }

    async fn unregister(
        &self,
        request: Request<UnregisterRequest>,
    ) -> Result<Response<UnregisterReply>, Status> {
        let name = request.into_inner().name;
        let id = self.execution.execution.as_str();
        self.agent
            .note(
                "service.unregister",
                fields! { "execution": id, "name": name.clone() },
            )
            .await;
        let kept = self.agent.registrations.remove(id, &name);
        kept.map_err(|error| Status::internal(format!("unregister: {error}")))?;
        services::publish(&self.agent);
        Ok(Response::new(UnregisterReply {}))
    }

    async fn lookup(
        &self,
        request: Request<LookupRequest>,
    ) -> Result<Response<LookupReply>, Status> {
        let name = request.into_inner().name;
        if let Some(class) = self.agent.class_watches.parse(&self.agent, &name) {
            let watches = &self.agent.class_watches;
            let mut found = watches.watch(&self.agent, class, String::new())?;
            let services = found.first().await;
            return Ok(Response::new(LookupReply { services }));
        }
        Ok(Response::new(LookupReply {
            services: services::lookup(&self.agent, &name),
        }))
    }

    type WatchStream = Replies<LookupReply>;

    async fn watch(
        &self,
        request: Request<LookupRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let LookupRequest { name, exposure } = request.into_inner();
        let (tx, rx) = mpsc::channel(STREAM_CHUNKS);
        let agent = Arc::clone(&self.agent);
        if let Some(class) = agent.class_watches.parse(&agent, &name) {
            let found = agent.class_watches.watch(&agent, class, exposure)?;
            background("watch-class", found.forward(tx));
        } else {
            background("watch-service", watch_service(agent, name, tx));
        }
        Ok(Response::new(ReceiverStream::new(rx).boxed()))
    }

    async fn leaf(&self, request: Request<LeafRequest>) -> Result<Response<LeafReply>, Status> {
        let label = self.instance()?;
        let parse = |text: &str| {
            Label::new(text).map_err(|error| Status::internal(format!("issue a leaf: {error}")))
        };
        let (application, class) = (parse(&label.application)?, parse(&label.class)?);
        let key = request.into_inner().public_key_der;
        let issuer = self.agent.identity.leaf_issuer();
        let leaf = issuer
            .issue(&application, &class, label.index, &key)
            .map_err(|error| Status::invalid_argument(format!("issue a leaf: {error}")))?;
        let charter = self.agent.identity.trust().charter().encoded().to_vec();
        Ok(Response::new(LeafReply {
            chain: leaf.chain,
            roots: Vec::new(),
            charter,
            expires_unix_ms: leaf.until.seconds().saturating_mul(1000),
        }))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutReply>, Status> {
        let wanted = request.into_inner();
        let key = self.blackboard(&wanted.key)?;
        if wanted.remove {
            self.agent.shared.withdraw(&key);
            self.agent.blackboard.changed();
            return Ok(Response::new(PutReply {}));
        }
        if wanted.value.len() > BLACKBOARD_VALUE_MAX {
            return Err(Status::invalid_argument(format!(
                "put: at most {BLACKBOARD_VALUE_MAX} bytes are allowed"
            )));
        }
        let own = self.agent.shared.own_keys(blackboard::PREFIX);
        if own.len() >= BLACKBOARD_ENTRIES_MAX && !own.contains(&key) {
            return Err(Status::resource_exhausted(
                "put: the blackboard of this rnode is full",
            ));
        }
        let put = self.agent.shared.publish(&key, &wanted.value);
        put.map_err(|error| Status::resource_exhausted(format!("put: {error}")))?;
        self.agent.blackboard.changed();
        Ok(Response::new(PutReply {}))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetReply>, Status> {
        let key = self.blackboard(&request.into_inner().key)?;
        let item = newest(&self.agent, &key)
            .into_iter()
            .find(|item| item.key == key);
        Ok(Response::new(item.map_or_else(GetReply::default, |item| {
            GetReply {
                found: true,
                value: item.value,
                writer: item.writer,
            }
        })))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListReply>, Status> {
        let prefix = self.blackboard_prefix()?;
        let wanted = format!("{prefix}{}", request.into_inner().prefix);
        let mut items = newest(&self.agent, &wanted);
        for item in &mut items {
            item.key.drain(..prefix.len());
        }
        Ok(Response::new(ListReply { items }))
    }

    async fn compare_and_set(
        &self,
        _: Request<CompareAndSetRequest>,
    ) -> Result<Response<CompareAndSetReply>, Status> {
        Err(Status::unimplemented(
            "compare and set: it needs a seated leader, which comes later",
        ))
    }
}

/// Blackboard entries below a prefix, one a key, sorted: of several writers of a key the most active wins,
/// then the higher rnode id, so that all readers agree once the table does.
fn newest(agent: &Agent, prefix: &str) -> Vec<Item> {
    let mut entries = agent.shared.entries(prefix);
    entries.sort_by(|a, b| (&a.key, b.sequence, &b.owner).cmp(&(&b.key, a.sequence, &a.owner)));
    entries.dedup_by(|later, kept| later.key == kept.key);
    entries
        .into_iter()
        .map(|entry| Item {
            key: entry.key,
            value: entry.value,
            writer: entry.owner,
            sequence: entry.sequence,
        })
        .collect()
}

/// Checks that the class of an instance may register a service of this name and port.
fn offered(agent: &Agent, label: &InstanceLabel, name: &str, port: u16) -> Result<(), Status> {
    if name == label.class {
        return Ok(());
    }
    let namespace = agent.me.namespace.as_str();
    let newest = || {
        agent
            .documents
            .newest(namespace)
            .map(|held| held.document.generation)
    };
    let application = agent
        .applications
        .get(agent, label.generation)
        .or_else(|| agent.applications.get(agent, newest()?));
    let ports: Vec<u16> = application
        .as_ref()
        .and_then(|application| application.class(&label.class))
        .map(|rule| {
            rule.serves()
                .filter(|(known, _)| *known == name)
                .map(|(_, port)| port)
                .collect()
        })
        .unwrap_or_default();
    if ports.contains(&port) {
        return Ok(());
    }
    agent.memoir.refused(
        &format!("{}/{}", label.class, label.index),
        &format!("register/{name}"),
    );
    let text = if ports.is_empty() {
        format!("register {name}: class {} does not offer it", label.class)
    } else {
        format!(
            "register {name}: class {} offers it on another port",
            label.class
        )
    };
    Err(Status::permission_denied(text))
}

async fn watch_service(
    agent: Arc<Agent>,
    name: String,
    tx: mpsc::Sender<Result<LookupReply, Status>>,
) {
    let mut changes = agent.shared.changes();
    let mut told: Option<Vec<ServiceRecord>> = None;
    loop {
        changes.mark_unchanged();
        let services = services::lookup(&agent, &name);
        if told.as_ref() != Some(&services) {
            told = Some(services.clone());
            if tx.send(Ok(LookupReply { services })).await.is_err() {
                return;
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tx.closed() => return,
            () = agent.shutdown.cancelled() => return,
        }
    }
}
