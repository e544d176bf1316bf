//! Brings blobs here from the base and from members that have them, group by group, and goes on after a cut.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crux_core::digest::{Digest, GROUP_BYTES, Groups, SEAL_BYTES};
use crux_net::files::RANGES_AT_ONCE;
use crux_net::store::{Arrival, Put, TakeError};
use crux_wire::document::v1::RnodeRecord;
use crux_wire::fileio::v1::file_io_client::FileIoClient;
use crux_wire::fileio::v1::{GetRequest, Piece, Range, ReadRequest, Want};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::context::{Agent, fields};
use super::files::copy;
use super::files::writing::Writing;
use super::limits::{CALL_TIMEOUT, FETCH_TRIES, FILE_BYTES_MAX, LIES_MAX};
use super::status::service_address;

/// Where files may be had: the base first, then the members of the namespace.
pub(crate) fn sources(agent: &Agent) -> Vec<String> {
    let mut sources: Vec<String> = agent.config.base.iter().map(ToString::to_string).collect();
    let own = agent.id();
    let members: Vec<(String, RnodeRecord)> = agent.shared.messages("rnode");
    sources.extend(
        members
            .iter()
            .filter(|(owner, _)| *owner != own)
            .map(|(_, record)| service_address(record))
            .filter(|address| !address.is_empty()),
    );
    sources
}

/// Makes a blob present, from the first source that gives it. Returns that source, if any was needed.
///
/// # Errors
/// The last reason, for people.
///
/// # Cancel safety
/// Safe: nothing partial becomes visible, and what came is not asked for again.
pub(crate) async fn fetch(
    agent: &Agent,
    digest: &Digest,
    executable: bool,
    sources: &[String],
) -> Result<Option<String>, String> {
    if agent.store.has(digest) {
        return Ok(None);
    }
    let alone = agent.files.fetching.of(digest);
    let _alone = alone.lock().await;
    if agent.store.has(digest) {
        return Ok(None);
    }
    let mut reason = "no rnode is known that may have it".to_owned();
    for source in sources {
        for _ in 0..FETCH_TRIES {
            match fetch_from(agent, digest, executable, source).await {
                Ok(()) => return Ok(Some(source.clone())),
                Err(Failed::Other(error)) => reason = format!("{source}: {error}"),
                Err(Failed::Lied(error)) => {
                    reason = format!("{source}: {error}");
                    if !agent.files.lies.is_new(source, digest) {
                        break;
                    }
                    agent.tell("file.lied", source, &reason);
                    let record = fields! {
                        "source": source.clone(), "digest": digest.to_string(), "reason": error,
                    };
                    agent.note("file.lied", record).await;
                    break;
                }
            }
        }
    }
    Err(reason)
}

/// Which sources gave something else than which blobs: a source that does not change would be told at each try.
#[derive(Debug, Default)]
pub(crate) struct Lies(Mutex<BTreeSet<(String, Digest)>>);

impl Lies {
    /// Whether this lie has not been told yet; it is from now on.
    pub(crate) fn is_new(&self, source: &str, digest: &Digest) -> bool {
        let mut lies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lies.len() >= LIES_MAX {
            lies.clear();
        }
        lies.insert((source.to_owned(), *digest))
    }
}

/// Refuses what the disk has no room for, so that it is not filled again at each try.
fn fits(dir: &Path, bytes: u64) -> Result<(), Failed> {
    // A disk that does not say is asked by writing to it.
    let Ok(disk) = rustix::fs::statvfs(dir) else {
        return Ok(());
    };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if bytes <= free {
        return Ok(());
    }
    let text = format!("no room is left: {bytes} bytes are to come, and the disk has {free}");
    Err(Failed::Other(text))
}

/// Makes fetches of one blob wait for each other: the second finds it here.
#[derive(Debug, Default)]
pub(crate) struct Fetching(Mutex<BTreeMap<Digest, Weak<tokio::sync::Mutex<()>>>>);

impl Fetching {
    pub(crate) fn of(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = all.get(digest).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        all.insert(*digest, Arc::downgrade(&lock));
        lock
    }
}

/// Why one source did not give a blob.
enum Failed {
    /// It gave something else.
    Lied(String),
    Other(String),
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Self::Other(status.message().to_owned())
    }
}

impl From<crux_net::store::Error> for Failed {
    fn from(error: crux_net::store::Error) -> Self {
        match error.kind() {
            crux_net::store::Kind::Mismatch => Self::Lied(error.to_string()),
            _ => Self::Other(error.to_string()),
        }
    }
}

async fn fetch_from(
    agent: &Agent,
    digest: &Digest,
    executable: bool,
    source: &str,
) -> Result<(), Failed> {
    let connecting = copy::connect(agent, source).await;
    let mut client = connecting.map_err(|error| Failed::Other(error.to_string()))?;
    let want = Want {
        digest: digest.to_string(),
        seals_only: true,
        ..Want::default()
    };
    let mut pieces = match read(&mut client, want.clone()).await {
        // A rnode of the release before knows whole blobs only.
        Err(status) if status.code() == Code::Unimplemented => {
            return whole(agent, digest, executable, &mut client).await;
        }
        reading => reading?,
    };
    let groups = seals(digest, &mut pieces).await?;
    let store = Arc::clone(&agent.store);
    let mut arrival = off(move || Arrival::resume(&store, groups)).await?;
    let missing = arrival.partial().missing().into_iter();
    let missing = missing.map(|range| range.end - range.start).sum();
    fits(agent.store.dir(), missing)?;
    while !arrival.partial().is_whole() {
        let held = arrival.partial().held();
        let missing = arrival.partial().missing().into_iter();
        let want = Want {
            seals_only: false,
            ranges: missing.take(RANGES_AT_ONCE).map(range).collect(),
            ..want.clone()
        };
        let pieces = read(&mut client, want).await?;
        arrival = fill(arrival, pieces).await?;
        if arrival.partial().held() == held {
            return Err(Failed::Other("it ended before all of it came".to_owned()));
        }
    }
    let store = Arc::clone(&agent.store);
    off(move || arrival.commit(&store, executable)).await?;
    Ok(())
}

/// Takes what comes, group by group: they are hashed and written faster than a thread is woken.
async fn fill(mut arrival: Arrival, mut pieces: Streaming<Piece>) -> Result<Arrival, Failed> {
    while let Some(piece) = next(&mut pieces).await? {
        let left = arrival.partial().left();
        match arrival.partial_mut().take(piece.offset, &piece.bytes) {
            // What was not asked for would only keep us busy.
            Ok(()) if arrival.partial().left() == left => {
                let text = format!("what came at byte {} was not asked for", piece.offset);
                return Err(Failed::Lied(text));
            }
            Ok(()) => {}
            Err(TakeError::Lied(offset)) => {
                let text = format!("what came at byte {offset} is not what the digest says");
                return Err(Failed::Lied(text));
            }
            Err(TakeError::Io(error)) => {
                // What cannot be finished must not keep the disk full.
                arrival.discard();
                return Err(Failed::Other(error.to_string()));
            }
        }
    }
    Ok(arrival)
}

const fn range(range: std::ops::Range<u64>) -> Range {
    Range {
        offset: range.start,
        length: range.end - range.start,
    }
}

/// The seals of a blob, checked against its digest before any byte of it is taken.
async fn seals(digest: &Digest, pieces: &mut Streaming<Piece>) -> Result<Groups, Failed> {
    let (mut size, mut seals) = (0, Vec::new());
    while let Some(piece) = next(pieces).await? {
        size = piece.total;
        if size > FILE_BYTES_MAX {
            return Err(Failed::Other("it is too large".to_owned()));
        }
        let (page, rest) = piece.seals.as_chunks::<SEAL_BYTES>();
        seals.extend_from_slice(page);
        // One without seals, where there are some, would only keep us waiting.
        let empty = page.is_empty() && size > GROUP_BYTES;
        if !rest.is_empty() || empty || seals.len() as u64 > size.div_ceil(GROUP_BYTES) {
            return Err(Failed::Lied("it sent what are no seals".to_owned()));
        }
    }
    Groups::check(*digest, size, seals).map_err(|error| Failed::Lied(error.to_string()))
}

async fn read(client: &mut FileIoClient<Channel>, want: Want) -> Result<Streaming<Piece>, Status> {
    let request = ReadRequest {
        ticket: String::new(),
        wants: vec![want],
    };
    tokio::time::timeout(CALL_TIMEOUT, client.read(request))
        .await
        .map_err(|_| Status::unavailable("it does not answer"))?
        .map(tonic::Response::into_inner)
}

async fn next(pieces: &mut Streaming<Piece>) -> Result<Option<Piece>, Failed> {
    let piece = tokio::time::timeout(CALL_TIMEOUT, pieces.message())
        .await
        .map_err(|_| Failed::Other("it stopped sending".to_owned()))??;
    match piece {
        Some(piece) if !piece.refused.is_empty() => Err(Failed::Other(piece.refused)),
        piece => Ok(piece),
    }
}

/// Does something that may block for long beside the runtime.
async fn off<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, crux_net::store::Error> + Send + 'static,
) -> Result<T, Failed> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| Failed::Other(error.to_string()))??)
}

/// A blob in one go.
async fn whole(
    agent: &Agent,
    digest: &Digest,
    executable: bool,
    client: &mut FileIoClient<Channel>,
) -> Result<(), Failed> {
    let request = GetRequest {
        digest: digest.to_string(),
        offset: 0,
    };
    let mut chunks = tokio::time::timeout(CALL_TIMEOUT, client.get(request))
        .await
        .map_err(|_| Failed::Other("it does not answer".to_owned()))??
        .into_inner();
    let put = Put {
        expected: Some(*digest),
        executable,
    };
    let mut writing = Writing::begin(&agent.store, put).await?;
    while let Some(chunk) = tokio::time::timeout(CALL_TIMEOUT, chunks.message())
        .await
        .map_err(|_| Failed::Other("it stopped sending".to_owned()))??
    {
        if writing.size() + chunk.bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(Failed::Other("it is too large".to_owned()));
        }
        writing = writing.append(&agent.store, chunk.bytes).await?;
    }
    writing.commit(&agent.store).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_disk_has_no_room_for_is_not_begun() {
        let dir = std::env::temp_dir();
        assert!(fits(&dir, 1).is_ok());
        let Err(Failed::Other(text)) = fits(&dir, u64::MAX) else {
            panic!("no disk has that much room");
        };
        assert!(text.starts_with("no room is left"), "{text}");
    }

    #[test]
    fn a_lie_is_told_once_and_another_too() {
        let (lies, one, other) = (Lies::default(), Digest::of(b"1"), Digest::of(b"2"));
        assert!(lies.is_new("a", &one));
        assert!(!lies.is_new("a", &one));
        assert!(lies.is_new("a", &other));
        assert!(lies.is_new("b", &one));
    }
}
