//! What must be here, as the operator stated it; durable before it is answered.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crux_core::digest::Digest;
use crux_net::durable;
use crux_wire::fileio::v1::NeedState;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::service::Service;
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
    /// Where it stands too, below a declared root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// Where it is had from.
    #[serde(default)]
    pub(crate) service: Service,
}

impl Need {
    /// The id of a need: the same need stated twice is one.
    pub(crate) fn id(&self) -> String {
        let mut text = format!("need {} {}", self.digest, self.name);
        if let Some(path) = &self.path {
            text.push_str(" at ");
            text.push_str(path);
        }
        Digest::of(text.as_bytes()).short()
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
        let path = need.path.as_ref();
        let taken = |(other, there): (&String, &Need)| *other != id && there.path.as_ref() == path;
        if path.is_some() && held.needs.iter().any(taken) {
            return Err(io::Error::other("another need has that path"));
        }
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

    /// Drops a need; its blob stays. Returns what it was.
    ///
    /// # Errors
    /// When it cannot be written; it stands then.
    pub(crate) fn drop_need(&self, id: &str) -> io::Result<Option<Need>> {
        let mut held = self.lock();
        let mut needs = held.needs.clone();
        let Some(dropped) = needs.remove(id) else {
            return Ok(None);
        };
        self.write(&needs)?;
        held.needs = needs;
        held.standings.remove(id);
        Ok(Some(dropped))
    }

    /// Has a need served by another service. Returns the one before; `None` if there is no such need.
    ///
    /// # Errors
    /// When it cannot be written; nothing was switched.
    pub(crate) fn switch(&self, id: &str, service: Service) -> io::Result<Option<Service>> {
        let mut held = self.lock();
        let mut needs = held.needs.clone();
        let Some(need) = needs.get_mut(id) else {
            return Ok(None);
        };
        let before = std::mem::replace(&mut need.service, service);
        self.write(&needs)?;
        held.needs = needs;
        drop(held);
        self.wake();
        Ok(Some(before))
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
                path: need.path.clone().unwrap_or_default(),
                service: need.service.to_string(),
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
