//! One record as a line: how it is written, read and bound to the one before.

use crux_core::digest::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Fields;

/// The longest line. 64 KiB: an argument list beyond that is replaced by its digest.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// The longest field, as JSON, that is kept of a record that is too large. 256 B: names of executions, commands, callers.
const FIELD_KEPT_BYTES_MAX: usize = 256;

/// The most of them.
const FIELDS_KEPT_MAX: usize = 16;

/// What `prev` holds in the very first record.
pub(super) const GENESIS: Digest = Digest::from_bytes([0; 32]);

/// What stands between a line's hashed part and its hash.
const HASH_KEY: &str = ",\"hash\":\"";

/// One record of a memoir.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its number, from 0 without gaps.
    pub seq: u64,
    /// Hash of the record before; zeros in the first.
    pub prev: Digest,
    /// Wall time of its writing, in milliseconds since 1970; may go backwards when the clock does.
    pub time_unix_ms: u64,
    /// What it tells, such as `exec.start`.
    pub kind: String,
    /// Its content.
    pub fields: Fields,
    /// Hash of all of the above as written.
    pub hash: Digest,
}

/// The end of a chain, to which the next record is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) next_seq: u64,
    pub(super) prev: Digest,
}

/// A record's hashed part, in the order of the line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    seq: u64,
    prev: String,
    time: u64,
    kind: String,
    fields: Fields,
}

impl Tail {
    pub(super) const START: Self = Self {
        next_seq: 0,
        prev: GENESIS,
    };

    /// Writes the next record as a line with its end, and moves on.
    pub(super) fn append(&mut self, time_unix_ms: u64, kind: &str, fields: &Fields) -> String {
        let mut body = self.body(time_unix_ms, kind, fields);
        if body.len() + 128 > LINE_BYTES_MAX {
            body = self.body(time_unix_ms, kind, &summary(fields));
        }
        let hash = Digest::of(body.as_bytes());
        *self = Self {
            next_seq: self.next_seq + 1,
            prev: hash,
        };
        format!("{body}{HASH_KEY}{hash}\"}}\n")
    }

    /// The hashed part: the object without its closing brace.
    fn body(&self, time: u64, kind: &str, fields: &Fields) -> String {
        let mut text = format!(
            "{{\"seq\":{},\"prev\":\"{}\",\"time\":{time},\"kind\":",
            self.next_seq, self.prev
        );
        text.push_str(&Value::from(kind).to_string());
        text.push_str(",\"fields\":");
        text.push_str(&serde_json::to_string(fields).unwrap_or_else(|_| "{}".to_owned()));
        text
    }

    /// The tail after `record`.
    pub(super) fn after(record: &Record) -> Self {
        Self {
            next_seq: record.seq + 1,
            prev: record.hash,
        }
    }
}

impl Record {
    /// Reads a line without its end; `None` where it is not a record or its hash does not fit its bytes.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let (body, rest) = line.rsplit_once(HASH_KEY)?;
        let hash: Digest = rest.strip_suffix("\"}")?.parse().ok()?;
        if line.len() > LINE_BYTES_MAX || Digest::of(body.as_bytes()) != hash {
            return None;
        }
        let body: Body = serde_json::from_str(&format!("{body}}}")).ok()?;
        Some(Self {
            seq: body.seq,
            prev: body.prev.parse().ok()?,
            time_unix_ms: body.time,
            kind: body.kind,
            fields: body.fields,
            hash,
        })
    }

    /// The record as the line it was read from.
    #[must_use]
    pub fn to_line(&self) -> String {
        let tail = Tail {
            next_seq: self.seq,
            prev: self.prev,
        };
        let body = tail.body(self.time_unix_ms, &self.kind, &self.fields);
        format!("{body}{HASH_KEY}{}\"}}", self.hash)
    }
}

/// What stands for fields that are too large: their digest and size, beside those that are short.
fn summary(fields: &Fields) -> Fields {
    let text = serde_json::to_string(fields).unwrap_or_default();
    let short = |value: &Value| value.to_string().len() <= FIELD_KEPT_BYTES_MAX;
    let short = fields.iter().filter(|(_, value)| short(value));
    let mut summary: Fields = short
        .take(FIELDS_KEPT_MAX)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    summary.insert("too_large_bytes".to_owned(), Value::from(text.len()));
    summary.insert(
        "digest".to_owned(),
        Value::from(Digest::of(text.as_bytes()).to_string()),
    );
    summary
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: &str, value: &str) -> Fields {
        Fields::from_iter([(name.to_owned(), Value::from(value))])
    }

    #[test]
    fn a_line_reads_back_and_prints_the_same() {
        let mut tail = Tail::START;
        for text in ["plain", "quote \" brace } ,\"hash\":\"", "line\nend", "ü"] {
            let line = tail.append(7, text, &fields(text, text));
            let record = Record::parse(line.trim_end_matches('\n').as_bytes()).unwrap();
            assert_eq!(format!("{}\n", record.to_line()), line);
            assert_eq!(record.fields, fields(text, text));
            assert_eq!(Tail::after(&record), tail);
        }
    }

    #[test]
    fn any_changed_byte_of_a_line_is_noticed() {
        let mut tail = Tail::START;
        let line = tail
            .append(7, "exec.start", &fields("argv", "worker"))
            .into_bytes();
        let line = &line[..line.len() - 1];
        for index in 0..line.len() {
            let mut changed = line.to_vec();
            changed[index] ^= 1;
            assert_eq!(Record::parse(&changed), None, "byte {index}");
        }
    }

    #[test]
    fn fields_beyond_the_limit_are_replaced_by_their_digest_and_short_ones_stay() {
        let mut fields = fields("argv", &"x".repeat(LINE_BYTES_MAX));
        fields.insert("execution".to_owned(), Value::from("worker-1"));
        let line = Tail::START.clone().append(7, "exec.start", &fields);
        let record = Record::parse(line.trim_end_matches('\n').as_bytes()).unwrap();
        let kept: Vec<_> = record.fields.keys().map(String::as_str).collect();
        assert_eq!(kept, ["digest", "execution", "too_large_bytes"]);
        assert_eq!(record.fields["execution"], "worker-1");
        assert!(line.len() < 1024);
    }
}
