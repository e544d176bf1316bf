//! Small files that are whole or absent, whoever reads them and wherever we are killed: written beside, synced, renamed,
//! the directory synced.
//!
//! What is written beside `NAME` is `.NAME.new`, so what a kill leaves is overwritten by the next attempt: for files that
//! have one writer at a time. Where there may be more, each has a name of its own ([`replace_shared`]), and
//! [`crate::staged`] takes away what the dead left. Not for blobs: those are the store's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::boundary::{Kind, cross_file};
use crate::staged;

/// Replaces `path` by `bytes`, readable by us alone; durable when it returns.
///
/// # Errors
/// What the system says; the old content, or the new, is there, and nothing beside it.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put(&beside(path)?, path, bytes, File::sync_all)?;
    sync_dir(path)
}

/// As [`replace`], where other threads or processes may be at it too: the last one stays.
///
/// # Errors
/// As [`replace`].
pub fn replace_shared(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put(&staged::name_beside(path), path, bytes, File::sync_all)?;
    sync_dir(path)
}

/// As [`replace`], for what may be lost: a power cut may take it back, or leave it empty.
///
/// # Errors
/// As [`replace`].
pub fn replace_unsynced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put(&beside(path)?, path, bytes, |_| Ok(()))
}

/// Removes `path` if it is there; durable when it returns.
///
/// # Errors
/// What the system says, except that it is not there.
pub fn remove(path: &Path) -> io::Result<()> {
    cross_file(Kind::Remove, path);
    match fs::remove_file(path) {
        Ok(()) => sync_dir(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads `path`, or `None` if it is not there.
///
/// # Errors
/// What the system says, except that it is not there.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn put(
    beside: &Path,
    path: &Path,
    bytes: &[u8],
    settle: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    cross_file(Kind::Write, path);
    let written = write(beside, bytes)
        .and_then(|file| settle(&file))
        .and_then(|()| {
            cross_file(Kind::Rename, path);
            fs::rename(beside, path)
        });
    if written.is_err() {
        // A part of it would keep a full disk full.
        let _ = fs::remove_file(beside);
    }
    written
}

fn write(beside: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(beside)?;
    file.write_all(bytes)?;
    Ok(file)
}

fn beside(path: &Path) -> io::Result<PathBuf> {
    let Some(name) = path.file_name() else {
        let message = "the path names no file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    };
    let mut fresh = std::ffi::OsString::from(".");
    fresh.push(name);
    fresh.push(".new");
    Ok(path.with_file_name(fresh))
}

fn sync_dir(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let dir = std::env::temp_dir().join(format!("crux-durable-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join("file");
        assert_eq!(read(&path).expect("absent is fine"), None);
        // What an earlier attempt left is no obstacle.
        fs::write(dir.join(".file.new"), "half of some").expect("a file");
        replace(&path, b"one").expect("written");
        replace_unsynced(&path, b"two").expect("written");
        assert_eq!(read(&path).expect("read").as_deref(), Some(&b"two"[..]));
        let mode = fs::metadata(&path).expect("a file").mode() & 0o777;
        assert_eq!(mode, 0o600);
        // Where it cannot be put, the attempt is taken back.
        let folder = dir.join("folder");
        fs::create_dir_all(folder.join("full")).expect("a directory");
        replace(&folder, b"three").expect_err("a folder is there");
        assert!(replace(Path::new("/"), b"").is_err());
        remove(&path).expect("removed");
        remove(&path).expect("absent is fine");
        let left: Vec<_> = fs::read_dir(&dir).expect("a directory").collect();
        fs::remove_dir_all(&dir).expect("removed");
        assert_eq!(left.len(), 1, "{left:?}");
    }
}
