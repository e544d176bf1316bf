//! Twins of the trait's types on the wire, and the way between them: what comes in is checked here.
//!
//! Requests with an unknown value are refused as `Unsupported`: whoever sent it asks for something we do not know.
//! In answers an unknown value is read as the nearest thing that promises less.

mod error;
mod event;
mod network;
mod spec;
mod strength;
#[cfg(test)]
mod tests;
mod told;

use std::time::Duration;

use underverse::{ByteCount, Error, Kind, Role, Tag};

use crate::wire;

pub(crate) use error::{answer, outcome};
pub(crate) use event::change;
pub(crate) use strength::{capabilities, strengths};
pub(crate) use told::unreadable_end;

/// A request that cannot be read.
pub(crate) fn unreadable(what: &str) -> Error {
    Error::new(
        Kind::Invalid,
        "read a message",
        format!("{what} is missing or wrong"),
    )
}

/// A request with a value that we do not know.
fn unknown(what: &str, value: i32) -> Error {
    let message = format!("{what} {value} is not known here; the other side is newer");
    Error::unsupported("read a message", message)
}

/// What must be there.
pub(crate) fn need<T>(value: Option<T>, what: &str) -> Result<T, Error> {
    value.ok_or_else(|| unreadable(what))
}

/// Each converted, or the first that cannot be.
pub(crate) fn all<A, B, C>(list: Vec<A>) -> Result<C, Error>
where
    B: TryFrom<A, Error = Error>,
    C: FromIterator<B>,
{
    list.into_iter().map(B::try_from).collect()
}

/// Each converted.
pub(crate) fn each<'a, A: 'a, B: From<&'a A>>(list: impl IntoIterator<Item = &'a A>) -> Vec<B> {
    list.into_iter().map(B::from).collect()
}

fn tags<C: FromIterator<Tag>>(list: Vec<String>) -> Result<C, Error> {
    list.into_iter().map(Tag::new).collect()
}

pub(crate) fn tag_list(list: Vec<String>) -> Result<Vec<Tag>, Error> {
    tags(list)
}

pub(crate) fn texts<'a, T: ToString + 'a>(list: impl IntoIterator<Item = &'a T>) -> Vec<String> {
    list.into_iter().map(ToString::to_string).collect()
}

fn role(text: String) -> Result<Role, Error> {
    Role::new(text)
}

const fn bytes(count: u64) -> ByteCount {
    ByteCount::bytes(count)
}

pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl From<underverse::Generation> for wire::Generation {
    fn from(generation: underverse::Generation) -> Self {
        Self {
            document: generation.document,
            term: generation.term,
        }
    }
}

impl From<wire::Generation> for underverse::Generation {
    fn from(generation: wire::Generation) -> Self {
        Self {
            document: generation.document,
            term: generation.term,
        }
    }
}

impl From<underverse::Keep> for wire::Keep {
    fn from(keep: underverse::Keep) -> Self {
        match keep {
            underverse::Keep::Nothing => Self::Nothing,
            underverse::Keep::Storage => Self::Storage,
        }
    }
}

/// What is to stay, from its number.
pub(crate) fn keep(number: i32) -> Result<underverse::Keep, Error> {
    match wire::Keep::try_from(number) {
        Ok(wire::Keep::Nothing) => Ok(underverse::Keep::Nothing),
        Ok(wire::Keep::Storage) => Ok(underverse::Keep::Storage),
        Ok(wire::Keep::Unspecified) | Err(_) => Err(unknown("what to keep", number)),
    }
}
