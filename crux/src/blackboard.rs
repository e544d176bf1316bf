//! The application's blackboard: small converging entries that all its processes can read.

use std::time::Duration;

use crux_net::error::Error;
use crux_wire::process::v1::{Item, PutRequest};
use crux_wire::status::Kind;

use crate::agent::Agent;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 256;
/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 4_096;
/// Shortest time between two looks of a watch.
const POLL_MIN: Duration = Duration::from_millis(20);

/// An entry as some process wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its bytes.
    pub value: Vec<u8>,
    /// Who wrote it: `namespace/application/class/index`.
    pub writer: String,
}

/// The blackboard of this process's application. Quality: converging.
///
/// Every rnode comes to agree on each key; the newest entry of a writer wins, and entries go when their rnode does.
#[derive(Debug, Clone)]
pub struct Blackboard(Agent);

impl Blackboard {
    /// The blackboard as `agent` shows it.
    #[must_use]
    pub fn new(agent: &Agent) -> Self {
        Self(agent.clone())
    }

    /// Writes an entry; it replaces what stood under `key`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when key or value is too long; [`Kind::Unavailable`] when no agent answers in time.
    ///
    /// # Cancel safety
    /// Dropping it leaves open whether it was written; writing it again is right.
    pub async fn put(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        check(key)?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(Error::new(Kind::Invalid, "put a blackboard entry")
                .because("its value is longer than 4096 bytes"));
        }
        self.0
            .put(PutRequest {
                key: key.to_owned(),
                value: value.to_vec(),
                remove: false,
            })
            .await
    }

    /// Removes the entry under `key`, if there is one.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    ///
    /// # Cancel safety
    /// As [`put`](Self::put).
    pub async fn remove(&self, key: &str) -> Result<(), Error> {
        check(key)?;
        self.0
            .put(PutRequest {
                key: key.to_owned(),
                value: Vec::new(),
                remove: true,
            })
            .await
    }

    /// Reads the entry under `key`; `None`: there is none, as far as this rnode knows.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] when no agent answers in time.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        check(key)?;
        let reply = self.0.get(key).await?;
        Ok(reply.found.then(|| Entry {
            key: key.to_owned(),
            value: reply.value,
            writer: reply.writer,
        }))
    }

    /// Reads all entries whose keys begin with `prefix`, ascending by key.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] when no agent answers in time.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Entry>, Error> {
        let mut items = self.0.list(prefix).await?;
        items.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(items
            .into_iter()
            .map(
                |Item {
                     key, value, writer, ..
                 }| Entry { key, value, writer },
            )
            .collect())
    }

    /// Watches all entries whose keys begin with `prefix`, by looking every `interval` (at least 20 ms).
    #[must_use]
    pub fn watch(&self, prefix: &str, interval: Duration) -> BlackboardWatch {
        BlackboardWatch {
            board: self.clone(),
            prefix: prefix.to_owned(),
            interval: interval.max(POLL_MIN),
            seen: None,
        }
    }
}

/// Entries as they change.
#[derive(Debug)]
pub struct BlackboardWatch {
    board: Blackboard,
    prefix: String,
    interval: Duration,
    seen: Option<Vec<Entry>>,
}

impl BlackboardWatch {
    /// All entries: at the first call those that stand now, then again once they differ.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] when no agent answers in time; asking again goes on.
    ///
    /// # Cancel safety
    /// No difference is lost.
    pub async fn next(&mut self) -> Result<Vec<Entry>, Error> {
        loop {
            if self.seen.is_some() {
                tokio::time::sleep(self.interval).await;
            }
            let found = self.board.list(&self.prefix).await?;
            if self.seen.as_ref() != Some(&found) {
                self.seen = Some(found.clone());
                return Ok(found);
            }
        }
    }
}

fn check(key: &str) -> Result<(), Error> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(Error::new(Kind::Invalid, "name a blackboard entry")
            .because("its key must have 1 to 256 bytes"));
    }
    Ok(())
}
