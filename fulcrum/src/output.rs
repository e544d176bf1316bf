//! Reads what an execution wrote, from any offset, and follows it to its end.
//!
//! Programs write to files directly and the keeper may give the middle of a large one back, so a reader sees [`Piece::Gap`]
//! where bytes are gone; offsets never change. Not for the keeper: it never reads output.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crux_wire::keeper::v1::{Execution, Outcome};
use nix::unistd::{Whence, lseek};

use crate::keeper::record::Records;

/// The most bytes of one piece.
pub const PIECE_BYTES_MAX: usize = 64 * 1024;

/// How often a file without news is looked at again. 50 ms: below what a person notices, 40 system calls a second.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Which of the two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of output, or the end of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Bytes as written.
    Data {
        /// Where they were written.
        stream: Stream,
        /// Offset of the first.
        offset: u64,
        /// One to [`PIECE_BYTES_MAX`] of them.
        bytes: Vec<u8>,
    },
    /// Bytes that the keeper gave back because there were too many.
    Gap {
        /// Where they were written.
        stream: Stream,
        /// Offset of the first one missing.
        from: u64,
        /// Offset of the next one there.
        to: u64,
    },
    /// The execution has ended and everything before it was told; nothing comes after.
    Ended(Outcome),
}

/// Reads the next piece of one file; `None` at its present end.
///
/// # Errors
/// The system's; `NotFound` when the execution was forgotten.
pub fn read(
    path: &Path,
    stream: Stream,
    offset: u64,
    bytes_max: usize,
) -> io::Result<Option<Piece>> {
    Reading::open(path, stream)?.piece(offset, bytes_max)
}

/// Follows both outputs of an execution until it has ended.
#[derive(Debug)]
pub struct Follower {
    readings: [(Reading, u64); 2],
    outcome: PathBuf,
    /// The outcome, once it was seen before the last look at the files.
    ended: Option<Outcome>,
    done: bool,
}

impl Follower {
    /// Follows from the given offsets of standard output and standard error; `u64::MAX` leaves one out.
    ///
    /// # Errors
    /// The system's; `NotFound` when the execution was forgotten.
    pub fn open(execution: &Execution, stdout_offset: u64, stderr_offset: u64) -> io::Result<Self> {
        let stdout = Path::new(&execution.stdout_path);
        let readings = [
            (Reading::open(stdout, Stream::Stdout)?, stdout_offset),
            (
                Reading::open(Path::new(&execution.stderr_path), Stream::Stderr)?,
                stderr_offset,
            ),
        ];
        Ok(Self {
            readings,
            outcome: stdout.with_file_name("outcome"),
            ended: None,
            done: false,
        })
    }

    /// The next piece, as soon as there is one; `None` after the end.
    ///
    /// The order of pieces within one stream is that of writing; between the two nothing is known.
    ///
    /// # Errors
    /// The system's; it may be called again.
    ///
    /// # Cancel safety
    /// Safe: a piece that was not returned comes again.
    pub async fn next(&mut self) -> io::Result<Option<Piece>> {
        loop {
            if self.done {
                return Ok(None);
            }
            if let Some(piece) = self.look()? {
                return Ok(Some(piece));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What can be told without waiting.
    ///
    /// # Errors
    /// The system's; it may be called again.
    pub fn look(&mut self) -> io::Result<Option<Piece>> {
        if self.done {
            return Ok(None);
        }
        // Ordering: the outcome is looked for before the files, so that with it nothing more can be written to them.
        if self.ended.is_none() {
            self.ended = Records::read_outcome(&self.outcome)?;
        }
        for (reading, offset) in &mut self.readings {
            let piece = reading.piece(*offset, PIECE_BYTES_MAX)?;
            match &piece {
                Some(Piece::Data { bytes, .. }) => *offset += bytes.len() as u64,
                Some(Piece::Gap { to, .. }) => *offset = *to,
                Some(Piece::Ended(_)) | None => continue,
            }
            return Ok(piece);
        }
        self.done = self.ended.is_some();
        Ok(self.ended.clone().map(Piece::Ended))
    }
}

/// One of the two files, open.
#[derive(Debug)]
pub(crate) struct Reading {
    file: File,
    stream: Stream,
}

impl Reading {
    pub(crate) fn open(path: &Path, stream: Stream) -> io::Result<Self> {
        Ok(Self {
            file: File::open(path)?,
            stream,
        })
    }

    /// Its present length, in bytes.
    pub(crate) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// The next piece at `offset`, as [`read`] gives it.
    pub(crate) fn piece(&self, offset: u64, bytes_max: usize) -> io::Result<Option<Piece>> {
        let stream = self.stream;
        loop {
            let length = self.length()?;
            if offset >= length || bytes_max == 0 {
                return Ok(None);
            }
            let data = self.seek(offset, Whence::SeekData, length)?;
            if data > offset {
                return Ok(Some(Piece::Gap {
                    stream,
                    from: offset,
                    to: data,
                }));
            }
            let end = self.seek(offset, Whence::SeekHole, length)?;
            let wanted = usize::try_from(end - offset)
                .unwrap_or(usize::MAX)
                .min(bytes_max);
            let mut bytes = vec![0; wanted.min(PIECE_BYTES_MAX)];
            let count = self.file.read_at(&mut bytes, offset)?;
            bytes.truncate(count);
            // Ordering: a hole may have been made while we read, and would read as zeros.
            let still = self.seek(offset, Whence::SeekHole, length)? >= offset + count as u64;
            if still && count > 0 && self.seek(offset, Whence::SeekData, length)? == offset {
                return Ok(Some(Piece::Data {
                    stream,
                    offset,
                    bytes,
                }));
            }
            if count == 0 {
                return Ok(None);
            }
        }
    }

    /// Where data or a hole begins at or after `offset`; `length` where neither does.
    fn seek(&self, offset: u64, whence: Whence, length: u64) -> io::Result<u64> {
        let wrong = |_| io::Error::from(io::ErrorKind::InvalidInput);
        match lseek(&self.file, i64::try_from(offset).map_err(wrong)?, whence) {
            Ok(found) => Ok(u64::try_from(found).map_err(wrong)?),
            Err(nix::Error::ENXIO) => Ok(length),
            // A file system without holes: all is data.
            Err(nix::Error::EINVAL | nix::Error::EOPNOTSUPP)
                if matches!(whence, Whence::SeekData) =>
            {
                Ok(offset)
            }
            Err(nix::Error::EINVAL | nix::Error::EOPNOTSUPP) => Ok(length),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FallocateFlags, fallocate};

    #[test]
    fn a_hole_is_told_as_a_gap_and_offsets_stay() {
        let path = std::env::temp_dir().join(format!("fulcrum-output-{}", std::process::id()));
        let block = 64 * 1024;
        std::fs::write(
            &path,
            [vec![b'a'; block], vec![b'b'; 4 * block], vec![b'c'; 10]].concat(),
        )
        .unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&file, flags, block as i64, 4 * block as i64).unwrap();
        let (mut offset, mut seen) = (0, Vec::new());
        while let Some(piece) = read(&path, Stream::Stdout, offset, PIECE_BYTES_MAX).unwrap() {
            match piece {
                Piece::Data { bytes, .. } => {
                    offset += bytes.len() as u64;
                    seen.push((bytes[0], bytes.len()));
                }
                Piece::Gap { from, to, .. } => {
                    seen.push((b'-', (to - from) as usize));
                    offset = to;
                }
                Piece::Ended(_) => unreachable!("a file has no outcome"),
            }
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(seen, [(b'a', block), (b'-', 4 * block), (b'c', 10)]);
    }
}
