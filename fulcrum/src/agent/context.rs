//! What every task and service of the agent shares.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use crux_core::digest::Digest;
use crux_core::names::{Label, OwnerId, RnodeId};
use crux_net::identity::{Credentials, RnodeIdentity};
use crux_net::store::Store;
use crux_wire::document::v1::{Pin, Resources};
use crux_wire::fulcrum::v1::Event;
use tokio_util::sync::CancellationToken;

use super::application::Applications;
use super::blackboard::Blackboard;
use super::class_watch::ClassWatches;
use super::documents::{Accepting, Documents};
use super::events::Events;
use super::executions::Executions;
use super::files::Files;
use super::hordes::Hordes;
use super::invitations::Invitations;
use super::paths::Paths;
use super::placement::Bars;
use super::registrations::Registrations;
use super::shared::Shared;
use super::trouble::Trouble;
use super::verified::Verifier;
use crate::config::RnodeConfig;
use crate::keeper::client::KeeperRef;
use crate::memoir;

/// The label of base namespaces.
pub(crate) const BASE: &str = "base";
/// The reserved configuration, and its one command.
pub(crate) const RADIX: &str = "radix";

/// Who this rnode is.
#[derive(Debug, Clone)]
pub(crate) struct Me {
    /// Its permanent name.
    pub(crate) id: RnodeId,
    /// To whom it belongs.
    pub(crate) owner: OwnerId,
    /// Its label.
    pub(crate) label: Label,
    /// Its namespace.
    pub(crate) namespace: Label,
    /// Which life of its agent this is.
    pub(crate) incarnation: u64,
    /// Its keeper.
    pub(crate) keeper_pid: i32,
    /// When this agent began.
    pub(crate) started_unix_ms: u64,
    /// Port of its services.
    pub(crate) tcp_port: u16,
    /// Port of its flock.
    pub(crate) flock_port: u16,
}

/// The agent, behind an `Arc` everywhere.
#[derive(Debug)]
pub(crate) struct Agent {
    /// The rnode's directory.
    pub(crate) dir: PathBuf,
    /// What it was started with.
    pub(crate) config: RnodeConfig,
    /// Who it is.
    pub(crate) me: Me,
    /// Its keeper.
    pub(crate) keeper: KeeperRef,
    /// What runs here.
    pub(crate) executions: Executions,
    /// Its memoir.
    pub(crate) memoir: memoir::Writer,
    /// Its blobs.
    pub(crate) store: Arc<Store>,
    /// Roots, tickets, needs and kinds of files.
    pub(crate) files: Files,
    /// Files whose content is known.
    pub(crate) verifier: Arc<Verifier>,
    /// Where pinned paths lie.
    pub(crate) paths: Paths,
    /// Signed documents.
    pub(crate) documents: Documents,
    /// What happened.
    pub(crate) events: Events,
    /// Flock and shared data.
    pub(crate) shared: Shared,
    /// Its key, enrolment and beliefs.
    pub(crate) identity: Arc<RnodeIdentity>,
    /// Its side of connections.
    pub(crate) credentials: Credentials,
    /// Held while a document is judged and kept.
    pub(crate) accepting: tokio::sync::Mutex<Accepting>,
    /// What its processes registered.
    pub(crate) registrations: Registrations,
    /// Documents with their files read.
    pub(crate) applications: Applications,
    /// Rnodes that gave up on a class.
    pub(crate) bars: Bars,
    /// What was told as weaker than asked.
    pub(crate) weaker: Mutex<BTreeSet<String>>,
    /// What the machine had when this agent began.
    pub(crate) resources: Resources,
    /// What its processes wrote on blackboards.
    pub(crate) blackboard: Blackboard,
    /// What is wrong here, for the status.
    pub(crate) trouble: Trouble,
    /// Invitations that wait to be claimed (base).
    pub(crate) invitations: Invitations,
    /// What backends hold (base).
    pub(crate) hordes: Hordes,
    /// Classes that forwarders watch (base).
    pub(crate) class_watches: ClassWatches,
    /// Ends every task.
    pub(crate) shutdown: CancellationToken,
}

impl Agent {
    /// Whether this is a base rnode.
    pub(crate) fn is_base(&self) -> bool {
        self.me.namespace == BASE
    }

    /// The rnode's id as it stands in shared data.
    pub(crate) fn id(&self) -> String {
        self.me.id.to_string()
    }

    /// Digest of the radix that we run, in hex.
    pub(crate) fn own_digest(&self) -> String {
        self.config.executable.digest.to_string()
    }

    /// The radix that we run, as a pinned file.
    pub(crate) fn own_pin(&self) -> Pin {
        Pin {
            path: self.config.executable.path.display().to_string(),
            digest: self.own_digest(),
            executable: true,
            ..Pin::default()
        }
    }

    /// Whether a file can be had here at once: from the store, or because it is what we run.
    pub(crate) fn has_file(&self, digest: &Digest) -> bool {
        *digest == self.config.executable.digest || self.store.has(digest)
    }

    /// The mark that every process of this rnode carries in its environment.
    pub(crate) fn mark(&self) -> String {
        format!(
            "{}/{}@{}",
            self.me.namespace,
            self.me.label,
            self.me.owner.short()
        )
    }

    /// The configuration whose commands may run here: the application's, or `radix` on a base.
    pub(crate) fn configuration(&self) -> Option<String> {
        if self.is_base() {
            return Some(RADIX.to_owned());
        }
        let newest = self.documents.acting(self.me.namespace.as_str())?;
        Some(newest.document.application.clone())
    }

    /// Tells operators of something; kept for resume tokens.
    pub(crate) fn tell(&self, kind: &str, subject: &str, text: &str) {
        self.tell_of(self.me.namespace.as_str(), kind, subject, text);
    }

    /// As [`Agent::tell`], about another namespace.
    pub(crate) fn tell_of(&self, namespace: &str, kind: &str, subject: &str, text: &str) {
        self.events.push(Event {
            unix_ms: unix_ms(),
            kind: kind.to_owned(),
            subject: subject.to_owned(),
            text: text.to_owned(),
            namespace: namespace.to_owned(),
            rnode: self.id(),
            ..Event::default()
        });
    }

    /// Writes a record that must be durable before its effect.
    ///
    /// # Errors
    /// When the memoir cannot be written; the effect must not happen then.
    pub(crate) async fn record(
        &self,
        kind: &str,
        fields: memoir::Fields,
    ) -> Result<(), memoir::MemoirError> {
        self.memoir.record_synced(kind, fields).await.map(|_| ())
    }

    /// Writes a record of something that has happened.
    pub(crate) async fn note(&self, kind: &str, fields: memoir::Fields) {
        if let Err(error) = self.memoir.record(kind, fields).await {
            tracing::error!(%error, kind, "the memoir cannot be written");
        }
    }
}

/// The wall clock in Unix milliseconds, for records.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Spawns a task that ends by itself; a panic in it is logged.
pub(crate) fn background(name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
    drop(crux_net::task::spawn(
        name,
        crux_net::task::Policy::DRAIN,
        future,
    ));
}

/// Spawns a task without which the agent is of no use: a panic in it ends the process, and the keeper starts another.
pub(crate) fn essential(name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
    drop(crux_net::task::spawn(
        name,
        crux_net::task::Policy::ESSENTIAL,
        future,
    ));
}

/// Fields of a memoir record.
macro_rules! fields {
    ($($name:literal: $value:expr),* $(,)?) => {{
        let mut fields = $crate::memoir::Fields::new();
        $(fields.insert($name.to_owned(), serde_json::Value::from($value));)*
        fields
    }};
}
pub(crate) use fields;
