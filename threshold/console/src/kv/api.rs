//! What the server answers. A subset of Consul's HTTP API, so that its clients read and write.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/kv/KEY` | `[{"Key":…,"Value":base64,…}]`; 404 if there is none |
//! | `GET /v1/kv/KEY?raw` | the bytes |
//! | `GET /v1/kv/PREFIX?recurse` | all entries whose keys begin so; 404 if there is none |
//! | `GET /v1/kv/PREFIX?keys` | their keys |
//! | `PUT /v1/kv/KEY` | `true` |
//! | `DELETE /v1/kv/KEY` | `true`, also if there was none |
//! | `GET /v1/status` | role, rnode, `"consistency":"eventual"` |
//!
//! `cas`, `acquire`, `release`, `index`, `wait`, `consistent` and `DELETE ?recurse` promise more than
//! eventual consistency gives: 501. Keys of over 189 and values of over 4087 bytes: 413; a key is text without line feeds.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crux_net::error::Error;
use crux_wire::status::Kind;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::board::{KEY_BYTES_MAX, Keys, VALUE_BYTES_MAX};

/// Parameters that ask for more than eventual consistency.
const UNSUPPORTED: [&str; 6] = ["cas", "acquire", "release", "index", "wait", "consistent"];

/// Which of the two programs of the library file this is; they differ in nothing but name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// `cserver`.
    Server,
    /// `cagent`.
    Agent,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// Status code.
    pub(super) status: StatusCode,
    /// What the body is.
    pub(super) content_type: &'static str,
    /// The body.
    pub(super) body: Vec<u8>,
}

impl Answer {
    fn json(status: StatusCode, value: &Value) -> Self {
        let body = format!("{value}\n").into_bytes();
        Self {
            status,
            content_type: "application/json",
            body,
        }
    }

    pub(super) fn error(status: StatusCode, reason: impl Into<String>) -> Self {
        Self::json(status, &json!({ "error": reason.into() }))
    }
}

/// A request, its body not read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// GET, PUT, DELETE.
    pub(super) method: Method,
    /// The path as it came, percent-escaped.
    pub(super) path: String,
    /// What follows `?`.
    pub(super) query: String,
}

/// The server's answers.
pub(super) struct Api {
    role: Role,
    keys: Keys,
}

impl Api {
    /// Answers over `keys`.
    pub(super) fn new(role: Role, keys: Keys) -> Self {
        Self { role, keys }
    }

    /// Answers a request; `body` is at most one byte longer than a value may be.
    pub(super) async fn answer(&self, asked: &Asked, body: &[u8]) -> Answer {
        if asked.path == "/v1/status" && asked.method == Method::GET {
            return self.status();
        }
        let Some(escaped) = asked.path.strip_prefix("/v1/kv/") else {
            return Answer::error(StatusCode::NOT_FOUND, "try /v1/kv/KEY or /v1/status");
        };
        let Some(key) = unescape(escaped).filter(|key| !key.contains('\n')) else {
            return Answer::error(StatusCode::BAD_REQUEST, "the key is not one line of text");
        };
        if key.len() > KEY_BYTES_MAX {
            let reason = format!("the key is longer than {KEY_BYTES_MAX} bytes");
            return Answer::error(StatusCode::PAYLOAD_TOO_LARGE, reason);
        }
        if let Some(asked_for) = UNSUPPORTED.iter().find(|name| has(&asked.query, name)) {
            return unsupported(asked_for);
        }
        let answer = match asked.method {
            Method::GET => self.get(&key, &asked.query).await,
            Method::PUT => self.put(&key, body).await,
            Method::DELETE if has(&asked.query, "recurse") => return unsupported("recurse"),
            Method::DELETE => self.delete(&key).await,
            _ => Ok(Answer::error(
                StatusCode::METHOD_NOT_ALLOWED,
                "GET, PUT or DELETE",
            )),
        };
        answer.unwrap_or_else(|error| failed(&error))
    }

    fn status(&self) -> Answer {
        let role = match self.role {
            Role::Server => "server",
            Role::Agent => "agent",
        };
        let limits = json!({ "key_bytes_max": KEY_BYTES_MAX, "value_bytes_max": VALUE_BYTES_MAX });
        let status = json!({
            "consistency": "eventual",
            "compare_and_set": "unsupported",
            "role": role,
            "rnode": self.keys.rnode(),
            "limits": limits,
        });
        Answer::json(StatusCode::OK, &status)
    }

    async fn get(&self, key: &str, query: &str) -> Result<Answer, Error> {
        if has(query, "recurse") || has(query, "keys") {
            let found = self.keys.list(key).await?;
            if found.is_empty() {
                return Ok(none());
            }
            let shown: Vec<Value> = match has(query, "keys") {
                true => found
                    .into_iter()
                    .map(|(key, _)| Value::String(key))
                    .collect(),
                false => found.iter().map(|(key, value)| entry(key, value)).collect(),
            };
            return Ok(Answer::json(StatusCode::OK, &Value::Array(shown)));
        }
        if key.is_empty() {
            return Ok(no_key());
        }
        Ok(match self.keys.get(key).await? {
            None => none(),
            Some(body) if has(query, "raw") => Answer {
                status: StatusCode::OK,
                content_type: "application/octet-stream",
                body,
            },
            Some(value) => Answer::json(StatusCode::OK, &json!([entry(key, &value)])),
        })
    }

    async fn put(&self, key: &str, value: &[u8]) -> Result<Answer, Error> {
        if key.is_empty() {
            return Ok(no_key());
        }
        if value.len() > VALUE_BYTES_MAX {
            let reason = format!("the value is longer than {VALUE_BYTES_MAX} bytes");
            return Ok(Answer::error(StatusCode::PAYLOAD_TOO_LARGE, reason));
        }
        self.keys.put(key, value).await?;
        Ok(Answer::json(StatusCode::OK, &Value::Bool(true)))
    }

    async fn delete(&self, key: &str) -> Result<Answer, Error> {
        if key.is_empty() {
            return Ok(no_key());
        }
        self.keys.remove(key).await?;
        Ok(Answer::json(StatusCode::OK, &Value::Bool(true)))
    }
}

/// An entry as Consul's clients read it; there are no indexes that could be compared.
fn entry(key: &str, value: &[u8]) -> Value {
    json!({
        "Key": key,
        "Value": STANDARD.encode(value),
        "Flags": 0,
        "LockIndex": 0,
        "CreateIndex": 0,
        "ModifyIndex": 0,
    })
}

fn none() -> Answer {
    Answer::error(
        StatusCode::NOT_FOUND,
        "there is no such key, as far as this rnode knows",
    )
}

fn no_key() -> Answer {
    Answer::error(StatusCode::BAD_REQUEST, "the key is missing")
}

fn unsupported(name: &str) -> Answer {
    let reason = format!("Unsupported: `{name}` promises more than eventual consistency");
    Answer::error(StatusCode::NOT_IMPLEMENTED, reason)
}

fn failed(error: &Error) -> Answer {
    let status = match error.kind() {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        Kind::Refused => StatusCode::FORBIDDEN,
        Kind::Limit => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    Answer::error(status, format!("failed to {error}"))
}

/// Whether the query has parameter `name`, with or without a value.
fn has(query: &str, name: &str) -> bool {
    query
        .split('&')
        .any(|part| part.split('=').next() == Some(name))
}

/// Resolves `%XX`; `None` if that is no UTF-8 or no hex.
fn unescape(escaped: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped.bytes();
    while let Some(byte) = rest.next() {
        let plain = match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        };
        bytes.push(plain);
    }
    String::from_utf8(bytes).ok()
}
