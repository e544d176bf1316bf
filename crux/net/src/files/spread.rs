//! One thing to many rnodes: asks each sink for the copy, and tells it whom to ask.
//!
//! The sinks give on what they have while the rest comes; no byte passes here. docs/design/fileio.md, "One source to many".

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use crux_core::files::plan::{Copy, Planner};
use crux_wire::fileio::v1::file_io_client::FileIoClient;
use crux_wire::fileio::v1::{CopyProgress, CopyRequest, HaveRequest};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, Stream, StreamExt};
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};

/// Longest wait for a sink to answer at all, before which it is planned for nothing; silence counts as a refusal. 10 s:
/// as for any question.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Wait for a sink to say that it begins after which others go before it. 1 s: a busy disk says so in less.
const SLOW_AFTER: Duration = Duration::from_secs(1);
/// Longest wait for it after that. 10 s: it writes that down first, on a busy disk.
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

/// Copies to every sink, by label, as it is reached; one outcome for each of them. `told` hears how far each is.
///
/// `sinks`: how many there will be; whoever is not reached is left out of `reached`, and of what is returned. A sink that
/// fails, or says nothing, costs the others no more than a short wait (1 s), and most often none.
///
/// # Cancel safety
/// Sinks end their copies; what they verified stays staged, what is whole has its name.
pub async fn spread(
    thing: &Thing<'_>,
    sinks: usize,
    reached: impl Stream<Item = (String, Reached)>,
    told: &(dyn Fn(&CopyProgress) + Send + Sync),
) -> BTreeMap<String, Result<CopyProgress, Status>> {
    let mut reached = pin!(reached.fuse());
    // No rnode has an empty label.
    let planner = Planner::new(String::new(), sinks, thing.bytes);
    let mut spreading = Spreading {
        thing,
        told,
        planner,
        known: BTreeMap::new(),
        tries: FuturesUnordered::new(),
        outcomes: BTreeMap::new(),
    };
    loop {
        while let Some(copy) = spreading.planner.begin() {
            spreading.begin(copy);
        }
        tokio::select! {
            Some((label, sink)) = reached.next() => spreading.reached(label, sink),
            Some((label, came)) = spreading.tries.next() => spreading.came(label, came),
            else => return spreading.outcomes,
        }
    }
}

type Began = Result<Response<Streaming<CopyProgress>>, Status>;
type Try<'a> = BoxFuture<'a, (String, Came<'a>)>;

/// What a try came to, or has come to so far.
enum Came<'a> {
    Answers,
    /// It has not said yet that it begins.
    Slow(BoxFuture<'a, Began>),
    Begun(Box<Streaming<CopyProgress>>),
    Done(CopyProgress),
    Silent,
    Failed(Status),
}

struct Spreading<'a> {
    thing: &'a Thing<'a>,
    told: &'a (dyn Fn(&CopyProgress) + Send + Sync),
    planner: Planner,
    known: BTreeMap<String, Reached>,
    /// One a sink that is reached and neither waits nor is through: all that is waited for.
    tries: FuturesUnordered<Try<'a>>,
    outcomes: BTreeMap<String, Result<CopyProgress, Status>>,
}

impl<'a> Spreading<'a> {
    fn reached(&mut self, label: String, sink: Reached) {
        if !self.known.contains_key(&label) {
            self.known.insert(label.clone(), sink);
            self.ask(label, Duration::ZERO);
        }
    }

    /// Asks a sink whether it answers.
    fn ask(&mut self, label: String, pause: Duration) {
        let Some(sink) = self.known.get(&label) else {
            return;
        };
        let mut files = sink.files.clone();
        let asked = async move {
            tokio::time::sleep(pause).await;
            let nothing = HaveRequest::default();
            let came = match tokio::time::timeout(ANSWER_TIME_MAX, files.have(nothing)).await {
                Err(_) => Came::Silent,
                Ok(Ok(_)) => Came::Answers,
                // It answers, whatever it thinks of the question; the copy is another.
                Ok(Err(status)) if is_refusal(&status) => Came::Answers,
                Ok(Err(status)) => Came::Failed(status),
            };
            (label, came)
        };
        self.tries.push(asked.boxed());
    }

    fn begin(&mut self, copy: Copy) {
        let address = |label: &String| {
            let known = self.known.get(label).map(|sink| sink.address.as_str());
            known.unwrap_or(self.thing.source).to_owned()
        };
        let request = CopyRequest {
            ticket: self.thing.ticket.to_owned(),
            sources: copy.sources.iter().map(address).collect(),
            path: self.thing.path.to_owned(),
            need: String::new(),
            manifest: self.thing.manifest.to_owned(),
            relay: true,
        };
        let Some(sink) = self.known.get(&copy.sink) else {
            self.planner.refused(&copy.sink);
            return;
        };
        let mut files = sink.files.clone();
        let mut asking = async move { files.copy(request).await }.boxed();
        let asked = async move {
            let came = match tokio::time::timeout(SLOW_AFTER, &mut asking).await {
                Ok(began) => begun(began),
                Err(_) => Came::Slow(asking),
            };
            (copy.sink, came)
        };
        self.tries.push(asked.boxed());
    }

    fn came(&mut self, label: String, came: Came<'a>) {
        match came {
            Came::Answers => self.planner.answers(&label),
            Came::Slow(asking) => {
                self.planner.slow(&label);
                let waited = async move {
                    let waited = tokio::time::timeout(BEGIN_TIME_MAX, asking).await;
                    let silent = Status::unavailable("the sink does not begin");
                    (label, waited.map_or(Came::Failed(silent), begun))
                };
                self.tries.push(waited.boxed());
            }
            Came::Begun(stream) => {
                self.planner.begun(&label);
                self.tries.push(follow(label, stream, self.told).boxed());
            }
            Came::Done(progress) => {
                self.planner.finished(&label);
                self.outcomes.insert(label, Ok(progress));
            }
            Came::Silent => {
                self.planner.refused(&label);
                let silent = Status::unavailable("the sink does not answer");
                // What it failed of before says more.
                self.outcomes.entry(label).or_insert(Err(silent));
            }
            Came::Failed(status) => {
                if is_refusal(&status) {
                    self.planner.refused(&label);
                } else if self.planner.failed(&label) {
                    self.ask(label.clone(), AGAIN_AFTER);
                }
                self.outcomes.insert(label, Err(status));
            }
        }
    }
}

/// Whether a sink that said so would say so again.
fn is_refusal(status: &Status) -> bool {
    let code = status.code();
    matches!(code, Code::InvalidArgument | Code::PermissionDenied)
}

fn begun<'a>(began: Began) -> Came<'a> {
    match began {
        Ok(stream) => Came::Begun(Box::new(stream.into_inner())),
        Err(status) => Came::Failed(status),
    }
}

async fn follow<'a>(
    label: String,
    mut stream: Box<Streaming<CopyProgress>>,
    told: &(dyn Fn(&CopyProgress) + Send + Sync),
) -> (String, Came<'a>) {
    let came = loop {
        match stream.message().await {
            Ok(Some(progress)) if progress.done => break Came::Done(progress),
            Ok(Some(progress)) => told(&progress),
            Ok(None) => break Came::Failed(Status::unavailable("the rnode went away")),
            Err(status) => break Came::Failed(status),
        }
    };
    (label, came)
}
