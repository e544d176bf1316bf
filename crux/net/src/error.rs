//! The error of the drivers in this crate that talk to others.

use std::error::Error as StdError;
use std::fmt;

use crux_core::identity::Refusal;
use crux_wire::status::{Effect, Kind};

/// Why a call or connection failed: what kind, what became of the state, what was tried, and on what.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    effect: Effect,
    operation: &'static str,
    context: Vec<(&'static str, String)>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A failure of `operation`, with its kind's usual effect.
    #[must_use]
    pub fn new(kind: Kind, operation: &'static str) -> Self {
        Self {
            kind,
            effect: kind.usual_effect(),
            operation,
            context: Vec::new(),
            source: None,
        }
    }

    /// The same, with what is known of its effect.
    #[must_use]
    pub const fn effect_is(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }

    /// The same, with one more thing it was tried on.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.context.push((name, value.to_string()));
        self
    }

    /// The same, with what brought it about.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// What became of the state.
    #[must_use]
    pub const fn effect(&self) -> Effect {
        self.effect
    }

    /// What was tried.
    #[must_use]
    pub const fn operation(&self) -> &'static str {
        self.operation
    }

    /// The refusal behind it, if identity was why.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        self.source().and_then(crate::identity::refusal_in)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.operation)?;
        for (name, value) in &self.context {
            write!(formatter, ", {name} {value}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<Error> for tonic::Status {
    /// The same kind and effect; the source chain goes into the message, since it does not travel.
    fn from(error: Error) -> Self {
        let mut message = error.to_string();
        let mut at = error.source();
        while let Some(source) = at {
            message.push_str(": ");
            message.push_str(&source.to_string());
            at = source.source();
        }
        crux_wire::status::status(error.kind, error.effect, message)
    }
}
