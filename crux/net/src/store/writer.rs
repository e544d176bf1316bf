//! One blob on its way into the store.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crux_core::digest::DigestHasher;
use nix::fcntl::{AT_FDCWD, AtFlags};

use super::{Error, Info, Put, Store};
use crate::boundary::{Kind, cross_file};

/// Tells apart the temporary files of one process.
static SERIAL: AtomicU64 = AtomicU64::new(0);
/// Names tried for a temporary file before giving up; a collision needs a recycled pid.
const NAME_TRIES_MAX: usize = 64;

/// A blob being written. Dropped before [`Writer::commit`], it leaves nothing behind.
#[derive(Debug)]
pub struct Writer<S: Deref<Target = Store> + Clone> {
    store: S,
    put: Put,
    file: File,
    /// Its name in `tmp`, where the file system has no nameless files.
    name: Option<PathBuf>,
    hasher: DigestHasher,
    size: u64,
}

impl<S: Deref<Target = Store> + Clone> Writer<S> {
    pub(super) fn start(store: S, put: Put) -> Result<Self, Error> {
        let temporary = store.dir.join("tmp");
        let (file, name) = match nameless(&temporary) {
            Ok(file) => (file, None),
            Err(_) => {
                let (file, name) = named(&temporary)
                    .map_err(|source| Error::io("write into", &temporary, source))?;
                (file, Some(name))
            }
        };
        Ok(Self {
            store,
            put,
            file,
            name,
            hasher: DigestHasher::new(),
            size: 0,
        })
    }

    /// Appends the next piece.
    ///
    /// # Errors
    /// [`super::Kind::TooLarge`], [`super::Kind::Full`], [`super::Kind::Io`]; the writer is of no
    /// further use.
    pub fn append(&mut self, piece: &[u8]) -> Result<(), Error> {
        let limit = self.store.limits.blob_bytes_max;
        self.size = self.size.saturating_add(piece.len() as u64);
        if self.size > limit {
            return Err(Error::too_large(limit));
        }
        self.hasher.update(piece);
        self.file
            .write_all(piece)
            .map_err(|source| self.failed(source))
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Syncs the blob and gives it its name; what is there already is kept.
    ///
    /// # Errors
    /// [`super::Kind::Mismatch`] against the expected digest, [`super::Kind::Full`],
    /// [`super::Kind::Io`]; nothing is left behind.
    pub fn commit(mut self) -> Result<Info, Error> {
        let digest = self.hasher.finish();
        if let Some(expected) = self.put.expected.filter(|expected| *expected != digest) {
            return Err(Error::mismatch(expected, digest));
        }
        if let Some(info) = self.store.held(&digest, self.put) {
            return Ok(info);
        }
        let store = self.store.clone();
        let claim = store.claim(self.size)?;
        let mode = if self.put.executable { 0o555 } else { 0o444 };
        self.file
            .set_permissions(fs::Permissions::from_mode(mode))
            .and_then(|()| self.file.sync_all())
            .map_err(|source| self.failed(source))?;
        let path = self.store.path(&digest);
        self.link(&path)
            .map_err(|source| Error::io("write", &path, source))?;
        claim.named();
        // Another writer may have been first, and without our execute bit.
        let executable = self.put.executable;
        if executable && !self.store.info(&digest).is_some_and(|info| info.executable) {
            self.store
                .make_executable(&digest)
                .map_err(|source| Error::io("mark as executable", &path, source))?;
        }
        Ok(Info {
            digest,
            size: self.size,
            executable,
        })
    }

    /// Moves the synced file to its final name and syncs the directories on the way.
    fn link(&mut self, path: &Path) -> io::Result<()> {
        cross_file(Kind::Write, path);
        let shard = make_shard(&self.store.dir, path)?;
        cross_file(Kind::Rename, path);
        match self.name.take() {
            Some(name) => {
                // Renaming over a blob of the same name replaces it by the same bytes.
                if let Err(error) = fs::rename(&name, path) {
                    self.name = Some(name);
                    return Err(error);
                }
            }
            None => self.link_nameless(path)?,
        }
        sync_dir(shard)
    }

    fn link_nameless(&self, path: &Path) -> io::Result<()> {
        let from = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let follow = AtFlags::AT_SYMLINK_FOLLOW;
        match nix::unistd::linkat(AT_FDCWD, from.as_str(), AT_FDCWD, path, follow) {
            // A writer of the same bytes was first; `held` has refused anything else that was there.
            Ok(()) | Err(nix::Error::EEXIST) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::io("write into", &self.store.dir, source)
    }
}

impl<S: Deref<Target = Store> + Clone> Write for Writer<S> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.append(piece).map_err(io::Error::other)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Deref<Target = Store> + Clone> Drop for Writer<S> {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            // Best effort: what stays is swept when the store is next opened.
            let _ = fs::remove_file(name);
        }
    }
}

/// The folder of a blob, made and synced if needed.
pub(super) fn make_shard<'a>(dir: &'a Path, path: &'a Path) -> io::Result<&'a Path> {
    let shard = path.parent().unwrap_or(dir);
    match fs::DirBuilder::new().mode(0o700).create(shard) {
        Ok(()) => sync_dir(dir)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    Ok(shard)
}

/// A file without a name. Refused where it could not be named later for want of `/proc`.
fn nameless(dir: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_TMPFILE)
        .open(dir)?;
    fs::symlink_metadata(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    Ok(file)
}

/// A file under a fresh name, locked while its writer lives.
pub(super) fn named(dir: &Path) -> io::Result<(File, PathBuf)> {
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    for _ in 0..NAME_TRIES_MAX {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("{}-{serial}", std::process::id()));
        match OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
        {
            Ok(file) => {
                file.lock()?;
                return Ok((file, path));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Removes a temporary file whose writer is gone.
pub(super) fn remove_unless_locked(path: &Path) {
    let Ok(file) = File::open(path) else { return };
    if file.try_lock().is_ok() {
        let _ = fs::remove_file(path);
    }
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
