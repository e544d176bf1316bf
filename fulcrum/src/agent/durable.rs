//! Files that are whole or absent: written beside, synced, renamed, the directory synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crux_net::boundary::{Kind, cross_file};

/// Replaces `path` by `bytes`, readable by us alone; durable when it returns.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (file, dir) = write_beside(path, bytes)?;
    file.sync_all()?;
    cross_file(Kind::Rename, path);
    fs::rename(beside(path), path)?;
    File::open(dir)?.sync_all()
}

/// Replaces `path` by `bytes`, whole or not at all for whoever reads it; a power cut may take it back.
pub(crate) fn replace_unsynced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_beside(path, bytes)?;
    cross_file(Kind::Rename, path);
    fs::rename(beside(path), path)
}

fn write_beside<'p>(path: &'p Path, bytes: &[u8]) -> io::Result<(File, &'p Path)> {
    let dir = path.parent().filter(|_| path.file_name().is_some());
    let dir =
        dir.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    cross_file(Kind::Write, path);
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(beside(path))?;
    file.write_all(bytes)?;
    Ok((file, dir))
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

/// Removes `path` if it is there; durable when it returns.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    cross_file(Kind::Remove, path);
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    path.parent()
        .map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Reads `path`, or `None` if it is not there.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
