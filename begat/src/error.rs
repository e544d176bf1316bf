//! Why a build could not be done.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crux_core::adf::Span;

/// What callers decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The description asks for something that is not there: a file, a program, a match.
    Missing,
    /// The dictum ran and failed, or did not make what it declares.
    Failed,
    /// Inputs changed while they were being used; trying again may help.
    Changed,
    /// It was told to stop.
    Cancelled,
    /// Known and meant, but not available yet.
    Unsupported,
    /// A limit of begat was reached.
    TooLarge,
    /// Begat's own directory or store failed.
    Store,
    /// Anything else the operating system said.
    Io,
}

/// A failed build, or part of one. Reads after "failed to"; its source is not printed with it.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    message: String,
    span: Option<Span>,
    /// What the dictum printed last.
    output: Option<String>,
    help: Option<String>,
    path: Option<PathBuf>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        let message = message.into();
        let (span, output, help, path, source) = (None, None, None, None, None);
        Self(Box::new(Inner {
            kind,
            message,
            span,
            output,
            help,
            path,
            source,
        }))
    }

    pub(crate) fn io(operation: &str, path: &Path, source: io::Error) -> Self {
        let mut error = Self::new(Kind::Io, format!("{operation} {}", path.display()));
        error.0.path = Some(path.to_owned());
        error.caused_by(source)
    }

    pub(crate) fn at(mut self, span: Span) -> Self {
        self.0.span = self.0.span.or(Some(span));
        self
    }

    pub(crate) fn with_output(mut self, output: String) -> Self {
        self.0.output = Some(output).filter(|output| !output.is_empty());
        self
    }

    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    pub(crate) fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What callers decide by.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The place in a `.begat` file that it is about.
    #[must_use]
    pub fn span(&self) -> Option<Span> {
        self.0.span
    }

    /// The last lines that the dictum printed.
    #[must_use]
    pub fn output(&self) -> Option<&str> {
        self.0.output.as_deref()
    }

    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.0.help.as_deref()
    }

    /// The file of begat's own that it is about.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<crux_net::store::Error> for Error {
    fn from(source: crux_net::store::Error) -> Self {
        let mut error = Self::new(Kind::Store, "keep what was built");
        error.0.path = source.path().map(Path::to_owned);
        error.caused_by(source)
    }
}
