//! Blackboard entries of this rnode's processes, kept over the agent's death: processes write them once.
//!
//! They live as long as the rnode does. A power cut may take the last half second, so nothing is synced.

use std::path::PathBuf;
use std::sync::Arc;

use crux_net::durable;
use crux_wire::fulcrum::v1::EntriesReply;
use prost::Message;
use tokio::sync::Notify;

use super::context::Agent;
use super::limits::{BLACKBOARD_ENTRIES_MAX, BLACKBOARD_SAVE};

/// Where in shared data blackboards lie.
pub(crate) const PREFIX: &str = "bb/";

/// Says when what is kept is no longer what is published.
#[derive(Debug, Default)]
pub(crate) struct Blackboard {
    dirty: Notify,
}

impl Blackboard {
    /// Takes note of a change.
    pub(crate) fn changed(&self) {
        self.dirty.notify_one();
    }
}

/// Publishes what an earlier agent kept; what cannot be read is left out.
pub(crate) fn restore(agent: &Agent) {
    let kept = durable::read(&path(agent)).ok().flatten();
    let kept = kept.and_then(|bytes| EntriesReply::decode(bytes.as_slice()).ok());
    let entries = kept
        .unwrap_or_default()
        .entries
        .into_iter()
        .take(BLACKBOARD_ENTRIES_MAX);
    for entry in entries.filter(|entry| entry.key.starts_with(PREFIX)) {
        agent.shared.publish_if_changed(&entry.key, &entry.value);
    }
}

/// Writes changes down, some together, until the agent ends.
pub(crate) async fn run(agent: Arc<Agent>) {
    loop {
        tokio::select! {
            () = agent.blackboard.dirty.notified() => {}
            () = agent.shutdown.cancelled() => return,
        }
        tokio::time::sleep(BLACKBOARD_SAVE).await;
        let own = agent.id();
        let mut entries = agent.shared.entries(PREFIX);
        entries.retain(|entry| entry.owner == own);
        let bytes = EntriesReply { entries }.encode_to_vec();
        if let Err(error) = durable::replace_unsynced(&path(&agent), &bytes) {
            tracing::error!(%error, "the blackboard cannot be kept");
        }
    }
}

fn path(agent: &Agent) -> PathBuf {
    agent.dir.join("agent").join("blackboard")
}
