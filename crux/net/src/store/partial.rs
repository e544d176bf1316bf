//! A file that arrives group by group, each verified before it is written.
//!
//! What is on disk is its own witness: on resuming, the groups that are there are hashed again and
//! those that match are kept. No record of progress stands beside it, so none can be wrong.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crux_core::digest::{GROUP_BYTES, Groups};
use rustix::fs::Advice;

use super::direct::Direct;

/// Size from which a file is written past the page cache. 1 MiB: one such write.
const DIRECT_FROM: u64 = 1 << 20;
/// Bytes read at once to be checked: whole groups.
const READ_BYTES: usize = 1 << 20;
/// How far ahead the system is asked to read.
const AHEAD_BYTES: u64 = 8 << 20;

/// Why a piece was not taken.
#[derive(Debug)]
pub enum TakeError {
    /// What begins at this byte is not the group that belongs there; nothing of it was written.
    Lied(u64),
    /// The operating system refused the write.
    Io(io::Error),
}

/// A file on its way, with what is needed to check each group.
#[derive(Debug)]
pub struct Partial {
    file: File,
    /// How a large file is written.
    direct: Option<Direct>,
    groups: Groups,
    have: Vec<bool>,
    missing: usize,
}

impl Partial {
    /// Takes up a file where it was left; every group in it is checked, what is beyond the size cut off.
    ///
    /// # Errors
    /// What the file says.
    pub fn resume(file: File, groups: Groups) -> io::Result<Self> {
        let length = file.metadata()?.len();
        if length > groups.size() {
            file.set_len(groups.size())?;
        }
        let count = groups.count();
        let large = groups.size() >= DIRECT_FROM;
        let mut partial = Self {
            direct: large.then(|| Direct::of(&file)).flatten(),
            file,
            groups,
            have: vec![false; count],
            missing: count,
        };
        let there = length.min(partial.groups.size());
        let mut reader = Reader::default();
        while let Some((start, bytes)) = reader.next(&partial.file, there)? {
            for (group, bytes) in partial.groups_in(start, bytes) {
                if partial.groups.verify(group, bytes) {
                    partial.mark(group);
                }
            }
        }
        Ok(partial)
    }

    /// Copies every group that is missing here and stands at the same place in `other`. Returns the bytes.
    ///
    /// # Errors
    /// What the files say.
    pub fn seed(&mut self, other: &File) -> io::Result<u64> {
        let there = other.metadata()?.len().min(self.groups.size());
        let (mut reader, mut seeded) = (Reader::default(), 0);
        while let Some((start, bytes)) = reader.next(other, there)? {
            for (group, bytes) in self.groups_in(start, bytes) {
                if !self.have[group] && self.groups.verify(group, bytes) {
                    self.put(self.groups.range(group).start, bytes)?;
                    seeded += bytes.len() as u64;
                    self.mark(group);
                }
            }
        }
        Ok(seeded)
    }

    /// The groups in bytes that were read from `start`, where one begins.
    fn groups_in<'a>(
        &self,
        start: u64,
        bytes: &'a [u8],
    ) -> impl Iterator<Item = (usize, &'a [u8])> + use<'a> {
        let first = self.groups.group_at(start).unwrap_or(self.have.len());
        let count = self.have.len();
        (first..count).zip(bytes.chunks(buffer_bytes()))
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match &mut self.direct {
            Some(direct) => direct.put(&self.file, offset, bytes),
            None => self.file.write_all_at(bytes, offset),
        }
    }

    /// Writes out what is held back, so that others can read it.
    ///
    /// # Errors
    /// What the file says.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.direct {
            Some(direct) => direct.flush(&self.file),
            None => Ok(()),
        }
    }

    /// Writes out what is held back, and syncs the file.
    ///
    /// # Errors
    /// What the file says.
    pub fn sync(&mut self) -> io::Result<()> {
        if let Some(direct) = &mut self.direct {
            direct.end(&self.file, self.groups.size())?;
        }
        self.file.sync_all()
    }

    /// Where bytes are still missing, in order, neighbouring groups together.
    #[must_use]
    pub fn missing(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (group, have) in self.have.iter().enumerate() {
            if *have {
                continue;
            }
            let range = self.groups.range(group);
            match ranges.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => ranges.push(range),
            }
        }
        ranges
    }

    /// Bytes that are here and verified.
    #[must_use]
    pub fn held(&self) -> u64 {
        let missing: u64 = self
            .missing()
            .iter()
            .map(|range| range.end - range.start)
            .sum();
        self.groups.size() - missing
    }

    /// Takes whole groups that follow each other; those that are here already are passed over.
    ///
    /// # Errors
    /// [`TakeError::Lied`] at the first that is not the group that belongs there; those before it were taken.
    pub fn take(&mut self, offset: u64, bytes: &[u8]) -> Result<(), TakeError> {
        let mut at = offset;
        // An empty file has one group, which is empty.
        let mut rest = Some(bytes);
        while let Some(left) = rest {
            let (bytes, more) = left.split_at(left.len().min(buffer_bytes()));
            self.take_group(at, bytes)?;
            at += bytes.len() as u64;
            rest = Some(more).filter(|more| !more.is_empty());
        }
        Ok(())
    }

    fn take_group(&mut self, offset: u64, bytes: &[u8]) -> Result<(), TakeError> {
        let group = self.groups.group_at(offset);
        let group = group.ok_or(TakeError::Lied(offset))?;
        if !self.groups.verify(group, bytes) {
            return Err(TakeError::Lied(offset));
        }
        if !self.have[group] {
            self.put(offset, bytes).map_err(TakeError::Io)?;
            self.mark(group);
        }
        Ok(())
    }

    /// Groups that are missing.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.missing
    }

    /// Whether every group is here.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.missing == 0
    }

    /// Which groups are here, in order.
    #[must_use]
    pub fn have(&self) -> &[bool] {
        &self.have
    }

    /// What it is to become.
    #[must_use]
    pub const fn groups(&self) -> &Groups {
        &self.groups
    }

    /// The file itself; all of what was taken is in it after [`Self::sync`].
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    fn mark(&mut self, group: usize) {
        if !std::mem::replace(&mut self.have[group], true) {
            self.missing -= 1;
        }
    }
}

fn buffer_bytes() -> usize {
    usize::try_from(GROUP_BYTES).unwrap_or(usize::MAX)
}

impl Drop for Partial {
    fn drop(&mut self) {
        // What cannot be written comes again.
        if let Some(direct) = &mut self.direct {
            let _ = direct.end(&self.file, self.groups.size());
        }
        // Closing does not suffice for the lock: a process that is being forked elsewhere has the descriptor, too, until
        // it executes, and who resumes meanwhile would find the file in use.
        let _ = self.file.unlock();
    }
}

/// Reads a file from its beginning while the system reads ahead.
#[derive(Default)]
struct Reader {
    buffer: Vec<u8>,
    at: u64,
    asked: u64,
}

impl Reader {
    /// The next bytes before `end`, and where they begin; `None` at the end, or when the file became shorter.
    fn next(&mut self, file: &File, end: u64) -> io::Result<Option<(u64, &[u8])>> {
        let start = self.at;
        let length = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
        let length = length.min(READ_BYTES);
        if length == 0 {
            return Ok(None);
        }
        if self.asked < end && self.asked < start + AHEAD_BYTES {
            let window = std::num::NonZeroU64::new(AHEAD_BYTES);
            // Only advice.
            let _ = rustix::fs::fadvise(file, self.asked, window, Advice::WillNeed);
            self.asked += AHEAD_BYTES;
        }
        self.buffer.resize(length, 0);
        match file.read_exact_at(&mut self.buffer, start) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        self.at += length as u64;
        Ok(Some((start, &self.buffer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crux_core::digest::GroupHasher;

    const GROUP: usize = 16 * 1024;

    fn groups(bytes: &[u8]) -> Groups {
        let mut hasher = GroupHasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    fn content(groups: usize) -> Vec<u8> {
        (0..groups * GROUP + 100)
            .map(|at| (at * 7 % 253) as u8)
            .collect()
    }

    fn scratch(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("radix-partial-{name}-{}", std::process::id()))
    }

    fn open(path: &std::path::Path) -> File {
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false);
        options.open(path).unwrap()
    }

    #[test]
    fn what_was_written_is_believed_only_where_it_verifies() {
        let (path, bytes) = (scratch("resume"), content(4));
        let mut partial = Partial::resume(open(&path), groups(&bytes)).unwrap();
        assert_eq!(partial.missing(), vec![0..bytes.len() as u64; 1]);
        for group in [0usize, 1, 3] {
            let at = group * GROUP;
            partial.take(at as u64, &bytes[at..at + GROUP]).unwrap();
        }
        assert!(matches!(
            partial.take(0, &bytes[1..=GROUP]),
            Err(TakeError::Lied(_))
        ));
        assert!(matches!(
            partial.take(5, &bytes[5..9]),
            Err(TakeError::Lied(_))
        ));
        drop(partial);
        // A byte goes wrong while nobody looks.
        open(&path).write_all_at(b"!", GROUP as u64 + 5).unwrap();
        let partial = Partial::resume(open(&path), groups(&bytes)).unwrap();
        let (one, end) = (GROUP as u64, bytes.len() as u64);
        assert_eq!(partial.missing(), [one..3 * one, 4 * one..end]);
        assert_eq!(partial.held(), 2 * one);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_large_file_is_written_past_the_cache_in_any_order_and_is_as_long_as_it_should_be() {
        let (path, bytes) = (scratch("large"), content(100));
        let mut partial = Partial::resume(open(&path), groups(&bytes)).unwrap();
        let take = |partial: &mut Partial, group: usize| {
            let at = group * GROUP;
            let end = (at + GROUP).min(bytes.len());
            partial.take(at as u64, &bytes[at..end]).unwrap();
        };
        // The last group first, which is no whole block, then runs with a hole between them.
        for group in [100, 3, 4, 5, 50, 51] {
            take(&mut partial, group);
        }
        drop(partial);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes.len() as u64);
        let mut partial = Partial::resume(open(&path), groups(&bytes)).unwrap();
        assert_eq!(partial.held(), (5 * GROUP + 100) as u64);
        for group in 0..100 {
            take(&mut partial, group);
        }
        assert!(partial.is_whole());
        partial.sync().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        drop(partial);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn equal_groups_are_taken_from_another_file() {
        let (path, other) = (scratch("seed"), scratch("seed-other"));
        let bytes = content(4);
        let mut edited = bytes.clone();
        edited[GROUP + 5] ^= 1;
        std::fs::write(&other, &edited[..3 * GROUP + 5]).unwrap();
        let mut partial = Partial::resume(open(&path), groups(&bytes)).unwrap();
        assert_eq!(partial.seed(&open(&other)).unwrap(), 2 * GROUP as u64);
        let one = GROUP as u64;
        assert_eq!(
            partial.missing(),
            [one..2 * one, 3 * one..bytes.len() as u64]
        );
        for range in partial.missing() {
            for start in range.step_by(GROUP) {
                let end = (start as usize + GROUP).min(bytes.len());
                partial.take(start, &bytes[start as usize..end]).unwrap();
            }
        }
        assert!(partial.is_whole());
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_file(&other).unwrap();
    }
}
