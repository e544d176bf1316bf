//! Flock and shared data as the agent uses them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use crux_wire::fulcrum::v1::{FlockReply, Member, SharedEntry};
use prost::Message;
use tokio::sync::watch;

use super::context::Agent;
use super::limits::ENTRY_BYTES_MAX;
use super::placement::standing;
use super::status::{ALIVE, host_port};

/// This rnode's side of its flock.
#[derive(Debug)]
pub(crate) struct Shared {
    own: String,
    incarnation: u64,
    entries: Mutex<BTreeMap<String, (u64, Vec<u8>)>>,
    changed: watch::Sender<u64>,
}

impl Shared {
    /// A flock of one, for a rnode without a network.
    pub(crate) fn alone(own: String, incarnation: u64) -> Self {
        let (changed, _) = watch::channel(0);
        Self {
            own,
            incarnation,
            entries: Mutex::default(),
            changed,
        }
    }

    /// Wakes at each change of entries or members.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Publishes an entry of ours.
    ///
    /// # Errors
    /// For people, when it is too large or there are too many.
    pub(crate) fn publish(&self, key: &str, value: Vec<u8>) -> Result<(), String> {
        if value.len() > ENTRY_BYTES_MAX {
            return Err(format!("the value has more than {ENTRY_BYTES_MAX} bytes"));
        }
        {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = entries.entry(key.to_owned()).or_default();
            *entry = (entry.0 + 1, value);
        }
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Publishes an entry unless it is there with this value, and says whether it did; a refusal is logged.
    pub(crate) fn publish_if_changed(&self, key: &str, value: Vec<u8>) -> bool {
        let same = {
            let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.get(key).is_some_and(|(_, known)| *known == value)
        };
        if same {
            return false;
        }
        let published = self.publish(key, value);
        if let Err(error) = &published {
            tracing::error!(error, key, "an entry was not published");
        }
        published.is_ok()
    }

    /// Withdraws an entry of ours, if it is there.
    pub(crate) fn withdraw(&self, key: &str) {
        let gone = {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.remove(key).is_some()
        };
        if gone {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// Keys of our own entries below a prefix.
    pub(crate) fn own_keys(&self, prefix: &str) -> BTreeSet<String> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries
            .keys()
            .filter(|key| key.starts_with(prefix))
            .cloned()
            .collect()
    }

    /// Everyone's entries below a prefix.
    pub(crate) fn entries(&self, prefix: &str) -> Vec<SharedEntry> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, (sequence, value))| SharedEntry {
                owner: self.own.clone(),
                key: key.clone(),
                value: value.clone(),
                generation: self.incarnation,
                sequence: *sequence,
            })
            .collect()
    }

    /// Everyone's entries below a prefix that can be read as `M`, with their owners.
    pub(crate) fn messages<M: Message + Default>(&self, prefix: &str) -> Vec<(String, M)> {
        let entries = self.entries(prefix).into_iter();
        entries
            .filter_map(|entry| Some((entry.owner, M::decode(entry.value.as_slice()).ok()?)))
            .collect()
    }

    /// Ids of the members that take part, ourselves among them.
    pub(crate) fn alive(&self) -> BTreeSet<String> {
        BTreeSet::from([self.own.clone()])
    }

    /// Whether there is nobody whose records could still arrive.
    pub(crate) fn settled(&self) -> bool {
        true
    }

    /// The document that the flock spreads, as signed bytes.
    pub(crate) fn document(&self) -> Option<Vec<u8>> {
        None
    }

    /// Gives the flock a document to spread.
    pub(crate) fn put_document(&self, _generation: u64, _bytes: Vec<u8>) {}

    /// Members that may hold instances, and whether they may be given more.
    pub(crate) fn members(&self) -> Vec<(String, khan::Standing)> {
        vec![(self.own.clone(), standing(true))]
    }

    /// Our term if we lead.
    pub(crate) fn leads(&self) -> Option<u64> {
        Some(self.incarnation)
    }

    /// The flock, for status.
    pub(crate) fn flock(&self, agent: &Agent) -> FlockReply {
        FlockReply {
            namespace: agent.me.namespace.to_string(),
            leader: self.own.clone(),
            leader_label: agent.me.label.to_string(),
            term: self.incarnation,
            grade: "acting".to_owned(),
            members: vec![Member {
                id: self.own.clone(),
                label: agent.me.label.to_string(),
                state: ALIVE.to_owned(),
                incarnation: self.incarnation,
                address: host_port(&agent.config.host.to_string(), agent.me.flock_port.into()),
                silent_ms: 0,
            }],
            ..FlockReply::default()
        }
    }

    /// Takes a hint of where members may be.
    #[expect(clippy::unused_async, reason = "a flock of more than one waits here")]
    pub(crate) async fn hint(&self, _hint: SocketAddr) {}

    /// Says good-bye.
    #[expect(clippy::unused_async, reason = "a flock of more than one waits here")]
    pub(crate) async fn leave(&self) {}
}
