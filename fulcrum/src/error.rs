//! Errors of the keeper's side: configuration, keeper and its client.

use std::io;
use std::path::{Path, PathBuf};

/// Why a rnode's configuration cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read or written.
    #[error("reach the configuration {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not the JSON we expect: an unknown key, a missing one, a wrong type.
    #[error("read the configuration {}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A field holds a value that means nothing.
    #[error("read the configuration: `{field}` is {value:?}, expected {expected}")]
    Field {
        /// The field's name in the file.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What it should hold.
        expected: &'static str,
    },
}

/// Why a keeper cannot start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// Another keeper holds the pen of this directory; nothing was changed.
    #[error("take the pen of {}: another keeper{} holds it", directory.display(), pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    PenTaken {
        /// The rnode's directory.
        directory: PathBuf,
        /// Its holder, as it wrote itself into the pen.
        pid: Option<i32>,
    },
    /// The rnode's configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A system call failed; what was written before it stays valid.
    #[error("{operation}")]
    Io {
        /// What was tried, as a fragment that reads after "failed to".
        operation: String,
        /// What the system said.
        source: io::Error,
    },
}

impl KeeperError {
    /// Wraps a system error with what was tried.
    pub(crate) fn io(operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            operation: operation.into(),
            source: source.into(),
        }
    }

    /// Wraps a system error with what was tried on which path.
    pub(crate) fn at(verb: &str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::io(format!("{verb} {}", path.display()), source)
    }
}
