//! Which containers may leave a server that is maintained, as their owner answered. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use underverse::MaintenancePolicy;

use crate::answers::Answer;
use crate::record::Record;

/// A maintenance that a horde was told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Maintenance {
    /// The event that told it, and that is answered.
    pub(crate) event: u64,
    pub(crate) from_unix_ms: u64,
    /// How many containers have been moved.
    pub(crate) moved: u32,
    /// When the last were.
    pub(crate) last_unix_ms: u64,
}

impl Maintenance {
    /// How many may leave now; `None` is no limit. `whole`: all of the horde's containers run.
    fn may_leave(&self, answer: Option<&Answer>, now: u64, whole: bool) -> Option<u32> {
        if now < self.from_unix_ms {
            return Some(0);
        }
        let policy = answer.and_then(Answer::policy);
        match policy {
            None => None,
            Some(MaintenancePolicy::DenyUntil { unix_ms }) if now < unix_ms => Some(0),
            Some(MaintenancePolicy::DenyUntil { .. }) => None,
            Some(MaintenancePolicy::Staged) => Some(u32::from(self.moved == 0)),
            // One that is away counts; what was moved must be back before the next goes.
            Some(MaintenancePolicy::Rolling { .. }) if !whole => Some(0),
            Some(MaintenancePolicy::Rolling { at_once, apart }) => {
                let apart = u64::try_from(apart.as_millis()).unwrap_or(u64::MAX);
                let due = self.moved == 0 || now >= self.last_unix_ms.saturating_add(apart);
                Some(if due { at_once.max(1) } else { 0 })
            }
        }
    }
}

/// The ordinals of the containers that may leave their server now.
pub(crate) fn leaving(
    record: &Record,
    answers: &BTreeMap<u64, Answer>,
    now: u64,
    whole: bool,
) -> BTreeSet<u32> {
    let mut leaving = BTreeSet::new();
    for (server, maintenance) in &record.maintenance {
        let answer = answers.get(&maintenance.event);
        let most = maintenance.may_leave(answer, now, whole);
        let most = most.map_or(usize::MAX, |most| {
            usize::try_from(most).unwrap_or(usize::MAX)
        });
        let on_it = record
            .containers
            .iter()
            .filter(|(_, held)| held.server == *server);
        leaving.extend(on_it.map(|(ordinal, _)| *ordinal).take(most));
    }
    leaving
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn told(moved: u32, last_unix_ms: u64) -> Maintenance {
        Maintenance {
            event: 7,
            from_unix_ms: 1000,
            moved,
            last_unix_ms,
        }
    }

    fn check(
        moved: (u32, u64),
        policy: Option<&MaintenancePolicy>,
        now: u64,
        expected: Option<u32>,
    ) {
        let answer = policy
            .cloned()
            .map(|policy| Answer::of(&underverse::Reply::Maintenance(policy)));
        let got = told(moved.0, moved.1).may_leave(answer.as_ref(), now, true);
        assert_eq!(got, expected, "{moved:?} {policy:?} at {now}");
    }

    #[test]
    fn each_answer_lets_as_many_leave_as_it_says() {
        let rolling = |at_once| {
            Some(MaintenancePolicy::Rolling {
                at_once,
                apart: Duration::from_secs(60),
            })
        };
        let deny = Some(MaintenancePolicy::DenyUntil { unix_ms: 5000 });
        let staged = Some(MaintenancePolicy::Staged);
        check((0, 0), None, 999, Some(0));
        check((0, 0), None, 1000, None);
        check((0, 0), rolling(2).as_ref(), 999, Some(0));
        check((0, 0), rolling(2).as_ref(), 1000, Some(2));
        check((2, 1000), rolling(2).as_ref(), 60_999, Some(0));
        check((2, 1000), rolling(2).as_ref(), 61_000, Some(2));
        check((0, 0), rolling(0).as_ref(), 1000, Some(1));
        check((0, 0), staged.as_ref(), 1000, Some(1));
        check((1, 1000), staged.as_ref(), u64::MAX, Some(0));
        check((0, 0), deny.as_ref(), 4999, Some(0));
        check((0, 0), deny.as_ref(), 5000, None);
        let acknowledged = Answer::of(&underverse::Reply::Ack);
        assert_eq!(
            told(1, 1000).may_leave(Some(&acknowledged), 1001, true),
            None
        );
        let one = rolling(1).map(|policy| Answer::of(&underverse::Reply::Maintenance(policy)));
        assert_eq!(told(0, 0).may_leave(one.as_ref(), 1000, false), Some(0));
    }
}
