//! Writes that go past the page cache.
//!
//! A large file that only arrives would push out of memory what others use, and each of its bytes would be copied
//! once more than needed. Where the file system has no such way, the bytes go the common way.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use rustix::fs::OFlags;

/// Bytes written at once. 1 MiB: larger ones are no faster.
const BUFFER_BYTES: usize = 1 << 20;
/// What offsets, lengths and memory must be multiples of; no disk asks for more.
const BLOCK: usize = 4096;

/// Gathers what follows each other, and writes it past the page cache.
#[derive(Debug)]
pub(super) struct Direct {
    file: File,
    /// Longer by one block, so that a block begins in its first.
    buffer: Vec<u8>,
    origin: usize,
    /// Where the gathered bytes belong.
    start: u64,
    filled: usize,
    /// Whether the file system refused at the first write what it allowed at opening.
    refused: bool,
    /// Whether zeros were written beyond what was given.
    padded: bool,
}

impl Direct {
    /// A second way into an open file; `None` where there is none.
    pub(super) fn of(file: &File) -> Option<Self> {
        let flags = i32::try_from(OFlags::DIRECT.bits()).ok()?;
        let again = File::options()
            .write(true)
            .custom_flags(flags)
            .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
            .ok()?;
        let buffer = vec![0u8; BUFFER_BYTES + BLOCK];
        let origin = buffer.as_ptr().align_offset(BLOCK);
        (origin < BLOCK).then_some(Self {
            file: again,
            buffer,
            origin,
            start: 0,
            filled: 0,
            refused: false,
            padded: false,
        })
    }

    /// Takes bytes that belong at `offset`, a multiple of [`BLOCK`]; only the last of the file may be no multiple long.
    pub(super) fn put(&mut self, plain: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let follows = self.start + self.filled as u64 == offset;
        if !follows || self.filled + bytes.len() > BUFFER_BYTES {
            self.flush(plain)?;
            self.start = offset;
        }
        let at = self.origin + self.filled;
        self.buffer[at..at + bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
        Ok(())
    }

    /// Writes what was gathered. After an error it is gathered still.
    pub(super) fn flush(&mut self, plain: &File) -> io::Result<()> {
        let given = self.filled;
        let whole = given.next_multiple_of(BLOCK);
        let gathered = &mut self.buffer[self.origin..self.origin + whole];
        gathered[given..].fill(0);
        if !self.refused {
            match self.file.write_all_at(gathered, self.start) {
                Ok(()) => self.padded |= given < whole,
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.refused = true,
                Err(error) => return Err(error),
            }
        }
        if self.refused {
            plain.write_all_at(&gathered[..given], self.start)?;
        }
        self.start += given as u64;
        self.filled = 0;
        Ok(())
    }

    /// Writes what was gathered and cuts off what was added to fill the last block.
    pub(super) fn end(&mut self, plain: &File, size: u64) -> io::Result<()> {
        self.flush(plain)?;
        if std::mem::take(&mut self.padded) {
            plain.set_len(size)?;
        }
        Ok(())
    }
}
