//! A process's agent, over the socket it inherited: that socket is its identity.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crux_core::names::Label;
use crux_net::error::Error;
use crux_net::identity::{Credentials, SecretKey};
use crux_net::rpc::{Fate, ProcessSocket, connect_process, fate};
use crux_net::task::{self, Policy, Task};
use crux_wire::document::v1::ServiceRecord;
use crux_wire::process::v1::process_client::ProcessClient;
use crux_wire::process::v1::{
    GetReply, GetRequest, Item, LeafReply, LeafRequest, ListRequest, LookupReply, LookupRequest,
    PutRequest, RegisterRequest, UnregisterRequest, WhoamiReply, WhoamiRequest,
};
use crux_wire::status::{Effect, Kind};
use tokio::sync::Mutex;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

/// How long a call waits for an agent that is being restarted. 15 s: its keeper waits 5 s at most before it starts one.
pub const AGENT_PATIENCE: Duration = Duration::from_secs(15);
/// Pause before the first repeat; each further one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// Longest pause between repeats.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A client of one's own agent. Cheap to clone; clones share the connection and the leaf.
///
/// Calls survive a restart of the agent: they are repeated, with growing pauses, for [`AGENT_PATIENCE`].
/// All of them may be repeated, since the agent keeps the last value of each.
#[derive(Clone)]
pub struct Agent(Arc<Inner>);

struct Inner {
    client: ProcessClient<Channel>,
    leaf: Mutex<Option<Credentials>>,
}

/// A service that one offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Its name, as the description file has it.
    pub name: String,
    /// Where it listens.
    pub port: u16,
    /// Its version, for handles that want a newer one; may be empty.
    pub version: String,
    /// Whether it speaks mutual TLS with a process leaf, as [`serve`](crate::serve) does.
    pub tls: bool,
}

impl Agent {
    /// The agent that started this process.
    ///
    /// # Errors
    /// [`Kind::Precondition`] when no agent did.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn inherited() -> Result<Self, Error> {
        let wrong = || Error::new(Kind::Precondition, "find the agent of this process");
        let socket = ProcessSocket::inherited().map_err(|error| wrong().because(error))?;
        let socket = socket.ok_or_else(|| wrong().because("it was not started by an agent"))?;
        Ok(Self::over(&socket))
    }

    /// The agent at the other end of `socket`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn over(socket: &ProcessSocket) -> Self {
        Self(Arc::new(Inner {
            client: ProcessClient::new(connect_process(socket)),
            leaf: Mutex::default(),
        }))
    }

    /// Who this process is: namespace, application, class, index, and where it runs.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] when no agent answers in time.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn whoami(&self) -> Result<WhoamiReply, Error> {
        self.call("ask who this process is", |mut client| async move {
            client.whoami(WhoamiRequest {}).await
        })
        .await
    }

    /// Offers a service, which also marks this process as ready. It stays offered while [`Registered`] lives,
    /// across restarts of the agent.
    ///
    /// # Errors
    /// [`Kind::Refused`] when the signed document does not offer it; [`Kind::Unavailable`].
    ///
    /// # Cancel safety
    /// Dropping it may leave the service offered, until the process ends.
    pub async fn register(&self, offer: Offer) -> Result<Registered, Error> {
        self.register_once(&offer).await?;
        let (agent, keeper_offer) = (self.clone(), offer.clone());
        let task = task::spawn("registration", Policy::ABORT, async move {
            agent.keep_registered(keeper_offer).await
        });
        Ok(Registered {
            agent: self.clone(),
            offer,
            task,
        })
    }

    /// The members of a service that are offered now, in no order.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] when no agent answers in time.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn lookup(&self, name: &str) -> Result<Vec<ServiceRecord>, Error> {
        let request = LookupRequest {
            name: name.to_owned(),
            exposure: String::new(),
        };
        let call = |mut client: ProcessClient<Channel>| {
            let request = request.clone();
            async move { client.lookup(request).await }
        };
        self.call("look up a service", call)
            .await
            .map(|reply| reply.services)
    }

    /// Watches the members of a service: the list now, and after each change.
    #[must_use]
    pub fn watch(&self, name: &str) -> Watch {
        Watch {
            agent: self.clone(),
            name: name.to_owned(),
            stream: None,
            fresh: false,
            pause: PAUSE_FIRST,
        }
    }

    /// This process's side of mutual TLS: a short leaf over a key that stays here, renewed when it is due.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] when no agent answers in time and the leaf held has ended; [`Kind::Refused`].
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn credentials(&self) -> Result<Credentials, Error> {
        let mut held = self.0.leaf.lock().await;
        if let Some(credentials) = held.as_ref().filter(|credentials| !is_due(credentials)) {
            return Ok(credentials.clone());
        }
        let key = SecretKey::generate()
            .map_err(|error| Error::new(Kind::Bug, "make a key").because(error))?;
        let reply = match (self.leaf(&key).await, held.as_ref()) {
            (Ok(reply), _) => reply,
            // The agent is away, but what we hold is still good.
            (Err(_), Some(credentials)) if credentials.principal().is_ok() => {
                return Ok(credentials.clone());
            }
            (Err(error), _) => return Err(error),
        };
        let bad = |error| Error::new(Kind::Unauthenticated, "take a leaf").because(error);
        match held.as_ref() {
            Some(credentials) => {
                credentials.renew(&reply.chain, &key).map_err(bad)?;
                Ok(credentials.clone())
            }
            None => {
                let credentials =
                    Credentials::for_app(&reply.chain, &key, &reply.charter).map_err(bad)?;
                Ok(held.insert(credentials).clone())
            }
        }
    }

    /// Puts an entry on the application's blackboard; it replaces this process's earlier one of that key.
    pub(crate) async fn put(&self, request: PutRequest) -> Result<(), Error> {
        let call = |mut client: ProcessClient<Channel>| {
            let request = request.clone();
            async move { client.put(request).await }
        };
        self.call("put a blackboard entry", call).await.map(drop)
    }

    /// Reads one entry.
    pub(crate) async fn get(&self, key: &str) -> Result<GetReply, Error> {
        let request = GetRequest {
            key: key.to_owned(),
        };
        let call = |mut client: ProcessClient<Channel>| {
            let request = request.clone();
            async move { client.get(request).await }
        };
        self.call("get a blackboard entry", call).await
    }

    /// Reads all entries under a prefix.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<Item>, Error> {
        let request = ListRequest {
            prefix: prefix.to_owned(),
        };
        let call = |mut client: ProcessClient<Channel>| {
            let request = request.clone();
            async move { client.list(request).await }
        };
        self.call("list blackboard entries", call)
            .await
            .map(|reply| reply.items)
    }

    async fn leaf(&self, key: &SecretKey) -> Result<LeafReply, Error> {
        let request = LeafRequest {
            public_key_der: key.public().spki().to_vec(),
        };
        let call = |mut client: ProcessClient<Channel>| {
            let request = request.clone();
            async move { client.leaf(request).await }
        };
        self.call("ask for a leaf", call).await
    }

    async fn register_once(&self, offer: &Offer) -> Result<(), Error> {
        let request = RegisterRequest {
            name: offer.name.clone(),
            port: u32::from(offer.port),
            version: offer.version.clone(),
            tls: offer.tls,
        };
        let call = |mut client: ProcessClient<Channel>| {
            let request = request.clone();
            async move { client.register(request).await }
        };
        self.call("register a service", call).await.map(drop)
    }

    /// Registers again whenever the agent may have been replaced, which shows as a new stream from it.
    async fn keep_registered(&self, offer: Offer) {
        let mut watch = self.watch(&offer.name);
        loop {
            watch.next().await;
            if watch.take_fresh()
                && let Err(error) = self.register_once(&offer).await
            {
                tracing::warn!(%error, service = %offer.name, "a service could not be offered again");
            }
        }
    }

    async fn open_watch(&self, name: &str) -> Result<Streaming<LookupReply>, Status> {
        let mut client = self.0.client.clone();
        client
            .watch(LookupRequest {
                name: name.to_owned(),
                exposure: String::new(),
            })
            .await
            .map(Response::into_inner)
    }

    /// Calls, and repeats while no agent answers.
    async fn call<T, F, W>(&self, operation: &'static str, call: F) -> Result<T, Error>
    where
        F: Fn(ProcessClient<Channel>) -> W,
        W: Future<Output = Result<Response<T>, Status>>,
    {
        let mut last = None;
        let mut pause = PAUSE_FIRST;
        let attempts = async {
            loop {
                match call(self.0.client.clone()).await {
                    Ok(reply) => return Ok(reply.into_inner()),
                    Err(status) if matches!(fate(&status), Fate::NotArrived | Fate::Unknown) => {
                        last = Some(status)
                    }
                    Err(status) => return Err(status),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        };
        match tokio::time::timeout(AGENT_PATIENCE, attempts).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(status)) => {
                let (kind, effect) = crux_wire::status::read(&status);
                Err(Error::new(kind, operation)
                    .effect_is(effect)
                    .because(status))
            }
            Err(_) => {
                let error = Error::new(Kind::Unavailable, operation).effect_is(Effect::Unknown);
                Err(match last {
                    Some(status) => error.because(status),
                    None => error.because("the agent does not answer"),
                })
            }
        }
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Agent")
    }
}

fn is_due(credentials: &Credentials) -> bool {
    credentials.trust().clock().now() >= credentials.renew_at()
}

/// A service on offer. Dropping it stops renewing the offer; [`withdraw`](Self::withdraw) ends it.
#[derive(Debug)]
pub struct Registered {
    agent: Agent,
    offer: Offer,
    task: Task<()>,
}

impl Registered {
    /// Withdraws the offer.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] when no agent answers in time.
    ///
    /// # Cancel safety
    /// Dropping it may leave the service offered, until the process ends.
    pub async fn withdraw(self) -> Result<(), Error> {
        self.task.abort();
        let request = UnregisterRequest {
            name: self.offer.name.clone(),
        };
        let call = |mut client: ProcessClient<Channel>| {
            let request = request.clone();
            async move { client.unregister(request).await }
        };
        self.agent.call("withdraw a service", call).await.map(drop)
    }
}

/// The members of a service as they change. It goes on across restarts of the agent.
#[derive(Debug)]
pub struct Watch {
    agent: Agent,
    name: String,
    stream: Option<Streaming<LookupReply>>,
    /// Whether nothing was asked of this stream's agent yet but this stream.
    fresh: bool,
    pause: Duration,
}

impl Watch {
    /// The next list: at the first call the one that holds now, then one after each change.
    ///
    /// # Cancel safety
    /// No change is lost.
    pub async fn next(&mut self) -> Vec<ServiceRecord> {
        loop {
            if let Some(stream) = &mut self.stream {
                match stream.message().await {
                    Ok(Some(reply)) => {
                        self.pause = PAUSE_FIRST;
                        return reply.services;
                    }
                    Ok(None) => tracing::debug!(service = %self.name, "a watch ended"),
                    Err(status) => {
                        tracing::debug!(%status, service = %self.name, "a watch was cut")
                    }
                }
                self.stream = None;
            }
            self.reopen().await;
        }
    }

    /// Whether the stream read from is a new one, perhaps of a new agent; asking makes it an old one.
    const fn take_fresh(&mut self) -> bool {
        std::mem::replace(&mut self.fresh, false)
    }

    async fn reopen(&mut self) {
        loop {
            match self.agent.open_watch(&self.name).await {
                Ok(stream) => {
                    (self.stream, self.fresh) = (Some(stream), true);
                    return;
                }
                Err(status) => {
                    tracing::debug!(%status, service = %self.name, "a watch could not be opened")
                }
            }
            tokio::time::sleep(self.pause).await;
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
    }
}

/// The labels in a principal's text `namespace/application/class/index`.
pub(crate) fn parse_principal(text: &str) -> Option<(Label, Label, Label)> {
    let mut parts = text.split('/');
    let mut label = || parts.next().and_then(|part| Label::new(part).ok());
    let found = (label()?, label()?, label()?);
    parts.next()?.parse::<u32>().ok()?;
    parts.next().is_none().then_some(found)
}
