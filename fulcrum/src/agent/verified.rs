//! Files opened and known to have a digest: nothing else is ever run.
//!
//! The content is hashed on the opened descriptor, so what was checked is what runs, whatever happens to the path.
//! A hash is remembered while device, inode, size, mtime and ctime stay the same.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crux_core::digest::Digest;
use crux_net::store::{StatKey, hash};

use super::limits::VERIFIED_KEPT;

/// Why a file is not what was pinned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not there.
    #[error("find {0}")]
    Missing(String),
    /// Its content is something else.
    #[error("verify {path}: its digest is {found}, pinned is {wanted}")]
    Differs {
        /// The file.
        path: String,
        /// What it has.
        found: String,
        /// What it should have.
        wanted: String,
    },
    /// It cannot be read.
    #[error("read {0}")]
    Io(String, #[source] io::Error),
}

/// Remembers which files were hashed.
#[derive(Debug, Default)]
pub struct Verifier {
    known: Mutex<HashMap<(u64, u64), (StatKey, Digest)>>,
}

impl Verifier {
    /// Forgets everything: device numbers may come to mean other file systems now.
    pub(crate) fn forget(&self) {
        self.lock().clear();
    }

    /// Opens the regular file at `path` if its content has the digest. May hash: call it off the runtime.
    ///
    /// # Errors
    /// It is missing, is something else, or cannot be read.
    pub fn open(&self, path: &Path, wanted: &Digest) -> Result<File, Error> {
        let name = || path.display().to_string();
        let mut file = match OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(path)
        {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Missing(name()));
            }
            Err(error) => return Err(Error::Io(name(), error)),
        };
        let found = self
            .digest(&mut file)
            .map_err(|error| Error::Io(name(), error))?;
        if found == *wanted {
            return Ok(file);
        }
        Err(Error::Differs {
            path: name(),
            found: found.short(),
            wanted: wanted.short(),
        })
    }

    fn digest(&self, file: &mut File) -> io::Result<Digest> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not a regular file",
            ));
        }
        let key = StatKey::of(&metadata);
        if let Some((known, digest)) = self.lock().get(&(key.dev, key.ino))
            && *known == key
        {
            return Ok(*digest);
        }
        let digest = hash(file)?;
        io::Seek::rewind(file)?;
        // A file that changed while it was read is hashed again next time.
        if StatKey::of(&file.metadata()?) == key {
            let mut known = self.lock();
            if known.len() >= VERIFIED_KEPT {
                known.clear();
            }
            known.insert((key.dev, key.ino), (key, digest));
        }
        Ok(digest)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(u64, u64), (StatKey, Digest)>> {
        // Only ever whole entries are in it.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
