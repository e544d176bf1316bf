//! The agent of a rnode: serves `fulcrum`, `rexec` and `fileio`, and brings the rnode to its assignment.
//!
//! [`run`] is all there is to call. Start with docs/design/agent.md, then `agent/context.rs`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use crux_net::durable;
use crux_net::identity::{Invitation, Report, RnodeIdentity};
use crux_net::rpc::{Answers, Server};
use crux_net::store::{self, Store};
use crux_wire::keeper::v1::Execution;
use crux_wire::rest::Api;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::config::{LEAVING, RnodeConfig};
use crate::keeper::client::{self, KeeperRef};
use crate::memoir;
use context::{Agent, BASE, Me, background, essential, fields, unix_ms};
use executions::{Executions, answered};

mod accept;
mod access;
mod application;
mod authority_task;
mod base;
mod base_task;
mod blackboard;
mod claim_judge;
mod class_watch;
mod context;
mod describe;
mod documents;
mod documents_task;
mod ends;
mod events;
mod executions;
mod fetch;
mod fileio_copy;
mod fileio_mount;
mod fileio_service;
mod files;
mod finished;
mod fulcrum_service;
mod guard;
mod hordes;
mod instance;
mod invitations;
mod label;
mod launch;
mod leader_task;
mod limits;
mod materialise;
mod output;
mod paths;
mod placement;
mod probe;
mod process_service;
mod process_sockets;
pub mod reconcile;
mod reconcile_task;
mod registrations;
mod resources;
mod rexec_service;
mod services;
mod shared;
mod status;
mod streams;
mod trouble;
mod tunnel;
mod verified;
mod wanted;

pub use accept::{EXITING, OCCUPIED};
pub use documents::is_namespace;
pub use verified::{Error as VerifyError, Verifier};

/// Why an agent cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The system refused something.
    #[error("{0}")]
    Io(&'static str, #[source] io::Error),
    /// The rnode's configuration cannot be used.
    #[error(transparent)]
    Config(#[from] crate::error::ConfigError),
    /// The rnode has no identity, or one that does not hold.
    #[error("take the rnode's identity")]
    Identity(#[source] crux_net::identity::Error),
    /// The rnode was never claimed and there is no invitation.
    #[error("take the rnode's identity: there is none, and no invitation")]
    Uninvited,
    /// The identity is another rnode's than the configuration names.
    #[error("take the rnode's identity: it is {0}, the configuration says {1}")]
    Misnamed(String, String),
    /// The keeper does not answer.
    #[error("greet the keeper")]
    Keeper(#[source] client::CallError),
    /// The flock cannot be begun.
    #[error(transparent)]
    Flock(crux_net::flock::Error),
    /// The memoir cannot be written.
    #[error("open the memoir")]
    Memoir(#[from] memoir::MemoirError),
    /// The store cannot be opened.
    #[error("open the store")]
    Store(#[from] crux_net::store::Error),
    /// The services cannot be served.
    #[error("serve")]
    Serve(#[from] crux_net::error::Error),
}

/// Runs the agent of the rnode in `dir` until its keeper is gone or it is told to exit.
///
/// Makes its own runtime, of one thread: an idle agent should cost next to nothing.
///
/// # Errors
/// [`AgentError`]; what runs on the rnode goes on.
pub fn run(dir: &Path) -> Result<(), AgentError> {
    let socket = client::inherited().map_err(|error| AgentError::Io("find the keeper", error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| AgentError::Io("start the runtime", error))?;
    runtime.block_on(async {
        let connected = client::connect(socket);
        let (keeper, exits, link) =
            connected.map_err(|error| AgentError::Io("watch the keeper", error))?;
        let shutdown = CancellationToken::new();
        let lost = shutdown.clone();
        essential("keeper", async move {
            if let Err(error) = link.run().await {
                tracing::error!(%error, "the keeper's socket failed");
            }
            // Without a keeper there is no rnode, and so no agent.
            lost.cancel();
        });
        serve(dir, keeper, exits, shutdown).await
    })
}

/// Starts every task and waits for the end.
async fn serve(
    dir: &Path,
    keeper: KeeperRef,
    exits: mpsc::Receiver<Execution>,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    let config = RnodeConfig::load(dir)?;
    if config.namespace == BASE {
        crux_net::boundary::begin("agent");
    }
    let identity = identity(dir, &config)?;
    let listener = listen(config.host, config.tcp_port)
        .await
        .map_err(|error| AgentError::Io("listen", error))?;
    let (sockets, waiting) = mpsc::channel(limits::SOCKETS_WAITING_MAX);
    let parts = Parts {
        dir,
        config,
        identity,
        keeper,
        shutdown,
    };
    let agent = Arc::new(build(parts, &listener, sockets).await?);
    write_contact(&agent).map_err(|error| AgentError::Io("write the contact", error))?;
    let begun = fields! {
        "incarnation": agent.me.incarnation, "rnode": agent.id(),
        "address": status::host_port(&agent.config.host.to_string(), agent.me.tcp_port.into()),
    };
    agent.record("agent.start", begun).await?;
    let before = ends::catch_up(&agent).await;

    authority_task::judge_documents(&agent).await;
    blackboard::restore(&agent);

    background("blackboard", blackboard::run(Arc::clone(&agent)));
    essential("exits", ends::watch(Arc::clone(&agent), exits, before));
    essential(
        "process-sockets",
        process_sockets::run(Arc::clone(&agent), waiting),
    );
    essential("reconcile", reconcile_task::run(Arc::clone(&agent)));
    essential("leader", leader_task::run(Arc::clone(&agent)));
    essential("documents", documents_task::run(Arc::clone(&agent)));
    essential("base", base_task::run(Arc::clone(&agent)));
    essential("needs", files::needs_task::run(Arc::clone(&agent)));
    essential("authority", authority_task::run(Arc::clone(&agent)));
    essential("invitations", invitations::run(Arc::clone(&agent)));
    background("identity-reports", watch_reports(Arc::clone(&agent)));

    let routes = process_sockets::add_services(Routes::default(), &agent);
    let refusing = Arc::clone(&agent);
    let answers = Answers::new(routes).twins(Api::radix);
    let server = Server::new(agent.credentials.clone(), answers).on_refusal(move |refused| {
        refusing
            .memoir
            .refused(&refused.address.ip().to_string(), &refused.reason);
    });
    let asked = tokio::signal::unix::signal(SignalKind::terminate())
        .map_err(|error| AgentError::Io("watch signals", error))?;
    tokio::select! {
        served = server.serve(listener, agent.shutdown.clone().cancelled_owned()) => served?,
        () = end_asked(&agent, asked) => {}
    }
    agent.memoir.close().await;
    Ok(())
}

/// Waits for SIGTERM, and leaves the flock if the rnode is to end for good.
///
/// An agent alone may be asked to end too; then its keeper starts another, and nobody need place anything anew.
async fn end_asked(agent: &Agent, mut asked: Signal) {
    if asked.recv().await.is_none() {
        // Without a runtime to tell of signals there is nothing to wait for.
        return std::future::pending().await;
    }
    if agent.dir.join(LEAVING).exists() {
        agent.shared.leave().await;
    }
}

/// What the agent is built from.
struct Parts<'a> {
    dir: &'a Path,
    config: RnodeConfig,
    identity: RnodeIdentity,
    keeper: KeeperRef,
    shutdown: CancellationToken,
}

/// Opens everything that lies on disk and greets the keeper.
async fn build(
    parts: Parts<'_>,
    listener: &TcpListener,
    sockets: mpsc::Sender<executions::Socket>,
) -> Result<Agent, AgentError> {
    let Parts {
        dir,
        config,
        identity,
        keeper,
        shutdown,
    } = parts;
    let agent_dir = dir.join("agent");
    let io = |what| move |error| AgentError::Io(what, error);
    std::fs::create_dir_all(&agent_dir).map_err(io("make the agent's directory"))?;
    let welcome = answered(keeper.hello()).await.map_err(AgentError::Keeper)?;
    answered(keeper.seal()).await.map_err(AgentError::Keeper)?;
    let executions = Executions::adopt(keeper.clone(), welcome.version, sockets)
        .await
        .map_err(AgentError::Keeper)?;
    let tcp_port = listener
        .local_addr()
        .map_err(io("read the listener's address"))?
        .port();
    let identity = Arc::new(identity);
    let socket = shared::bind(&config).map_err(io("open the flock's port"))?;
    let flock_port = socket
        .local_addr()
        .map_err(io("read the flock's port"))?
        .port();
    let from = (socket, welcome.incarnation);
    let flock = begin_flock(
        shared::flock_config(&config, &agent_dir, &identity, from),
        &shutdown,
    )?;
    let me = Me {
        id: identity.id(),
        owner: identity.owner(),
        label: identity.label().clone(),
        namespace: identity.namespace().clone(),
        incarnation: welcome.incarnation,
        keeper_pid: welcome.keeper_pid,
        started_unix_ms: unix_ms(),
        tcp_port,
        flock_port,
    };
    let store = Arc::new(Store::open_with(&config.store_dir, store_limits(&config))?);
    let quota = files::room::quota(dir, &config, &store);
    Ok(Agent {
        executions,
        memoir: memoir::Writer::open(&config.memoir_dir)?,
        store,
        files: files::Files::open(&agent_dir, quota).map_err(io("open what is known of files"))?,
        verifier: Arc::default(),
        paths: paths::Paths::new(dir, &config),
        documents: documents::Documents::open(&agent_dir, |signed| {
            accept::is_whole(identity.trust(), signed)
        })
        .map_err(io("open the documents"))?,
        applications: application::Applications::default(),
        bars: placement::Bars::default(),
        events: events::Events::open(&agent_dir),
        shared: shared::Shared::new(me.id, flock),
        credentials: identity.credentials().map_err(AgentError::Identity)?,
        accepting: tokio::sync::Mutex::default(),
        registrations: registrations::Registrations::open(&agent_dir),
        resources: resources::discover(dir),
        blackboard: blackboard::Blackboard::default(),
        trouble: trouble::Trouble::default(),
        weaker: std::sync::Mutex::default(),
        invitations: invitations::Invitations::open(&agent_dir, identity.trust())
            .map_err(io("open the invitations"))?,
        hordes: hordes::Hordes::open(&agent_dir).map_err(io("open the hordes"))?,
        class_watches: class_watch::ClassWatches::default(),
        dir: dir.to_owned(),
        identity,
        keeper,
        shutdown,
        config,
        me,
    })
}

/// Starts to flock; a flock that cannot keep its floor ends the agent, and its keeper starts another.
fn store_limits(config: &RnodeConfig) -> store::Limits {
    store::Limits {
        total_bytes_max: config.quota_bytes,
        ..store::Limits::default()
    }
}

fn begin_flock(
    config: crux_net::flock::Config,
    shutdown: &CancellationToken,
) -> Result<crux_net::flock::Ref, AgentError> {
    let (actor, flock) = config.build().map_err(AgentError::Flock)?;
    let shutdown = shutdown.clone();
    essential("flock", async move {
        if let Err(error) = actor.run(shutdown.clone()).await {
            tracing::error!(%error, "the flock cannot go on");
            shutdown.cancel();
        }
    });
    Ok(flock)
}

/// Opens the rnode's identity, claiming the invitation if there is one.
fn identity(dir: &Path, config: &RnodeConfig) -> Result<RnodeIdentity, AgentError> {
    let of = dir.join("identity");
    let invitation = dir.join("invitation");
    let held =
        durable::read(&invitation).map_err(|error| AgentError::Io("read the invitation", error))?;
    let identity = if let Some(text) = held {
        let text = String::from_utf8_lossy(&text);
        let decoded = Invitation::decode(&text).map_err(AgentError::Identity)?;
        let identity = RnodeIdentity::claim(&of, &decoded, None).map_err(AgentError::Identity)?;
        // Claimed and durable: the secret has done its work.
        durable::remove(&invitation)
            .map_err(|error| AgentError::Io("drop the invitation", error))?;
        identity
    } else {
        let opened = RnodeIdentity::open(&of).map_err(AgentError::Identity)?;
        opened.ok_or(AgentError::Uninvited)?
    };
    let is = format!("{}/{}", identity.namespace(), identity.label());
    let says = format!("{}/{}", config.namespace, config.label);
    if is == says {
        Ok(identity)
    } else {
        Err(AgentError::Misnamed(is, says))
    }
}

/// Listens on the wanted port, or on any where that is taken.
async fn listen(host: IpAddr, port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::new(host, port)).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            TcpListener::bind(SocketAddr::new(host, 0)).await
        }
        bound => bound,
    }
}

/// Writes where this agent is, for whoever starts or watches the rnode.
fn write_contact(agent: &Agent) -> io::Result<()> {
    let contact = serde_json::json!({
        "host": agent.config.host.to_string(),
        "port": agent.me.tcp_port,
        "flock_port": agent.me.flock_port,
        "rnode": agent.id(),
        "pid": std::process::id(),
        "incarnation": agent.me.incarnation,
    });
    let path = agent.dir.join("agent").join("contact");
    durable::replace_unsynced(&path, contact.to_string().as_bytes())
}

/// Reports second takers of an invitation, denials and new charters, once each.
async fn watch_reports(agent: Arc<Agent>) {
    let mut changes = agent.identity.trust().changes();
    loop {
        for report in agent.identity.trust().take_reports() {
            report_one(&agent, report).await;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = agent.shutdown.cancelled() => return,
        }
    }
}

/// Tells operators and memoir of one thing that identity reports.
async fn report_one(agent: &Agent, report: Report) {
    let (kind, subject, text) = match report {
        Report::SecondTaker {
            claim,
            holder,
            taker,
        } => (
            "identity.second_taker",
            taker.to_string(),
            format!("invitation {claim} is held by {holder}; {taker} was refused"),
        ),
        Report::Denied { notice, signer } => {
            let denied = notice.lines().join(", ");
            let text = format!("denied by {signer}: {}", notice.reason);
            ("identity.denied", denied, text)
        }
        Report::Vouched { invitation } => (
            "identity.vouched",
            invitation.to_string(),
            format!("the root vouches for whom invitation {invitation} let in"),
        ),
        Report::Verdict(judged) => (
            "identity.verdict",
            judged.rival.to_string(),
            format!(
                "invitation {} was claimed by {} and by {}; the first stays, says {}",
                judged.claim, judged.holder, judged.rival, judged.signer.taker
            ),
        ),
        Report::Rival { held, rival } => (
            "identity.rival_charter",
            rival.to_string(),
            format!("charter {rival} stands against {held}, which this rnode keeps"),
        ),
        Report::Overturned { held, lost } => (
            "identity.charter",
            held.to_string(),
            format!("charter {held} holds from now on in place of {lost}, which weighs less"),
        ),
        Report::Succeeded { generation } => (
            "identity.charter",
            generation.to_string(),
            format!("charter generation {generation} holds from now on"),
        ),
    };
    agent.tell(kind, &subject, &text);
    let record = fields! { "subject": subject, "text": text };
    agent.note(kind, record).await;
}
