//! What this backend asks of the base rnode, small enough that a table in memory can stand in for it.

use std::collections::BTreeSet;
use std::fmt::Debug;

use async_trait::async_trait;
use crux_wire::document::v1::Document;
use crux_wire::fulcrum::v1::{Event, HordeState};
use futures_util::stream::BoxStream;
use underverse::{Error, Strength};

use crate::config::HostPort;
use crate::label::Label;

/// A base rnode: it starts our commands detached, keeps them through its own death, and lists them.
#[async_trait]
pub trait Base: Send + Sync + Debug {
    /// What can be run over this base, with strength.
    fn abilities(&self) -> Abilities;

    /// Who the base is.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn describe(&self) -> Result<BaseView, Error>;

    /// Starts `radix` with `args`, detached. A repeat under the same execution name starts nothing.
    ///
    /// # Errors
    /// Effect `Unknown` where the answer was lost; the same call may be repeated.
    async fn start(&self, start: Start) -> Result<(), Error>;

    /// The executions of ours, of all namespaces or of one: running, and finished as long as the base keeps them.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn list(&self, of: Option<&str>) -> Result<Vec<ExecutionView>, Error>;

    /// Returns when one of `executions` has ended, or when that cannot be watched any more.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    async fn until_ended(&self, executions: &[String]);

    /// Sends a signal; one to what has ended succeeds.
    ///
    /// # Errors
    /// `Unavailable`, `NotFound`.
    async fn signal(&self, execution: &str, signal: EndSignal) -> Result<(), Error>;

    /// Lets go of what is kept of the ended executions of a namespace that is dissolved.
    ///
    /// # Errors
    /// `Io`, `Unavailable`; a repeat goes on.
    async fn forget(&self, namespace: &str) -> Result<(), Error>;

    /// A named invitation for one nested rnode.
    ///
    /// # Errors
    /// `Denied` if the base has no grant for the namespace.
    async fn invite(&self, namespace: &str, label: &str) -> Result<String, Error>;

    /// Labels of the rnodes of a namespace whose identity no longer counts, as far as the base knows.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn denied(&self, _namespace: &str) -> Result<BTreeSet<String>, Error> {
        Ok(BTreeSet::new())
    }

    /// Every document that the base holds, then each change.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn documents(&self) -> Result<BoxStream<'static, Result<Document, Error>>, Error>;

    /// Tells the base how a horde is and what happened to it.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn report(&self, state: HordeState, events: Vec<Event>) -> Result<(), Error>;
}

/// What can be run over a base, with strength.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abilities {
    /// Rnodes.
    pub fulcrums: Strength,
    /// Any other command.
    pub commands: Strength,
    /// Doors to the ready instances of a class.
    pub class_doors: Strength,
}

/// Who the base is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseView {
    /// Hex of the owner's id.
    pub owner: String,
    /// Where its services are; `None` while unknown.
    pub address: Option<HostPort>,
}

/// A start asked of the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Names the execution; also its label.
    pub label: Label,
    /// Words after `radix`.
    pub args: Vec<String>,
    /// Variables added to the environment.
    pub env: Vec<(String, String)>,
}

/// An execution as the base lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutionView {
    /// Its name.
    pub id: String,
    /// Its label, decoded.
    pub label: Label,
    /// Its process.
    pub pid: i32,
    /// Wall clock of its start.
    pub started_unix_ms: u64,
    /// Whether it can still reach the base's agent; false once the keeper that started it is gone.
    pub linked: bool,
    /// How it ended; `None` while it runs.
    pub ended: Option<Ended>,
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// For people: "exited with code 1".
    pub how: String,
    /// Wall clock of its end.
    pub unix_ms: u64,
}

/// How an execution is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndSignal {
    /// SIGTERM to its first process.
    Ask,
    /// SIGKILL to its process group.
    Force,
}
