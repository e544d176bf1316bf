//! Reading an execution's output file while it grows.

use std::io;
use std::path::Path;

use crux_wire::keeper::v1::Execution;
use tokio::sync::mpsc;

use super::executions::Executions;
use super::limits::{CHUNK_BYTES, OUTPUT_POLL};
use crate::output::{Piece, Reading, Stream};

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

/// Sends what `wrap` makes of pieces until the end, or until the reader has gone; returns the offset behind the last piece.
///
/// # Errors
/// When the file cannot be read.
///
/// # Cancel safety
/// Safe: nothing is changed.
pub(crate) async fn read<T: Send>(
    executions: &Executions,
    execution: &Execution,
    (stream, from): (Stream, From),
    tx: &mpsc::Sender<T>,
    wrap: impl Fn(Piece) -> Option<T>,
) -> io::Result<u64> {
    let path = match stream {
        Stream::Stdout => &execution.stdout_path,
        Stream::Stderr => &execution.stderr_path,
    };
    let reading = match Reading::open(Path::new(path), stream) {
        Ok(reading) => reading,
        // What was never started has no output.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut offset = from.offset;
    if from.tail_bytes > 0 {
        offset = reading.length()?.saturating_sub(from.tail_bytes);
    }
    let mut changes = executions.changes();
    loop {
        changes.mark_unchanged();
        // Ordering: ended is looked up before reading, so what was written before the end is read.
        let known = executions.get(&execution.execution);
        let ended = known.is_none_or(|known| known.outcome.is_some());
        while let Some(piece) = reading.piece(offset, CHUNK_BYTES)? {
            let behind = match &piece {
                Piece::Data { bytes, .. } => offset + bytes.len() as u64,
                Piece::Gap { to, .. } => *to,
                Piece::Ended(_) => break,
            };
            if let Some(part) = wrap(piece)
                && tx.send(part).await.is_err()
            {
                return Ok(offset);
            }
            offset = behind;
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
