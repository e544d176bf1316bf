//! When what ended by itself may be started again. Pure: the caller tells the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::base::ExecutionView;
use crate::label::Subject;
use crate::network::At;

/// First wait before a new start. 100 ms: a crash at the start costs little.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest wait between two starts. 10 s: a broken rnode stays cheap.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// What lived this long starts its back-off anew. 10 s: longer than any start.
pub const BACKOFF_RESET: Duration = Duration::from_secs(10);

/// The back-off of every cell and forwarder of one horde. Forgotten with its process: then waits begin anew.
#[derive(Debug, Default)]
pub(crate) struct Restarts(BTreeMap<Key, Wait>);

/// A subject without what may change about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Cell(u32),
    Forward(At),
}

#[derive(Debug)]
struct Wait {
    /// The dead execution.
    execution: String,
    failures: u32,
    due: Instant,
}

impl Restarts {
    /// Takes note of the dead among `executions` and returns those that must not be started again yet.
    pub(crate) fn hold(&mut self, executions: &[ExecutionView], now: Instant) -> BTreeSet<String> {
        let mut latest: BTreeMap<Key, &ExecutionView> = BTreeMap::new();
        for execution in executions {
            let key = match execution.label.subject {
                Subject::Cell { ordinal } => Key::Cell(ordinal),
                Subject::Forward {
                    listen, carries, ..
                } => Key::Forward(At { listen, carries }),
            };
            let number = |view: &ExecutionView| (view.label.generation, view.label.attempt);
            let held = latest.entry(key).or_insert(execution);
            if number(execution) > number(held) {
                *held = execution;
            }
        }
        self.0.retain(|key, _| latest.contains_key(key));
        for (key, execution) in latest {
            if let Some(ended) = &execution.ended {
                let lived = ended.unix_ms.saturating_sub(execution.started_unix_ms);
                self.died(key, &execution.id, Duration::from_millis(lived), now);
            }
        }
        let waiting = self.0.values().filter(|wait| wait.due > now);
        waiting.map(|wait| wait.execution.clone()).collect()
    }

    fn died(&mut self, key: Key, execution: &str, lived: Duration, now: Instant) {
        let held = self.0.get(&key);
        if held.is_some_and(|wait| wait.execution == execution) {
            return;
        }
        let before = held.map_or(0, |wait| wait.failures);
        let failures = if lived >= BACKOFF_RESET {
            1
        } else {
            before.saturating_add(1)
        };
        let doublings = failures.saturating_sub(1).min(16);
        let wait = BACKOFF_MIN.saturating_mul(1 << doublings).min(BACKOFF_MAX);
        let wait = Wait {
            execution: execution.to_owned(),
            failures,
            due: now + wait,
        };
        self.0.insert(key, wait);
    }

    /// When the next wait is over; `None` if nothing waits.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        self.0
            .values()
            .map(|wait| wait.due)
            .filter(|due| *due > now)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Ended;
    use crate::label::Label;

    fn dead(attempt: u32, lived_ms: u64) -> ExecutionView {
        let label = Label {
            namespace: "stix".to_owned(),
            generation: (1, 0),
            attempt,
            subject: Subject::Cell { ordinal: 1 },
        };
        let ended = Some(Ended {
            how: String::new(),
            unix_ms: 1000 + lived_ms,
        });
        ExecutionView {
            id: label.execution(),
            label,
            pid: 1,
            started_unix_ms: 1000,
            linked: true,
            ended,
        }
    }

    #[test]
    fn waits_double_up_to_their_maximum_and_begin_anew_after_a_long_life() {
        let now = Instant::now();
        let mut restarts = Restarts::default();
        let mut waits = Vec::new();
        for attempt in 1..=9 {
            let held = restarts.hold(&[dead(attempt, 5)], now);
            assert_eq!(held.len(), 1);
            waits.push(restarts.next_due(now).unwrap() - now);
        }
        let expected = [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000];
        assert_eq!(waits, expected.map(Duration::from_millis));
        restarts.hold(&[dead(10, 10_000)], now);
        assert_eq!(restarts.next_due(now).unwrap() - now, BACKOFF_MIN);
    }

    #[test]
    fn a_death_is_counted_once_and_only_the_latest_start_counts() {
        let now = Instant::now();
        let mut restarts = Restarts::default();
        let list = [dead(3, 5), dead(1, 5), dead(2, 5)];
        assert_eq!(restarts.hold(&list, now), BTreeSet::from([dead(3, 5).id]));
        let later = now + BACKOFF_MIN;
        assert!(restarts.hold(&list, later).is_empty());
        assert_eq!(restarts.next_due(later), None);
    }
}
