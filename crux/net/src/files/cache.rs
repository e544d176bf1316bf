//! Digests of files that were hashed, remembered while the files stay untouched.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crux_core::digest::{GroupHasher, Groups};

use crate::store::StatKey;

/// Files remembered; past it all are forgotten and hashed again.
const REMEMBERED_MAX: usize = 1 << 18;
/// Seals remembered, 32 bytes each; past it all are forgotten.
const SEALS_MAX: usize = 1 << 20;
/// A file changed this recently is not remembered: a second change could bear the same time.
const SETTLED_AFTER: Duration = Duration::from_millis(50);
/// Unless its content is older than its status by this much: a second change would show in the time of its
/// content. 10 ms: the coarsest tick by which a kernel stamps files.
const TICK: Duration = Duration::from_millis(10);
/// Bytes read at once.
const PIECE_BYTES: usize = 256 * 1024;

/// Digests by device, inode, size and times.
#[derive(Debug, Default)]
pub struct HashCache {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    files: HashMap<(u64, u64), (StatKey, Arc<Groups>)>,
    seals: usize,
}

impl HashCache {
    /// Forgets everything: device numbers may come to mean other file systems now.
    pub fn forget(&self) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Known::default();
    }

    /// What is remembered of an untouched file.
    pub(crate) fn find(&self, key: &StatKey) -> Option<Arc<Groups>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (remembered, groups) = known.files.get(&(key.dev, key.ino))?;
        (remembered == key).then(|| Arc::clone(groups))
    }

    /// Digest and seals of an open file, hashed from its beginning unless they are remembered.
    ///
    /// # Errors
    /// What the file says.
    pub fn hash(&self, file: &mut File) -> io::Result<(StatKey, Arc<Groups>)> {
        let key = StatKey::of(&file.metadata()?);
        if let Some(groups) = self.find(&key) {
            return Ok((key, groups));
        }
        io::Seek::rewind(file)?;
        let mut hasher = GroupHasher::new();
        let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(key.size).unwrap_or(0) + 1)];
        loop {
            match file.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => hasher.update(&piece[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let groups = Arc::new(hasher.finish());
        // A file that changed while it was read is hashed again next time.
        if StatKey::of(&file.metadata()?) == key {
            self.remember(key, &groups);
        }
        Ok((key, groups))
    }

    /// Remembers what a file is known to hold.
    pub(crate) fn remember(&self, key: StatKey, groups: &Arc<Groups>) {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let after = |ns: i128, pause: Duration| {
            ns.saturating_add(i128::try_from(pause.as_nanos()).unwrap_or(i128::MAX))
        };
        let now = i128::try_from(now.as_nanos()).unwrap_or(i128::MAX);
        if after(key.ctime_ns, SETTLED_AFTER) > now && after(key.mtime_ns, TICK) > key.ctime_ns {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.files.len() >= REMEMBERED_MAX || known.seals >= SEALS_MAX {
            *known = Known::default();
        }
        known.seals += groups.seals().len();
        known
            .files
            .insert((key.dev, key.ino), (key, Arc::clone(groups)));
    }
}
