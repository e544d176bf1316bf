//! Data sets that are mounted: recorded before, taken out after, so that whoever dies leaves nothing half done.

mod attach;
mod image;
mod keep;
mod members;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crux_net::durable;
use serde::{Deserialize, Serialize};

pub(crate) use keep::{keep, note_corrupt, show, take_away};
pub(crate) use members::{infos, summary};

/// Where a set comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Origin {
    /// An image of the store, by digest in hex.
    Blob(String),
    /// An image or a folder of a declared root.
    Path(String),
}

/// One set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) origin: Origin,
    pub(crate) writable: bool,
    /// Whether we made the folder it is mounted at.
    pub(crate) made: bool,
    /// Whether it is being taken away.
    #[serde(default)]
    pub(crate) ending: bool,
}

/// All sets, by the path they are mounted at.
#[derive(Debug)]
pub(crate) struct Mounted {
    file: PathBuf,
    records: Mutex<BTreeMap<String, Record>>,
    /// Why a set is not there, by path.
    reasons: Mutex<BTreeMap<String, String>>,
    /// Held while something is mounted or unmounted.
    working: Arc<tokio::sync::Mutex<()>>,
}

impl Mounted {
    pub(crate) fn open(agent_dir: &Path) -> io::Result<Self> {
        let file = agent_dir.join("mounted.json");
        let records = match durable::read(&file)? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other)?,
            None => BTreeMap::new(),
        };
        Ok(Self {
            file,
            records: Mutex::new(records),
            reasons: Mutex::default(),
            working: Arc::default(),
        })
    }

    /// All of them, by path.
    pub(crate) fn all(&self) -> BTreeMap<String, Record> {
        lock(&self.records).clone()
    }

    /// Whether a blob, in hex, is mounted somewhere.
    pub(crate) fn covers(&self, digest: &str) -> bool {
        let origin = Origin::Blob(digest.to_owned());
        lock(&self.records)
            .values()
            .any(|record| record.origin == origin)
    }

    /// The set that a path lies in, and what is left of the path.
    pub(crate) fn holding<'p>(&self, path: &'p str) -> Option<(String, &'p str)> {
        let records = lock(&self.records);
        records.keys().find_map(|set| {
            let rest = path.strip_prefix(set.as_str())?.strip_prefix('/')?;
            Some((set.clone(), rest))
        })
    }

    fn find(&self, path: &str) -> Option<Record> {
        lock(&self.records).get(path).cloned()
    }

    /// A set that lies above, at or below a path, other than exactly there.
    fn crossing(&self, path: &str) -> Option<String> {
        let (own, records) = (Path::new(path), lock(&self.records));
        let mut paths = records.keys().filter(|other| *other != path);
        paths
            .find(|other| Path::new(other).starts_with(own) || own.starts_with(other))
            .cloned()
    }

    /// Keeps or forgets what is at a path; durable when it returns.
    fn set(&self, path: &str, record: Option<Record>) -> io::Result<()> {
        let mut records = lock(&self.records);
        let mut changed = records.clone();
        match record {
            Some(record) => changed.insert(path.to_owned(), record),
            None => changed.remove(path),
        };
        let text = serde_json::to_vec_pretty(&changed).map_err(io::Error::other)?;
        durable::replace(&self.file, &text)?;
        *records = changed;
        Ok(())
    }

    /// Notes why a set is not there, or that it is; says whether that is news.
    fn stands(&self, path: &str, reason: Option<&str>) -> bool {
        let mut reasons = lock(&self.reasons);
        let before = match reason {
            Some(reason) => reasons.insert(path.to_owned(), reason.to_owned()),
            None => reasons.remove(path),
        };
        before.as_deref() != reason
    }

    fn reason(&self, path: &str) -> Option<String> {
        lock(&self.reasons).get(path).cloned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Whole values are put in only.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
