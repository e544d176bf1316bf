//! What an administrator said of this machine's servers: `servers.json` in the state directory.
//!
//! Every change has a number that only grows. A horde keeps the number up to which it was told, so that a kill at any
//! moment leaves none out, and an event carries its change's number, so that none is told under two ids.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use underverse::{EventKind, ServerChange};

use crate::durable;
use crate::layout::Home;

/// Most changes that are kept of all servers; a horde that was asleep for more is not told of the oldest.
const CHANGES_MAX: usize = 1024;

/// All that was said of servers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Servers {
    /// Number of the last change.
    pub(crate) serial: u64,
    /// By name; what nothing was said of is not there.
    servers: BTreeMap<String, Said>,
    /// By number, oldest first.
    changes: Vec<Numbered>,
}

/// What was said of one server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Said {
    pub(crate) tagging: Tagging,
    standing: Standing,
}

/// Tags given to a server and taken from it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tagging {
    pub(crate) add: BTreeSet<String>,
    pub(crate) remove: BTreeSet<String>,
}

/// How a server stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Standing {
    #[default]
    Up,
    /// New containers go elsewhere if they can.
    Degraded,
    /// New containers go elsewhere, those on it are moved as their owner says.
    Maintained,
    /// Nothing is on it.
    Gone,
}

/// A change with its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Numbered {
    pub(crate) serial: u64,
    pub(crate) server: String,
    pub(crate) change: Change,
}

/// A change as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Change {
    Reboot,
    Degrade { reason: String },
    Withdraw,
    Maintain { from_unix_ms: u64 },
    Restore,
}

impl From<ServerChange> for Change {
    fn from(change: ServerChange) -> Self {
        match change {
            ServerChange::Reboot => Self::Reboot,
            ServerChange::Degrade(reason) => Self::Degrade { reason },
            ServerChange::Withdraw => Self::Withdraw,
            ServerChange::Maintain { from_unix_ms } => Self::Maintain { from_unix_ms },
            ServerChange::Restore => Self::Restore,
        }
    }
}

impl Change {
    /// The event that tells it to a horde whose containers `affected` were on the server.
    pub(crate) fn event(&self, affected: Vec<String>) -> EventKind {
        match self {
            Self::Reboot => EventKind::ServerRebooted { affected },
            Self::Degrade { reason } => EventKind::ServerDegraded {
                reason: reason.clone(),
                affected,
            },
            Self::Withdraw => EventKind::ServerGone { affected },
            Self::Maintain { from_unix_ms } => EventKind::MaintenancePlanned {
                from_unix_ms: *from_unix_ms,
                affected,
            },
            Self::Restore => EventKind::ServerRestored,
        }
    }
}

impl Servers {
    pub(crate) fn read(home: &Home) -> io::Result<Self> {
        Ok(durable::read_json(&home.servers())?.unwrap_or_default())
    }

    pub(crate) fn standing(&self, server: &str) -> Standing {
        let said = self.servers.get(server);
        said.map_or(Standing::Up, |said| said.standing.clone())
    }

    pub(crate) fn tagging(&self, server: &str) -> Tagging {
        let said = self.servers.get(server);
        said.map(|said| said.tagging.clone()).unwrap_or_default()
    }

    /// The changes after number `told`.
    pub(crate) fn after(&self, told: u64) -> impl Iterator<Item = &Numbered> {
        self.changes
            .iter()
            .filter(move |change| change.serial > told)
    }

    /// Adds and removes tags; what is added is no longer removed, and the other way round.
    pub(crate) fn tag(&mut self, server: &str, add: &[String], remove: &[String]) {
        let tagging = &mut self.servers.entry(server.to_owned()).or_default().tagging;
        for tag in add {
            tagging.remove.remove(tag);
            tagging.add.insert(tag.clone());
        }
        for tag in remove {
            tagging.add.remove(tag);
            tagging.remove.insert(tag.clone());
        }
    }

    pub(crate) fn change(&mut self, server: &str, change: Change) {
        let said = self.servers.entry(server.to_owned()).or_default();
        match change {
            Change::Reboot => {}
            Change::Degrade { .. } => said.standing = Standing::Degraded,
            Change::Withdraw => said.standing = Standing::Gone,
            Change::Maintain { .. } => said.standing = Standing::Maintained,
            Change::Restore => said.standing = Standing::Up,
        }
        self.serial += 1;
        self.changes.push(Numbered {
            serial: self.serial,
            server: server.to_owned(),
            change,
        });
        let surplus = self.changes.len().saturating_sub(CHANGES_MAX);
        self.changes.drain(..surplus);
    }
}

impl Tagging {
    /// The same with the tags that the machine is found to have, but for those that were taken.
    pub(crate) fn and(mut self, found: &BTreeSet<String>) -> Self {
        self.add.extend(found.difference(&self.remove).cloned());
        self
    }

    /// `tags` with what was given and without what was taken.
    pub(crate) fn apply(&self, tags: impl IntoIterator<Item = String>) -> BTreeSet<String> {
        let all = tags.into_iter().chain(self.add.iter().cloned());
        all.filter(|tag| !self.remove.contains(tag)).collect()
    }
}

/// Reads, changes and writes what was said; one process at a time.
pub(crate) fn change(home: &Home, change: impl FnOnce(&mut Servers)) -> io::Result<()> {
    durable::create_dir(home.path())?;
    let mut options = fs::OpenOptions::new();
    let options = options.create(true).truncate(false).write(true);
    let lock = options.open(home.path().join("servers.lock"))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
    let mut servers = Servers::read(home)?;
    change(&mut servers);
    durable::write_json(&home.servers(), &servers)
}
