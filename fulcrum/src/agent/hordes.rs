//! What the base's backends say of their hordes, kept so that a new agent knows it at once.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crux_net::durable;
use crux_wire::fulcrum::v1::HordeState;
use prost::Message;
use tokio::sync::watch;

use super::limits::HORDES_MAX;

/// Phase of a horde that is gone.
pub(crate) const DISSOLVED: &str = "dissolved";

/// Where a nested rnode is, and in which life: a new one may know nothing of what the last was told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NestedRnode {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its services, `host:port`.
    pub(crate) address: String,
    /// The execution of its cell.
    pub(crate) execution: String,
}

/// The hordes of this machine.
#[derive(Debug)]
pub(crate) struct Hordes {
    dir: PathBuf,
    held: Mutex<BTreeMap<String, HordeState>>,
    changed: watch::Sender<u64>,
}

impl Hordes {
    /// Opens `hordes` in `agent_dir`.
    ///
    /// # Errors
    /// When the directory cannot be made or listed.
    pub(crate) fn open(agent_dir: &Path) -> io::Result<Self> {
        let dir = agent_dir.join("hordes");
        std::fs::create_dir_all(&dir)?;
        let mut held = BTreeMap::new();
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            let hidden = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if let (false, Ok(bytes)) = (hidden, std::fs::read(&path))
                && let Ok(state) = HordeState::decode(bytes.as_slice())
            {
                held.insert(state.namespace.clone(), state);
            }
        }
        let (changed, _) = watch::channel(0);
        Ok(Self {
            dir,
            held: Mutex::new(held),
            changed,
        })
    }

    /// Wakes at each change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// One namespace's horde, or all if `namespace` is empty; sorted.
    pub(crate) fn list(&self, namespace: &str) -> Vec<HordeState> {
        let held = self.lock();
        held.values()
            .filter(|state| namespace.is_empty() || state.namespace == namespace)
            .cloned()
            .collect()
    }

    /// Takes a newer state and returns the one before; a lower generation is refused.
    ///
    /// # Errors
    /// When it is older, there are too many, or it cannot be written; nothing changed then.
    pub(crate) fn put(&self, state: HordeState) -> io::Result<Option<HordeState>> {
        let before = {
            let mut held = self.lock();
            let before = held.get(&state.namespace).cloned();
            if before
                .as_ref()
                .is_some_and(|before| before.generation > state.generation)
            {
                return Err(io::Error::other("a newer generation is held"));
            }
            if before.is_none() && held.len() >= HORDES_MAX {
                return Err(io::Error::other("too many hordes"));
            }
            if before.as_ref() == Some(&state) {
                return Ok(before);
            }
            durable::replace_unsynced(&self.dir.join(&state.namespace), &state.encode_to_vec())?;
            held.insert(state.namespace.clone(), state);
            before
        };
        self.changed.send_modify(|count| *count += 1);
        Ok(before)
    }

    /// Forgets a horde that is gone.
    ///
    /// # Errors
    /// When its file cannot be removed.
    pub(crate) fn forget(&self, namespace: &str) -> io::Result<()> {
        durable::remove(&self.dir.join(namespace))?;
        self.lock().remove(namespace);
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Whether `host:port` is a service address of a nested rnode in a namespace that `counts`.
    pub(crate) fn knows_address(&self, address: &str, counts: impl Fn(&str) -> bool) -> bool {
        let rnodes = self.rnodes();
        let mut there = rnodes.iter().filter(|known| known.address == address);
        there.any(|known| counts(&known.namespace))
    }

    /// Every nested rnode that has an address.
    pub(crate) fn rnodes(&self) -> Vec<NestedRnode> {
        let held = self.lock();
        held.values()
            .flat_map(|state| state.rnodes.iter().map(move |rnode| (state, rnode)))
            .filter(|(_, rnode)| !rnode.host.is_empty() && rnode.port != 0)
            .map(|(state, rnode)| NestedRnode {
                namespace: state.namespace.clone(),
                address: super::status::host_port(&rnode.host, rnode.port),
                execution: rnode.execution.clone(),
            })
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, HordeState>> {
        // Only whole states are put in.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
