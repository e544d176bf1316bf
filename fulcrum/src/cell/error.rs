//! Why a cell cannot be made.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::ConfigError;

/// Why a cell cannot be made; what was mounted is gone with the process that tried.
#[derive(Debug, thiserror::Error)]
pub enum CellError {
    /// The rnode's configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A system call failed.
    #[error("{operation}")]
    Io {
        /// What was tried.
        operation: String,
        /// What the system said.
        source: io::Error,
    },
    /// A mount of the configuration cannot be made.
    #[error("show {} at {}: {reason}", host.display(), target.display())]
    Mount {
        /// The host's path.
        host: PathBuf,
        /// Where it should be shown.
        target: PathBuf,
        /// Why not.
        reason: String,
    },
}

impl CellError {
    pub(crate) fn io(operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            operation: operation.into(),
            source: source.into(),
        }
    }

    pub(crate) fn at(verb: &str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::io(format!("{verb} {}", path.display()), source)
    }

    /// The error with its sources, in one line.
    pub(crate) fn chain(&self) -> String {
        let first: &dyn std::error::Error = self;
        let chain = std::iter::successors(Some(first), |error| error.source());
        chain
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(": ")
    }
}
