//! One thing to many rnodes: asks each sink for the copy, and tells it whom to ask.
//!
//! The sinks give on what they have while the rest comes; no byte passes here. docs/design/fileio.md, "One source to many".

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crux_core::files::plan::Planner;
use crux_wire::fileio::v1::file_io_client::FileIoClient;
use crux_wire::fileio::v1::{CopyProgress, CopyRequest};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// Longest wait for a sink to say that it begins. 10 s: it writes that down first, on a busy disk.
const BEGIN_TIME_MAX: Duration = Duration::from_secs(10);
/// Pause before a sink that failed is asked again. 500 ms: an agent that died is back in it.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// A rnode that can be asked.
#[derive(Debug, Clone)]
pub struct Reached {
    /// Its service.
    pub files: FileIoClient<Channel>,
    /// Where other rnodes reach it.
    pub address: String,
}

/// What is spread.
#[derive(Debug, Clone, Copy)]
pub struct Thing<'a> {
    /// Where the rnode that offers it is reached.
    pub source: &'a str,
    /// The ticket of its offer.
    pub ticket: &'a str,
    /// The digest of its manifest.
    pub manifest: &'a str,
    /// How large it is.
    pub bytes: u64,
    /// Where it goes on each sink.
    pub path: &'a str,
}

/// Copies to every sink, by label; one outcome for each. `told` hears how far each is.
///
/// # Cancel safety
/// Sinks end their copies; what they verified stays staged, what is whole has its name.
pub async fn spread(
    thing: &Thing<'_>,
    sinks: &BTreeMap<String, Reached>,
    told: &(dyn Fn(&CopyProgress) + Send + Sync),
) -> BTreeMap<String, Result<CopyProgress, Status>> {
    // No rnode has an empty label.
    let mut planner = Planner::new(String::new(), sinks.keys().cloned(), thing.bytes);
    let mut outcomes = BTreeMap::new();
    let mut failed = BTreeSet::new();
    let mut running = FuturesUnordered::new();
    loop {
        let ended = match planner.begin() {
            Some(copy) => {
                let Some(sink) = sinks.get(&copy.sink) else {
                    planner.refused(&copy.sink);
                    continue;
                };
                if failed.contains(&copy.sink) {
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                let address = |label: &String| {
                    let known = sinks.get(label).map(|sink| sink.address.as_str());
                    known.unwrap_or(thing.source).to_owned()
                };
                let sources = copy.sources.iter().map(address).collect();
                match begin(sink, thing, sources).await {
                    Ok(stream) => {
                        running.push(follow(copy.sink, stream, told));
                        continue;
                    }
                    Err(status) => (copy.sink, Err(status)),
                }
            }
            None => match running.next().await {
                Some(ended) => ended,
                None => return outcomes,
            },
        };
        let (sink, outcome) = ended;
        match &outcome {
            Ok(_) => planner.finished(&sink),
            Err(status)
                if matches!(
                    status.code(),
                    Code::InvalidArgument | Code::PermissionDenied
                ) =>
            {
                planner.refused(&sink);
            }
            Err(_) => {
                failed.insert(sink.clone());
                planner.failed(&sink);
            }
        }
        outcomes.insert(sink, outcome);
    }
}

async fn begin(
    sink: &Reached,
    thing: &Thing<'_>,
    sources: Vec<String>,
) -> Result<Streaming<CopyProgress>, Status> {
    let request = CopyRequest {
        ticket: thing.ticket.to_owned(),
        sources,
        path: thing.path.to_owned(),
        need: String::new(),
        manifest: thing.manifest.to_owned(),
        relay: true,
    };
    let mut files = sink.files.clone();
    tokio::time::timeout(BEGIN_TIME_MAX, files.copy(request))
        .await
        .map_err(|_| Status::unavailable("the sink does not answer"))?
        .map(tonic::Response::into_inner)
}

async fn follow(
    sink: String,
    mut stream: Streaming<CopyProgress>,
    told: &(dyn Fn(&CopyProgress) + Send + Sync),
) -> (String, Result<CopyProgress, Status>) {
    let outcome = loop {
        match stream.message().await {
            Ok(Some(progress)) if progress.done => break Ok(progress),
            Ok(Some(progress)) => told(&progress),
            Ok(None) => break Err(Status::unavailable("the rnode went away")),
            Err(status) => break Err(status),
        }
    };
    (sink, outcome)
}
