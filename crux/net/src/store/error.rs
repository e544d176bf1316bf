//! Why the store could not do what it was asked.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crux_core::digest::Digest;

/// What callers decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// There is no such blob or file.
    NotFound,
    /// A stored blob's bytes were not what its name says; it has been removed.
    Corrupt,
    /// What was to be stored does not have the digest it was said to have; nothing was stored.
    Mismatch,
    /// It is larger than the store's limit; nothing was stored.
    TooLarge,
    /// The file system, or the user's quota, has no room; nothing was stored.
    Full,
    /// The directory or file may not be read or written by this user.
    Denied,
    /// A directory, pipe or device stands where a file was asked for.
    NotRegular,
    /// A stream of blobs is damaged, cut short, or of an unknown version.
    Format,
    /// Anything else the operating system said.
    Io,
}

/// A failed store operation. Reads after "failed to"; its source is not printed with it.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    text: String,
    path: Option<PathBuf>,
    source: Option<io::Error>,
}

impl Error {
    /// What callers decide by.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The file or directory concerned, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    fn plain(kind: Kind, text: String) -> Self {
        Self {
            kind,
            text,
            path: None,
            source: None,
        }
    }

    pub(crate) fn io(operation: &str, path: &Path, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::NotFound => Kind::NotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::Denied,
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Kind::Full,
            _ => Kind::Io,
        };
        let text = match kind {
            Kind::Full => format!("{operation} {}: no room is left there", path.display()),
            _ => format!("{operation} {}", path.display()),
        };
        Self {
            kind,
            text,
            path: Some(path.to_owned()),
            source: Some(source),
        }
    }

    /// A file of the store cannot be read.
    #[must_use]
    pub fn reading(path: &Path, source: io::Error) -> Self {
        Self::io("read", path, source)
    }

    pub(crate) fn not_found(digest: Digest) -> Self {
        Self::plain(
            Kind::NotFound,
            format!("open blob {digest}: it is not in this store"),
        )
    }

    pub(crate) fn corrupt(digest: Digest, found: Digest) -> Self {
        let text = format!("open blob {digest}: its bytes hash to {found}; it has been removed");
        Self::plain(Kind::Corrupt, text)
    }

    pub(crate) fn mismatch(expected: Digest, found: Digest) -> Self {
        Self::plain(
            Kind::Mismatch,
            format!("store blob {expected}: what came hashes to {found}"),
        )
    }

    pub(crate) fn too_large(limit: u64) -> Self {
        Self::plain(
            Kind::TooLarge,
            format!("store a blob: it is larger than {limit} bytes"),
        )
    }

    pub(crate) fn quota(quota: u64) -> Self {
        Self::plain(
            Kind::Full,
            format!("store a blob: the store's quota of {quota} bytes is used up"),
        )
    }

    pub(crate) fn not_regular(path: &Path) -> Self {
        let text = format!("open {}: it is not a regular file", path.display());
        Self {
            kind: Kind::NotRegular,
            text,
            path: Some(path.to_owned()),
            source: None,
        }
    }

    pub(crate) fn format(reason: &str) -> Self {
        Self::plain(Kind::Format, format!("read the stream of blobs: {reason}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}
