//! The owner's answers to events, kept on disk: the channel to the underverse.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use underverse::{EventId, MaintenancePolicy, Reply};

use crate::durable;
use crate::events::EVENTS_KEPT;

/// An answer as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    Ack,
    Rolling { at_once: u32, apart_ms: u64 },
    Staged,
    DenyUntil { unix_ms: u64 },
}

/// Keeps `reply`; the last one to an event counts. The oldest go when there are more than events.
pub(crate) fn keep(path: &Path, event: EventId, reply: &Reply) -> io::Result<()> {
    let mut answers: BTreeMap<u64, Answer> = durable::read_json(path)?.unwrap_or_default();
    answers.insert(event.0, Answer::of(reply));
    while answers.len() > EVENTS_KEPT {
        answers.pop_first();
    }
    durable::write_json(path, &answers)
}

/// The answers of a horde's owner, by event.
pub(crate) fn read(path: &Path) -> io::Result<BTreeMap<u64, Answer>> {
    Ok(durable::read_json(path)?.unwrap_or_default())
}

impl Answer {
    pub(crate) fn of(reply: &Reply) -> Self {
        match reply {
            Reply::Ack => Self::Ack,
            Reply::Maintenance(MaintenancePolicy::Rolling { at_once, apart }) => Self::Rolling {
                at_once: *at_once,
                apart_ms: u64::try_from(apart.as_millis()).unwrap_or(u64::MAX),
            },
            Reply::Maintenance(MaintenancePolicy::Staged) => Self::Staged,
            Reply::Maintenance(MaintenancePolicy::DenyUntil { unix_ms }) => {
                Self::DenyUntil { unix_ms: *unix_ms }
            }
        }
    }

    /// How maintenance is to be done; `None` if it may be done as it comes.
    pub(crate) const fn policy(&self) -> Option<MaintenancePolicy> {
        match self {
            Self::Ack => None,
            Self::Rolling { at_once, apart_ms } => Some(MaintenancePolicy::Rolling {
                at_once: *at_once,
                apart: Duration::from_millis(*apart_ms),
            }),
            Self::Staged => Some(MaintenancePolicy::Staged),
            Self::DenyUntil { unix_ms } => Some(MaintenancePolicy::DenyUntil { unix_ms: *unix_ms }),
        }
    }
}
