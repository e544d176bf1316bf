//! Where the server keeps its keys: the application's blackboard, with one rule for who wins.
//!
//! The blackboard keeps one entry a key *and rnode*, and of several it shows only one, so each rnode
//! writes under a key of its own, `kv/KEY\nRNODE`, and readers merge: the write with the highest
//! stamp wins, then the higher rnode. A stamp is one more than the highest its writer could see
//! (Lamport's clock), so a write that has seen another replaces it, and all readers agree once they
//! have heard the same entries, in whatever order.
//!
//! An entry is `1` (written) or `0` (removed), the stamp (8 bytes, big-endian), the value. A removal
//! that others' entries must hear of stays as an entry; one that concerns only our own is none.

use async_trait::async_trait;
use crux::Blackboard;
use crux_net::error::Error;

/// What keys begin with on the blackboard, so that they meet no other entries of the application.
const PREFIX: &str = "kv/";
/// Between a key and its writer; no key holds it.
const SEPARATOR: char = '\n';
/// Longest label of a rnode, in bytes.
const RNODE_BYTES_MAX: usize = 63;
/// Mark and stamp.
const HEAD_BYTES: usize = 9;

/// Longest key, in bytes.
pub(super) const KEY_BYTES_MAX: usize =
    crux::KEY_BYTES_MAX - PREFIX.len() - SEPARATOR.len_utf8() - RNODE_BYTES_MAX;
/// Longest value, in bytes.
pub(super) const VALUE_BYTES_MAX: usize = crux::VALUE_BYTES_MAX - HEAD_BYTES;

/// Entries that all rnodes come to agree on, each owned by the rnode that wrote it.
#[async_trait]
pub(super) trait Board: Send + Sync {
    /// Writes this rnode's entry under `key`.
    async fn put(&self, key: &str, value: &[u8]) -> Result<(), Error>;
    /// Removes this rnode's entry under `key`; none there is no error.
    async fn remove(&self, key: &str) -> Result<(), Error>;
    /// Every entry whose key begins with `prefix`, as far as this rnode knows.
    async fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, Error>;
}

#[async_trait]
impl Board for Blackboard {
    async fn put(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        Self::put(self, key, value).await
    }

    async fn remove(&self, key: &str) -> Result<(), Error> {
        Self::remove(self, key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let entries = Self::list(self, prefix).await?;
        Ok(entries
            .into_iter()
            .map(|entry| (entry.key, entry.value))
            .collect())
    }
}

/// Keys and values over a [`Board`].
pub(super) struct Keys {
    board: Box<dyn Board>,
    rnode: String,
    /// Two writes of one key through one server would see the same highest stamp.
    writing: tokio::sync::Mutex<()>,
}

/// One rnode's word on a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Word {
    key: String,
    stamp: u64,
    rnode: String,
    /// `None`: removed.
    value: Option<Vec<u8>>,
}

impl Keys {
    /// The keys on `board`, written as `rnode`.
    pub(super) fn new(board: Box<dyn Board>, rnode: String) -> Self {
        Self {
            board,
            rnode,
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// The rnode that it writes as.
    pub(super) fn rnode(&self) -> &str {
        &self.rnode
    }

    /// The value under `key`.
    pub(super) async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let words = self.words(&format!("{key}{SEPARATOR}")).await?;
        Ok(words.into_iter().max().and_then(|word| word.value))
    }

    /// Every key that begins with `prefix`, ascending, with its value.
    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let mut words = self.words(prefix).await?;
        // The highest word of a key comes first, and the others of it go.
        words.sort_by(|one, other| (&one.key, other).cmp(&(&other.key, one)));
        words.dedup_by(|later, first| later.key == first.key);
        Ok(words
            .into_iter()
            .filter_map(|word| Some((word.key, word.value?)))
            .collect())
    }

    /// Writes `value` under `key`.
    pub(super) async fn put(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        let _alone = self.writing.lock().await;
        let words = self.words(&format!("{key}{SEPARATOR}")).await?;
        self.write(key, next(&words), Some(value)).await
    }

    /// Removes what stands under `key`.
    pub(super) async fn remove(&self, key: &str) -> Result<(), Error> {
        let _alone = self.writing.lock().await;
        let words = self.words(&format!("{key}{SEPARATOR}")).await?;
        if words.iter().all(|word| word.rnode == self.rnode) {
            return self.board.remove(&self.own(key)).await;
        }
        if words.iter().max().is_some_and(|word| word.value.is_none()) {
            return Ok(());
        }
        self.write(key, next(&words), None).await
    }

    async fn write(&self, key: &str, stamp: u64, value: Option<&[u8]>) -> Result<(), Error> {
        let mut entry = vec![u8::from(value.is_some())];
        entry.extend_from_slice(&stamp.to_be_bytes());
        entry.extend_from_slice(value.unwrap_or_default());
        self.board.put(&self.own(key), &entry).await
    }

    fn own(&self, key: &str) -> String {
        format!("{PREFIX}{key}{SEPARATOR}{}", self.rnode)
    }

    /// What cannot be read was not written by one of us, and is passed over.
    async fn words(&self, prefix: &str) -> Result<Vec<Word>, Error> {
        let entries = self.board.list(&format!("{PREFIX}{prefix}")).await?;
        Ok(entries
            .iter()
            .filter_map(|(key, entry)| Word::read(key, entry))
            .collect())
    }
}

fn next(words: &[Word]) -> u64 {
    words
        .iter()
        .map(|word| word.stamp)
        .max()
        .unwrap_or(0)
        .saturating_add(1)
}

impl Word {
    fn read(key: &str, entry: &[u8]) -> Option<Self> {
        let (key, rnode) = key.strip_prefix(PREFIX)?.split_once(SEPARATOR)?;
        let (head, value) = entry.split_at_checked(HEAD_BYTES)?;
        let (mark, stamp) = head.split_first()?;
        let value = match mark {
            0 => None,
            1 => Some(value.to_vec()),
            _ => return None,
        };
        let stamp = u64::from_be_bytes(stamp.try_into().ok()?);
        Some(Self {
            key: key.to_owned(),
            stamp,
            rnode: rnode.to_owned(),
            value,
        })
    }
}
