//! Which finished executions are dropped, with their output.

use std::sync::Arc;

use crux_wire::keeper::v1::Execution;

use super::context::{Agent, unix_ms};
use super::limits::{FINISHED_KEPT_FOR, FINISHED_KEPT_MAX, FINISHED_KEPT_RNODE};

/// Drops those that ended first, beyond what is kept.
pub(crate) async fn prune(agent: &Agent) {
    for execution in surplus(&agent.executions.list(), unix_ms()) {
        if let Err(error) = agent.executions.forget(&execution).await {
            tracing::debug!(%error, execution, "an execution was not forgotten");
        }
    }
}

/// The ids of those that ended first, beyond what is kept; of those that ended just now, only what the keeper forgets too.
///
/// By their ends and not by their starts: what lived longest would else be gone before anybody saw how it ended.
fn surplus(known: &[Arc<Execution>], now_unix_ms: u64) -> Vec<String> {
    let end = |execution: &Arc<Execution>| {
        let ended = execution.outcome.as_ref()?.ended_unix_ms;
        Some((ended, execution.execution.clone()))
    };
    let mut finished: Vec<(u64, String)> = known.iter().filter_map(end).collect();
    finished.sort();
    let beyond = |most: usize| finished.len().saturating_sub(most);
    // What the keeper keeps no longer is not worth listing, however recent.
    let (surplus, lost) = (beyond(FINISHED_KEPT_RNODE), beyond(FINISHED_KEPT_MAX));
    let kept_from = now_unix_ms.saturating_sub(FINISHED_KEPT_FOR.as_millis() as u64);
    let oldest = finished.into_iter().take(surplus).enumerate();
    let dropped = oldest.filter(|(at, (ended, _))| *at < lost || *ended < kept_from);
    dropped.map(|(_, (_, execution))| execution).collect()
}

#[cfg(test)]
mod tests {
    use crux_wire::keeper::v1::Outcome;

    use super::*;

    const NOW: u64 = 10_000_000;

    fn ended(name: &str, started_unix_ms: u64, ended_unix_ms: u64) -> Arc<Execution> {
        let outcome = Outcome {
            ended_unix_ms,
            ..Outcome::default()
        };
        Arc::new(Execution {
            execution: name.to_owned(),
            started_unix_ms,
            outcome: Some(outcome),
            ..Execution::default()
        })
    }

    #[test]
    fn what_lived_long_is_not_dropped_when_it_ends() {
        let mut known = vec![ended("old", 1, NOW)];
        known.push(Arc::new(Execution {
            execution: "lives".to_owned(),
            ..Execution::default()
        }));
        for number in 0..FINISHED_KEPT_RNODE as u64 {
            known.push(ended(
                &format!("short {number:03}"),
                100 + number,
                200 + number,
            ));
        }
        assert_eq!(surplus(&known, NOW), ["short 000"]);
    }

    #[test]
    fn those_that_all_ended_just_now_are_kept_until_somebody_had_time_to_look() {
        let known: Vec<_> = (0..300)
            .map(|number| ended(&format!("{number:03}"), 1, NOW - 1))
            .collect();
        assert_eq!(surplus(&known, NOW), Vec::<String>::new());
        let later = NOW + FINISHED_KEPT_FOR.as_millis() as u64;
        assert_eq!(surplus(&known, later).len(), 300 - FINISHED_KEPT_RNODE);
        let many: Vec<_> = (0..FINISHED_KEPT_MAX + 3)
            .map(|number| ended(&format!("{number:04}"), 1, NOW - 1))
            .collect();
        assert_eq!(surplus(&many, NOW), ["0000", "0001", "0002"]);
    }
}
