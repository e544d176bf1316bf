//! Errors on the wire: kind, effect, operation, context and the chain of causes.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use underverse::{Effect, Error, Kind};

use crate::wire;

/// Most operations and context names of other processes that are kept; the rest are called "other".
const INTERNED_MAX: usize = 1_024;
/// Longest operation or context name of another process that is kept, in bytes.
const INTERNED_BYTES_MAX: usize = 200;

/// A text that lives as long as the process, since an error's operation is one. Bounded in number and length.
fn intern(text: &str) -> &'static str {
    static KEPT: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = kept.get(text) {
        return found;
    }
    if kept.len() >= INTERNED_MAX || text.len() > INTERNED_BYTES_MAX {
        return "other";
    }
    let leaked: &'static str = Box::leak(text.to_owned().into_boxed_str());
    kept.insert(leaked);
    leaked
}

/// A cause that was told by another process.
#[derive(Debug)]
struct Told {
    text: String,
    cause: Option<Box<Self>>,
}

impl fmt::Display for Told {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for Told {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

const KINDS: [(Kind, wire::ErrorKind); 12] = [
    (Kind::Invalid, wire::ErrorKind::Invalid),
    (Kind::Unsupported, wire::ErrorKind::Unsupported),
    (Kind::NotFound, wire::ErrorKind::NotFound),
    (Kind::Taken, wire::ErrorKind::Taken),
    (Kind::Stale, wire::ErrorKind::Stale),
    (Kind::Unsatisfiable, wire::ErrorKind::Unsatisfiable),
    (Kind::Limit, wire::ErrorKind::Limit),
    (Kind::Denied, wire::ErrorKind::Denied),
    (Kind::Unavailable, wire::ErrorKind::Unavailable),
    (Kind::DeadlineExceeded, wire::ErrorKind::DeadlineExceeded),
    (Kind::Io, wire::ErrorKind::Io),
    (Kind::Bug, wire::ErrorKind::Bug),
];

impl From<&Error> for wire::Error {
    fn from(error: &Error) -> Self {
        let kind = KINDS.iter().find(|(kind, _)| *kind == error.kind());
        let effect = match error.what_changed() {
            Effect::None => wire::ErrorEffect::None,
            Effect::Done => wire::ErrorEffect::Done,
            Effect::Unknown => wire::ErrorEffect::Unknown,
        };
        let context = error.context().iter();
        let pair = |(name, value): &(&'static str, String)| wire::Pair {
            name: (*name).to_owned(),
            value: value.clone(),
        };
        let first = std::error::Error::source(error);
        let causes = std::iter::successors(first, |cause| cause.source());
        Self {
            kind: kind
                .map_or(wire::ErrorKind::Unspecified, |(_, kind)| *kind)
                .into(),
            effect: effect.into(),
            operation: error.operation().to_owned(),
            message: error.message().to_owned(),
            context: context.map(pair).collect(),
            causes: causes.map(ToString::to_string).collect(),
        }
    }
}

impl From<wire::Error> for Error {
    fn from(error: wire::Error) -> Self {
        let known = KINDS
            .iter()
            .find(|(_, kind)| i32::from(*kind) == error.kind);
        let effect = match wire::ErrorEffect::try_from(error.effect) {
            Ok(wire::ErrorEffect::None) => Effect::None,
            Ok(wire::ErrorEffect::Done) => Effect::Done,
            Ok(wire::ErrorEffect::Unknown | wire::ErrorEffect::Unspecified) | Err(_) => {
                Effect::Unknown
            }
        };
        let kind = known.map_or(Kind::Bug, |(kind, _)| *kind);
        let mut ours = Self::new(kind, intern(&error.operation), error.message).effect(effect);
        for pair in error.context {
            ours = ours.with(intern(&pair.name), pair.value);
        }
        if known.is_none() {
            ours = ours.with("unknown kind", error.kind);
        }
        let mut causes: Option<Box<Told>> = None;
        for text in error.causes.into_iter().rev() {
            causes = Some(Box::new(Told {
                text,
                cause: causes,
            }));
        }
        match causes {
            Some(cause) => ours.caused_by(*cause),
            None => ours,
        }
    }
}

/// A result without a value as it is sent.
pub(crate) fn answer(result: Result<(), Error>) -> wire::Answer {
    wire::Answer {
        error: result.err().map(|error| wire::Error::from(&error)),
    }
}

/// What was sent as an error, if it was one.
pub(crate) fn outcome(error: Option<wire::Error>) -> Result<(), Error> {
    error.map_or(Ok(()), |error| Err(error.into()))
}
