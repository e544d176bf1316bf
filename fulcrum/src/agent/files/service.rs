//! Which data service a need is served by, and how a blob is had from it.

use std::fmt;
use std::io;
use std::str::FromStr;

use crux_core::digest::Digest;
use crux_net::files::service::{Block, DataService, Folder, Object};
use crux_net::store::{self, Put};
use crux_wire::document::v1::RnodeRecord;
use crux_wire::fileio::v1::HaveRequest;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tonic::Status;

use super::writing::Writing;
use super::{copy, roots};
use crate::agent::context::{Agent, fields};
use crate::agent::fetch;
use crate::agent::limits::{CALL_TIMEOUT, FILE_BYTES_MAX, SERVICE_BYTES_MAX};
use crate::agent::status::service_address;

/// Bytes read at once.
const PIECE_BYTES: usize = 256 << 10;

/// Where a need is had from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Service {
    /// The base and whoever has it.
    #[default]
    Rnodes,
    /// One rnode, by label.
    Rnode(String),
    /// An object, by URL.
    Object(String),
    /// A file of a folder of a declared root, such as a network file system.
    Folder(String),
    /// The first bytes of a block device, or of a file, of a declared root.
    Block(String, u64),
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > SERVICE_BYTES_MAX {
            return Err(format!("a service has at most {SERVICE_BYTES_MAX} bytes"));
        }
        let service = match text.split_once(':') {
            None if matches!(text, "" | "rnodes") => Some(Self::Rnodes),
            Some(("rnode", label)) if !label.is_empty() => Some(Self::Rnode(label.to_owned())),
            Some(("http" | "https", _)) => Object::new(text).map(|_| Self::Object(text.to_owned())),
            Some(("file", path)) if !path.is_empty() => Some(Self::Folder(path.to_owned())),
            Some(("block", rest)) => rest
                .rsplit_once('?')
                .and_then(|(path, bytes)| Some(Self::Block(path.to_owned(), bytes.parse().ok()?))),
            _ => None,
        };
        service.ok_or_else(|| {
            format!(
                "`{}` is no data service: rnodes, rnode:LABEL, http[s]://HOST:PORT/PATH, file:PATH, block:PATH?BYTES",
                text.escape_debug()
            )
        })
    }
}

impl fmt::Display for Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rnodes => formatter.write_str("rnodes"),
            Self::Rnode(label) => write!(formatter, "rnode:{label}"),
            Self::Object(url) => formatter.write_str(url),
            Self::Folder(path) => write!(formatter, "file:{path}"),
            Self::Block(path, bytes) => write!(formatter, "block:{path}?{bytes}"),
        }
    }
}

impl TryFrom<String> for Service {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Service> for String {
    fn from(service: Service) -> Self {
        service.to_string()
    }
}

/// Makes a blob present from a service. Returns who gave it, if it was not here.
///
/// # Errors
/// The last reason, for people.
///
/// # Cancel safety
/// Safe: nothing partial becomes visible.
pub(crate) async fn fetch(
    agent: &Agent,
    service: &Service,
    digest: &Digest,
    executable: bool,
) -> Result<Option<String>, String> {
    let outside = match service {
        Service::Rnodes => {
            return fetch::fetch(agent, digest, executable, &fetch::sources(agent)).await;
        }
        Service::Rnode(label) => {
            let sources = [rnode(agent, label)?];
            return fetch::fetch(agent, digest, executable, &sources).await;
        }
        Service::Object(_) | Service::Folder(_) | Service::Block(..) => opened(agent, service)?,
    };
    let alone = agent.files.fetching.of(digest);
    let _alone = alone.lock().await;
    if agent.store.has(digest) {
        return Ok(None);
    }
    let failed = |error: &dyn fmt::Display| format!("{service}: {error}");
    let put = Put {
        expected: Some(*digest),
        executable,
    };
    let writing = Writing::begin(&agent.store, put).await;
    let writing = writing.map_err(|error| failed(&error))?;
    let written = read(&*outside, writing, |writing, bytes| async {
        let appended = writing.append(&agent.store, bytes).await;
        appended.map_err(io::Error::other)
    });
    let writing = written.await.map_err(|error| failed(&error))?;
    match writing.commit(&agent.store).await {
        Ok(_) => Ok(Some(service.to_string())),
        Err(error) => {
            let mismatch = error.kind() == store::Kind::Mismatch;
            if mismatch && agent.files.lies.is_new(&service.to_string(), digest) {
                lied(agent, service, digest).await;
            }
            Err(failed(&error))
        }
    }
}

/// Whether a service has a blob, by reading all of it; nothing is kept.
///
/// # Errors
/// Why not.
pub(crate) async fn has(agent: &Agent, service: &Service, digest: &Digest) -> Result<(), Status> {
    let unserved = |why: String| Status::failed_precondition(format!("switch to {service}: {why}"));
    match service {
        Service::Rnodes => return Ok(()),
        Service::Rnode(label) => {
            let address = rnode(agent, label).map_err(unserved)?;
            let connected = copy::connect(agent, &address).await;
            let mut client = connected.map_err(|error| unserved(error.to_string()))?;
            let request = HaveRequest {
                digests: vec![digest.to_string()],
            };
            let asked = tokio::time::timeout(CALL_TIMEOUT, client.have(request)).await;
            let reply = asked.map_err(|_| unserved("it does not answer".to_owned()))??;
            return match reply.into_inner().present.is_empty() {
                false => Ok(()),
                true => Err(unserved("it has not got it, or not for us".to_owned())),
            };
        }
        Service::Object(_) | Service::Folder(_) | Service::Block(..) => {}
    }
    let outside = opened(agent, service).map_err(unserved)?;
    let hasher = crux_core::digest::GroupHasher::new();
    let hashed = read(&*outside, hasher, |mut hasher, bytes| async move {
        let hashing = move || {
            hasher.update(&bytes);
            hasher
        };
        let hashed = tokio::task::spawn_blocking(hashing).await;
        hashed.map_err(io::Error::other)
    });
    let hasher = hashed.await.map_err(|error| unserved(error.to_string()))?;
    if hasher.finish().digest() == *digest {
        return Ok(());
    }
    lied(agent, service, digest).await;
    Err(unserved("what it gives has another digest".to_owned()))
}

/// Names a service that gives something else.
async fn lied(agent: &Agent, service: &Service, digest: &Digest) {
    let text = format!("{service} gives something else than {}", digest.short());
    agent.tell("file.lied", &service.to_string(), &text);
    let record = fields! { "source": service.to_string(), "digest": digest.to_string() };
    agent.note("file.lied", record).await;
}

/// Where the rnode with a label answers.
fn rnode(agent: &Agent, label: &str) -> Result<String, String> {
    let members: Vec<(String, RnodeRecord)> = agent.shared.messages("rnode");
    let found = members.iter().find(|(_, record)| record.label == label);
    let address = found.map(|(_, record)| service_address(record));
    let address = address.filter(|address| !address.is_empty());
    address.ok_or_else(|| format!("no rnode {label} is known here"))
}

/// The adapter for a service that is no rnode.
fn opened(agent: &Agent, service: &Service) -> Result<Box<dyn DataService>, String> {
    let said = |status: Status| status.message().to_owned();
    match service {
        Service::Object(url) => {
            let object = Object::new(url).ok_or("it is no URL")?;
            Ok(Box::new(object))
        }
        Service::Folder(path) => {
            let (root, below) = roots::resolve(agent, path).map_err(said)?;
            Ok(Box::new(Folder::new(root, below)))
        }
        Service::Block(path, bytes) => {
            let (root, below) = roots::resolve(agent, path).map_err(said)?;
            Ok(Box::new(Block::new(root, below, *bytes)))
        }
        Service::Rnodes | Service::Rnode(_) => Err("it is no data service".to_owned()),
    }
}

/// Reads all that a service gives into `taker`, within the bounds of a blob; `take` does with each piece what blocks beside
/// the runtime.
async fn read<T, F: Future<Output = io::Result<T>>>(
    service: &dyn DataService,
    mut taker: T,
    take: impl Fn(T, Vec<u8>) -> F,
) -> io::Result<T> {
    let mut content = service.open().await?;
    let mut seen = 0;
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let reading = content.bytes.read(&mut piece);
        let length = tokio::time::timeout(CALL_TIMEOUT, reading)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "it stopped sending"))??;
        if length == 0 {
            return Ok(taker);
        }
        seen += length as u64;
        if seen > FILE_BYTES_MAX {
            return Err(io::Error::other("it is too large"));
        }
        piece.truncate(length);
        taker = take(taker, piece).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_read_back_what_they_print_and_others_are_refused() {
        for text in [
            "rnodes",
            "rnode:n1",
            "http://127.0.0.1:80/a/b",
            "https://h/x",
            "file:/var/app/nfs/x",
            "block:/var/app/disk?4096",
        ] {
            assert_eq!(text.parse::<Service>().unwrap().to_string(), text);
        }
        assert_eq!("".parse::<Service>().unwrap(), Service::Rnodes);
        for text in [
            "https://u:p@h/x",
            "rnode:",
            "file:",
            "block:/x",
            "block:/x?-1",
            "s3://b/k",
            "x",
        ] {
            assert!(text.parse::<Service>().is_err(), "{text}");
        }
    }
}
