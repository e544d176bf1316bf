//! The results of commands as printed: JSON twins of the wire messages, and their text.
//!
//! The JSON fields are documented in docs/formats/cli-json.md and only grow.

use crux_wire::document::v1::{InstanceRecord, InstanceState, ServiceRecord};
use crux_wire::fulcrum::v1 as wire;
use serde::Serialize;

/// What `radix status` tells.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    pub(crate) namespace: String,
    pub(crate) application: String,
    pub(crate) generation: u64,
    pub(crate) digest: String,
    pub(crate) settled: bool,
    pub(crate) ending: bool,
    pub(crate) rnodes_wanted: u32,
    pub(crate) rnodes_running: u32,
    pub(crate) leader: String,
    pub(crate) classes: Vec<Class>,
    pub(crate) instances: Vec<Instance>,
    pub(crate) rnodes: Vec<Rnode>,
    pub(crate) exposures: Vec<Exposure>,
    pub(crate) weaker: Vec<String>,
    pub(crate) problems: Vec<String>,
}

/// How one class is doing.
#[derive(Debug, Serialize)]
pub(crate) struct Class {
    pub(crate) class: String,
    pub(crate) wanted: u32,
    pub(crate) running: u32,
    pub(crate) ready: u32,
    pub(crate) short_by: u32,
    pub(crate) reason: String,
}

/// One instance.
#[derive(Debug, Serialize)]
pub(crate) struct Instance {
    pub(crate) instance: String,
    pub(crate) class: String,
    pub(crate) index: u32,
    pub(crate) rnode: String,
    pub(crate) state: &'static str,
    pub(crate) pid: i32,
    pub(crate) restarts: u32,
    pub(crate) execution: String,
    pub(crate) generation: u64,
    pub(crate) since_unix_ms: u64,
    pub(crate) reason: String,
}

/// One rnode.
#[derive(Debug, Serialize)]
pub(crate) struct Rnode {
    pub(crate) label: String,
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) state: String,
    pub(crate) keeper_pid: i32,
    pub(crate) agent_pid: i32,
    pub(crate) leader: bool,
}

/// One port that is reachable from outside.
#[derive(Debug, Serialize)]
pub(crate) struct Exposure {
    pub(crate) address: String,
    pub(crate) class: String,
    pub(crate) port: u32,
    pub(crate) state: String,
    pub(crate) message: String,
    pub(crate) members: u32,
}

/// One line of the service directory.
#[derive(Debug, Serialize)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) instance: String,
    pub(crate) version: String,
    pub(crate) checksum: String,
}

/// What `radix flock` tells.
#[derive(Debug, Serialize)]
pub(crate) struct Flock {
    pub(crate) namespace: String,
    pub(crate) flock: String,
    pub(crate) leader: String,
    pub(crate) leader_label: String,
    pub(crate) grade: String,
    pub(crate) term: u64,
    pub(crate) tenure_ms: u64,
    pub(crate) fingerprint: String,
    pub(crate) members: Vec<Member>,
    pub(crate) counters: std::collections::BTreeMap<String, u64>,
}

/// One member of a flock.
#[derive(Debug, Serialize)]
pub(crate) struct Member {
    pub(crate) label: String,
    pub(crate) id: String,
    pub(crate) state: String,
    pub(crate) incarnation: u64,
    pub(crate) address: String,
    pub(crate) silent_ms: u64,
}

/// Whether nothing is asked for any more of a horde: what is left of it ends.
pub(crate) fn is_ending(horde: &wire::HordeState) -> bool {
    matches!(horde.phase.as_str(), "dissolving" | "dissolved")
}

/// The word for a state of an instance.
pub(crate) const fn state_word(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Unspecified => "unknown",
        InstanceState::Waiting => "waiting",
        InstanceState::Starting => "starting",
        InstanceState::Ready => "ready",
        InstanceState::Backoff => "back-off",
        InstanceState::GaveUp => "gave up",
        InstanceState::Stopping => "stopping",
        InstanceState::Stopped => "stopped",
    }
}

impl Instance {
    fn from_wire(record: &InstanceRecord, rnodes: &[wire::RnodeStatus]) -> Self {
        let rnode = rnodes.iter().find(|rnode| rnode.id == record.rnode);
        Self {
            instance: format!("{}/{}", record.class, record.index),
            class: record.class.clone(),
            index: record.index,
            rnode: rnode.map_or_else(|| record.rnode.clone(), |rnode| rnode.label.clone()),
            state: state_word(record.state()),
            pid: record.pid,
            restarts: record.restarts,
            execution: record.execution.clone(),
            generation: record.generation,
            since_unix_ms: record.since_unix_ms,
            reason: record.reason.clone(),
        }
    }
}

impl Status {
    /// Joins what the namespace's flock says with what the base knows of its horde.
    pub(crate) fn from_wire(reply: &wire::StatusReply, horde: Option<&wire::HordeState>) -> Self {
        let mut instances: Vec<_> = reply
            .instances
            .iter()
            .map(|record| Instance::from_wire(record, &reply.rnodes))
            .collect();
        instances.sort_by(|a, b| (&a.class, a.index).cmp(&(&b.class, b.index)));
        let mut rnodes: Vec<_> = reply.rnodes.iter().map(Rnode::from_wire).collect();
        for held in horde.iter().flat_map(|horde| &horde.rnodes) {
            let address = format!("{}:{}", held.host, held.port);
            match rnodes.iter_mut().find(|rnode| rnode.label == held.label) {
                Some(rnode) => rnode.keeper_pid = held.keeper_pid,
                None => rnodes.push(Rnode {
                    label: held.label.clone(),
                    id: held.rnode.clone(),
                    address,
                    state: held.state.clone(),
                    keeper_pid: held.keeper_pid,
                    agent_pid: 0,
                    leader: false,
                }),
            }
        }
        rnodes.sort_by_key(|rnode| natural(&rnode.label));
        let mut problems = reply.problems.clone();
        if let Some(horde) = horde
            && !horde.message.is_empty()
            && horde.phase != "done"
        {
            problems.insert(0, format!("horde {}: {}", horde.phase, horde.message));
        }
        Self {
            namespace: reply.namespace.clone(),
            application: reply.application.clone(),
            generation: reply.generation,
            digest: reply.digest.clone(),
            // An application has rnodes: only its end asks for none. The flock may know of it before the backend begins.
            ending: horde.is_some_and(is_ending)
                || reply.generation > 0 && reply.rnodes_wanted == 0 && horde.is_some(),
            settled: reply.settled && horde.is_none_or(|horde| realised(reply, horde)),
            rnodes_wanted: reply.rnodes_wanted,
            rnodes_running: reply.rnodes_running,
            leader: reply
                .flock
                .as_ref()
                .map(|flock| flock.leader_label.clone())
                .unwrap_or_default(),
            classes: reply.classes.iter().map(Class::from_wire).collect(),
            instances,
            rnodes,
            exposures: horde
                .iter()
                .flat_map(|horde| &horde.exposures)
                .map(Exposure::from_wire)
                .collect(),
            weaker: horde.map(|horde| horde.weaker.clone()).unwrap_or_default(),
            problems,
        }
    }
}

/// Whether the base holds the horde of this generation to be complete, with a member behind every exposed port.
fn realised(reply: &wire::StatusReply, horde: &wire::HordeState) -> bool {
    let nobody_wanted = |class: &str| {
        let known = reply.classes.iter().find(|known| known.class == class);
        known.is_none_or(|known| known.wanted == 0)
    };
    let answers = |exposure: &wire::Exposure| {
        exposure.state == "open" || exposure.state == "waiting" && nobody_wanted(&exposure.class)
    };
    horde.phase == "done"
        && horde.generation == reply.generation
        && horde.rnodes.iter().all(|rnode| rnode.state == "running")
        && horde.exposures.iter().all(answers)
}

impl Class {
    fn from_wire(class: &wire::ClassStatus) -> Self {
        Self {
            class: class.class.clone(),
            wanted: class.wanted,
            running: class.running,
            ready: class.ready,
            short_by: class.short_by,
            reason: class.reason.clone(),
        }
    }
}

impl Rnode {
    fn from_wire(rnode: &wire::RnodeStatus) -> Self {
        Self {
            label: rnode.label.clone(),
            id: rnode.id.clone(),
            address: rnode.address.clone(),
            state: rnode.state.clone(),
            keeper_pid: rnode.keeper_pid,
            agent_pid: rnode.agent_pid,
            leader: rnode.leader,
        }
    }
}

impl Exposure {
    fn from_wire(exposure: &wire::Exposure) -> Self {
        Self {
            address: exposure.address.clone(),
            class: exposure.class.clone(),
            port: exposure.port,
            state: exposure.state.clone(),
            message: exposure.message.clone(),
            members: exposure.members,
        }
    }
}

impl Service {
    /// The directory lines of rnodes, then the services of the application.
    pub(crate) fn from_wire(reply: &wire::ServicesReply) -> Vec<Self> {
        let listings = reply.directory.iter().map(|listing| Self {
            name: listing.name.clone(),
            address: listing.address.clone(),
            instance: String::new(),
            version: String::new(),
            checksum: String::new(),
        });
        listings
            .chain(reply.services.iter().map(Self::from_record))
            .collect()
    }

    fn from_record(record: &ServiceRecord) -> Self {
        Self {
            name: record.name.clone(),
            address: format!("{}:{}", record.host, record.port),
            instance: format!("{}/{}", record.class, record.index),
            version: record.version.clone(),
            checksum: record.checksum.clone(),
        }
    }
}

impl Flock {
    /// The reply as printed.
    pub(crate) fn from_wire(reply: &wire::FlockReply) -> Self {
        let mut members: Vec<_> = reply
            .members
            .iter()
            .map(|member| Member {
                label: member.label.clone(),
                id: member.id.clone(),
                state: member.state.clone(),
                incarnation: member.incarnation,
                address: member.address.clone(),
                silent_ms: member.silent_ms,
            })
            .collect();
        members.sort_by_key(|member| natural(&member.label));
        Self {
            namespace: reply.namespace.clone(),
            flock: reply.flock.clone(),
            leader: reply.leader.clone(),
            leader_label: reply.leader_label.clone(),
            grade: reply.grade.clone(),
            term: reply.term,
            tenure_ms: reply.tenure_ms,
            fingerprint: format!("{:016x}", reply.fingerprint),
            members,
            counters: reply
                .counters
                .iter()
                .map(|counter| (counter.name.clone(), counter.value))
                .collect(),
        }
    }
}

/// Sorts n2 before n10.
pub(crate) fn natural(label: &str) -> (String, u64) {
    let digits = label
        .trim_end_matches(|character: char| character.is_ascii_digit())
        .len();
    let (head, tail) = label.split_at(digits);
    (head.to_owned(), tail.parse().unwrap_or(0))
}

/// A span of time for people: the largest unit, whole.
pub(crate) fn span(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0 => format!("{milliseconds}ms"),
        1..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_sort_as_people_count() {
        let mut labels = ["n10", "n2", "base", "n1"];
        labels.sort_by_key(|label| natural(label));
        assert_eq!(labels, ["base", "n1", "n2", "n10"]);
    }

    #[test]
    fn spans_are_told_in_one_unit() {
        let check = |milliseconds, expected| assert_eq!(span(milliseconds), expected);
        check(12, "12ms");
        check(61_000, "61s");
        check(180_000, "3m");
        check(7_200_000, "2h");
        check(200_000_000, "2d");
    }
}
