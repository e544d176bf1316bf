//! A file that arrives group by group, each verified before it is written.
//!
//! What is on disk is its own witness: on resuming, the groups that are there are hashed again and
//! those that match are kept. No record of progress stands beside it, so none can be wrong.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crux_core::digest::{GROUP_BYTES, Groups};

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
        let mut partial = Self {
            file,
            groups,
            have: vec![false; count],
            missing: count,
        };
        let there = usize::try_from(length.div_ceil(GROUP_BYTES)).unwrap_or(count);
        let mut buffer = vec![0; buffer_bytes()];
        for group in 0..there.min(count) {
            let range = partial.groups.range(group);
            if let Some(bytes) = read(&partial.file, range, &mut buffer)?
                && partial.groups.verify(group, bytes)
            {
                partial.mark(group);
            }
        }
        Ok(partial)
    }

    /// Copies every group that is missing here and stands at the same place in `other`. Returns the bytes.
    ///
    /// # Errors
    /// What the files say.
    pub fn seed(&mut self, other: &File) -> io::Result<u64> {
        let length = other.metadata()?.len();
        let mut buffer = vec![0; buffer_bytes()];
        let mut seeded = 0;
        for group in 0..self.have.len() {
            let range = self.groups.range(group);
            if self.have[group] || range.end > length {
                continue;
            }
            if let Some(bytes) = read(other, range.clone(), &mut buffer)?
                && self.groups.verify(group, bytes)
            {
                self.file.write_all_at(bytes, range.start)?;
                seeded += range.end - range.start;
                self.mark(group);
            }
        }
        Ok(seeded)
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
            self.file
                .write_all_at(bytes, offset)
                .map_err(TakeError::Io)?;
            self.mark(group);
        }
        Ok(())
    }

    /// Whether every group is here.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.missing == 0
    }

    /// What it is to become.
    #[must_use]
    pub const fn groups(&self) -> &Groups {
        &self.groups
    }

    /// The file itself, to be synced and named.
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

/// The bytes of `range`; `None` when the file ends within it.
fn read<'a>(file: &File, range: Range<u64>, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
    let length = usize::try_from(range.end - range.start).unwrap_or(0);
    let buffer = &mut buffer[..length];
    match file.read_exact_at(buffer, range.start) {
        Ok(()) => Ok(Some(buffer)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
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
