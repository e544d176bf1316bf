//! What stands in the body of an answer that is an error.

use serde_json::{Map, Value};
use tonic::Status;

use crate::rest::{Malformed, Place};
use crate::status::{self, Effect, Kind};

/// An error as its JSON says it: `{"kind","effect","message"}`, and where there is one a place, `{"line","column"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// HTTP status. Usually [`Kind::http`]; what HTTP itself refuses has a finer one.
    pub http: u16,
    /// What kind of failure.
    pub kind: Kind,
    /// What became of the state.
    pub effect: Effect,
    /// Reads after "failed to".
    pub message: String,
    /// Where in the body.
    pub place: Option<Place>,
}

impl Problem {
    /// A problem of the request itself: nothing was changed.
    #[must_use]
    pub fn new(http: u16, kind: Kind, message: impl Into<String>) -> Self {
        Self {
            http,
            kind,
            effect: Effect::None,
            message: message.into(),
            place: None,
        }
    }

    /// What a gRPC answer says.
    #[must_use]
    pub fn of_status(told: &Status) -> Self {
        let (kind, effect) = status::read(told);
        Self {
            http: kind.http(),
            kind,
            effect,
            message: told.message().to_owned(),
            place: None,
        }
    }

    /// The same as a gRPC status; the place is lost.
    #[must_use]
    pub fn status(&self) -> Status {
        status::status(self.kind, self.effect, self.message.clone())
    }

    /// The body, on one line without its end.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        Value::from(self.object()).to_string().into_bytes()
    }

    /// The last line of a stream that fails: `{"error":{…}}`, with its end.
    #[must_use]
    pub fn to_last_line(&self) -> Vec<u8> {
        let mut line = Map::new();
        line.insert("error".to_owned(), self.object().into());
        let mut bytes = Value::from(line).to_string().into_bytes();
        bytes.push(b'\n');
        bytes
    }

    /// Reads a body, or what stands under `error` in the last line of a stream; `None`: it is neither.
    #[must_use]
    pub fn from_json(http: u16, json: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(json).ok()?;
        let object = value.get("error").unwrap_or(&value);
        let text = |name: &str| object.get(name).and_then(Value::as_str);
        let number = |name: &str| object.get(name).and_then(Value::as_u64);
        let place = |line| {
            let column = number("column").unwrap_or(0);
            Place { line, column }
        };
        Some(Self {
            http,
            kind: Kind::of_name(text("kind")?),
            effect: match text("effect")? {
                "none" => Effect::None,
                "done" => Effect::Done,
                _ => Effect::Unknown,
            },
            message: text("message")?.to_owned(),
            place: number("line").map(place),
        })
    }

    fn object(&self) -> Map<String, Value> {
        let mut object = Map::new();
        object.insert("kind".to_owned(), self.kind.name().into());
        object.insert("effect".to_owned(), self.effect.text().into());
        object.insert("message".to_owned(), self.message.clone().into());
        if let Some(place) = self.place {
            object.insert("line".to_owned(), place.line.into());
            object.insert("column".to_owned(), place.column.into());
        }
        object
    }
}

impl From<Malformed> for Problem {
    fn from(malformed: Malformed) -> Self {
        let place = malformed.place;
        let kind = Kind::Invalid;
        Self {
            place,
            ..Self::new(kind.http(), kind, malformed.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_back_as_it_was_written() {
        for kind in Kind::all() {
            for effect in [Effect::None, Effect::Done, Effect::Unknown] {
                let place = Some(Place { line: 3, column: 0 });
                let problem = Problem {
                    effect,
                    place,
                    ..Problem::new(kind.http(), kind, "say \"no\"\n")
                };
                let http = problem.http;
                assert_eq!(
                    Problem::from_json(http, &problem.to_json()).unwrap(),
                    problem
                );
                let line = problem.to_last_line();
                assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
                assert_eq!(Problem::from_json(http, &line).unwrap(), problem);
                let again = Problem::of_status(&problem.status());
                assert_eq!(Problem { place, ..again }, problem);
            }
        }
    }

    #[test]
    fn what_is_no_problem_is_not_read_as_one() {
        for json in [
            &b""[..],
            b"{}",
            b"{\"kind\":\"bug\"}",
            b"[1]",
            b"{\"error\":1}",
        ] {
            assert_eq!(Problem::from_json(500, json), None);
        }
    }
}
