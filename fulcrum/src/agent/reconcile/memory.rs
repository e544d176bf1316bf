//! What a reconciler carries over its agent's death.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{InstanceId, Reconciler, Track};
use crate::agent::limits::{GIVE_UP_FAILURES, REASON_BYTES_MAX};

/// The part of an instance's history that a new agent needs. Ages are lost: failures count as just seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Its class.
    pub class: String,
    /// Its index.
    pub index: u32,
    /// Digest of what it runs, in hex.
    pub spec: String,
    /// How often it was started again.
    pub restarts: u32,
    /// Failures that still count.
    pub failures: usize,
    /// Whether it was given up.
    pub gave_up: bool,
    /// How often in a row it was given up.
    #[serde(default)]
    pub given_up: u32,
    /// How it ended for good, if it did.
    #[serde(default)]
    pub done: Option<String>,
    /// Its last failure, for people.
    pub last_failure: String,
    /// Whether it was ever ready.
    pub was_ready: bool,
    /// The execution that runs it; empty if none.
    pub current: String,
    /// The execution that showed that it is ready; empty if none.
    pub ready: String,
}

impl Reconciler {
    /// What to write down, sorted by instance.
    #[must_use]
    pub fn remember(&self) -> Vec<Remembered> {
        self.tracks
            .iter()
            .filter_map(|(instance, track)| {
                Some(Remembered {
                    class: instance.class.clone(),
                    index: instance.index,
                    spec: track.spec?.to_string(),
                    restarts: track.restarts,
                    failures: track.failures.len(),
                    gave_up: track.gave_up.is_some(),
                    given_up: track.given_up,
                    done: track.done.clone(),
                    last_failure: track.last_failure.chars().take(REASON_BYTES_MAX).collect(),
                    was_ready: track.was_ready,
                    current: track.current.clone(),
                    ready: track.ready.clone(),
                })
            })
            .collect()
    }

    /// A reconciler that knows what an earlier one wrote down; unreadable entries are left out.
    #[must_use]
    pub fn restore(now: Duration, remembered: &[Remembered]) -> Self {
        let mut reconciler = Self::default();
        for entry in remembered {
            let Ok(spec) = entry.spec.parse() else {
                continue;
            };
            let failures = entry.failures.min(GIVE_UP_FAILURES);
            let track = Track {
                spec: Some(spec),
                restarts: entry.restarts,
                failures: vec![now; failures],
                streak: u32::try_from(failures).unwrap_or(0),
                not_before: now,
                gave_up: entry.gave_up.then_some(now),
                given_up: entry.given_up.max(u32::from(entry.gave_up)),
                done: entry.done.clone(),
                last_failure: entry.last_failure.clone(),
                was_ready: entry.was_ready,
                current: entry.current.clone(),
                ready: entry.ready.clone(),
                published: None,
            };
            reconciler.tracks.insert(
                InstanceId {
                    class: entry.class.clone(),
                    index: entry.index,
                },
                track,
            );
        }
        reconciler
    }
}
