//! Writes that go past the page cache.
//!
//! A large file that only arrives would push out of memory what others use, and each of its bytes would be copied
//! once more than needed. Where the file system has no such way, the bytes go the common way.
//! Such a write waits for the disk, so it is done by a thread of its own while the next bytes are hashed and gathered.

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rustix::fs::OFlags;

/// Bytes written at once. 1 MiB: larger ones are no faster. As many may be under way while as many are gathered.
const BUFFER_BYTES: usize = 1 << 20;
/// What offsets, lengths and memory must be multiples of; no disk asks for more.
const BLOCK: usize = 4096;

/// Gathers what follows each other, and has it written past the page cache.
#[derive(Debug)]
pub(super) struct Direct {
    file: Arc<File>,
    gathered: Buffer,
    /// What is not in use.
    spare: Option<Buffer>,
    /// From the first full buffer on.
    behind: Option<Behind>,
    /// Whether the file system refused at the first write what it allowed at opening.
    refused: bool,
    /// Whether zeros were written beyond what was given.
    padded: bool,
    /// Whether something that was taken could not be written: nothing more is taken.
    lost: bool,
}

/// Bytes that follow each other, and where they belong.
#[derive(Debug)]
struct Buffer {
    /// Longer by one block, so that a block begins in its first.
    bytes: Vec<u8>,
    origin: usize,
    start: u64,
    filled: usize,
}

/// The thread that writes, one buffer at a time.
#[derive(Debug)]
struct Behind {
    /// `None` once it is to end.
    full: Option<SyncSender<Buffer>>,
    written: Receiver<(Buffer, io::Result<()>)>,
    under_way: bool,
    thread: Option<JoinHandle<()>>,
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
        Some(Self {
            file: Arc::new(again),
            gathered: Buffer::new()?,
            spare: None,
            behind: None,
            refused: false,
            padded: false,
            lost: false,
        })
    }

    /// Takes bytes that belong at `offset`, a multiple of [`BLOCK`]; only the last of the file may be no multiple long.
    /// That what was taken before could not be written may be told here.
    pub(super) fn put(&mut self, plain: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let follows = self.gathered.start + self.gathered.filled as u64 == offset;
        if !follows || self.gathered.filled + bytes.len() > BUFFER_BYTES {
            self.hand_over(plain)?;
            self.gathered.start = offset;
        }
        self.gathered.add(bytes);
        Ok(())
    }

    /// Writes all that was taken.
    pub(super) fn flush(&mut self, plain: &File) -> io::Result<()> {
        self.settle(plain)?;
        let Some(mut buffer) = self.gathered()? else {
            return Ok(());
        };
        let result = match self.refused {
            true => Err(io::ErrorKind::InvalidInput.into()),
            false => buffer.write(&self.file),
        };
        self.wrote(plain, buffer, result)
    }

    /// Writes all that was taken and cuts off what was added to fill the last block.
    pub(super) fn end(&mut self, plain: &File, size: u64) -> io::Result<()> {
        self.flush(plain)?;
        if mem::take(&mut self.padded) {
            plain.set_len(size)?;
        }
        Ok(())
    }

    /// Has what is gathered written, after what is under way.
    fn hand_over(&mut self, plain: &File) -> io::Result<()> {
        self.settle(plain)?;
        if self.behind.is_none() && !self.refused {
            // Without a thread it is written here.
            self.behind = Behind::start(&self.file).ok();
        }
        let Some(mut behind) = self.behind.take().filter(|_| !self.refused) else {
            return self.flush(plain);
        };
        if let Some(buffer) = self.gathered()? {
            behind.hand_over(buffer)?;
        }
        self.behind = Some(behind);
        Ok(())
    }

    /// Waits for what is under way.
    fn settle(&mut self, plain: &File) -> io::Result<()> {
        if self.lost {
            return Err(io::Error::other("something before could not be written"));
        }
        let Some(behind) = &mut self.behind else {
            return Ok(());
        };
        if !mem::take(&mut behind.under_way) {
            return Ok(());
        }
        let Ok((buffer, result)) = behind.written.recv() else {
            self.lost = true;
            return Err(io::Error::other("the thread that writes is gone"));
        };
        self.wrote(plain, buffer, result)
    }

    /// What is gathered, if anything is; gathering goes on where it ends.
    fn gathered(&mut self) -> io::Result<Option<Buffer>> {
        if self.gathered.filled == 0 {
            return Ok(None);
        }
        let next = self.spare.take().or_else(Buffer::new);
        let mut next = next.ok_or_else(|| io::Error::other("memory for a write has no place"))?;
        next.start = self.gathered.start + self.gathered.filled as u64;
        Ok(Some(mem::replace(&mut self.gathered, next)))
    }

    /// Takes note of a write; what this way refused goes the common one.
    fn wrote(
        &mut self,
        plain: &File,
        mut buffer: Buffer,
        result: io::Result<()>,
    ) -> io::Result<()> {
        let result = match result {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.refused = true;
                plain.write_all_at(buffer.given(), buffer.start)
            }
            result => {
                self.padded |= result.is_ok() && !buffer.filled.is_multiple_of(BLOCK);
                result
            }
        };
        self.lost |= result.is_err();
        buffer.filled = 0;
        self.spare = Some(buffer);
        result
    }
}

impl Buffer {
    fn new() -> Option<Self> {
        let bytes = vec![0u8; BUFFER_BYTES + BLOCK];
        let origin = bytes.as_ptr().align_offset(BLOCK);
        (origin < BLOCK).then_some(Self {
            bytes,
            origin,
            start: 0,
            filled: 0,
        })
    }

    fn add(&mut self, bytes: &[u8]) {
        let at = self.origin + self.filled;
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    fn given(&self) -> &[u8] {
        &self.bytes[self.origin..self.origin + self.filled]
    }

    fn write(&mut self, file: &File) -> io::Result<()> {
        let whole = self.filled.next_multiple_of(BLOCK);
        let blocks = &mut self.bytes[self.origin..self.origin + whole];
        blocks[self.filled..].fill(0);
        file.write_all_at(blocks, self.start)
    }
}

impl Behind {
    fn start(file: &Arc<File>) -> io::Result<Self> {
        let (full, taking) = sync_channel::<Buffer>(1);
        let (giving, written) = sync_channel(1);
        let file = Arc::clone(file);
        let writing = move || {
            for mut buffer in taking {
                let result = buffer.write(&file);
                if giving.send((buffer, result)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("write".to_owned());
        Ok(Self {
            full: Some(full),
            written,
            under_way: false,
            thread: Some(thread.spawn(writing)?),
        })
    }

    fn hand_over(&mut self, buffer: Buffer) -> io::Result<()> {
        let sent = self.full.as_ref().map(|full| full.send(buffer));
        self.under_way = matches!(sent, Some(Ok(())));
        match self.under_way {
            true => Ok(()),
            false => Err(io::Error::other("the thread that writes is gone")),
        }
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.full = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing left to say.
            let _ = thread.join();
        }
    }
}
