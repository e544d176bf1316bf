//! Reads records in order, and follows a memoir that is being written.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::chain::{LINE_BYTES_MAX, Record};
use super::{MemoirError, segments};

/// Reads a memoir record by record, across its segments.
///
/// It checks each record's own hash, not the chain: for that see [`super::verify`].
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    from: u64,
    open: Option<Open>,
    waiting: VecDeque<PathBuf>,
    last_seq: Option<u64>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: BufReader<File>,
    offset: u64,
    line: u64,
}

/// Reads all records from number `from` on; `path` is the memoir's directory or one file of it.
///
/// # Errors
/// [`MemoirError`].
pub fn read(path: &Path, from: u64) -> Result<Vec<Record>, MemoirError> {
    let mut reader = Reader::open(path, from)?;
    std::iter::from_fn(|| reader.next().transpose()).collect()
}

impl Reader {
    /// Opens the memoir at `path`, its directory or one file of it, to read from record `from` on; segments wholly below
    /// it are not read.
    ///
    /// # Errors
    /// [`MemoirError::Io`] where there is none.
    pub fn open(path: &Path, from: u64) -> Result<Self, MemoirError> {
        let files = segments::files(path).map_err(|error| MemoirError::io("open", path, error))?;
        let mut waiting: VecDeque<PathBuf> = files.into();
        // What follows a finished segment says by its name where that ends; the current one says nothing.
        let below = |next: &PathBuf| (1..=from).contains(&segments::first_seq(next));
        while waiting.get(1).is_some_and(below) {
            waiting.pop_front();
        }
        Ok(Self {
            path: path.to_owned(),
            from,
            open: None,
            waiting,
            last_seq: None,
        })
    }

    /// The next record; `None` at the present end, after which it may be asked again.
    ///
    /// A line that has no end yet is left for later.
    ///
    /// # Errors
    /// [`MemoirError::Line`] for a line that is no record; the next call goes on behind it.
    #[expect(
        clippy::should_implement_trait,
        reason = "the end is not final, as an iterator's would be"
    )]
    pub fn next(&mut self) -> Result<Option<Record>, MemoirError> {
        loop {
            if self.open.is_none() && !self.open_next()? {
                return Ok(None);
            }
            let Some(open) = &mut self.open else {
                return Ok(None);
            };
            match open.record()? {
                Some(record) => {
                    // A segment may be read again from its start after it was renamed.
                    let fresh = self.last_seq.is_none_or(|last| record.seq > last);
                    if fresh && record.seq >= self.from {
                        self.last_seq = Some(record.seq);
                        return Ok(Some(record));
                    }
                }
                None if !self.leave()? => return Ok(None),
                None => {}
            }
        }
    }

    fn open_next(&mut self) -> Result<bool, MemoirError> {
        if self.waiting.is_empty() {
            let files = segments::files(&self.path);
            self.waiting = files
                .map_err(|error| MemoirError::io("open", &self.path, error))?
                .into();
        }
        let Some(path) = self.waiting.pop_front() else {
            return Ok(false);
        };
        let file = File::open(&path).map_err(|error| MemoirError::io("open", &path, error))?;
        self.open = Some(Open {
            path,
            file: BufReader::new(file),
            offset: 0,
            line: 0,
        });
        Ok(true)
    }

    /// Leaves a file read to its end if another comes after it.
    fn leave(&mut self) -> Result<bool, MemoirError> {
        if !self.waiting.is_empty() {
            self.open = None;
            return Ok(true);
        }
        let Some(open) = &self.open else {
            return Ok(false);
        };
        let failed = |error| MemoirError::io("follow", &self.path, error);
        let files = segments::files(&self.path).map_err(failed)?;
        let own = open.file.get_ref().metadata().map_err(failed)?.ino();
        let mut after: VecDeque<_> = files.into();
        while let Some(file) = after.pop_front() {
            if std::fs::metadata(&file).is_ok_and(|metadata| metadata.ino() == own) {
                break;
            }
        }
        if after.is_empty() {
            return Ok(false);
        }
        // Ordering: the file may have grown between our last read and its renaming, so it is read once more.
        self.waiting = after;
        Ok(true)
    }
}

impl Open {
    /// The next whole line's record; `None` where no whole line is left.
    fn record(&mut self) -> Result<Option<Record>, MemoirError> {
        let failed = |path: &Path, error| MemoirError::io("read", path, error);
        let mut line = Vec::new();
        self.file
            .seek(SeekFrom::Start(self.offset))
            .map_err(|error| failed(&self.path, error))?;
        let limit = LINE_BYTES_MAX as u64 + 1;
        std::io::Read::take(&mut self.file, limit)
            .read_until(b'\n', &mut line)
            .map_err(|error| failed(&self.path, error))?;
        if line.last() != Some(&b'\n') && (line.len() as u64) < limit {
            return Ok(None);
        }
        self.offset += line.len() as u64;
        self.line += 1;
        line.pop();
        let record = Record::parse(&line);
        record.map(Some).ok_or_else(|| MemoirError::Line {
            path: self.path.clone(),
            line: self.line,
        })
    }
}
