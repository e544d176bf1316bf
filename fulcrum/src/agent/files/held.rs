//! What was put here by name, and whether it is to outlive the rnode.
//!
//! A restart of the rnode is a new keeper; a new agent under the same keeper is none. What is
//! ephemeral goes with the keeper, what is persistent is verified under the next.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crux_net::durable;
use serde::{Deserialize, Serialize};

use crate::agent::context::{Agent, fields};
use crate::agent::paths::digest;
use crate::keeper::process::{boot_id, start_ticks};

/// One blob that was put here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// What people call it.
    pub(crate) name: String,
    /// Whether it is to outlive the rnode.
    pub(crate) persistent: bool,
    /// Whether it was found to be something else.
    #[serde(default)]
    pub(crate) corrupt: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Table {
    /// Under which keeper this was written.
    keeper: String,
    /// By digest.
    kept: BTreeMap<String, Kept>,
}

/// All that was put here.
#[derive(Debug)]
pub(crate) struct Held {
    path: PathBuf,
    table: Mutex<Table>,
}

impl Held {
    pub(crate) fn open(agent_dir: &Path) -> io::Result<Self> {
        let path = agent_dir.join("held.json");
        let table = match durable::read(&path)? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other)?,
            None => Table::default(),
        };
        Ok(Self {
            path,
            table: Mutex::new(table),
        })
    }

    /// Notes a blob; durable when it returns. Put twice, it is persistent if either says so.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn note(&self, digest: &str, name: &str, persistent: bool) -> io::Result<()> {
        self.change(|table| {
            let before = table.kept.get(digest).is_some_and(|kept| kept.persistent);
            let kept = Kept {
                name: name.to_owned(),
                persistent: persistent || before,
                corrupt: false,
            };
            table.kept.insert(digest.to_owned(), kept);
        })
    }

    /// Forgets a blob.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn forget(&self, digest: &str) -> io::Result<()> {
        if !self.lock().kept.contains_key(digest) {
            return Ok(());
        }
        self.change(|table| {
            table.kept.remove(digest);
        })
    }

    /// All of it, by digest.
    pub(crate) fn all(&self) -> BTreeMap<String, Kept> {
        self.lock().kept.clone()
    }

    /// A blob is right again.
    pub(crate) fn restored(&self, digest: &str) {
        self.mark(digest, false);
    }

    /// A blob was found to be something else.
    pub(crate) fn corrupt(&self, digest: &str) {
        self.mark(digest, true);
    }

    fn mark(&self, digest: &str, corrupt: bool) {
        let stands = self.lock().kept.get(digest).map(|kept| kept.corrupt);
        if stands.is_none_or(|stands| stands == corrupt) {
            return;
        }
        let marked = self.change(|table| {
            if let Some(kept) = table.kept.get_mut(digest) {
                kept.corrupt = corrupt;
            }
        });
        if let Err(error) = marked {
            tracing::error!(%error, "what is held cannot be written");
        }
    }

    fn change(&self, change: impl FnOnce(&mut Table)) -> io::Result<()> {
        let mut held = self.lock();
        let mut table = held.clone();
        change(&mut table);
        let text = serde_json::to_vec_pretty(&table).map_err(io::Error::other)?;
        durable::replace(&self.path, &text)?;
        *held = table;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        // Whole values are put in only.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Under a new keeper: removes what was ephemeral, verifies what is persistent or needed.
pub(crate) async fn settle(agent: &Arc<Agent>) {
    let keeper = life(agent.me.keeper_pid);
    let held = &agent.files.held;
    let (before, kept) = {
        let table = held.lock();
        (table.keeper.clone(), table.kept.clone())
    };
    if before == keeper {
        return;
    }
    for (hex, _) in kept.iter().filter(|(_, kept)| !kept.persistent) {
        let pinned = agent.files.needs.covers(hex) || agent.files.mounted.covers(hex);
        if let (Some(digest), false) = (digest(hex), pinned)
            && let Err(error) = agent.store.remove(&digest)
        {
            tracing::error!(%error, "an ephemeral blob cannot be removed");
        }
    }
    let persistent = kept.iter().filter(|(_, kept)| kept.persistent);
    let mut check: Vec<String> = persistent.map(|(hex, _)| hex.clone()).collect();
    check.extend(
        agent
            .files
            .needs
            .all()
            .into_values()
            .map(|need| need.digest),
    );
    for hex in check {
        verify(agent, &hex).await;
    }
    let settled = held.change(|table| {
        table.keeper = keeper;
        let mounted = &agent.files.mounted;
        table
            .kept
            .retain(|hex, kept| kept.persistent || mounted.covers(hex));
    });
    if let Err(error) = settled {
        tracing::error!(%error, "what is held cannot be written");
    }
}

/// Hashes a blob; one that is something else is marked, told, and no longer there to be offered.
pub(crate) async fn verify(agent: &Arc<Agent>, hex: &str) {
    let Some(digest) = digest(hex).filter(|digest| agent.store.has(digest)) else {
        return;
    };
    let store = Arc::clone(&agent.store);
    let opened = tokio::task::spawn_blocking(move || store.open_verified(&digest)).await;
    if let Ok(Err(error)) = opened
        && error.kind() == crux_net::store::Kind::Corrupt
    {
        found_corrupt(agent, hex, &error.to_string()).await;
    }
}

/// Tells of a blob that was found to be something else.
pub(crate) async fn found_corrupt(agent: &Arc<Agent>, hex: &str, text: &str) {
    agent.files.held.corrupt(hex);
    agent.tell("file.corrupt", hex, text);
    let record = fields! { "digest": hex, "reason": text };
    if let Err(error) = agent.record("file.corrupt", record).await {
        tracing::error!(%error, "a corrupt blob cannot be written down");
    }
    // A need for it fetches it anew.
    agent.files.needs.wake();
}

/// Names one life of a keeper for ever.
fn life(keeper_pid: i32) -> String {
    let boot = boot_id().unwrap_or_default();
    let ticks = start_ticks(keeper_pid).unwrap_or_default();
    format!("{boot} {keeper_pid} {ticks}")
}
