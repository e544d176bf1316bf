//! The state of a namespace, folded from its document, its shared data and its flock: a pure function.
//!
//! Not for deciding anything; `leader_task` and `reconcile` do.

use std::collections::{BTreeMap, BTreeSet};

use crux_wire::document::v1::{Assignment, Document, InstanceRecord, InstanceState, RnodeRecord};
use crux_wire::fulcrum::v1::{ClassStatus, FlockReply, HordeState, RnodeStatus, StatusReply};

#[cfg(test)]
mod tests;

/// How many of a class are wanted, and how many of them khan could not place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClassWanted {
    /// Its name.
    pub(crate) class: String,
    /// Instances asked for.
    pub(crate) wanted: u32,
    /// Of these, instances without a rnode.
    pub(crate) short_by: u32,
    /// Why, for people.
    pub(crate) reason: String,
}

/// Everything a status is folded from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// Whether this is a base rnode.
    pub(crate) base: bool,
    /// The namespace's label.
    pub(crate) namespace: String,
    /// The newest document held; `None` before the first.
    pub(crate) document: Option<Document>,
    /// What khan makes of it, in the order of the document.
    pub(crate) classes: Vec<ClassWanted>,
    /// Instance records with the rnode that owns each entry.
    pub(crate) instances: Vec<(String, InstanceRecord)>,
    /// Rnode records with the rnode that owns each entry.
    pub(crate) rnodes: Vec<(String, RnodeRecord)>,
    /// The newest assignment of each rnode.
    pub(crate) assignments: BTreeMap<String, Assignment>,
    /// The flock as this rnode sees it.
    pub(crate) flock: FlockReply,
    /// What the backends say, on a base.
    pub(crate) hordes: Vec<HordeState>,
    /// Trouble of this rnode itself, such as files that cannot be had.
    pub(crate) problems: Vec<String>,
}

/// State of a flock member that takes part.
pub(crate) const ALIVE: &str = "alive";

/// Folds the facts into a status. Instances and rnodes come sorted; problems that block come first.
pub(crate) fn fold(facts: &Facts) -> StatusReply {
    let alive: BTreeSet<&str> = facts
        .flock
        .members
        .iter()
        .filter(|member| member.state == ALIVE)
        .map(|member| member.id.as_str())
        .collect();
    let live: Vec<&InstanceRecord> = facts
        .instances
        .iter()
        .filter(|(owner, record)| alive.contains(owner.as_str()) && *owner == record.rnode)
        .map(|(_, record)| record)
        .collect();
    let document = facts.document.as_ref();
    let classes = classes(facts, &live);
    let rnodes = rnodes(facts);
    let rnodes_running = rnodes.iter().filter(|rnode| rnode.state == ALIVE).count();
    let rnodes_wanted = document.map_or(0, |document| document.rnodes_wanted);
    let rnodes_running = u32::try_from(rnodes_running).unwrap_or(u32::MAX);
    let problems = problems(facts, &classes, &live, (rnodes_wanted, rnodes_running));
    let dissolved = document.is_some_and(|document| document.dissolved);
    let mut instances: Vec<InstanceRecord> = live.iter().map(|record| (*record).clone()).collect();
    instances.sort_by(|a, b| (&a.class, a.index, &a.rnode).cmp(&(&b.class, b.index, &b.rnode)));
    StatusReply {
        namespace: facts.namespace.clone(),
        application: document
            .map(|document| document.application.clone())
            .unwrap_or_default(),
        generation: document.map_or(0, |document| document.generation),
        digest: document
            .map(|document| document.digest.clone())
            .unwrap_or_default(),
        settled: if facts.base {
            // Nothing is placed on a base: it is as it should be once it knows what it may run.
            document.is_some() && problems.is_empty()
        } else {
            !dissolved && settled(facts, &classes, &live, &alive) && rnodes_running >= rnodes_wanted
        },
        ended: dissolved && live.is_empty(),
        classes,
        instances,
        rnodes,
        flock: Some(facts.flock.clone()),
        rnodes_wanted,
        rnodes_running,
        problems,
    }
}

/// Counts each class; a class that only instances tell of is wanted by nobody.
fn classes(facts: &Facts, live: &[&InstanceRecord]) -> Vec<ClassStatus> {
    let mut classes: Vec<ClassStatus> = facts
        .classes
        .iter()
        .map(|class| ClassStatus {
            class: class.class.clone(),
            wanted: class.wanted,
            short_by: class.short_by,
            reason: class.reason.clone(),
            ..ClassStatus::default()
        })
        .collect();
    for record in live {
        let at = classes.iter().position(|class| class.class == record.class);
        let at = at.unwrap_or_else(|| {
            classes.push(ClassStatus {
                class: record.class.clone(),
                ..ClassStatus::default()
            });
            classes.len() - 1
        });
        let class = &mut classes[at];
        match record.state() {
            InstanceState::Ready => {
                class.running += 1;
                class.ready += 1;
            }
            InstanceState::Starting | InstanceState::Stopping => class.running += 1,
            InstanceState::Unspecified
            | InstanceState::Waiting
            | InstanceState::Backoff
            | InstanceState::GaveUp
            | InstanceState::Stopped => {}
        }
    }
    classes
}

fn rnodes(facts: &Facts) -> Vec<RnodeStatus> {
    let records: BTreeMap<&str, &RnodeRecord> = facts
        .rnodes
        .iter()
        .map(|(owner, record)| (owner.as_str(), record))
        .collect();
    let mut rnodes: Vec<RnodeStatus> = facts
        .flock
        .members
        .iter()
        .map(|member| {
            let record = records.get(member.id.as_str());
            RnodeStatus {
                id: member.id.clone(),
                label: record.map_or_else(|| member.label.clone(), |record| record.label.clone()),
                address: record
                    .map(|record| service_address(record))
                    .unwrap_or_default(),
                state: member.state.clone(),
                keeper_pid: record.map_or(0, |record| record.keeper_pid),
                agent_pid: record.map_or(0, |record| record.agent_pid),
                leader: member.id == facts.flock.leader,
            }
        })
        .collect();
    rnodes.sort_by(|a, b| {
        natural(&a.label)
            .cmp(&natural(&b.label))
            .then(a.id.cmp(&b.id))
    });
    rnodes
}

/// The address of a rnode's services, `host:port`; empty while it has told none.
pub(crate) fn service_address(record: &RnodeRecord) -> String {
    let of = record
        .addresses
        .iter()
        .find(|address| address.service == "fulcrum");
    of.map(|address| host_port(&address.host, address.port))
        .unwrap_or_default()
}

/// Joins a host and a port, with brackets around an IPv6 address.
pub(crate) fn host_port(host: &str, port: u32) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// A key that sorts `n2` before `n10`.
fn natural(label: &str) -> (String, u64, String) {
    let digits = label.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (head, tail) = label.split_at(label.len() - digits);
    (head.to_owned(), tail.parse().unwrap_or(0), label.to_owned())
}

/// Whether each wanted instance of this generation is ready and nothing else runs.
fn settled(
    facts: &Facts,
    classes: &[ClassStatus],
    live: &[&InstanceRecord],
    alive: &BTreeSet<&str>,
) -> bool {
    let Some(document) = &facts.document else {
        return false;
    };
    let placed = alive.iter().all(|rnode| {
        facts
            .assignments
            .get(*rnode)
            .is_some_and(|assignment| assignment.generation == document.generation)
    });
    let assigned: BTreeSet<(&str, &str, u32)> = facts
        .assignments
        .iter()
        .filter(|(rnode, _)| alive.contains(rnode.as_str()))
        .flat_map(|(rnode, assignment)| {
            assignment
                .instances
                .iter()
                .map(|instance| (rnode.as_str(), instance.class.as_str(), instance.index))
        })
        .collect();
    let current = live.iter().all(|record| {
        record.state() == InstanceState::Ready
            && record.generation == document.generation
            && assigned.contains(&(record.rnode.as_str(), record.class.as_str(), record.index))
    });
    placed
        && !facts.flock.leader.is_empty()
        && current
        && live.len() == assigned.len()
        && classes
            .iter()
            .all(|class| class.short_by == 0 && class.ready == class.wanted)
}

/// Says what is wrong; what keeps the namespace from settling at all comes first.
fn problems(
    facts: &Facts,
    classes: &[ClassStatus],
    live: &[&InstanceRecord],
    (rnodes_wanted, rnodes_running): (u32, u32),
) -> Vec<String> {
    let mut problems = Vec::new();
    for horde in facts
        .hordes
        .iter()
        .filter(|horde| !horde.message.is_empty())
    {
        problems.push(format!(
            "horde {} is {}: {}",
            horde.namespace, horde.phase, horde.message
        ));
    }
    for class in classes.iter().filter(|class| class.short_by > 0) {
        let reason = if class.reason.is_empty() {
            "no rnode is left"
        } else {
            &class.reason
        };
        problems.push(format!(
            "{} is short by {}: {reason}",
            class.class, class.short_by
        ));
    }
    for record in live
        .iter()
        .filter(|record| record.state() == InstanceState::GaveUp)
    {
        let at = rnode_label(facts, &record.rnode);
        problems.push(format!(
            "{}/{} on {at} was given up: {}",
            record.class, record.index, record.reason
        ));
    }
    problems.extend(facts.problems.iter().cloned());
    if rnodes_running < rnodes_wanted {
        problems.push(format!(
            "{rnodes_running} of {rnodes_wanted} rnodes are in the flock"
        ));
    }
    for record in live {
        let slow = matches!(
            record.state(),
            InstanceState::Waiting | InstanceState::Backoff
        );
        if slow && !record.reason.is_empty() {
            let at = rnode_label(facts, &record.rnode);
            problems.push(format!(
                "{}/{} on {at}: {}",
                record.class, record.index, record.reason
            ));
        }
    }
    problems
}

fn rnode_label<'f>(facts: &'f Facts, rnode: &'f str) -> &'f str {
    let record = facts.rnodes.iter().find(|(owner, _)| owner == rnode);
    record.map_or(rnode, |(_, record)| record.label.as_str())
}
