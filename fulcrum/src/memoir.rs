//! The memoir: a rnode's durable, append-only, hash-chained log of what was configured, executed and refused.
//!
//! One JSON object a line, drawn in docs/formats/memoir.md. [`Writer`] appends with group commit, [`Reader`] follows,
//! [`verify`] finds the first record that was altered, dropped or moved. All work offline, on files alone.
//! Not for debugging output: that goes through tracing.

mod backwards;
mod chain;
mod reader;
mod refusals;
mod segments;
mod verify;
mod writer;

use std::io;
use std::path::PathBuf;

pub(crate) use backwards::Backwards;
pub use chain::{LINE_BYTES_MAX, Record};
pub use reader::{Reader, read};
pub use verify::{BadAt, Verified, VerifyError, verify};
pub use writer::{SEGMENT_BYTES_MAX, Writer};

/// The fields of a record, by name.
pub type Fields = serde_json::Map<String, serde_json::Value>;

/// Why the memoir could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum MemoirError {
    /// The system refused; a record that was being written is not in the memoir.
    #[error("{operation} the memoir {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A write could not be made durable or taken back, so nothing more is written until it is opened again.
    #[error("write the memoir: an earlier record could not be made durable")]
    Broken,
    /// The writer has ended.
    #[error("write the memoir: its writer has ended")]
    Closed,
    /// A line is not a record.
    #[error("read the memoir {} at line {line}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
    },
}

impl MemoirError {
    fn io(operation: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io {
            operation,
            path: path.into(),
            source,
        }
    }
}
