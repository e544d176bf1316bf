//! Copies between rnodes: pulled, pushed, taken from a giver; tried again from where a cut left them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crux_core::digest::Digest;
use crux_core::files::path::RelPath;
use crux_net::files::{self, Error, Kind, Offered, Relay, Root, Sink, Source, Tally};
use crux_net::identity::Expect;
use crux_wire::fileio::v1::file_io_client::FileIoClient;
use crux_wire::fileio::v1::{CopyProgress, CopyRequest, GiveInput, GiveOutput, PushRequest};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::Expected;
use crate::agent::context::{Agent, fields};
use crate::agent::limits::{CALL_TIMEOUT, COPY_PAUSE, COPY_TRIES};

/// Whoever hears how far a copy is.
pub(crate) type Teller = mpsc::Sender<Result<CopyProgress, Status>>;

/// Where a pulled file goes.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) root: Arc<Root>,
    pub(crate) dest: RelPath,
    /// The digest of what is to come, if it was told.
    pub(crate) manifest: Option<Digest>,
    /// Whoever gives on what comes.
    pub(crate) relay: Option<Arc<Relay>>,
}

/// Pulls what the sources offer, in turn, until one gave all of it or none gets any further.
///
/// A source that went away is asked again after the others; one that lies or has it not is no more asked.
///
/// # Errors
/// The last reason; what was verified stays staged.
///
/// # Cancel safety
/// As after an error.
pub(crate) async fn pull(
    agent: &Arc<Agent>,
    request: &CopyRequest,
    place: &Place,
    teller: &Teller,
) -> Result<Tally, Error> {
    let sink = Arc::new(sink(agent, &place.root, &place.dest).relaying(place.relay.clone()));
    let pulled = pull_in_turn(agent, (request, place), &sink, teller).await;
    let_go(sink).await;
    pulled
}

async fn pull_in_turn(
    agent: &Arc<Agent>,
    (request, place): (&CopyRequest, &Place),
    sink: &Arc<Sink>,
    teller: &Teller,
) -> Result<Tally, Error> {
    let tell = |tally: &Tally| {
        // Progress that finds no room is told by the next.
        let _ = teller.try_send(Ok(tally.message(false)));
    };
    let (mut moved, mut failure, mut pace) = (0, None, Pace::default());
    let mut sources: Vec<&str> = request.sources.iter().map(String::as_str).collect();
    loop {
        let advanced = AtomicBool::new(false);
        let mut left = Vec::new();
        for source in sources {
            let told = |tally: &Tally| {
                advanced.fetch_or(tally.moved > 0, Ordering::Relaxed);
                let whole = Tally {
                    moved: tally.moved + moved,
                    kept: tally.kept.saturating_sub(moved),
                    ..*tally
                };
                tell(&whole);
            };
            let error = match pull_once(agent, (request, place), source, sink, &told).await {
                Ok(mut tally) => {
                    tally.kept = tally.kept.saturating_sub(moved);
                    tally.moved += moved;
                    return Ok(tally);
                }
                Err((error, came)) => {
                    moved += came;
                    error
                }
            };
            match error.kind() {
                Kind::Full | Kind::Denied => return Err(error),
                Kind::Lied => lied(agent, source, &error).await,
                Kind::Source => left.push(source),
                _ => {}
            }
            failure = Some(error);
        }
        sources = left;
        if sources.is_empty() || !pace.again(advanced.into_inner()).await {
            return Err(failure.unwrap_or_else(no_source));
        }
    }
}

fn no_source() -> Error {
    Error::from_status(&Status::invalid_argument("copy: no source is named"))
}

/// One try; of a failed one also the bytes that came.
async fn pull_once(
    agent: &Arc<Agent>,
    (request, place): (&CopyRequest, &Place),
    address: &str,
    sink: &Arc<Sink>,
    told: files::Told<'_>,
) -> Result<Tally, (Error, u64)> {
    let client = connect(agent, address).await.map_err(|error| (error, 0))?;
    let mut source = Source::pull(client, request.ticket.clone(), place.manifest);
    let came = std::sync::atomic::AtomicU64::new(0);
    let told = |tally: &Tally| {
        came.store(tally.moved, Ordering::Relaxed);
        told(tally);
    };
    let taken = files::take(&mut source, "", sink, &told).await;
    taken.map_err(|error| (error, came.into_inner()))
}

/// A client of the rnode at an address, whoever of the owner's it is: the ticket is what counts.
///
/// # Errors
/// [`Kind::Source`].
pub(crate) async fn connect(agent: &Agent, address: &str) -> Result<FileIoClient<Channel>, Error> {
    let unreachable =
        |why: String| Error::from_status(&Status::unavailable(format!("{address}: {why}")));
    let connecting = crux_net::rpc::connect(address, &agent.credentials, Expect::Owner);
    let channel = tokio::time::timeout(CALL_TIMEOUT, connecting)
        .await
        .map_err(|_| unreachable("it does not answer".to_owned()))?
        .map_err(|error| unreachable(error.to_string()))?;
    Ok(FileIoClient::new(channel))
}

/// Names a source that gave what it did not offer.
pub(crate) async fn lied(agent: &Agent, source: &str, error: &Error) {
    let text = format!("{source}: {error}");
    agent.tell("file.lied", source, &text);
    agent
        .note(
            "file.lied",
            fields! { "source": source, "reason": error.to_string() },
        )
        .await;
}

/// Gives an offer to a rnode that expects it, again after each cut.
///
/// # Errors
/// The last reason.
///
/// # Cancel safety
/// The taker keeps what it verified.
pub(crate) async fn push(
    agent: &Arc<Agent>,
    request: &PushRequest,
    offered: &Arc<Offered>,
    teller: &Teller,
) -> Result<CopyProgress, Error> {
    let mut pace = Pace::default();
    loop {
        let advanced = AtomicBool::new(false);
        let told = |progress: &CopyProgress| {
            advanced.fetch_or(progress.bytes_moved > 0, Ordering::Relaxed);
            let _ = teller.try_send(Ok(CopyProgress {
                done: false,
                ..progress.clone()
            }));
        };
        let given = async {
            let mut client = connect(agent, &request.sink).await?;
            files::give(&mut client, request.ticket.clone(), offered, &told).await
        };
        let error = match given.await {
            Ok(progress) => return Ok(progress),
            Err(error) => error,
        };
        if error.kind() != Kind::Source || !pace.again(advanced.into_inner()).await {
            return Err(error);
        }
    }
}

/// Takes what a giver sends to the place it was promised.
///
/// # Errors
/// The reason; what was verified stays staged.
pub(crate) async fn take(
    agent: &Arc<Agent>,
    place: &Expected,
    name: &str,
    inputs: Streaming<GiveInput>,
    outputs: mpsc::Sender<Result<GiveOutput, Status>>,
) -> Result<Tally, Error> {
    let sink = Arc::new(sink(agent, &place.root, &place.dest));
    let telling = outputs.clone();
    let told = move |tally: &Tally| {
        let progress = GiveOutput {
            read: None,
            progress: Some(tally.message(false)),
        };
        let _ = telling.try_send(Ok(progress));
    };
    let mut source = Source::Gift { inputs, outputs };
    let taken = files::take(&mut source, name, &sink, &told).await;
    let_go(sink).await;
    taken
}

/// Lets go of a sink beside the runtime: after an error it syncs a file system, and it may be the last in its staging folder.
async fn let_go(sink: Arc<Sink>) {
    // It lets go wherever it is dropped.
    drop(tokio::task::spawn_blocking(move || drop(sink)).await);
}

fn sink(agent: &Arc<Agent>, root: &Arc<Root>, dest: &RelPath) -> Sink {
    let cache = Arc::clone(&agent.files.cache);
    Sink::new(Arc::clone(root), dest.clone(), cache).within(agent.files.quota.clone())
}

/// Pauses between tries; tries that got somewhere do not count.
#[derive(Debug, Default)]
struct Pace {
    fruitless: u32,
}

impl Pace {
    async fn again(&mut self, advanced: bool) -> bool {
        self.fruitless = if advanced { 0 } else { self.fruitless + 1 };
        if self.fruitless >= COPY_TRIES {
            return false;
        }
        let pause: Duration = COPY_PAUSE * 2u32.pow(self.fruitless.min(5));
        tokio::time::sleep(pause).await;
        true
    }
}
