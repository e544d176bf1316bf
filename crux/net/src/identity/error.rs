//! What can go wrong with keys, certificates and their files.

use std::io;
use std::path::{Path, PathBuf};

use crux_core::identity::Refusal;

/// Why identity could not be made, read or used. What was on disk before still is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was tried: `read`, `write` …
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// The directory belongs to another user.
    #[error("use {}: it belongs to user {owner}, and this is user {user}; set RADIX_HOME to a directory of your own", path.display())]
    OtherUser {
        /// Which directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// Others may read or write what is ours alone.
    #[error("use {}: others may {may} it (mode {mode:o})", path.display())]
    Exposed {
        /// Which file or directory.
        path: PathBuf,
        /// What they may.
        may: &'static str,
        /// Its mode.
        mode: u32,
    },
    /// The file is not what we wrote.
    #[error("read {}: {what}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The identity itself is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A printed line (an invitation, a key, a grant) cannot be read; says how it should begin, and why.
    #[error("read a line that begins with {head}: {reason}")]
    Line {
        /// What it begins with.
        head: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// A text is not an invitation; says why.
    #[error("read an invitation: {0}")]
    Invitation(&'static str),
    /// A text is not a recovery key at all; says why.
    #[error("read a recovery key: {0}")]
    RecoveryText(&'static str),
    /// A recovery key does not help here; says why.
    #[error("use a recovery key: {0}")]
    Recovery(&'static str),
    /// There is no place for another; says where.
    #[error("issue a certificate: {0}")]
    Full(&'static str),
    /// A deny notice cannot be made so; says why.
    #[error("write a deny notice: {0}")]
    Notice(&'static str),
    /// A deny notice was made but does not count; says why.
    #[error("deny: {0}")]
    NotCounted(String),
    /// The owner's root key is not on this machine.
    #[error("{0}: the owner's root key is not on this machine")]
    NoRoot(&'static str),
    /// This directory was claimed with another invitation.
    #[error("claim an invitation: {} has an identity already", .0.display())]
    Claimed(PathBuf),
    /// The cryptographic library refused.
    #[error("{operation}: {reason}")]
    Crypto {
        /// What was tried.
        operation: &'static str,
        /// Its answer.
        reason: String,
    },
}

impl Error {
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn crypto<E: ToString>(operation: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Crypto {
            operation,
            reason: error.to_string(),
        }
    }
}
