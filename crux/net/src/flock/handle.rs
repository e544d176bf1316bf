//! The cheap end of a flock: publish, look, wait for changes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crux_core::ken::{DOCUMENT_BYTES_MAX, Document, DocumentId, KEY_BYTES_MAX, OWNER_ENTRIES_MAX, VALUE_BYTES_MAX};
use crux_core::names::RnodeId;
use tokio::sync::{mpsc, oneshot, watch};

use super::view::{FlockView, SharedEntry};

/// Why something was not published. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The key is empty, too long or reserved.
    #[error("publish an entry: its key must have 1 to {KEY_BYTES_MAX} bytes and not begin with flock/")]
    Key,
    /// The value is too long.
    #[error("publish an entry: its value may have {VALUE_BYTES_MAX} bytes at most")]
    Value,
    /// This rnode has published too many.
    #[error("publish an entry: a rnode may have {OWNER_ENTRIES_MAX} at most")]
    TooMany,
    /// The document is too long.
    #[error("spread a document: it may have {DOCUMENT_BYTES_MAX} bytes at most")]
    Document,
    /// The flock takes nothing more at the moment, or has ended.
    #[error("publish an entry: the flock takes nothing now")]
    Busy,
}

pub(crate) enum Command {
    Publish { key: String, value: Vec<u8> },
    Withdraw { key: String },
    PutDocument { id: DocumentId, bytes: Arc<[u8]> },
    Hint(SocketAddr),
    SetVote(u32),
    Quit(oneshot::Sender<()>),
}

impl std::fmt::Debug for Command {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Publish { .. } => "Publish",
            Self::Withdraw { .. } => "Withdraw",
            Self::PutDocument { .. } => "PutDocument",
            Self::Hint(_) => "Hint",
            Self::SetVote(_) => "SetVote",
            Self::Quit(_) => "Quit",
        })
    }
}

/// Entries by key, then owner.
pub(crate) type Entries = BTreeMap<(String, RnodeId), SharedEntry>;

/// What actor and handles share.
#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) entries: RwLock<Entries>,
    pub(crate) own: Mutex<BTreeMap<String, Vec<u8>>>,
    pub(crate) view: watch::Sender<Arc<FlockView>>,
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) document: watch::Sender<Option<Document>>,
}

/// This rnode's handle on its flock. Dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct Ref {
    pub(crate) own: RnodeId,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) board: Arc<Board>,
}

impl Ref {
    /// This rnode's permanent name.
    #[must_use]
    pub const fn id(&self) -> RnodeId {
        self.own
    }

    /// Says `value` about `key`; it reaches everyone within the convergence window and goes when this rnode goes.
    ///
    /// # Errors
    /// [`PublishError`].
    pub fn publish(&self, key: &str, value: Vec<u8>) -> Result<(), PublishError> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX || key.starts_with("flock/") {
            return Err(PublishError::Key);
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(PublishError::Value);
        }
        let mut own = self.own_entries();
        if !own.contains_key(key) && own.len() >= OWNER_ENTRIES_MAX {
            return Err(PublishError::TooMany);
        }
        let command = Command::Publish { key: key.to_owned(), value: value.clone() };
        self.commands.try_send(command).map_err(|_| PublishError::Busy)?;
        own.insert(key.to_owned(), value);
        Ok(())
    }

    /// Takes `key` back; false when it was not there.
    pub fn withdraw(&self, key: &str) -> bool {
        let mut own = self.own_entries();
        if !own.contains_key(key) {
            return false;
        }
        let sent = self.commands.try_send(Command::Withdraw { key: key.to_owned() }).is_ok();
        if sent {
            own.remove(key);
        }
        sent
    }

    /// What this rnode has published below `prefix`, sorted by key.
    #[must_use]
    pub fn own(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        let own = self.own_entries();
        let below = own.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        below.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Everyone's entries below `prefix`, sorted by key, then owner.
    #[must_use]
    pub fn entries(&self, prefix: &str) -> Vec<SharedEntry> {
        let entries = self.board.entries.read().unwrap_or_else(PoisonError::into_inner);
        let first = (prefix.to_owned(), RnodeId::from_bytes([0; 32]));
        let below = entries.range(first..).take_while(|((key, _), _)| key.starts_with(prefix));
        below.map(|(_, entry)| entry.clone()).collect()
    }

    /// The flock as it is now, and a way to wait for the next change of members or leader.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<FlockView>> {
        self.board.view.subscribe()
    }

    /// Counts changes of entries, members, leader and document.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.board.changes.subscribe()
    }

    /// The newest document of the namespace, and a way to wait for a newer one.
    #[must_use]
    pub fn document(&self) -> watch::Receiver<Option<Document>> {
        self.board.document.subscribe()
    }

    /// Gives the flock a document to spread; the machine judges it before it is taken.
    ///
    /// # Errors
    /// [`PublishError::Document`] and [`PublishError::Busy`].
    pub fn put_document(&self, generation: u64, bytes: Vec<u8>) -> Result<(), PublishError> {
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(PublishError::Document);
        }
        let digest = crux_core::digest::Digest::of(&bytes);
        let command =
            Command::PutDocument { id: DocumentId { generation, digest }, bytes: bytes.into() };
        self.commands.try_send(command).map_err(|_| PublishError::Busy)
    }

    /// A rnode is probably to be found at `address`; it may be wrong.
    pub async fn hint(&self, address: SocketAddr) {
        let _ = self.commands.send(Command::Hint(address)).await;
    }

    /// Sets this rnode's vote; lower it to give up the lead.
    pub async fn set_vote(&self, vote: u32) {
        let _ = self.commands.send(Command::SetVote(vote)).await;
    }

    /// Leaves for good, and returns once the others have been told.
    pub async fn quit(&self) {
        let (done, told) = oneshot::channel();
        if self.commands.send(Command::Quit(done)).await.is_ok() {
            let _ = told.await;
        }
    }

    fn own_entries(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.board.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
