//! What must be here, as the operator stated it; durable before it is answered.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crux_core::digest::Digest;
use crux_wire::fileio::v1::NeedState;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::agent::durable;
use crate::agent::limits::NEEDS_MAX;

/// One need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Need {
    /// The blob, in hex.
    pub(crate) digest: String,
    /// What people call it.
    pub(crate) name: String,
    /// Whether it is to be executable.
    pub(crate) executable: bool,
}

impl Need {
    /// The id of a need: the same need stated twice is one.
    pub(crate) fn id(&self) -> String {
        Digest::of(format!("need {} {}", self.digest, self.name).as_bytes()).short()
    }
}

/// How a need stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) met: bool,
    pub(crate) reason: String,
    pub(crate) source: String,
}

/// All needs of this rnode.
#[derive(Debug)]
pub(crate) struct Needs {
    path: PathBuf,
    held: Mutex<Table>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Table {
    needs: BTreeMap<String, Need>,
    standings: BTreeMap<String, Standing>,
}

impl Needs {
    pub(crate) fn open(agent_dir: &Path) -> io::Result<Self> {
        let path = agent_dir.join("needs.json");
        let needs = match durable::read(&path)? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other)?,
            None => BTreeMap::new(),
        };
        Ok(Self {
            path,
            held: Mutex::new(Table {
                needs,
                standings: BTreeMap::new(),
            }),
            changed: watch::Sender::new(0),
        })
    }

    /// Takes a need; durable when it returns its id.
    ///
    /// # Errors
    /// When there are too many, or it cannot be written; nothing was taken.
    pub(crate) fn state(&self, need: Need) -> io::Result<String> {
        let id = need.id();
        let mut held = self.lock();
        let mut needs = held.needs.clone();
        needs.insert(id.clone(), need);
        if needs.len() > NEEDS_MAX {
            return Err(io::Error::other(format!("there are {NEEDS_MAX} already")));
        }
        self.write(&needs)?;
        held.needs = needs;
        drop(held);
        self.changed.send_modify(|count| *count += 1);
        Ok(id)
    }

    /// Drops a need; its blob stays. Says whether there was one.
    ///
    /// # Errors
    /// When it cannot be written; it stands then.
    pub(crate) fn drop_need(&self, id: &str) -> io::Result<bool> {
        let mut held = self.lock();
        let mut needs = held.needs.clone();
        if needs.remove(id).is_none() {
            return Ok(false);
        }
        self.write(&needs)?;
        held.needs = needs;
        held.standings.remove(id);
        Ok(true)
    }

    pub(crate) fn all(&self) -> BTreeMap<String, Need> {
        self.lock().needs.clone()
    }

    /// Whether some need is for this blob, in hex.
    pub(crate) fn covers(&self, digest: &str) -> bool {
        self.lock().needs.values().any(|need| need.digest == digest)
    }

    /// Notes how a need stands; returns how it stood.
    pub(crate) fn stands(&self, id: &str, standing: Standing) -> Option<Standing> {
        self.lock().standings.insert(id.to_owned(), standing)
    }

    pub(crate) fn standing(&self, id: &str) -> Option<Standing> {
        self.lock().standings.get(id).cloned()
    }

    /// All needs for people and programs, by id.
    pub(crate) fn states(&self) -> Vec<NeedState> {
        let held = self.lock();
        let state = |(id, need): (&String, &Need)| {
            let standing = held.standings.get(id).cloned().unwrap_or_default();
            NeedState {
                id: id.clone(),
                digest: need.digest.clone(),
                name: need.name.clone(),
                met: standing.met,
                reason: standing.reason,
                source: standing.source,
            }
        };
        held.needs.iter().map(state).collect()
    }

    /// Wakes when a need is stated.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Looks after all needs now.
    pub(crate) fn wake(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn write(&self, needs: &BTreeMap<String, Need>) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(needs).map_err(io::Error::other)?;
        durable::replace(&self.path, &text)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        // Whole values are put in only.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
