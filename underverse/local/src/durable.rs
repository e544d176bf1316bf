//! Files that survive a crash whole, and trees that go away whole.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use crux_net::boundary::{Kind, cross_file};
pub(crate) use crux_net::durable::{replace, replace_unsynced};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest state file that is read, in bytes; ours have a few hundred bytes a rnode.
const STATE_BYTES_MAX: u64 = 16 << 20;

/// What most state files fit in, in bytes: a plan for a thousand hordes reads five thousand of them.
const STATE_BYTES_USUAL: usize = 4096;

/// Makes `path` and what is missing above it, readable by its owner only.
pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    cross_file(Kind::Write, path);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Writes `value` as JSON, durably.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    replace(path, &json(value)?)
}

/// The text of `value` as we write it.
pub(crate) fn json<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value).map_err(io::Error::other)?;
    text.push(b'\n');
    Ok(text)
}

/// Reads JSON; `None` if there is no such file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::with_capacity(STATE_BYTES_USUAL);
    file.take(STATE_BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > STATE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "more than {STATE_BYTES_MAX} bytes"
        )));
    }
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(io::Error::other)
}

/// Removes a file; that it is not there is fine.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    cross_file(Kind::Remove, path);
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a tree, also one with directories that nobody may enter (an overlay's work directory); absent is fine.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    cross_file(Kind::Remove, path);
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        Err(error) => Err(error),
    }
}

fn open_up(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a directory if it is empty; anything else is left.
pub(crate) fn remove_empty_dir(path: &Path) {
    // A directory with content answers with an error, which is the wanted outcome.
    drop(fs::remove_dir(path));
}
