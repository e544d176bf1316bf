//! The one table between our error kinds, gRPC status codes and HTTP status codes, and how the effect of a failed call travels.
//!
//! Not for application errors: those are payloads.

use std::fmt;

use tonic::{Code, Status};

/// Metadata key that carries an [`Effect`].
pub const EFFECT_KEY: &str = "radix-effect";

/// What kind of failure it is. Callers match on it, never on text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The caller gave up.
    Cancelled,
    /// None of the others.
    Unknown,
    /// The request is wrong, whatever the state.
    Invalid,
    /// It took longer than allowed.
    Timeout,
    /// What was named is not there.
    NotFound,
    /// What was to be made is there already.
    Exists,
    /// We know who asks, and they may not.
    Refused,
    /// A limit is reached.
    Limit,
    /// The state does not allow it: stale, not ready, not empty.
    Precondition,
    /// Somebody else did something at the same time; try again from the start.
    Conflict,
    /// Past the end.
    Range,
    /// Not offered here, or not yet.
    Unsupported,
    /// A bug.
    Bug,
    /// Not reachable now.
    Unavailable,
    /// Data is lost or damaged.
    Damaged,
    /// We do not know who asks.
    Unauthenticated,
}

/// What became of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Nothing was changed.
    None,
    /// It was done, though an error came back.
    Done,
    /// Nobody can tell: only idempotent calls are repeated.
    Unknown,
}

/// Kind, gRPC code, HTTP code of the REST twin, usual effect.
const TABLE: [(Kind, Code, u16, Effect); 16] = [
    (Kind::Cancelled, Code::Cancelled, 499, Effect::Unknown),
    (Kind::Unknown, Code::Unknown, 500, Effect::Unknown),
    (Kind::Invalid, Code::InvalidArgument, 400, Effect::None),
    (Kind::Timeout, Code::DeadlineExceeded, 504, Effect::Unknown),
    (Kind::NotFound, Code::NotFound, 404, Effect::None),
    (Kind::Exists, Code::AlreadyExists, 409, Effect::None),
    (Kind::Refused, Code::PermissionDenied, 403, Effect::None),
    (Kind::Limit, Code::ResourceExhausted, 429, Effect::None),
    (
        Kind::Precondition,
        Code::FailedPrecondition,
        409,
        Effect::None,
    ),
    (Kind::Conflict, Code::Aborted, 409, Effect::None),
    (Kind::Range, Code::OutOfRange, 400, Effect::None),
    (Kind::Unsupported, Code::Unimplemented, 501, Effect::None),
    (Kind::Bug, Code::Internal, 500, Effect::Unknown),
    (Kind::Unavailable, Code::Unavailable, 503, Effect::Unknown),
    (Kind::Damaged, Code::DataLoss, 500, Effect::Unknown),
    (
        Kind::Unauthenticated,
        Code::Unauthenticated,
        401,
        Effect::None,
    ),
];

impl Kind {
    /// All kinds.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|(kind, ..)| *kind)
    }

    /// Its status code: one for each kind.
    #[must_use]
    pub fn code(self) -> Code {
        TABLE
            .iter()
            .find(|(kind, ..)| *kind == self)
            .map_or(Code::Unknown, |(_, code, ..)| *code)
    }

    /// The kind of a status code. `Ok` is no failure and reads as [`Kind::Bug`].
    #[must_use]
    pub fn of_code(code: Code) -> Self {
        TABLE
            .iter()
            .find(|(_, of, ..)| *of == code)
            .map_or(Self::Bug, |(kind, ..)| *kind)
    }

    /// The HTTP status of its REST twin. Several kinds share one; the body names the kind.
    #[must_use]
    pub fn http(self) -> u16 {
        TABLE
            .iter()
            .find(|(kind, ..)| *kind == self)
            .map_or(500, |(_, _, http, _)| *http)
    }

    /// Its name in JSON: `not_found`. A promise.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
            Self::Invalid => "invalid",
            Self::Timeout => "timeout",
            Self::NotFound => "not_found",
            Self::Exists => "exists",
            Self::Refused => "refused",
            Self::Limit => "limit",
            Self::Precondition => "precondition",
            Self::Conflict => "conflict",
            Self::Range => "range",
            Self::Unsupported => "unsupported",
            Self::Bug => "bug",
            Self::Unavailable => "unavailable",
            Self::Damaged => "damaged",
            Self::Unauthenticated => "unauthenticated",
        }
    }

    /// The kind of this [`name`](Self::name); [`Kind::Unknown`] for one of a later release.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        Self::all()
            .find(|kind| kind.name() == name)
            .unwrap_or(Self::Unknown)
    }

    /// What became of the state when nothing more is said.
    #[must_use]
    pub fn usual_effect(self) -> Effect {
        TABLE
            .iter()
            .find(|(kind, ..)| *kind == self)
            .map_or(Effect::Unknown, |(.., effect)| *effect)
    }

    /// A status of this kind with its usual effect.
    #[must_use]
    pub fn status(self, message: impl Into<String>) -> Status {
        Status::new(self.code(), message)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
            Self::Invalid => "invalid",
            Self::Timeout => "timeout",
            Self::NotFound => "not found",
            Self::Exists => "exists",
            Self::Refused => "refused",
            Self::Limit => "limit reached",
            Self::Precondition => "precondition failed",
            Self::Conflict => "conflict",
            Self::Range => "out of range",
            Self::Unsupported => "unsupported",
            Self::Bug => "bug",
            Self::Unavailable => "unavailable",
            Self::Damaged => "damaged",
            Self::Unauthenticated => "unauthenticated",
        })
    }
}

impl Effect {
    /// Its name on the wire and in JSON. A promise.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Done => "done",
            Self::Unknown => "unknown",
        }
    }
}

/// A status that says what became of the state.
#[must_use]
pub fn status(kind: Kind, effect: Effect, message: impl Into<String>) -> Status {
    let mut status = kind.status(message);
    if effect != kind.usual_effect() {
        status.metadata_mut().insert(
            EFFECT_KEY,
            tonic::metadata::MetadataValue::from_static(effect.text()),
        );
    }
    status
}

/// The kind and effect a status tells. An effect we do not know reads as unknown.
#[must_use]
pub fn read(status: &Status) -> (Kind, Effect) {
    let kind = Kind::of_code(status.code());
    let effect = match status
        .metadata()
        .get(EFFECT_KEY)
        .map(|value| value.as_encoded_bytes())
    {
        None => kind.usual_effect(),
        Some(b"none") => Effect::None,
        Some(b"done") => Effect::Done,
        Some(_) => Effect::Unknown,
    };
    (kind, effect)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_codes_match_one_to_one() {
        for kind in Kind::all() {
            assert_eq!(Kind::of_code(kind.code()), kind);
        }
        for number in 1..=16 {
            let code = Code::from_i32(number);
            assert_eq!(Kind::of_code(code).code(), code);
        }
        assert_eq!(Kind::of_code(Code::Ok), Kind::Bug);
    }

    #[test]
    fn every_kind_has_an_http_code_and_a_name_of_its_own() {
        for kind in Kind::all() {
            assert!((400..600).contains(&kind.http()), "{kind}");
            assert_eq!(Kind::of_name(kind.name()), kind);
        }
        assert_eq!(Kind::of_name("of a later release"), Kind::Unknown);
    }

    #[test]
    fn the_effect_travels_with_the_status() {
        for kind in Kind::all() {
            for effect in [Effect::None, Effect::Done, Effect::Unknown] {
                assert_eq!(read(&status(kind, effect, "text")), (kind, effect));
            }
            assert_eq!(read(&kind.status("text")), (kind, kind.usual_effect()));
        }
    }

    #[test]
    fn an_effect_of_a_later_release_reads_as_unknown() {
        let mut told = Kind::Invalid.status("text");
        told.metadata_mut().insert(
            EFFECT_KEY,
            tonic::metadata::MetadataValue::from_static("half"),
        );
        assert_eq!(read(&told), (Kind::Invalid, Effect::Unknown));
    }
}
