//! Reading an execution's output file while it grows.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crux_wire::keeper::v1::Execution;
use tokio::sync::mpsc;

use super::executions::Executions;
use super::limits::{CHUNK_BYTES, OUTPUT_POLL};

/// Which of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Where to begin and when to end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct From {
    /// First byte; past the end means the end.
    pub(crate) offset: u64,
    /// If not 0, at most this many bytes before the present end, instead of `offset`.
    pub(crate) tail_bytes: u64,
    /// Goes on until the execution has ended.
    pub(crate) follow: bool,
}

/// Sends pieces until the end, or until the reader has gone; returns the offset behind the last piece.
///
/// # Errors
/// When the file cannot be read.
///
/// # Cancel safety
/// Safe: nothing is changed.
pub(crate) async fn read<T: Send>(
    executions: &Executions,
    execution: &Execution,
    (which, from): (Which, From),
    tx: &mpsc::Sender<T>,
    wrap: impl Fn(u64, Vec<u8>) -> T,
) -> io::Result<u64> {
    let path = match which {
        Which::Stdout => &execution.stdout_path,
        Which::Stderr => &execution.stderr_path,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        // What was never started has no output.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut offset = from.offset;
    if from.tail_bytes > 0 {
        offset = file.metadata()?.len().saturating_sub(from.tail_bytes);
    }
    let mut changes = executions.changes();
    loop {
        changes.mark_unchanged();
        // Ordering: ended is looked up before reading, so what was written before the end is read.
        let known = executions.get(&execution.execution);
        let ended = known.is_none_or(|known| known.outcome.is_some());
        loop {
            let mut piece = vec![0; CHUNK_BYTES];
            let length = file.read_at(&mut piece, offset)?;
            if length == 0 {
                break;
            }
            piece.truncate(length);
            if tx.send(wrap(offset, piece)).await.is_err() {
                return Ok(offset);
            }
            offset += length as u64;
        }
        if ended || !from.follow {
            return Ok(offset);
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tx.closed() => return Ok(offset),
            () = tokio::time::sleep(OUTPUT_POLL) => {}
        }
    }
}
