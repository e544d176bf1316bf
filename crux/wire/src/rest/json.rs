//! One message from proto3 JSON to its wire form and back.
//!
//! The mapping is the canonical one: lowerCamelCase names (the proto's own are read too), 64-bit integers as strings, bytes as
//! base64, enums by name, fields at their default left out. An unknown field is an error, and so is a number that could
//! not be kept exactly.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};

use crate::rest::Method;

/// Where in a JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// From 1; in a stream, the line of the whole body.
    pub line: u64,
    /// From 1, in bytes; 0: at the end of the line before.
    pub column: u64,
}

/// A text that is not the message it should be. Nothing was made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// Full name of the message.
    pub message: String,
    /// What is wrong, for people.
    pub text: String,
    /// Where; `None`: in a wire form, which has no lines.
    pub place: Option<Place>,
}

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "read {}: {}", self.message, self.text)?;
        match self.place {
            Some(place) => write!(formatter, ", line {} column {}", place.line, place.column),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Malformed {}

impl Method {
    /// A request in its wire form.
    ///
    /// # Errors
    /// [`Malformed`], with its place.
    pub fn request_from_json(&self, json: &[u8]) -> Result<Bytes, Malformed> {
        from_json(self.descriptor.input(), json)
    }

    /// A reply as JSON, on one line, without its end.
    ///
    /// # Errors
    /// [`Malformed`] when it is not such a message.
    pub fn reply_to_json(&self, wire: Bytes) -> Result<Vec<u8>, Malformed> {
        to_json(self.descriptor.output(), wire)
    }

    /// A request as JSON, on one line, without its end.
    ///
    /// # Errors
    /// [`Malformed`] when it is not such a message.
    pub fn request_to_json(&self, wire: Bytes) -> Result<Vec<u8>, Malformed> {
        to_json(self.descriptor.input(), wire)
    }
}

fn from_json(descriptor: MessageDescriptor, json: &[u8]) -> Result<Bytes, Malformed> {
    let name = descriptor.full_name().to_owned();
    if let Some((text, place)) = inexact(json) {
        let text = text.into_owned();
        let text = format!("the number {text} cannot be kept exactly; write it in quotes");
        return Err(Malformed {
            message: name,
            text,
            place: Some(place),
        });
    }
    let mut reader = serde_json::Deserializer::from_slice(json);
    DynamicMessage::deserialize(descriptor, &mut reader)
        .and_then(|message| reader.end().map(|()| message))
        .map(|message| message.encode_to_vec().into())
        .map_err(|error| malformed(name, &error))
}

/// Where whole numbers that are written as fractions begin to be read wrongly: 2^52.
const EXACT_MAX: f64 = 4_503_599_627_370_496.0;

/// The first number that a reader would round: none of our messages has a field of floating point.
///
/// Texts that are no JSON are left to the parser, which says more of them.
fn inexact(json: &[u8]) -> Option<(Cow<'_, str>, Place)> {
    let (mut at, mut quoted) = (0, false);
    while let Some(byte) = json.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'-' | b'0'..=b'9' if !quoted => {
                let rest = &json[at..];
                let numeric = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                let length = rest.iter().take_while(|byte| numeric(byte)).count();
                let text = String::from_utf8_lossy(&rest[..length]);
                if is_inexact(&text) {
                    return Some((text, place_of(json, at)));
                }
                at += length - 1;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

fn is_inexact(number: &str) -> bool {
    let whole = number.parse::<u64>().is_ok() || number.parse::<i64>().is_ok();
    // What does not parse at all is refused later, with its own words.
    !whole
        && number
            .parse::<f64>()
            .is_ok_and(|value| value.abs() >= EXACT_MAX)
}

fn place_of(json: &[u8], at: usize) -> Place {
    let before = &json[..at];
    let lines = before.iter().filter(|byte| **byte == b'\n').count();
    let column = before
        .iter()
        .rev()
        .take_while(|byte| **byte != b'\n')
        .count();
    Place {
        line: u64::try_from(lines + 1).unwrap_or(u64::MAX),
        column: u64::try_from(column + 1).unwrap_or(u64::MAX),
    }
}

fn malformed(message: String, error: &serde_json::Error) -> Malformed {
    let place = Place {
        line: u64::try_from(error.line()).unwrap_or(u64::MAX),
        column: u64::try_from(error.column()).unwrap_or(u64::MAX),
    };
    // The library appends the place to its text; ours stands apart.
    let text = error.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    Malformed {
        message,
        text: text[..end].to_owned(),
        place: Some(place),
    }
}

fn to_json(descriptor: MessageDescriptor, wire: Bytes) -> Result<Vec<u8>, Malformed> {
    let name = descriptor.full_name().to_owned();
    let unreadable = |text: String| Malformed {
        message: name,
        text,
        place: None,
    };
    match DynamicMessage::decode(descriptor, wire) {
        Ok(message) => serde_json::to_vec(&message).map_err(|error| unreadable(error.to_string())),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fileio::v1::PutChunk;
    use crate::fulcrum::v1::{DescribeReply, EventsRequest, MemoirRequest};
    use crate::keeper::v1::Execution;
    use crate::rest::Api;
    use crate::rexec::v1::{RunOutput, run_output};

    fn method(word: &str) -> &'static Method {
        Api::radix().find(word)[0]
    }

    fn request<M: prost::Message + Default>(word: &str, json: &str) -> M {
        let wire = method(word).request_from_json(json.as_bytes()).unwrap();
        M::decode(wire).unwrap()
    }

    #[test]
    fn each_kind_of_field_is_read_in_every_form_that_the_mapping_allows() {
        let events: EventsRequest = request("Events", r#"{"after":"é\n","follow":true}"#);
        assert_eq!((events.after.as_str(), events.follow), ("é\n", true));
        for from in [r#""18446744073709551615""#, "18446744073709551615"] {
            let memoir: MemoirRequest = request("Memoir", &format!(r#"{{"from":{from}}}"#));
            assert_eq!(memoir.from, u64::MAX);
        }
        for bytes in ["/+8=", "/+8", "_-8"] {
            let chunk: PutChunk = request("FileIo/Put", &format!(r#"{{"bytes":"{bytes}"}}"#));
            assert_eq!(chunk.bytes, [0xff, 0xef], "{bytes}");
        }
        for name in ["takeOver", "take_over"] {
            let json = format!(r#"{{"{name}":true,"document":null}}"#);
            let put: crate::fulcrum::v1::PutDocumentRequest = request("PutDocument", &json);
            assert!(put.take_over && put.document.is_none());
        }
    }

    #[test]
    fn replies_are_written_in_the_one_canonical_form() {
        let json = |word: &str, message: &dyn Fn() -> Vec<u8>| {
            let json = method(word).reply_to_json(message().into()).unwrap();
            String::from_utf8(json).unwrap()
        };
        let described = || {
            DescribeReply {
                keeper_pid: "7".to_owned(),
                agent_pid: -1,
                public_key_der: vec![255],
                ..DescribeReply::default()
            }
            .encode_to_vec()
        };
        assert_eq!(
            json("Describe", &described),
            r#"{"keeperPid":"7","agentPid":-1,"publicKeyDer":"/w=="}"#
        );
        let started = || {
            let execution = Execution {
                start_ticks: 1 << 60,
                ..Execution::default()
            };
            RunOutput {
                output: Some(run_output::Output::Started(execution)),
            }
            .encode_to_vec()
        };
        assert_eq!(
            json("Run", &started),
            r#"{"started":{"startTicks":"1152921504606846976"}}"#
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let wrong = |word: &str, json: &[u8]| method(word).request_from_json(json).unwrap_err();
        let unknown = wrong("Events", b"{\n  \"aftr\": \"x\"\n}");
        assert_eq!(unknown.place.unwrap().line, 2);
        assert!(unknown.text.contains("aftr"), "{unknown}");
        assert!(!unknown.text.contains("line"), "{unknown}");
        for json in [
            &b""[..],
            b"[]",
            b"1",
            b"{",
            b"{} {}",
            b"{\"after\":1}",
            b"{\"follow\":\"yes\"}",
            b"\xff",
            b"{\"after\":\"\xff\"}",
            b"{\"after\":\"\\ud800\"}",
        ] {
            assert!(wrong("Events", json).place.is_some());
        }
        wrong("Memoir", b"{\"from\":-1}");
        wrong("Memoir", b"{\"from\":1.5}");
        wrong("FileIo/Put", b"{\"bytes\":\"*\"}");
    }

    #[test]
    fn a_number_is_kept_exactly_or_refused() {
        for number in [
            "9007199254740993",
            "18446744073709551615",
            "4503599627370495.0",
            "1e3",
        ] {
            let memoir: MemoirRequest = request("Memoir", &format!(r#"{{"from":{number}}}"#));
            let exact = number.parse::<u64>().unwrap_or_else(|_| {
                let small: f64 = number.parse().unwrap();
                small as u64
            });
            assert_eq!(memoir.from, exact, "{number}");
        }
        for number in [
            "9007199254740993.0",
            "4503599627370496e0",
            "18446744073709551616",
            "1.8446744073709551615e19",
            "1e300",
        ] {
            let json = format!("{{\n \"from\": {number}}}");
            let refused = method("Memoir").request_from_json(json.as_bytes());
            let refused = refused.unwrap_err();
            assert_eq!(
                refused.place,
                Some(Place {
                    line: 2,
                    column: 10
                })
            );
            assert!(refused.text.contains("in quotes"), "{refused}");
        }
        let events: EventsRequest = request("Events", r#"{"after":"\"9007199254740993.0"}"#);
        assert_eq!(events.after, "\"9007199254740993.0");
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "[".repeat(200_000);
        let json = format!(r#"{{"after":{deep}"#);
        method("Events")
            .request_from_json(json.as_bytes())
            .unwrap_err();
    }
}
