//! Services that processes of this rnode have registered; kept over the agent's death.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crux_net::durable;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::limits::REGISTRATIONS_MAX;

/// One registered service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registration {
    /// Its name.
    pub(crate) name: String,
    /// Its port on the rnode's address.
    pub(crate) port: u16,
    /// Version of what answers.
    pub(crate) version: String,
    /// Whether it speaks mutual TLS with a leaf of ours.
    pub(crate) tls: bool,
}

type ByExecution = BTreeMap<String, BTreeMap<String, Registration>>;

/// The registrations of this rnode, by execution and service name.
#[derive(Debug)]
pub(crate) struct Registrations {
    path: PathBuf,
    held: Mutex<ByExecution>,
    changed: watch::Sender<u64>,
}

impl Registrations {
    /// Opens `registrations.json` in `agent_dir`; an unreadable one counts as empty, processes register anew.
    pub(crate) fn open(agent_dir: &Path) -> Self {
        let path = agent_dir.join("registrations.json");
        let held = durable::read(&path).ok().flatten();
        let held = held
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let (changed, _) = watch::channel(0);
        Self {
            path,
            held: Mutex::new(held),
            changed,
        }
    }

    /// Wakes at each change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// All registrations of one execution.
    pub(crate) fn of(&self, execution: &str) -> Vec<Registration> {
        let held = self.lock();
        held.get(execution)
            .map(|of| of.values().cloned().collect())
            .unwrap_or_default()
    }

    /// Adds or replaces a registration; it is on disk when this returns.
    ///
    /// # Errors
    /// When there are too many, or it cannot be written; nothing changed then.
    pub(crate) fn put(&self, execution: &str, registration: Registration) -> io::Result<()> {
        self.change(|held| {
            let of = held.entry(execution.to_owned()).or_default();
            of.insert(registration.name.clone(), registration);
            of.len() <= REGISTRATIONS_MAX
        })
    }

    /// Removes a registration, if it is there.
    ///
    /// # Errors
    /// When it cannot be written; nothing changed then.
    pub(crate) fn remove(&self, execution: &str, name: &str) -> io::Result<()> {
        self.change(|held| {
            if let Some(of) = held.get_mut(execution) {
                of.remove(name);
            }
            true
        })
    }

    /// Drops what executions registered that no longer run.
    ///
    /// # Errors
    /// When it cannot be written; nothing changed then.
    pub(crate) fn retain(&self, runs: impl Fn(&str) -> bool) -> io::Result<()> {
        self.change(|held| {
            held.retain(|execution, _| runs(execution));
            true
        })
    }

    fn change(&self, change: impl FnOnce(&mut ByExecution) -> bool) -> io::Result<()> {
        {
            let mut held = self.lock();
            let mut next = held.clone();
            if !change(&mut next) {
                return Err(io::Error::other("too many services are registered"));
            }
            if next == *held {
                return Ok(());
            }
            durable::replace_unsynced(
                &self.path,
                &serde_json::to_vec(&next).map_err(io::Error::other)?,
            )?;
            *held = next;
        }
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ByExecution> {
        // Replaced as a whole, so never half changed.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
