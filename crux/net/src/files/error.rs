//! Why a copy did not come about.

use std::fmt;
use std::io;

use crux_core::files::path::{PathRefusal, RelPath};

/// What callers decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The path or what lies there may not be copied; nothing was changed.
    Refused,
    /// There is no such file.
    NotFound,
    /// This user may not read or write there.
    Denied,
    /// What came is not what was offered; nothing of it was kept.
    Lied,
    /// It changed at its source since it was offered; what was verified before stays staged.
    Changed,
    /// No room is left; final names are as they were.
    Full,
    /// The other side went away or refused; what was verified before stays staged.
    Source,
    /// Anything else the operating system said.
    Io,
}

/// A failed copy. Reads after "failed to".
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    text: String,
    source: Option<io::Error>,
}

impl Error {
    /// What callers decide by.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            source: None,
        }
    }

    pub(crate) fn refused(path: &RelPath, why: &str) -> Self {
        Self::new(Kind::Refused, format!("copy {path}: {why}"))
    }

    pub(crate) fn path(shown: &str, refusal: PathRefusal) -> Self {
        Self::new(
            Kind::Refused,
            format!("copy {}: {refusal}", shown.escape_debug()),
        )
    }

    pub(crate) fn io(operation: &str, path: &RelPath, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        let kind = match source.kind() {
            io::ErrorKind::NotFound => Kind::NotFound,
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::CrossesDevices => Kind::Denied,
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Kind::Full,
            _ => Kind::Io,
        };
        let reason = match kind {
            Kind::Full => "no room is left there".to_owned(),
            Kind::Denied if source.kind() == io::ErrorKind::CrossesDevices => {
                "another file system is mounted there".to_owned()
            }
            _ => source.to_string(),
        };
        Self {
            kind,
            text: format!("{operation} {path}: {reason}"),
            source: Some(source),
        }
    }

    /// What a rnode answered.
    #[must_use]
    pub fn from_status(status: &tonic::Status) -> Self {
        let kind = match status.code() {
            tonic::Code::InvalidArgument | tonic::Code::PermissionDenied => Kind::Refused,
            tonic::Code::NotFound => Kind::NotFound,
            tonic::Code::FailedPrecondition => Kind::Changed,
            tonic::Code::DataLoss => Kind::Lied,
            tonic::Code::ResourceExhausted => Kind::Full,
            _ => Kind::Source,
        };
        Self::new(kind, status.message().to_owned())
    }

    /// What whoever gives answered: that it is busy is no lack of room here, and it may be asked again.
    pub(crate) fn from_source(status: &tonic::Status) -> Self {
        match status.code() {
            tonic::Code::ResourceExhausted => Self::gone(status.message()),
            _ => Self::from_status(status),
        }
    }

    pub(crate) fn gone(what: &str) -> Self {
        Self::new(Kind::Source, what.to_owned())
    }
}

impl From<&Error> for tonic::Status {
    fn from(error: &Error) -> Self {
        let text = error.to_string();
        match error.kind {
            Kind::Refused => Self::invalid_argument(text),
            Kind::NotFound => Self::not_found(text),
            Kind::Denied => Self::permission_denied(text),
            Kind::Lied => Self::data_loss(text),
            Kind::Changed => Self::failed_precondition(text),
            Kind::Full => Self::resource_exhausted(text),
            Kind::Source => Self::unavailable(text),
            Kind::Io => Self::internal(text),
        }
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
