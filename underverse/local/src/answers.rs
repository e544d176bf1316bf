//! The owner's answers to events, kept on disk: the channel to the underverse.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use underverse::{EventId, MaintenancePolicy, Reply};

use crate::durable;
use crate::events::EVENTS_KEPT;

/// An answer as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Ack,
    Rolling { at_once: u32, apart_ms: u64 },
    Staged,
    DenyUntil { unix_ms: u64 },
}

/// Keeps `reply`; the last one to an event counts. The oldest go when there are more than events.
pub(crate) fn keep(path: &Path, event: EventId, reply: &Reply) -> io::Result<()> {
    let mut answers: BTreeMap<u64, Answer> = durable::read_json(path)?.unwrap_or_default();
    answers.insert(event.0, twin(reply));
    while answers.len() > EVENTS_KEPT {
        answers.pop_first();
    }
    durable::write_json(path, &answers)
}

fn twin(reply: &Reply) -> Answer {
    match reply {
        Reply::Ack => Answer::Ack,
        Reply::Maintenance(MaintenancePolicy::Rolling { at_once, apart }) => Answer::Rolling {
            at_once: *at_once,
            apart_ms: u64::try_from(apart.as_millis()).unwrap_or(u64::MAX),
        },
        Reply::Maintenance(MaintenancePolicy::Staged) => Answer::Staged,
        Reply::Maintenance(MaintenancePolicy::DenyUntil { unix_ms }) => {
            Answer::DenyUntil { unix_ms: *unix_ms }
        }
    }
}
