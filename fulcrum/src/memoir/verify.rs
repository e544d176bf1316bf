//! Checks a whole memoir: every record's hash, its number, its bond to the one before, and the head.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crux_core::digest::Digest;

use super::chain::{GENESIS, LINE_BYTES_MAX, Record, Tail};
use super::segments;

/// What a sound memoir holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// How many records there are.
    pub records: u64,
    /// Number of the first one: above 0 where old segments were removed.
    pub first_seq: u64,
    /// Hash of the last one; zeros in an empty memoir.
    pub head: Digest,
    /// Bytes behind the last whole record: a writer is at work, or a crash left them for the next one to cut.
    pub torn_bytes: u64,
}

/// The first place where a memoir is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadAt {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1.
    pub line: u64,
    /// What is wrong there.
    pub reason: &'static str,
}

/// Why a memoir does not verify.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be read.
    #[error("read the memoir {}", .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// It was changed.
    #[error("verify the memoir: {} line {}: {}", .0.file.display(), .0.line, .0.reason)]
    Bad(BadAt),
}

/// Checks the memoir at `path`: its directory, or one file of it.
///
/// It begins with record 0, or where old segments were removed with the one that names the first segment left.
/// Within a directory also its end is checked, against the head that the writer leaves.
/// Whoever can rewrite every file at once is not noticed here, but by comparing heads kept elsewhere.
///
/// # Errors
/// [`VerifyError::Bad`] for the first record that was altered, dropped or moved.
pub fn verify(path: &Path) -> Result<Verified, VerifyError> {
    let failed = |error| VerifyError::Io(path.to_owned(), error);
    // Ordering: the head is read first, since a writer at work only moves it on.
    let head = if path.is_dir() {
        segments::head(path).map_err(failed)?
    } else {
        None
    };
    let files = segments::files(path).map_err(failed)?;
    let mut checked = Checked {
        tail: None,
        first: 0,
        torn_bytes: 0,
        head,
    };
    let mut place = (path.to_owned(), 0);
    let count = files.len();
    for (index, file) in files.into_iter().enumerate() {
        if checked.torn_bytes > 0 {
            return Err(bad(&place.0, place.1 + 1, "the record has no end"));
        }
        let lines = checked.file(&file, index + 1 == count)?;
        place = (file, lines);
    }
    let tail = checked.tail.unwrap_or(Tail::START);
    if head.is_some_and(|(seq, _)| seq >= tail.next_seq) {
        return Err(bad(&place.0, place.1 + 1, "records are missing at the end"));
    }
    Ok(Verified {
        records: tail.next_seq - checked.first,
        first_seq: checked.first,
        head: tail.prev,
        torn_bytes: checked.torn_bytes,
    })
}

struct Checked {
    tail: Option<Tail>,
    first: u64,
    torn_bytes: u64,
    head: Option<(u64, Digest)>,
}

impl Checked {
    /// Checks one file and returns its number of whole lines.
    fn file(&mut self, path: &Path, last: bool) -> Result<u64, VerifyError> {
        let failed = |error| VerifyError::Io(path.to_owned(), error);
        let mut file = BufReader::new(File::open(path).map_err(failed)?);
        let begins = segments::first_seq(path);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let limit = LINE_BYTES_MAX as u64 + 1;
            (&mut file)
                .take(limit)
                .read_until(b'\n', &mut line)
                .map_err(failed)?;
            if line.is_empty() {
                return Ok(number - 1);
            }
            if line.pop_if(|end| *end == b'\n').is_none() {
                if !last || line.len() as u64 == limit {
                    return Err(bad(path, number, "the record has no end"));
                }
                self.torn_bytes = line.len() as u64;
                return Ok(number - 1);
            }
            self.line(&line, begins)
                .map_err(|reason| bad(path, number, reason))?;
        }
        Ok(0)
    }

    fn line(&mut self, line: &[u8], begins: u64) -> Result<(), &'static str> {
        let record = Record::parse(line).ok_or("the record was altered")?;
        match self.tail {
            None if record.seq != begins => return Err("the record is not the first"),
            None if record.seq == 0 && record.prev != GENESIS => {
                return Err("the first record was altered");
            }
            None => self.first = record.seq,
            Some(tail) if record.seq != tail.next_seq => {
                return Err("the record does not follow the one before");
            }
            Some(tail) if record.prev != tail.prev => return Err("the record before was altered"),
            Some(_) => {}
        }
        if self
            .head
            .is_some_and(|(seq, hash)| seq == record.seq && hash != record.hash)
        {
            return Err("the record is not the one that was written");
        }
        self.tail = Some(Tail::after(&record));
        Ok(())
    }
}

fn bad(file: &Path, line: u64, reason: &'static str) -> VerifyError {
    VerifyError::Bad(BadAt {
        file: file.to_owned(),
        line,
        reason,
    })
}
