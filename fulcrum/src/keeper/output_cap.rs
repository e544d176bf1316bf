//! Keeps output files from filling the disk: the middle of a file beyond its cap is given back, its ends stay.
//!
//! Programs write to their files directly, so the keeper looks once a second and punches a hole. Offsets never change:
//! a reader that follows sees a gap where the hole is. On file systems without holes there is no cap.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::{FallocateFlags, fallocate};

/// What one output file may hold unless the execution says otherwise. 64 MiB.
pub(crate) const OUTPUT_BYTES_MAX: u64 = 64 << 20;

/// What is always kept of a file's start.
const HEAD_BYTES: u64 = 64 << 10;

/// Holes begin and end at multiples of this.
const BLOCK_BYTES: u64 = 4096;

/// Gives back the middle of `path` if it holds more than `cap` bytes on disk.
pub(crate) fn enforce(path: &Path, cap: u64) -> io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    let held = metadata.blocks() * 512;
    if held <= cap.max(4 * HEAD_BYTES) {
        return Ok(());
    }
    // Half of the cap stays as the tail, so that not every look has to punch.
    let tail = (cap / 2).max(HEAD_BYTES);
    let end = metadata.len().saturating_sub(tail) / BLOCK_BYTES * BLOCK_BYTES;
    punch(&OpenOptions::new().write(true).open(path)?, HEAD_BYTES, end)
}

fn punch(file: &File, start: u64, end: u64) -> io::Result<()> {
    let (Ok(offset), Ok(length)) = (
        i64::try_from(start),
        i64::try_from(end.saturating_sub(start)),
    ) else {
        return Ok(());
    };
    if length == 0 {
        return Ok(());
    }
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    match fallocate(file, flags, offset, length) {
        Ok(()) | Err(nix::Error::EOPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
