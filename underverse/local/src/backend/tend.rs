//! The loop of one horde: realise what its newest document asks, then watch what became of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crux_wire::document::v1::Document;
use crux_wire::fulcrum::v1::HordeState;
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use underverse::{
    Effect, End, EventId, Generation, HordeName, HordeSpec, Keep, Kind, Progress, ProgressStream,
    Underverse as _,
};

use super::state::{self, Phase};
use crate::base::ExecutionView;
use crate::document::{Asked, asked};
use crate::local::Local;
use crate::restarts::Restarts;

/// Between two looks at what the base lists.
const POLL: Duration = Duration::from_millis(250);
/// The same while the base itself tells of every end: 2 s, for what is not an end.
const POLL_WATCHING: Duration = Duration::from_secs(2);
/// Most executions whose end is watched; with more, looking must do.
const WATCHED_MAX: usize = 32;
/// Least time between two passes.
const PASS_PAUSE: Duration = Duration::from_millis(10);
/// After this a pass runs although nothing seems to have changed.
const FULL_INTERVAL: Duration = Duration::from_secs(30);
/// The same while a server is maintained and containers leave it as their owner says.
const MOVING_INTERVAL: Duration = Duration::from_secs(1);
/// Pause before a pass that failed is tried again, doubled up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(250);
/// Longest pause before a pass that failed is tried again.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Least time between two reports within a pass: each is synced to disk by the base.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// Time one pass is given: far longer than ending and starting every rnode takes.
const PASS_DEADLINE: Duration = Duration::from_secs(180);

/// Tends one horde until it is dissolved; returns its namespace.
pub(super) async fn run(
    local: Arc<Local>,
    namespace: String,
    mut documents: watch::Receiver<Arc<Document>>,
) -> String {
    let Ok(horde) = HordeName::new(namespace.clone()) else {
        tracing::error!(namespace, "a document's namespace is not a name");
        return namespace;
    };
    let mut tender = Tender {
        local: &local,
        horde: &horde,
        told: local.told(&horde),
        reported: None,
    };
    loop {
        let document = documents.borrow_and_update().clone();
        let next = async {
            match asked(&document, local.name()) {
                Ok(Asked {
                    generation,
                    spec: None,
                    ..
                }) => tender.dissolve(generation).await,
                Ok(Asked {
                    generation,
                    spec: Some(spec),
                    ..
                }) => {
                    tender.realise(generation, &spec).await;
                    Next::Again
                }
                Err(error) => {
                    let text = error.message().to_owned();
                    tender
                        .report(document.generation, (Phase::Refused, &text))
                        .await;
                    std::future::pending().await
                }
            }
        };
        tokio::select! {
            changed = documents.changed() => if changed.is_err() { return namespace },
            next = next => if next == Next::Ended && !documents.has_changed().unwrap_or(false) {
                return namespace;
            },
        }
    }
}

/// What a loop does next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Again,
    Ended,
}

struct Tender<'a> {
    local: &'a Local,
    horde: &'a HordeName,
    /// Last event told to the base.
    told: Option<EventId>,
    /// Last state told to the base.
    reported: Option<HordeState>,
}

impl Tender<'_> {
    /// Realises and keeps it so; ends only by being dropped.
    async fn realise(&mut self, generation: Generation, spec: &HordeSpec) {
        let mut restarts = Restarts::default();
        let mut pause = RETRY_MIN;
        loop {
            // Ordering: seen before the pass looks, so that a death during it is not passed over;
            // what the pass itself changes costs one more look.
            let executions = self.local.executions(self.horde).await.ok();
            let seen = executions.as_deref().map(marks);
            let hold = restarts.hold(executions.as_deref().unwrap_or_default(), Instant::now());
            let stream = self.local.tend(generation, spec, hold, PASS_DEADLINE);
            let end = self.follow(stream, generation, Phase::Realising).await;
            let (phase, message) = outcome(&end);
            self.report(generation.document, (phase, &message)).await;
            let retry = (phase != Phase::Done).then_some(pause);
            pause = if phase == Phase::Done {
                RETRY_MIN
            } else {
                (pause * 2).min(RETRY_MAX)
            };
            self.wait(&restarts, seen, retry, (generation, phase, &message))
                .await;
        }
    }

    /// Waits until something calls for another pass: a change, a back-off that is over, or time.
    async fn wait(
        &mut self,
        restarts: &Restarts,
        seen: Option<Marks>,
        retry: Option<Duration>,
        (generation, phase, message): (Generation, Phase, &str),
    ) {
        let begun = Instant::now();
        let interval = match self.local.is_moving(self.horde) {
            true => MOVING_INTERVAL,
            false => FULL_INTERVAL,
        };
        let end = begun + retry.unwrap_or(interval);
        let end = restarts.next_due(begun).map_or(end, |due| end.min(due));
        let mut watching = true;
        tokio::time::sleep(PASS_PAUSE).await;
        loop {
            let marks = self
                .local
                .executions(self.horde)
                .await
                .ok()
                .map(|list| marks(&list));
            let changed = marks.is_some() && marks != seen;
            if changed || Instant::now() >= end {
                return;
            }
            let unknown = self.keepers_unknown();
            if unknown {
                self.report(generation.document, (phase, message)).await;
            }
            let running = running(marks.as_ref());
            watching = watching && !running.is_empty() && running.len() <= WATCHED_MAX;
            let poll = if watching && !unknown {
                POLL_WATCHING
            } else {
                POLL
            };
            tokio::select! {
                () = tokio::time::sleep_until(end.min(Instant::now() + poll)) => {}
                () = self.local.base().until_ended(&running), if watching => {
                    // Ended, or not to be watched: if nothing has changed, looking must do.
                    watching = false;
                }
            }
        }
    }

    /// Whether the last report lacks a keeper that has started by now.
    fn keepers_unknown(&self) -> bool {
        let rnodes = self.reported.iter().flat_map(|state| &state.rnodes);
        rnodes
            .into_iter()
            .any(|rnode| rnode.state == "running" && rnode.keeper_pid == 0)
    }

    /// Dissolves the horde; again after a pause if it does not end.
    async fn dissolve(&mut self, generation: Generation) -> Next {
        let mut pause = RETRY_MIN;
        loop {
            let stream = self.local.dissolve(generation, self.horde, Keep::Nothing);
            let end = self.follow(stream, generation, Phase::Dissolving).await;
            if end.is_done() {
                while !self
                    .report(generation.document, (Phase::Dissolved, ""))
                    .await
                {
                    tokio::time::sleep(RETRY_MIN).await;
                }
                return Next::Ended;
            }
            let (_, message) = outcome(&end);
            self.report(generation.document, (Phase::Dissolving, &message))
                .await;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Takes a pass to its end and tells the base on the way.
    async fn follow(
        &mut self,
        mut stream: ProgressStream<'_>,
        generation: Generation,
        phase: Phase,
    ) -> End {
        let mut last: Option<Instant> = None;
        while let Some(item) = stream.next().await {
            match item {
                Progress::End(end) => return *end,
                Progress::Step(step) => {
                    if let Some(failure) = &step.failure {
                        tracing::warn!(horde = %self.horde, step = %step.step, failure, "a step failed");
                    }
                    if last.is_none_or(|last| last.elapsed() >= REPORT_INTERVAL) {
                        self.report(generation.document, (phase, "")).await;
                        last = Some(Instant::now());
                    }
                }
            }
        }
        let text = "the pass ended without saying how";
        End::Unknown(
            underverse::Error::new(Kind::Bug, "follow a pass", text).effect(Effect::Unknown),
        )
    }

    /// Tells the base what is new; says whether it heard.
    async fn report(&mut self, generation: u64, how: (Phase, &str)) -> bool {
        let state = state::state(self.local, self.horde, generation, how).await;
        let Some(state) = state else { return false };
        let fresh = self
            .local
            .events_after(self.horde, self.told)
            .unwrap_or_default();
        if self.reported.as_ref() == Some(&state) && fresh.is_empty() {
            return true;
        }
        let events = fresh.iter().map(state::event).collect();
        match self.local.base().report(state.clone(), events).await {
            Ok(()) => {
                if let Some(last) = fresh.last() {
                    self.told = Some(last.id);
                    self.local.keep_told(self.horde, last.id);
                }
                self.reported = Some(state);
                true
            }
            Err(error) => {
                tracing::debug!(error = error.chain(), "the base did not hear of a horde");
                false
            }
        }
    }
}

/// The horde's executions and whether each has ended.
type Marks = BTreeMap<String, bool>;

fn marks(executions: &[ExecutionView]) -> Marks {
    executions
        .iter()
        .map(|view| (view.id.clone(), view.ended.is_some()))
        .collect()
}

fn running(marks: Option<&Marks>) -> Vec<String> {
    let all = marks.into_iter().flatten();
    all.filter(|(_, ended)| !**ended)
        .map(|(id, _)| id.clone())
        .collect()
}

/// How a pass ended, in a phase and words.
fn outcome(end: &End) -> (Phase, String) {
    match end {
        End::Done(_) => (Phase::Done, String::new()),
        End::Partial(_, failures) => {
            let parts = failures
                .iter()
                .map(|f| format!("{}: {}", f.subject, f.error.chain()));
            (Phase::Partial, parts.collect::<Vec<_>>().join("; "))
        }
        End::Unknown(error) => (Phase::Realising, error.chain()),
        // A base that is away is no refusal of what is asked.
        End::Refused(error) if error.kind() == Kind::Unavailable => {
            (Phase::Realising, error.chain())
        }
        End::Refused(error) => (Phase::Refused, error.chain()),
    }
}
