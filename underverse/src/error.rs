//! The one error of this crate and of every backend.
//!
//! Callers match [`Kind`] and [`Effect`], never text.

use std::fmt;

/// What went wrong, as callers may act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The request can never be right: a bad name, an unknown property, a mount of a missing path.
    Invalid,
    /// This backend cannot do what was asked; its capability record says why.
    Unsupported,
    /// A named thing does not exist.
    NotFound,
    /// A port, address or name is held by somebody else.
    Taken,
    /// A higher generation has been seen for this horde.
    Stale,
    /// No server satisfies the request; the message names the tag or resource.
    Unsatisfiable,
    /// A stated limit of the backend or of the machine would be exceeded.
    Limit,
    /// The caller, or this process, lacks the right.
    Denied,
    /// What lies below cannot be reached now; the same call may succeed later.
    Unavailable,
    /// The deadline passed first.
    DeadlineExceeded,
    /// Reading or writing local state failed.
    Io,
    /// A fact that must hold does not: a bug in the backend or below it.
    Bug,
}

/// What a failed call did to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Nothing changed.
    None,
    /// What was asked took place; what failed came after it.
    Done,
    /// Nobody knows; only idempotent calls may be repeated.
    Unknown,
}

/// Why a call on an underverse failed. Displays as a fragment that reads after "failed to".
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    effect: Effect,
    operation: &'static str,
    message: String,
    context: Vec<(&'static str, String)>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `operation` (an infinitive: "start a cell") that changed nothing.
    #[must_use]
    pub fn new(kind: Kind, operation: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            effect: Effect::None,
            operation,
            message: message.into(),
            context: Vec::new(),
            source: None,
        }
    }

    /// The answer to a request for something the backend does not have.
    #[must_use]
    pub fn unsupported(operation: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, operation, message)
    }

    /// Sets what the failed call did.
    #[must_use]
    pub const fn effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }

    /// Adds a named fact for people.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.context.push((name, value.to_string()));
        self
    }

    /// Sets the cause.
    #[must_use]
    pub fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What went wrong.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// What the failed call did to the world.
    #[must_use]
    pub const fn what_changed(&self) -> Effect {
        self.effect
    }

    /// The operation that failed, an infinitive.
    #[must_use]
    pub const fn operation(&self) -> &'static str {
        self.operation
    }

    /// The reason without operation and context.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The named facts, in the order they were added.
    #[must_use]
    pub fn context(&self) -> &[(&'static str, String)] {
        &self.context
    }

    /// This error and its causes in one line, for logs and reports.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.operation)?;
        for (index, (name, value)) in self.context.iter().enumerate() {
            write!(
                formatter,
                "{}{name} {value}",
                if index == 0 { " (" } else { ", " }
            )?;
        }
        if !self.context.is_empty() {
            formatter.write_str(")")?;
        }
        write!(formatter, ": {}", self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}
