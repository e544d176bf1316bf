//! Reads records from the newest to the oldest: for what the last ones alone can tell.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::chain::{LINE_BYTES_MAX, Record};
use super::{MemoirError, segments};

/// Read at once.
const BLOCK_BYTES: u64 = 256 * 1024;

/// Where a record's kind has begun: number, hash and time before it have a largest size.
const KIND_WITHIN: usize = 160;

/// A memoir read backwards, across its segments.
///
/// It checks each record's own hash, not the chain, and passes over what is no record.
#[derive(Debug)]
pub(crate) struct Backwards {
    dir: PathBuf,
    /// Segments not begun yet, the newest last.
    files: Vec<PathBuf>,
    segment: Option<Segment>,
    bytes_left: u64,
}

#[derive(Debug)]
struct Segment {
    file: File,
    /// Where `held` begins.
    at: u64,
    /// What was read and is not told yet: it ends where a line does, and begins within one unless `at` is 0.
    held: Vec<u8>,
}

impl Backwards {
    /// Opens the memoir in `dir` at its present end; at most `bytes_max` are read, to whole blocks.
    ///
    /// # Errors
    /// [`MemoirError::Io`].
    pub(crate) fn open(dir: &Path, bytes_max: u64) -> Result<Self, MemoirError> {
        let files = segments::files(dir).map_err(|error| MemoirError::io("open", dir, error))?;
        Ok(Self {
            dir: dir.to_owned(),
            files,
            segment: None,
            bytes_left: bytes_max,
        })
    }

    /// The next older record whose kind begins with `kinds`; `None` before the first.
    ///
    /// # Errors
    /// [`MemoirError::Io`]; `QuotaExceeded` where as many bytes were read as may be.
    pub(crate) fn next(&mut self, kinds: &str) -> Result<Option<Record>, MemoirError> {
        let key = format!("\"kind\":\"{kinds}");
        loop {
            let Some(segment) = &mut self.segment else {
                let Some(path) = self.files.pop() else {
                    return Ok(None);
                };
                self.segment = Some(Segment::open(&path).map_err(|error| self.failed(error))?);
                continue;
            };
            if let Some(line) = segment.line() {
                let head = &line[..line.len().min(KIND_WITHIN + key.len())];
                if head.windows(key.len()).any(|at| at == key.as_bytes())
                    && let Some(record) = Record::parse(&line)
                    && record.kind.starts_with(kinds)
                {
                    return Ok(Some(record));
                }
            } else if segment.at == 0 {
                self.segment = None;
            } else {
                let read = segment.read(self.bytes_left);
                self.bytes_left -= read.map_err(|error| self.failed(error))?;
            }
        }
    }

    fn failed(&self, error: io::Error) -> MemoirError {
        MemoirError::io("read back", &self.dir, error)
    }
}

impl Segment {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let at = file.metadata()?.len();
        Ok(Self {
            file,
            at,
            held: Vec::new(),
        })
    }

    /// The last whole line that is held.
    fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.held.len().checked_sub(1)?;
        let start = match self.held[..end].iter().rposition(|byte| *byte == b'\n') {
            Some(before) => before + 1,
            None if self.at == 0 => 0,
            None => return None,
        };
        let line = self.held[start..end].to_vec();
        self.held.truncate(start);
        Some(line)
    }

    /// Puts the block before what is held in front of it; returns how much that was.
    fn read(&mut self, bytes_max: u64) -> io::Result<u64> {
        let length = BLOCK_BYTES.min(self.at);
        if length > bytes_max {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        if self.held.len() > LINE_BYTES_MAX + 1 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a line is longer than any record",
            ));
        }
        let mut block = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.at -= length;
        self.file.read_exact_at(&mut block, self.at)?;
        if self.held.is_empty() {
            // What stands behind the last end of a line is no record yet, or never will be.
            let end = block.iter().rposition(|byte| *byte == b'\n');
            block.truncate(end.map_or(0, |end| end + 1));
        }
        block.append(&mut self.held);
        self.held = block;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::Tail;
    use super::super::writer::Appender;
    use super::*;
    use crate::memoir::Fields;

    /// A memoir of `count` records, `exec.end` and `file.put` in turn, in segments of that size; the numbers of the first.
    fn written(dir: &Path, count: u64, segment_bytes_max: u64) -> Vec<u64> {
        let mut appender = Appender::open(dir, segment_bytes_max).unwrap();
        let mut tail = Tail::START;
        for number in 0..count {
            let kind = ["exec.end", "file.put"][usize::try_from(number % 2).unwrap()];
            // Some lines are long, so that blocks end within them.
            let text = "x".repeat(usize::try_from(number * 7919 % 50_000).unwrap());
            let fields = Fields::from_iter([("kind\":\"exec.".to_owned(), text.into())]);
            let line = tail.append(number, kind, &fields);
            appender.append(&[line], tail).unwrap();
        }
        (0..count).rev().filter(|number| number % 2 == 0).collect()
    }

    fn read(dir: &Path, bytes_max: u64) -> Result<Vec<u64>, MemoirError> {
        let mut backwards = Backwards::open(dir, bytes_max)?;
        std::iter::from_fn(|| backwards.next("exec.").transpose())
            .map(|record| record.map(|record| record.seq))
            .collect()
    }

    #[test]
    fn records_of_a_kind_are_told_from_the_newest_across_blocks_and_segments() {
        let top = std::env::temp_dir().join(format!("fulcrum-backwards-{}", std::process::id()));
        for segment_bytes_max in [1, 100_000, u64::MAX] {
            let expected = written(&top, 101, segment_bytes_max);
            let told = read(&top, u64::MAX);
            let within = read(&top, 2 * BLOCK_BYTES);
            // What a crash left behind the last whole record is none.
            let current = std::fs::OpenOptions::new()
                .append(true)
                .open(top.join(segments::CURRENT));
            let torn = vec![b'x'; 3 * LINE_BYTES_MAX];
            std::io::Write::write_all(&mut current.unwrap(), &torn).unwrap();
            let beside_torn = read(&top, u64::MAX);
            std::fs::remove_dir_all(&top).unwrap();
            assert_eq!(told.unwrap(), expected);
            assert_eq!(beside_torn.unwrap(), expected);
            let Err(MemoirError::Io { source, .. }) = within else {
                panic!("the limit is not reached: {within:?}");
            };
            assert_eq!(source.kind(), io::ErrorKind::QuotaExceeded);
        }
    }
}
