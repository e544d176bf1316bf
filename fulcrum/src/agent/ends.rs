//! Ends of executions: what the keeper tells, and what it could tell nobody while no agent lived.
//!
//! The memoir is the only note of which ends it holds, so that an agent may die at any moment: docs/design/agent.md, "Ends".

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crux_wire::keeper::v1::Execution;
use tokio::sync::mpsc;

use super::context::{Agent, fields};
use super::executions::outcome_text;
use super::limits::ENDS_READ_BYTES_MAX;
use super::{finished, services};
use crate::memoir::{Backwards, Fields, MemoirError};

/// One run of an execution; a name may be used again.
type Run = (String, u64, i32);

/// Runs that had ended before this agent began, so their ends are no news.
pub(crate) type Before = BTreeSet<Run>;

fn run_of(execution: &Execution) -> Run {
    let Execution {
        execution: name,
        started_unix_ms,
        pid,
        ..
    } = execution;
    (name.clone(), *started_unix_ms, *pid)
}

/// Brings into the memoir what ended before this agent began and is not in it; returns all that ended before.
///
/// To be done before anything can be started: a name must not begin anew in the memoir before its end stands there.
///
/// # Cancel safety
/// What is not recorded yet is recorded by the next agent.
pub(crate) async fn catch_up(agent: &Agent) -> Before {
    let ended = |known: &Arc<Execution>| known.outcome.is_some();
    let ended: Vec<_> = agent.executions.list().into_iter().filter(ended).collect();
    let before = ended.iter().map(|execution| run_of(execution)).collect();
    let memoir = agent.config.memoir_dir.clone();
    let reading = tokio::task::spawn_blocking(move || read(&memoir, Untold::of(ended)));
    let Ok((untold, failed)) = reading.await else {
        tracing::error!("it is not known which ends the memoir holds: reading it failed");
        return before;
    };
    if let Some(error) = failed {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let reason = format!("{error}: {}", source.unwrap_or_default());
        let executions: Vec<_> = untold.undecided.into_keys().collect();
        tracing::error!(
            reason,
            ?executions,
            "these ends may be missing in the memoir"
        );
        let record = fields! { "executions": executions, "reason": reason };
        agent.note("exec.undecided", record).await;
    }
    for Late { execution, timeout } in untold.late {
        let ended = execution.outcome.as_ref().map(|end| end.ended_unix_ms);
        let late = fields! { "ended_unix_ms": ended, "late": true };
        tell(agent, &execution, timeout, late).await;
    }
    before
}

/// Takes note of every end the keeper tells, but of those that the list told before.
pub(crate) async fn watch(
    agent: Arc<Agent>,
    mut exits: mpsc::Receiver<Execution>,
    mut before: Before,
) {
    while let Some(execution) = exits.recv().await {
        if !before.remove(&run_of(&execution)) {
            let timed_out = execution.outcome.as_ref().is_some_and(|end| end.timed_out);
            tell(&agent, &execution, timed_out, Fields::new()).await;
            if agent.is_base() {
                agent.tell("execution.exited", &execution.execution, &how(&execution));
            }
        }
        let id = execution.execution.clone();
        agent.executions.exited(execution);
        // Whoever waits for the end hears of it before what has time.
        tokio::task::yield_now().await;
        let kept = agent.registrations.retain(|known| {
            known != id
                && agent
                    .executions
                    .get(known)
                    .is_some_and(|known| known.outcome.is_none())
        });
        if let Err(error) = kept {
            tracing::error!(%error, "registrations cannot be written");
        }
        services::publish(&agent);
        finished::prune(&agent).await;
    }
}

/// Writes one end. Ordering: `exec.end` last, since with it the end is told.
async fn tell(agent: &Agent, execution: &Execution, timeout: bool, more: Fields) {
    let id = &execution.execution;
    if timeout {
        let mut record = fields! { "execution": id.clone() };
        record.extend(more.clone());
        agent.note("exec.timeout", record).await;
    }
    let mut record = fields! {
        "execution": id.clone(), "instance": execution.instance.clone(),
        "command": execution.command.clone(), "outcome": how(execution),
    };
    record.extend(more);
    agent.note("exec.end", record).await;
}

fn how(execution: &Execution) -> String {
    execution
        .outcome
        .as_ref()
        .map(outcome_text)
        .unwrap_or_default()
}

/// Reads back until every end is decided; the error says why some are not.
fn read(memoir: &Path, mut untold: Untold) -> (Untold, Option<MemoirError>) {
    let mut decide = || {
        let mut records = Backwards::open(memoir, ENDS_READ_BYTES_MAX)?;
        while !untold.undecided.is_empty()
            && let Some(record) = records.next("exec.")?
        {
            let execution = record.fields.get("execution").and_then(|id| id.as_str());
            untold.take(&record.kind, execution.unwrap_or_default());
        }
        Ok(())
    };
    let failed = decide().err();
    untold.late.sort_by_key(|late| {
        let outcome = late.execution.outcome.as_ref();
        outcome.map(|end| end.ended_unix_ms)
    });
    (untold, failed)
}

/// An end to be told late.
#[derive(Debug)]
struct Late {
    execution: Arc<Execution>,
    /// Whether it is to be told as well that its time was over.
    timeout: bool,
}

/// Which ends the memoir does not tell, by its records from the newest on.
///
/// Invariant: an end is told if and only if the newest of the records `exec.start` and `exec.end` of its name is the latter.
#[derive(Debug)]
struct Untold {
    undecided: BTreeMap<String, Late>,
    late: Vec<Late>,
}

impl Untold {
    fn of(ended: Vec<Arc<Execution>>) -> Self {
        let late = |execution: Arc<Execution>| {
            let timeout = execution.outcome.as_ref().is_some_and(|end| end.timed_out);
            let name = execution.execution.clone();
            (name, Late { execution, timeout })
        };
        Self {
            undecided: ended.into_iter().map(late).collect(),
            late: Vec::new(),
        }
    }

    /// Takes the next older record.
    fn take(&mut self, kind: &str, execution: &str) {
        match kind {
            "exec.end" => drop(self.undecided.remove(execution)),
            "exec.start" => self.late.extend(self.undecided.remove(execution)),
            "exec.timeout" => {
                if let Some(late) = self.undecided.get_mut(execution) {
                    late.timeout = false;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crux_wire::keeper::v1::Outcome;

    use super::*;

    const NAMES: [&str; 3] = ["a", "b", "c"];

    fn ended(name: &str) -> Arc<Execution> {
        let outcome = Outcome {
            timed_out: true,
            ..Outcome::default()
        };
        Arc::new(Execution {
            execution: name.to_owned(),
            outcome: Some(outcome),
            ..Execution::default()
        })
    }

    /// What a new agent would write, given the records so far, oldest first.
    fn late(records: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
        let mut untold = Untold::of(NAMES.map(ended).to_vec());
        for (kind, execution) in records.iter().rev() {
            untold.take(kind, execution);
        }
        let name = |late: &Late| {
            let known = |name: &&&str| **name == late.execution.execution;
            *NAMES.iter().find(known).expect("it is one of them")
        };
        let records = untold.late.iter().flat_map(|late| {
            let timeout = late.timeout.then(|| ("exec.timeout", name(late)));
            timeout.into_iter().chain([("exec.end", name(late))])
        });
        records.collect()
    }

    #[test]
    fn agents_that_die_at_any_record_tell_each_end_once() {
        // Every name is used twice; the end of its first run was told, with its time over.
        let mut records = Vec::new();
        for name in NAMES {
            records.extend([("exec.start", name), ("exec.timeout", name)]);
            records.extend([("exec.end", name), ("exec.start", name)]);
        }
        let all = late(&records).len();
        assert_eq!(all, 2 * NAMES.len());
        // Agents that get so far, one after the other, until nothing is left to be told.
        for far in 1..=all {
            let mut told = records.clone();
            while let left = late(&told)
                && !left.is_empty()
            {
                told.extend(left.into_iter().take(far));
            }
            for name in NAMES {
                let of = |kind| told.iter().filter(|told| **told == (kind, name)).count();
                assert_eq!((of("exec.end"), of("exec.timeout")), (2, 2), "{told:?}");
            }
        }
    }

    #[test]
    fn what_the_memoir_tells_no_start_of_gets_no_end() {
        assert_eq!(late(&[]), []);
        assert_eq!(late(&[("exec.failed", "a"), ("exec.signal", "b")]), []);
    }
}
