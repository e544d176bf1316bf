//! Brings this rnode to its assignment: observes, lets `reconcile` decide, and acts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crux_core::digest::Digest;
use crux_net::order::Order;
use crux_wire::document::v1::{InstanceRecord, InstanceState};
use nix::sys::signal::Signal;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::application::{Application, readiness};
use super::context::{Agent, background, fields, unix_ms};
use super::executions::outcome_text;
use super::files::pauses::Pauses;
use super::label::InstanceLabel;
use super::limits::{
    FETCH_PAUSE_MAX, FETCH_RETRY, PROBES_MAX, REASON_BYTES_MAX, RECONCILE_DEBOUNCE,
    RECONCILE_INTERVAL,
};
use super::probe::{self, Readiness};
use super::reconcile::{
    Action, Ended, Execution, InstanceId, Note, Observation, Reconciler, Remembered, Report, State,
};
use super::wanted::{Plan, wanted};
use super::{describe, durable, fetch, instance, services, wanted as want};

/// What the probes and fetches tell back.
#[derive(Debug)]
enum Told {
    Ready(String),
    /// Of files that were asked for: from whom, and why those are not here that are not.
    Fetched(Vec<String>, Vec<(String, Option<String>)>),
}

/// The task's own state.
struct Driver {
    agent: Arc<Agent>,
    began: Instant,
    reconciler: Reconciler,
    plan: Option<Plan>,
    ready: BTreeSet<String>,
    probed: BTreeSet<String>,
    reports: BTreeMap<InstanceId, Report>,
    remembered: Vec<Remembered>,
    /// In which order instances are started that are due at once.
    order: Order,
    fetching: bool,
    /// Between tries to have pinned files, by [`file_id`].
    pauses: Pauses,
    /// Why they cannot be had.
    problems: BTreeMap<String, String>,
    tell: mpsc::Sender<Told>,
}

/// Runs until the agent ends. What runs then goes on; the next agent adopts it.
pub(crate) async fn run(agent: Arc<Agent>) {
    let (tell, mut told) = mpsc::channel(PROBES_MAX);
    let mut wakes = Wakes::new(&agent);
    let mut driver = Driver::new(agent, tell);
    loop {
        wakes.mark();
        let wake = driver.pass().await;
        tokio::select! {
            () = wakes.any() => {}
            Some(news) = told.recv() => driver.heard(news),
            () = tokio::time::sleep(wake) => {}
            () = driver.agent.shutdown.cancelled() => return,
        }
        // More often than not, changes come together.
        tokio::time::sleep(RECONCILE_DEBOUNCE).await;
        while let Ok(news) = told.try_recv() {
            driver.heard(news);
        }
    }
}

/// One file that is pinned at one path.
fn file_id(digest: &Digest, path: &str) -> String {
    format!("{digest} {path}")
}

/// Everything that makes a pass due.
struct Wakes {
    agent: Arc<Agent>,
    executions: watch::Receiver<u64>,
    documents: watch::Receiver<u64>,
    shared: watch::Receiver<u64>,
    registrations: watch::Receiver<u64>,
    mark: u64,
}

impl Wakes {
    fn new(agent: &Arc<Agent>) -> Self {
        Self {
            agent: Arc::clone(agent),
            executions: agent.executions.changes(),
            documents: agent.documents.changes(),
            shared: agent.shared.changes(),
            registrations: agent.registrations.changes(),
            mark: 0,
        }
    }

    /// What changes from here on wakes.
    fn mark(&mut self) {
        self.executions.mark_unchanged();
        self.documents.mark_unchanged();
        self.shared.mark_unchanged();
        self.registrations.mark_unchanged();
        self.mark = self.agent.shared.mark();
    }

    async fn any(&mut self) {
        loop {
            // The senders live in the agent, which outlives this task.
            tokio::select! {
                _ = self.executions.changed() => return,
                _ = self.documents.changed() => return,
                _ = self.registrations.changed() => return,
                _ = self.shared.changed() => {
                    if self.agent.shared.mark() != self.mark {
                        return;
                    }
                }
            }
        }
    }
}

impl Driver {
    fn new(agent: Arc<Agent>, tell: mpsc::Sender<Told>) -> Self {
        let remembered: Vec<Remembered> = durable::read(&memory_path(&agent))
            .ok()
            .flatten()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let ready = remembered.iter().map(|known| known.ready.clone()).collect();
        Self {
            reconciler: Reconciler::restore(Duration::ZERO, &remembered),
            agent,
            began: Instant::now(),
            plan: None,
            ready,
            probed: BTreeSet::new(),
            reports: BTreeMap::new(),
            remembered,
            order: Order::from_environment(),
            fetching: false,
            pauses: Pauses::new(FETCH_RETRY, FETCH_PAUSE_MAX),
            problems: BTreeMap::new(),
            tell,
        }
    }

    fn heard(&mut self, news: Told) {
        match news {
            Told::Ready(execution) => {
                self.ready.insert(execution);
            }
            Told::Fetched(sources, tried) => {
                self.fetching = false;
                let now = Instant::now();
                for (id, problem) in tried {
                    let here = problem.is_none();
                    self.pauses.tried(&id, here, &sources, now);
                    match problem {
                        Some(problem) => drop(self.problems.insert(id, problem)),
                        None => drop(self.problems.remove(&id)),
                    }
                }
                let problems = self.problems.values().cloned().collect();
                self.agent.trouble.set("files", problems);
            }
        }
    }

    /// Looks, decides and acts once; returns the longest time until the next pass.
    async fn pass(&mut self) -> Duration {
        let before = self.plan.as_ref().map(|plan| plan.generation);
        self.plan = want::plan(&self.agent, self.plan.take());
        if self.plan.as_ref().map(|plan| plan.generation) != before {
            self.pauses.retain(|_| false);
        }
        let observation = self.observe();
        let now = self.began.elapsed();
        let decision = self.reconciler.step(now, &observation);
        let start = |action: &Action| matches!(action, Action::Start { .. });
        // Ordering: no start needs what another action of the same decision does.
        let (starts, others): (Vec<_>, Vec<_>) = decision.actions.into_iter().partition(start);
        for action in others.into_iter().chain(self.order.arrange(starts)) {
            self.act(action).await;
        }
        self.probe(&observation);
        self.fetch();
        self.publish();
        // After our instances: whoever sees a rnode's record may take its holdings for told.
        describe::publish(&self.agent);
        self.remember();
        let mut wake = RECONCILE_INTERVAL;
        if let Some(at) = decision.wake {
            wake = wake.min(at.saturating_sub(self.began.elapsed()));
        }
        let due =
            |(digest, _, path): (Digest, bool, String)| self.pauses.until(&file_id(&digest, &path));
        if !self.fetching
            && let Some(until) = self.missing().filter_map(due).min()
        {
            wake = wake.min(until.saturating_duration_since(Instant::now()));
        }
        wake
    }

    fn observe(&mut self) -> Observation {
        let mut executions = Vec::new();
        let mut running = BTreeSet::new();
        for known in self.agent.executions.list() {
            let Some(label) = InstanceLabel::of(&known) else {
                continue;
            };
            let spec = label.spec().unwrap_or_else(|| Digest::of(b""));
            if known.outcome.is_none() {
                running.insert(known.execution.clone());
            }
            executions.push(Execution {
                execution: known.execution.clone(),
                instance: label.instance(),
                spec,
                pid: known.pid,
                started_unix_ms: known.started_unix_ms,
                ended: known.outcome.as_ref().map(|outcome| Ended {
                    well: outcome_text(outcome) == "exit code 0",
                    text: outcome_text(outcome),
                }),
            });
        }
        self.ready.retain(|execution| running.contains(execution));
        self.probed.retain(|execution| running.contains(execution));
        let mut ready = self.ready.clone();
        ready.extend(running.iter().filter(|id| self.registered(id)).cloned());
        let wanted = self.plan.as_ref().map(|plan| wanted(&self.agent, plan));
        Observation {
            wanted,
            executions,
            ready,
            unix_ms: unix_ms(),
        }
    }

    /// Whether an execution is ready because it has registered a service.
    fn registered(&self, execution: &str) -> bool {
        if self.agent.registrations.of(execution).is_empty() {
            return false;
        }
        !matches!(
            self.readiness(execution),
            Some(Readiness::Tcp(_) | Readiness::Http { .. })
        )
    }

    /// How an execution shows that it is ready.
    fn readiness(&self, execution: &str) -> Option<Readiness> {
        let known = self.agent.executions.get(execution)?;
        let label = InstanceLabel::of(&known)?;
        let application = self.application(label.generation)?;
        application.class(&label.class).map(readiness)
    }

    /// The application of a generation, else the one we go by.
    fn application(&self, generation: u64) -> Option<Arc<Application>> {
        let of = self.agent.applications.get(&self.agent, generation);
        of.or_else(|| self.plan.as_ref().map(|plan| Arc::clone(&plan.application)))
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Start { instance } => self.start(&instance).await,
            Action::Terminate { execution } => self.signal(&execution, Signal::SIGTERM).await,
            Action::Kill { execution } => self.signal(&execution, Signal::SIGKILL).await,
            Action::Forget { execution } => {
                if let Err(error) = self.agent.executions.forget(&execution).await {
                    tracing::debug!(%error, execution, "an execution was not forgotten");
                }
            }
            Action::Publish { instance, report } => {
                self.reports.insert(instance, report);
            }
            Action::Withdraw { instance } => {
                self.reports.remove(&instance);
            }
            Action::Note {
                instance,
                note,
                text,
            } => self.note(&instance, note, &text).await,
        }
    }

    async fn start(&mut self, instance: &InstanceId) {
        let Some(plan) = &self.plan else { return };
        let started = instance::start(&self.agent, plan, instance).await;
        let now = self.began.elapsed();
        match started {
            Ok(execution) => self.reconciler.started(now, instance, &execution),
            Err(reason) => {
                tracing::warn!(%instance, reason, "an instance was not started");
                self.reconciler.start_failed(now, instance, &reason);
            }
        }
    }

    async fn signal(&self, execution: &str, signal: Signal) {
        let record = fields! {
            "execution": execution, "signal": signal as i32, "caller": "reconcile",
        };
        if let Err(error) = self.agent.record("exec.signal", record).await {
            tracing::error!(%error, "the memoir cannot be written");
            return;
        }
        if let Err(error) = self
            .agent
            .executions
            .signal(execution, signal as i32, true)
            .await
        {
            tracing::debug!(%error, execution, "an execution was not signalled");
        }
    }

    async fn note(&self, instance: &InstanceId, note: Note, text: &str) {
        let kind = match note {
            Note::Ready => "instance.ready",
            Note::Exited => "instance.exited",
            Note::GaveUp => "instance.gave_up",
        };
        let subject = instance.to_string();
        self.agent.tell(kind, &subject, text);
        self.agent
            .note(kind, fields! { "instance": subject, "text": text })
            .await;
    }

    /// Starts a probe for each execution that has to show that it is ready.
    fn probe(&mut self, observation: &Observation) {
        for execution in &observation.executions {
            let id = &execution.execution;
            let known = observation.ready.contains(id) || self.probed.contains(id);
            if execution.ended.is_some() || known || self.probed.len() >= PROBES_MAX {
                continue;
            }
            let Some(readiness) = self.readiness(id) else {
                continue;
            };
            self.probed.insert(id.clone());
            if readiness == Readiness::Register {
                continue;
            }
            let (agent, tell, id) = (Arc::clone(&self.agent), self.tell.clone(), id.clone());
            background("probe", async move {
                tokio::select! {
                    () = probe::until_ready(&readiness, agent.config.host) => {
                        // Without a receiver the agent is ending.
                        let _ = tell.send(Told::Ready(id)).await;
                    }
                    _ = agent.executions.wait(&id) => {}
                    () = agent.shutdown.cancelled() => {}
                }
            });
        }
    }

    /// Pinned files of our assignment that are not in the store.
    fn missing(&self) -> impl Iterator<Item = (Digest, bool, String)> + '_ {
        let plan = self.plan.iter();
        plan.flat_map(want::files)
            .filter(|(digest, ..)| !self.agent.has_file(digest))
    }

    fn fetch(&mut self) {
        if self.fetching {
            return;
        }
        let mut missing: Vec<_> = self.missing().collect();
        let ids = missing
            .iter()
            .map(|(digest, _, path)| file_id(digest, path));
        let ids: BTreeSet<String> = ids.collect();
        self.problems.retain(|id, _| ids.contains(id));
        self.pauses.retain(|id| ids.contains(id));
        if missing.is_empty() {
            self.agent.trouble.set("files", Vec::new());
            return;
        }
        let (sources, now) = (fetch::sources(&self.agent), Instant::now());
        missing.retain(|(digest, _, path)| {
            let id = file_id(digest, path);
            self.pauses.is_due(&id, &sources, now)
        });
        if missing.is_empty() {
            return;
        }
        self.fetching = true;
        let (agent, tell) = (Arc::clone(&self.agent), self.tell.clone());
        background("fetch", async move {
            let mut tried = Vec::new();
            for (digest, executable, path) in missing {
                let record = fields! { "digest": digest.to_string(), "path": path.clone() };
                let problem = match fetch::fetch(&agent, &digest, executable, &sources).await {
                    Ok(_) => {
                        agent.note("file.fetched", record).await;
                        None
                    }
                    Err(reason) => Some(format!("{path} cannot be had: {reason}")),
                };
                tried.push((file_id(&digest, &path), problem));
            }
            // Without a receiver the agent is ending.
            let _ = tell.send(Told::Fetched(sources, tried)).await;
        });
    }

    /// Publishes what is known of each instance, and withdraws the rest.
    fn publish(&self) {
        let mut keys = BTreeSet::new();
        for (instance, report) in &self.reports {
            let key = format!("instance/{instance}");
            let value = self.record(instance, report).encode_to_vec();
            self.agent.shared.publish_if_changed(&key, &value);
            keys.insert(key);
        }
        for key in self.agent.shared.own_keys("instance/") {
            if !keys.contains(&key) {
                self.agent.shared.withdraw(&key);
            }
        }
        services::publish(&self.agent);
    }

    fn record(&self, instance: &InstanceId, report: &Report) -> InstanceRecord {
        let (generation, term) = match &self.plan {
            Some(plan) if plan.application.spec(&instance.class) == report.spec => {
                (plan.generation, plan.term)
            }
            // What it was started by still holds: nobody assigned anything yet, or it waits to be
            // replaced and must not be taken for what the newer document asks for.
            Some(_) | None => {
                let known = self.agent.executions.get(&report.execution);
                let label = known.and_then(|known| InstanceLabel::of(&known));
                label.map_or((0, 0), |label| (label.generation, label.term))
            }
        };
        let state = match report.state {
            State::Waiting => InstanceState::Waiting,
            State::Starting => InstanceState::Starting,
            State::Ready => InstanceState::Ready,
            State::Backoff => InstanceState::Backoff,
            State::GaveUp => InstanceState::GaveUp,
            State::Stopping => InstanceState::Stopping,
            State::Stopped => InstanceState::Stopped,
        };
        InstanceRecord {
            class: instance.class.clone(),
            index: instance.index,
            rnode: self.agent.id(),
            execution: report.execution.clone(),
            state: state.into(),
            generation,
            term,
            spec: report.spec.to_string(),
            restarts: report.restarts,
            pid: report.pid,
            reason: report.reason.chars().take(REASON_BYTES_MAX).collect(),
            since_unix_ms: report.since_unix_ms,
            was_ready: report.was_ready,
        }
    }

    /// Writes down what the next agent must know.
    fn remember(&mut self) {
        let remembered = self.reconciler.remember();
        if remembered == self.remembered {
            return;
        }
        let written = serde_json::to_vec(&remembered)
            .map_err(std::io::Error::other)
            .and_then(|bytes| durable::replace_unsynced(&memory_path(&self.agent), &bytes));
        match written {
            Ok(()) => self.remembered = remembered,
            Err(error) => tracing::error!(%error, "the instances' history cannot be written"),
        }
    }
}

fn memory_path(agent: &Agent) -> PathBuf {
    agent.dir.join("agent").join("instances.json")
}
