//! What this rnode should do next about its instances: the pure core of the reconcile task.
//!
//! Level-triggered: each step sees the whole state and answers with actions; a lost step is made up by the next one.
//! Not for I/O: `reconcile_task` observes and acts. Persisted memory is in `reconcile/memory.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crux_core::digest::Digest;

use super::limits::{
    BACKOFF_MAX, BACKOFF_MIN, BACKOFF_RESET, FINISHED_KEPT_INSTANCE, GIVE_UP_FAILURES,
    GIVE_UP_RETRY_MAX, GIVE_UP_RETRY_MIN, GIVE_UP_WINDOW, STOP_GRACE,
};

mod memory;
#[cfg(test)]
mod tests;
mod types;

pub use memory::Remembered;
pub use types::{
    Action, Decision, Ended, Execution, InstanceId, Note, Observation, Report, Restart, State,
    Wanted,
};

/// What is remembered of one instance between steps.
#[derive(Debug, Clone, Default)]
struct Track {
    spec: Option<Digest>,
    restarts: u32,
    failures: Vec<Duration>,
    streak: u32,
    not_before: Duration,
    gave_up: Option<Duration>,
    /// How often in a row it was given up; while it is not 0, one more failure gives it up again.
    given_up: u32,
    /// How it ended for good.
    done: Option<String>,
    last_failure: String,
    was_ready: bool,
    /// The execution that runs it, as far as we know; its end is a failure unless we asked for it.
    current: String,
    /// The execution that showed that it is ready.
    ready: String,
    published: Option<Report>,
}

/// One step under way.
struct Pass<'o> {
    now: Duration,
    observation: &'o Observation,
    decision: Decision,
}

impl Pass<'_> {
    fn act(&mut self, action: Action) {
        self.decision.actions.push(action);
    }

    fn wake_at(&mut self, at: Duration) {
        self.decision.wake = Some(self.decision.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// Decides, from one observation after another, what to do about each instance.
#[derive(Debug, Default)]
pub struct Reconciler {
    tracks: BTreeMap<InstanceId, Track>,
    /// When each execution was told to end, and whether it was killed.
    stopping: BTreeMap<String, (Duration, bool)>,
    /// When each running execution was first seen.
    running_since: BTreeMap<String, Duration>,
    /// Finished executions already counted.
    counted: BTreeSet<String>,
}

impl Reconciler {
    /// Looks at the whole state and decides.
    pub fn step(&mut self, now: Duration, observation: &Observation) -> Decision {
        let mut pass = Pass {
            now,
            observation,
            decision: Decision::default(),
        };
        let by_instance = self.note_executions(&mut pass);
        let Some(wanted) = &observation.wanted else {
            // Only told, so that a new leader knows who holds what and moves nothing.
            for (instance, live) in &by_instance {
                let report = self.running(&mut pass, instance, live[0]);
                self.publish(&mut pass, instance, report);
            }
            return pass.decision;
        };
        for (instance, want) in wanted {
            let live = by_instance.get(instance).map_or(&[][..], Vec::as_slice);
            let report = self.drive(&mut pass, instance, want, live);
            self.publish(&mut pass, instance, report);
        }
        self.stop_surplus(&mut pass, wanted, &by_instance);
        pass.decision
    }

    /// Takes note of the execution that a start made: it may end before the next step sees it.
    pub fn started(&mut self, now: Duration, instance: &InstanceId, execution: &str) {
        self.running_since.insert(execution.to_owned(), now);
        self.tracks.entry(instance.clone()).or_default().current = execution.to_owned();
    }

    /// Takes note that an instance could not be started; counts as a failure.
    pub fn start_failed(&mut self, now: Duration, instance: &InstanceId, reason: &str) {
        let track = self.tracks.entry(instance.clone()).or_default();
        fail(
            track,
            now,
            Duration::ZERO,
            format!("could not be started: {reason}"),
        );
    }

    /// Sorts out finished executions and returns the running ones of each instance, oldest first.
    fn note_executions<'o>(
        &mut self,
        pass: &mut Pass<'o>,
    ) -> BTreeMap<InstanceId, Vec<&'o Execution>> {
        let observation = pass.observation;
        let mut live: BTreeMap<InstanceId, Vec<&Execution>> = BTreeMap::new();
        let mut finished: BTreeMap<&InstanceId, Vec<&Execution>> = BTreeMap::new();
        for execution in &observation.executions {
            if let Some(how) = &execution.ended {
                finished
                    .entry(&execution.instance)
                    .or_default()
                    .push(execution);
                self.note_end(pass, execution, how);
            } else {
                self.running_since
                    .entry(execution.execution.clone())
                    .or_insert(pass.now);
                live.entry(execution.instance.clone())
                    .or_default()
                    .push(execution);
            }
        }
        for executions in live.values_mut() {
            executions.sort_by_key(|execution| execution.started_unix_ms);
        }
        for executions in finished.values_mut() {
            executions.sort_by_key(|execution| std::cmp::Reverse(execution.started_unix_ms));
            for old in executions.iter().skip(FINISHED_KEPT_INSTANCE) {
                pass.act(Action::Forget {
                    execution: old.execution.clone(),
                });
            }
        }
        let known: BTreeSet<&str> = observation
            .executions
            .iter()
            .map(|execution| execution.execution.as_str())
            .collect();
        self.counted
            .retain(|execution| known.contains(execution.as_str()));
        self.stopping
            .retain(|execution, _| known.contains(execution.as_str()));
        self.running_since
            .retain(|execution, _| known.contains(execution.as_str()));
        live
    }

    /// Counts the end of an execution once: a failure unless we asked for it.
    fn note_end(&mut self, pass: &mut Pass<'_>, execution: &Execution, how: &Ended) {
        let since = self.running_since.remove(&execution.execution);
        if !self.counted.insert(execution.execution.clone()) {
            return;
        }
        if self.stopping.remove(&execution.execution).is_some() {
            return;
        }
        let want = pass
            .observation
            .wanted
            .as_ref()
            .map(|wanted| wanted.get(&execution.instance));
        let wanted = want.is_none_or(|want| want.is_some());
        let restart = want
            .flatten()
            .map_or_else(Restart::default, |want| want.restart);
        let Some(track) = self.tracks.get_mut(&execution.instance) else {
            return;
        };
        // What is not current ended under an earlier agent, which counted it.
        if !wanted || (since.is_none() && track.current != execution.execution) {
            return;
        }
        track.current.clear();
        let life = since.map_or(Duration::ZERO, |since| pass.now.saturating_sub(since));
        let again = match restart {
            Restart::Always => true,
            Restart::OnFailure => !how.well,
            Restart::Never => false,
        };
        if again {
            fail(track, pass.now, life, how.text.clone());
        } else {
            track.done = Some(how.text.clone());
        }
        pass.act(Action::Note {
            instance: execution.instance.clone(),
            note: Note::Exited,
            text: how.text.clone(),
        });
    }

    /// Decides about one wanted instance.
    fn drive(
        &mut self,
        pass: &mut Pass<'_>,
        instance: &InstanceId,
        want: &Wanted,
        live: &[&Execution],
    ) -> Report {
        let track = self.tracks.entry(instance.clone()).or_default();
        if track.spec != Some(want.spec) {
            // Another version deserves a fresh chance: failures were the old one's.
            *track = Track {
                spec: Some(want.spec),
                was_ready: track.was_ready,
                current: std::mem::take(&mut track.current),
                ready: std::mem::take(&mut track.ready),
                published: track.published.take(),
                ..Track::default()
            };
        }
        let right = live.iter().find(|execution| {
            execution.spec == want.spec && !self.stopping.contains_key(&execution.execution)
        });
        for surplus in live
            .iter()
            .filter(|execution| execution.spec == want.spec)
            .skip(1)
        {
            // Two of one instance can only come from a start whose answer was lost.
            stop(&mut self.stopping, pass, &surplus.execution);
        }
        if let Some(execution) = right {
            return self.running(pass, instance, execution);
        }
        if let Some(execution) = live.first() {
            return self.replace(pass, instance, want, execution);
        }
        self.start(pass, instance, want)
    }

    /// Reports a running instance, ready or not.
    fn running(
        &mut self,
        pass: &mut Pass<'_>,
        instance: &InstanceId,
        execution: &Execution,
    ) -> Report {
        let track = self.tracks.entry(instance.clone()).or_default();
        track.current.clone_from(&execution.execution);
        let known = track.ready == execution.execution;
        let ready = known || pass.observation.ready.contains(&execution.execution);
        if ready && !known {
            track.was_ready = true;
            track.ready.clone_from(&execution.execution);
            pass.act(Action::Note {
                instance: instance.clone(),
                note: Note::Ready,
                text: format!("execution {}", execution.execution),
            });
        }
        let state = if ready { State::Ready } else { State::Starting };
        let reason = if ready {
            String::new()
        } else {
            "not yet ready".to_owned()
        };
        report(track, state, Some(execution), execution.spec, reason)
    }

    /// Ends an execution of an older spec once its turn has come.
    fn replace(
        &mut self,
        pass: &mut Pass<'_>,
        instance: &InstanceId,
        want: &Wanted,
        execution: &Execution,
    ) -> Report {
        let stopping = self.stopping.contains_key(&execution.execution);
        let held = want.replacement_held.as_ref().or(want.held.as_ref());
        let track = self.tracks.entry(instance.clone()).or_default();
        if let (Some(held), false) = (held, stopping) {
            track.current.clone_from(&execution.execution);
            let ready = track.ready == execution.execution;
            let state = if ready { State::Ready } else { State::Starting };
            let reason = format!("waits to be replaced: {held}");
            return report(track, state, Some(execution), execution.spec, reason);
        }
        let report = report(
            track,
            State::Stopping,
            Some(execution),
            execution.spec,
            crate::agent::placement::REPLACED.into(),
        );
        stop(&mut self.stopping, pass, &execution.execution);
        report
    }

    /// Starts an instance of which nothing runs, or says why not yet.
    fn start(&mut self, pass: &mut Pass<'_>, instance: &InstanceId, want: &Wanted) -> Report {
        let track = self.tracks.entry(instance.clone()).or_default();
        if let Some(how) = track.done.clone() {
            return report(track, State::Stopped, None, want.spec, how);
        }
        let retry = retry_after(track.given_up);
        if track.gave_up.is_some_and(|since| pass.now >= since + retry) {
            track.gave_up = None;
            // One more failure gives it up again, unless it lives for a while: then it begins anew.
            track.failures.clear();
        }
        if let Some(since) = track.gave_up {
            pass.wake_at(since + retry);
            let reason = format!(
                "failed {GIVE_UP_FAILURES} times, next try after {} s: {}",
                retry.as_secs(),
                track.last_failure
            );
            if !track
                .published
                .as_ref()
                .is_some_and(|report| report.state == State::GaveUp)
            {
                pass.act(Action::Note {
                    instance: instance.clone(),
                    note: Note::GaveUp,
                    text: reason.clone(),
                });
            }
            return report(track, State::GaveUp, None, want.spec, reason);
        }
        if let Some(held) = &want.held {
            return report(track, State::Waiting, None, want.spec, held.clone());
        }
        if pass.now < track.not_before {
            pass.wake_at(track.not_before);
            let reason = track.last_failure.clone();
            return report(track, State::Backoff, None, want.spec, reason);
        }
        if !track.failures.is_empty() || track.streak > 0 {
            track.restarts = track.restarts.saturating_add(1);
        }
        pass.act(Action::Start {
            instance: instance.clone(),
        });
        report(
            track,
            State::Starting,
            None,
            want.spec,
            "being started".to_owned(),
        )
    }

    /// Ends what is not assigned, and withdraws the records of what is gone.
    fn stop_surplus(
        &mut self,
        pass: &mut Pass<'_>,
        wanted: &BTreeMap<InstanceId, Wanted>,
        live: &BTreeMap<InstanceId, Vec<&Execution>>,
    ) {
        let unwanted: Vec<InstanceId> = self
            .tracks
            .keys()
            .chain(live.keys())
            .filter(|instance| !wanted.contains_key(instance))
            .cloned()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        for instance in unwanted {
            if let Some(executions) = live.get(&instance) {
                for execution in executions {
                    stop(&mut self.stopping, pass, &execution.execution);
                }
                let track = self.tracks.entry(instance.clone()).or_default();
                let reason = "no longer assigned".to_owned();
                let last = executions.last().copied();
                let spec = last.map_or_else(|| Digest::of(b""), |execution| execution.spec);
                let report = report(track, State::Stopping, last, spec, reason);
                self.publish(pass, &instance, report);
            } else {
                self.tracks.remove(&instance);
                pass.act(Action::Withdraw { instance });
            }
        }
        for (execution, (since, killed)) in &mut self.stopping {
            if pass.now >= *since + STOP_GRACE {
                pass.act(Action::Kill {
                    execution: execution.clone(),
                });
                // A killed process may hang in the kernel: say it again after another grace.
                (*since, *killed) = (pass.now, true);
            }
            pass.wake_at(*since + STOP_GRACE);
        }
    }

    /// Publishes a report if it differs from the last one.
    fn publish(&mut self, pass: &mut Pass<'_>, instance: &InstanceId, mut report: Report) {
        let track = self.tracks.entry(instance.clone()).or_default();
        report.since_unix_ms = match &track.published {
            Some(last) if last.state == report.state && last.execution == report.execution => {
                last.since_unix_ms
            }
            _ => pass.observation.unix_ms,
        };
        if track.published.as_ref() != Some(&report) {
            track.published = Some(report.clone());
            pass.act(Action::Publish {
                instance: instance.clone(),
                report,
            });
        }
    }
}

/// Counts a failure: sets the back-off and gives up when there were too many.
fn fail(track: &mut Track, now: Duration, life: Duration, how: String) {
    if life >= BACKOFF_RESET {
        track.streak = 0;
        track.given_up = 0;
    }
    track
        .failures
        .retain(|at| now.saturating_sub(*at) < GIVE_UP_WINDOW);
    track.failures.push(now);
    let factor = 1u32 << track.streak.min(16);
    track.not_before = now + (BACKOFF_MIN * factor).min(BACKOFF_MAX);
    track.streak = track.streak.saturating_add(1);
    track.last_failure = how;
    if track.given_up > 0 || track.failures.len() >= GIVE_UP_FAILURES {
        track.gave_up = Some(now);
        track.given_up = track.given_up.saturating_add(1);
    }
}

/// How long an instance that was given up so often in a row waits for its next try.
fn retry_after(given_up: u32) -> Duration {
    let factor = 1u32 << given_up.saturating_sub(1).min(16);
    (GIVE_UP_RETRY_MIN * factor).min(GIVE_UP_RETRY_MAX)
}

/// Tells an execution to end, once.
fn stop(stopping: &mut BTreeMap<String, (Duration, bool)>, pass: &mut Pass<'_>, execution: &str) {
    if !stopping.contains_key(execution) {
        stopping.insert(execution.to_owned(), (pass.now, false));
        pass.act(Action::Terminate {
            execution: execution.to_owned(),
        });
    }
}

fn report(
    track: &Track,
    state: State,
    execution: Option<&Execution>,
    spec: Digest,
    reason: String,
) -> Report {
    Report {
        state,
        execution: execution
            .map(|execution| execution.execution.clone())
            .unwrap_or_default(),
        pid: execution.map_or(0, |execution| execution.pid),
        spec,
        restarts: track.restarts,
        reason,
        since_unix_ms: 0,
        was_ready: track.was_ready,
    }
}
