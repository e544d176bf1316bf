//! What a reconciler is told and what it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crux_core::digest::Digest;

/// Names an instance of the namespace's application.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    /// Its class.
    pub class: String,
    /// Its index, from 0.
    pub index: u32,
}

impl std::fmt::Display for InstanceId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.class, self.index)
    }
}

/// An instance this rnode is assigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What it runs: changes when it must be replaced.
    pub spec: Digest,
    /// Why it must not start yet: an `after` condition, or a missing file.
    pub held: Option<String>,
    /// Why a running one with another spec must not be replaced yet.
    pub replacement_held: Option<String>,
    /// What follows its end.
    pub restart: Restart,
}

/// What follows the end of an instance's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Restart {
    /// It is started again.
    #[default]
    Always,
    /// It is started again unless it ended well.
    OnFailure,
    /// It stays ended.
    Never,
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// With exit code 0.
    pub well: bool,
    /// For people.
    pub text: String,
}

/// An execution of an instance, as the keeper tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    /// Its id.
    pub execution: String,
    /// Which instance it runs.
    pub instance: InstanceId,
    /// What it runs.
    pub spec: Digest,
    /// Its process id.
    pub pid: i32,
    /// When it began, in Unix milliseconds; orders executions of one instance.
    pub started_unix_ms: u64,
    /// How it ended; `None` while it runs.
    pub ended: Option<Ended>,
}

/// All that a step looks at.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// What is assigned; `None` while that is unknown: nothing is started or stopped then.
    pub wanted: Option<BTreeMap<InstanceId, Wanted>>,
    /// Every execution of an instance, finished ones among them.
    pub executions: Vec<Execution>,
    /// Executions that have shown that they are ready.
    pub ready: BTreeSet<String>,
    /// Wall clock, in Unix milliseconds, for records only.
    pub unix_ms: u64,
}

/// The state of an instance, as published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Files or a condition are missing.
    Waiting,
    /// Started, not yet ready.
    Starting,
    /// Ready.
    Ready,
    /// Waits before it is started again.
    Backoff,
    /// Failed too often.
    GaveUp,
    /// Told to end.
    Stopping,
    /// Ended, and its restart policy leaves it so.
    Stopped,
}

/// What is published about an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its state.
    pub state: State,
    /// The execution that runs it; empty if none.
    pub execution: String,
    /// That execution's process id; 0 if none.
    pub pid: i32,
    /// What runs, or would.
    pub spec: Digest,
    /// How often it was started again.
    pub restarts: u32,
    /// Why it is in this state.
    pub reason: String,
    /// Since when, in Unix milliseconds.
    pub since_unix_ms: u64,
    /// Whether it was ever ready.
    pub was_ready: bool,
}

/// What the driver must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start an execution; answer with `Reconciler::started` or `Reconciler::start_failed`.
    Start {
        /// Of this instance.
        instance: InstanceId,
    },
    /// Ask an execution to end.
    Terminate {
        /// Which.
        execution: String,
    },
    /// End an execution that did not listen.
    Kill {
        /// Which.
        execution: String,
    },
    /// Drop a finished execution's record and output.
    Forget {
        /// Which.
        execution: String,
    },
    /// Publish an instance's record.
    Publish {
        /// Of this instance.
        instance: InstanceId,
        /// Its record.
        report: Report,
    },
    /// Withdraw an instance's record.
    Withdraw {
        /// Of this instance.
        instance: InstanceId,
    },
    /// Tell operators.
    Note {
        /// About this instance.
        instance: InstanceId,
        /// What happened.
        note: Note,
        /// Details.
        text: String,
    },
}

/// What operators are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// It became ready.
    Ready,
    /// Its process ended by itself.
    Exited,
    /// It failed too often.
    GaveUp,
}

/// What one step decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// In order.
    pub actions: Vec<Action>,
    /// When the next step is due at the latest, on the caller's clock.
    pub wake: Option<Duration>,
}
