//! Which files a memoir is made of: finished segments by first record, then the current one, and the head beside them.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crux_core::digest::Digest;

use super::chain::Tail;

/// The segment being written.
pub(super) const CURRENT: &str = "memoir.jsonl";

/// Where the number and hash of a record known to be durable stand.
pub(super) const HEAD: &str = "memoir.head";

/// The name of a finished segment that begins with record `first`.
pub(super) fn finished_name(first: u64) -> String {
    format!("memoir.{first:020}.jsonl")
}

/// The record that a file must begin with, by its name.
pub(super) fn first_seq(path: &Path) -> u64 {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    finished_number(&name).unwrap_or(0)
}

fn finished_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix("memoir.")?.strip_suffix(".jsonl")?;
    number.parse().ok().filter(|_| number.len() == 20)
}

/// The files of a memoir in the order of their records; `path` may be its directory or one file of it.
pub(super) fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if finished_number(&name).is_some() {
            names.push(name);
        }
    }
    names.sort();
    let mut files: Vec<_> = names.into_iter().map(|name| path.join(name)).collect();
    let current = path.join(CURRENT);
    if current.try_exists()? {
        files.push(current);
    }
    Ok(files)
}

/// The last record that the writer called durable, if it left a note that can be read.
pub(super) fn head(dir: &Path) -> io::Result<Option<(u64, Digest)>> {
    let text = match fs::read_to_string(dir.join(HEAD)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let head = text.trim_end().split_once(' ');
    Ok(head.and_then(|(seq, hash)| Some((seq.parse().ok()?, hash.parse().ok()?))))
}

/// Notes that every record before `tail` is durable.
///
/// Ordering: written after the records are synced and not synced itself, so it never names a record that a crash could take.
pub(super) fn write_head(file: &mut fs::File, tail: Tail) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let Some(seq) = tail.next_seq.checked_sub(1) else {
        return Ok(());
    };
    file.write_all_at(format!("{seq:020} {}\n", tail.prev).as_bytes(), 0)
}

/// Opens the head for writing.
pub(super) fn open_head(dir: &Path) -> io::Result<fs::File> {
    let path = dir.join(HEAD);
    fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
}

/// Keeps bytes that were cut off the memoir, for people to look at.
pub(super) fn keep_cut(dir: &Path, next_seq: u64, bytes: &[u8]) -> io::Result<()> {
    let path = dir.join(format!("memoir.cut-{next_seq:020}"));
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
