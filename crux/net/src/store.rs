//! Blobs on disk, named by what they contain.
//!
//! One directory holds every file that Radix ships, runs or builds, under the BLAKE3 digest of its
//! bytes: `DIR/ab/abcdef…` (64 hex digits, sharded by the first two), mode 0444, or 0555 where it
//! was stored as an executable. Several processes may use one directory at once.
//!
//! A blob is never seen partial under its final name: it is written nameless (`O_TMPFILE`, or a
//! name in `DIR/tmp` where the file system has none), synced, and only then linked.
//! Not for deciding what to keep: nothing here is removed but what [`Store::remove`] is told, and
//! what is found to be corrupt. Read [`stream`] next for how blobs travel.
//!
//! Synchronous, and no runtime is needed; in async code wrap long calls in `spawn_blocking`.

mod arrival;
pub mod data;
mod direct;
mod error;
mod partial;
mod room;
pub mod stream;
mod writer;

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crux_core::digest::{Digest, DigestHasher};

pub use arrival::Arrival;
pub use error::{Error, Kind};
pub use partial::{Partial, TakeError};
pub use writer::Writer;

/// Size of the pieces in which blobs are read and hashed: large enough for BLAKE3's wide kernels.
const PIECE_BYTES: usize = 256 * 1024;
/// Verified blobs remembered by one [`Store`]; past it all are forgotten and checked again.
const VERIFIED_MAX: usize = 16_384;
/// Age after which a temporary file that nobody has locked is taken for a dead writer's.
const ABANDONED_AFTER_SECONDS: u64 = 3600;

/// What one store accepts.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest blob, in bytes. 16 GiB: an image of a machine, not a disk.
    pub blob_bytes_max: u64,
    /// Quota of all blobs together, in bytes; `None`: what the disk has.
    pub total_bytes_max: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            blob_bytes_max: 16 << 30,
            total_bytes_max: None,
        }
    }
}

/// How a blob is to be stored.
#[derive(Debug, Clone, Copy, Default)]
pub struct Put {
    /// The digest it must have; anything else is refused and leaves nothing behind.
    pub expected: Option<Digest>,
    /// Whether it may be executed (mode 0555).
    pub executable: bool,
}

/// One stored blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// What it is named by.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Whether it has been stored as an executable at least once.
    pub executable: bool,
}

/// What tells that a file has not been touched. Compared for equality only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatKey {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Time of last modification, in nanoseconds since 1970.
    pub mtime_ns: i128,
    /// Time of last change of status, in nanoseconds since 1970.
    pub ctime_ns: i128,
}

impl StatKey {
    /// Reads the key off a file's metadata.
    #[must_use]
    pub fn of(metadata: &fs::Metadata) -> Self {
        let ns = |seconds: i64, nanoseconds: i64| {
            i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
        };
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.size(),
            mtime_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A directory of blobs.
///
/// ```
/// # fn main() -> Result<(), crux_net::store::Error> {
/// # let dir = std::env::temp_dir().join(format!("radix-doc-store-{}", std::process::id()));
/// let store = crux_net::store::Store::open(&dir)?;
/// let blob = store.put_bytes(b"abc")?;
/// let (_file, size) = store.open_verified(&blob.digest)?;
/// assert_eq!(size, 3);
/// # let _ = std::fs::remove_dir_all(&dir);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    limits: Limits,
    verified: Mutex<HashMap<Digest, StatKey>>,
    /// Bytes of all blobs, counted when a quota first asks; `None`: to be counted anew.
    used: Mutex<room::Used>,
}

impl Store {
    /// Opens the store in `dir`, making the directory (0700) and its parents if needed.
    ///
    /// # Errors
    /// [`Kind::Denied`], [`Kind::Full`] or [`Kind::Io`]; nothing is left half made.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::open_with(dir, Limits::default())
    }

    /// As [`Store::open`], with other limits.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(dir: impl Into<PathBuf>, limits: Limits) -> Result<Self, Error> {
        let dir = dir.into();
        let temporary = dir.join("tmp");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&temporary)
            .map_err(|source| Error::io("make the store's directory", &temporary, source))?;
        let store = Self {
            dir,
            limits,
            verified: Mutex::default(),
            used: Mutex::default(),
        };
        store.sweep(&temporary);
        Ok(store)
    }

    /// The directory it lies in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The limits it was opened with.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Where the blob lies, whether or not it is there. To be read or executed, never written.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.dir.join(&name[..2]).join(name)
    }

    /// Whether a blob of this name is there; its bytes are not checked.
    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        self.info(digest).is_some()
    }

    /// Size and executability of a blob, `None` if it is not there; its bytes are not checked.
    #[must_use]
    pub fn info(&self, digest: &Digest) -> Option<Info> {
        let metadata = fs::symlink_metadata(self.path(digest)).ok()?;
        metadata.is_file().then(|| info(*digest, &metadata))
    }

    /// Stores `bytes` as data.
    ///
    /// # Errors
    /// [`Kind::TooLarge`], [`Kind::Full`], [`Kind::Denied`], [`Kind::Io`]; nothing is left behind.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Info, Error> {
        self.put_reader(&mut &*bytes, Put::default())
    }

    /// Stores a copy of the regular file at `path`, executable if any of its execute bits is set.
    ///
    /// What is stored is what was read: the digest is of the copy, even if the file changes.
    ///
    /// # Errors
    /// [`Kind::NotRegular`] for anything but a file (or a link to one), else as [`Store::put_bytes`].
    pub fn put_file(&self, path: &Path) -> Result<Info, Error> {
        let mut file = open_regular(path)?;
        let metadata = file
            .metadata()
            .map_err(|source| Error::io("inspect", path, source))?;
        let executable = metadata.permissions().mode() & 0o111 != 0;
        self.put_reader(
            &mut file,
            Put {
                expected: None,
                executable,
            },
        )
    }

    /// Stores what `reader` gives until its end.
    ///
    /// # Errors
    /// [`Kind::Mismatch`] if it is not what `put.expected` says, else as [`Store::put_bytes`].
    pub fn put_reader(&self, reader: &mut dyn Read, put: Put) -> Result<Info, Error> {
        if let Some(info) = put.expected.and_then(|digest| self.held(&digest, put)) {
            return Ok(info);
        }
        let mut writer = self.writer(put)?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match reader.read(&mut piece) {
                Ok(0) => return writer.commit(),
                Ok(length) => writer.append(&piece[..length])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(Error::io("read what is to be stored", &self.dir, source));
                }
            }
        }
    }

    /// Starts a blob whose pieces arrive one by one; it exists once [`Writer::commit`] says so.
    ///
    /// # Errors
    /// [`Kind::Full`], [`Kind::Denied`], [`Kind::Io`].
    pub fn writer(&self, put: Put) -> Result<Writer<&Self>, Error> {
        Writer::start(self, put)
    }

    /// The same, of a blob that may be written by one thread after another.
    ///
    /// # Errors
    /// As [`Store::writer`].
    pub fn shared_writer(self: &Arc<Self>, put: Put) -> Result<Writer<Arc<Self>>, Error> {
        Writer::start(Arc::clone(self), put)
    }

    /// Opens a blob after checking that its bytes are what its name says; also tells its size.
    ///
    /// The check is remembered while the file's [`StatKey`] stays the same.
    ///
    /// # Errors
    /// [`Kind::NotFound`]; [`Kind::Corrupt`], after which the blob is gone and may be stored again;
    /// [`Kind::Denied`], [`Kind::Io`].
    pub fn open_verified(&self, digest: &Digest) -> Result<(File, u64), Error> {
        let path = self.path(digest);
        let mut file = match open_regular(&path) {
            Err(error) if error.kind() == Kind::NotFound => return Err(Error::not_found(*digest)),
            other => other?,
        };
        let metadata = file
            .metadata()
            .map_err(|source| Error::io("inspect", &path, source))?;
        let key = StatKey::of(&metadata);
        if self.remembered(digest) == Some(key) {
            return Ok((file, key.size));
        }
        let found = hash(&mut file).map_err(|source| Error::io("read", &path, source))?;
        if found != *digest {
            self.remove(digest)?;
            return Err(Error::corrupt(*digest, found));
        }
        rewind(&mut file).map_err(|source| Error::io("read", &path, source))?;
        self.remember(*digest, key);
        Ok((file, key.size))
    }

    /// Removes a blob whose bytes were found to hash to `found`, and says so.
    #[must_use]
    pub fn discard(&self, digest: Digest, found: Digest) -> Error {
        match self.remove(&digest) {
            Ok(_) => Error::corrupt(digest, found),
            Err(error) => error,
        }
    }

    /// Every blob, ordered by digest. Files that have no blob's name are passed over.
    ///
    /// # Errors
    /// [`Kind::Denied`], [`Kind::Io`].
    pub fn list(&self) -> Result<impl Iterator<Item = Info> + use<>, Error> {
        let mut blobs = Vec::new();
        for shard in names(&self.dir)? {
            if shard.len() != 2 {
                continue;
            }
            for name in names(&self.dir.join(&shard))? {
                let digest: Option<Digest> = name.parse().ok().filter(|_| name.starts_with(&shard));
                blobs.extend(digest.and_then(|digest| self.info(&digest)));
            }
        }
        blobs.sort_by_key(|blob| blob.digest);
        Ok(blobs.into_iter())
    }

    /// Removes a blob; one that is not there is no error. Says whether it was.
    ///
    /// # Errors
    /// [`Kind::Denied`], [`Kind::Io`].
    pub fn remove(&self, digest: &Digest) -> Result<bool, Error> {
        lock(&self.verified).remove(digest);
        let path = self.path(digest);
        let removed = fs::remove_file(&path);
        self.recount();
        match removed {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(Error::io("remove", &path, source)),
        }
    }

    /// Writes `digests`, in the order given, as one [`stream`]. Returns the number of bytes in them.
    ///
    /// # Errors
    /// As [`Store::open_verified`], and [`Kind::Io`] when the writer fails.
    pub fn export(&self, digests: &[Digest], writer: &mut dyn Write) -> Result<u64, Error> {
        let mut stream = stream::Writer::start(writer)?;
        let mut bytes = 0;
        for digest in digests {
            bytes += stream.blob(self, digest)?;
        }
        stream.finish()?;
        Ok(bytes)
    }

    /// Stores every blob of a [`stream`], each checked against its digest; named parts are passed
    /// over. Returns the blobs in the stream's order.
    ///
    /// # Errors
    /// [`Kind::Format`] for a stream that is damaged or cut short, [`Kind::Mismatch`] for a blob
    /// that is not what it says; blobs before it stay. Else as [`Store::put_bytes`].
    pub fn import(&self, reader: &mut dyn Read) -> Result<Vec<Info>, Error> {
        let mut stream = stream::Reader::start(reader)?;
        let mut blobs = Vec::new();
        while let Some(part) = stream.next_part(self)? {
            if let stream::Part::Blob(info) = part {
                blobs.push(info);
            }
        }
        Ok(blobs)
    }

    /// The blob that makes writing it again needless, checked and made executable if asked for.
    fn held(&self, digest: &Digest, put: Put) -> Option<Info> {
        self.open_verified(digest).ok()?;
        let mut info = self.info(digest)?;
        if put.executable && !info.executable {
            self.make_executable(digest).ok()?;
            info.executable = true;
        }
        Some(info)
    }

    /// Executability only ever grows: the bytes may be wanted both ways, and data that could be
    /// executed harms nobody.
    fn make_executable(&self, digest: &Digest) -> io::Result<()> {
        let path = self.path(digest);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o555))?;
        let known = lock(&self.verified).contains_key(digest);
        if known {
            self.remember(*digest, StatKey::of(&fs::symlink_metadata(&path)?));
        }
        Ok(())
    }

    fn remembered(&self, digest: &Digest) -> Option<StatKey> {
        lock(&self.verified).get(digest).copied()
    }

    fn remember(&self, digest: Digest, key: StatKey) {
        let mut verified = lock(&self.verified);
        if verified.len() >= VERIFIED_MAX {
            verified.clear();
        }
        verified.insert(digest, key);
    }

    /// Removes what dead writers left where the file system has no nameless files.
    fn sweep(&self, temporary: &Path) {
        let Ok(entries) = fs::read_dir(temporary) else {
            return;
        };
        for entry in entries.filter_map(Result::ok) {
            let old = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .ok()
                .and_then(|modified| SystemTime::now().duration_since(modified).ok())
                .is_some_and(|age| age.as_secs() > ABANDONED_AFTER_SECONDS);
            if old {
                writer::remove_unless_locked(&entry.path());
            }
        }
    }
}

fn info(digest: Digest, metadata: &fs::Metadata) -> Info {
    let executable = metadata.permissions().mode() & 0o111 != 0;
    Info {
        digest,
        size: metadata.len(),
        executable,
    }
}

/// Opens a regular file for reading; never waits on a pipe that stands in its place.
pub(crate) fn open_regular(path: &Path) -> Result<File, Error> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)
        .map_err(|source| Error::io("open", path, source))?;
    let metadata = file
        .metadata()
        .map_err(|source| Error::io("inspect", path, source))?;
    if metadata.is_file() {
        Ok(file)
    } else {
        Err(Error::not_regular(path))
    }
}

/// Hashes the rest of `reader`.
///
/// # Errors
/// Whatever the reader fails with.
pub fn hash(reader: &mut dyn Read) -> io::Result<Digest> {
    let mut hasher = DigestHasher::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match reader.read(&mut piece) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(length) => {
                hasher.update(&piece[..length]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn rewind(file: &mut File) -> io::Result<()> {
    io::Seek::rewind(file)
}

/// The names in a directory that are text; blobs and shards have no others.
fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let entries = fs::read_dir(dir).map_err(|source| Error::io("list", dir, source))?;
    Ok(entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect())
}

/// A poisoned map is still right: every entry in it was whole when it was inserted.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
