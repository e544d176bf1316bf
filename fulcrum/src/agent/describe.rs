//! What this rnode tells of itself and its namespace.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crux_wire::document::v1::{Address, Assignment, Document, InstanceRecord, RnodeRecord};
use crux_wire::fulcrum::v1::{DescribeReply, HordeState, Listing, ServicesReply, StatusReply};
use prost::Message;

use super::context::{Agent, BASE, RADIX};
use super::hordes::DISSOLVED;
use super::shared::Followed;
use super::status::{Facts, fold, service_address};
use super::{placement, services};

/// The record that this rnode publishes of itself.
pub(crate) fn record(agent: &Agent) -> RnodeRecord {
    let host = agent.config.host.to_string();
    let address = |port: u16, service: &str| Address {
        scope: if agent.config.host.is_loopback() {
            "host"
        } else {
            "network"
        }
        .to_owned(),
        host: host.clone(),
        port: port.into(),
        service: service.to_owned(),
    };
    RnodeRecord {
        id: agent.id(),
        label: agent.me.label.to_string(),
        namespace: agent.me.namespace.to_string(),
        addresses: vec![
            address(agent.me.tcp_port, "fulcrum"),
            address(agent.me.flock_port, "flock"),
        ],
        version: format!(
            "{} {}",
            env!("CARGO_PKG_VERSION"),
            agent.config.executable.digest.short()
        ),
        resources: Some(agent.resources),
        tags: agent.config.tags.clone(),
        incarnation: agent.me.incarnation,
        started_unix_ms: agent.me.started_unix_ms,
        keeper_pid: agent.me.keeper_pid,
        agent_pid: i32::try_from(std::process::id()).unwrap_or(0),
    }
}

/// Publishes that record.
pub(crate) fn publish(agent: &Agent) {
    agent
        .shared
        .publish_if_changed("rnode", &record(agent).encode_to_vec());
}

/// This rnode.
pub(crate) fn describe(agent: &Agent) -> DescribeReply {
    let record = record(agent);
    DescribeReply {
        directory: listings(agent, &record),
        rnode: Some(record),
        owner: agent.me.owner.to_string(),
        keeper_pid: agent.me.keeper_pid.to_string(),
        agent_pid: i32::try_from(std::process::id()).unwrap_or(0),
        configurations: agent.configuration().into_iter().collect(),
        executable_digest: agent.config.executable.digest.to_string(),
        public_key_der: agent.identity.public_key().spki().to_vec(),
        authority: Some(agent.identity.trust().authority_mark()),
    }
}

/// The directory of the namespace: the three names of each rnode that is alive, and registered services.
pub(crate) fn services(agent: &Agent, name: &str) -> ServicesReply {
    let alive = agent.shared.alive();
    let mut directory: Vec<Listing> = agent
        .shared
        .messages::<RnodeRecord>("rnode")
        .iter()
        .filter(|(owner, _)| alive.contains(owner))
        .flat_map(|(_, record)| listings(agent, record))
        .filter(|listing| name.is_empty() || listing.name.ends_with(&format!("/{name}")))
        .collect();
    directory.sort_by(|a, b| a.name.cmp(&b.name));
    ServicesReply {
        directory,
        services: services::lookup(agent, name),
    }
}

/// The entries of one rnode: exactly three, all at its one port.
fn listings(agent: &Agent, record: &RnodeRecord) -> Vec<Listing> {
    let address = service_address(record);
    let rexec = match agent.configuration() {
        Some(configuration) => format!("rexec/{configuration}"),
        None => "rexec".to_owned(),
    };
    ["fulcrum", &rexec, "fileio"]
        .into_iter()
        .map(|service| Listing {
            name: format!("{}/{service}", record.label),
            address: address.clone(),
        })
        .collect()
}

/// The state of our namespace.
pub(crate) fn status(agent: &Agent) -> StatusReply {
    let namespace = agent.me.namespace.to_string();
    let document = agent
        .documents
        .newest(&namespace)
        .map(|held| held.document.clone());
    fold(&Facts {
        base: agent.is_base(),
        document,
        classes: placement::classes(agent),
        instances: agent.shared.messages::<InstanceRecord>("instance/"),
        rnodes: agent.shared.messages::<RnodeRecord>("rnode"),
        assignments: assignments(agent),
        flock: agent.shared.flock(agent),
        hordes: agent.hordes.list(""),
        problems: agent.trouble.list(),
        namespace,
    })
}

/// The hordes of a base, one a namespace, sorted: what backends told of them, and what documents ask for beyond that.
///
/// Without the latter a base whose agent died early would pass for one with nothing to end.
pub(crate) fn hordes(agent: &Agent) -> Vec<HordeState> {
    let told = agent.hordes.list("");
    let asked = asked_for(agent, &told).into_iter();
    // Where another is asked for, the end of the last is no news.
    let hordes: BTreeMap<String, HordeState> = told
        .into_iter()
        .chain(asked)
        .map(|horde| (horde.namespace.clone(), horde))
        .collect();
    hordes.into_values().collect()
}

/// The hordes that documents ask for and of which no backend has told anything yet.
fn asked_for(agent: &Agent, told: &[HordeState]) -> Vec<HordeState> {
    let held = agent.documents.all().into_iter();
    held.filter(|held| agent.is_base() && held.document.namespace != BASE)
        .filter(|held| {
            let document = &held.document;
            let of = |horde: &&HordeState| horde.namespace == document.namespace;
            !told.iter().filter(of).any(|horde| still(horde, document))
        })
        .map(|held| HordeState {
            namespace: held.document.namespace.clone(),
            backend: held.document.backend.clone(),
            generation: held.document.generation,
            phase: if held.document.dissolved {
                "dissolving"
            } else {
                "realising"
            }
            .to_owned(),
            message: "its backend has not begun".to_owned(),
            ..HordeState::default()
        })
        .collect()
}

/// Whether what a backend told of a horde is of what `document` asks for, and not the end of what was before it.
fn still(horde: &HordeState, document: &Document) -> bool {
    horde.phase != DISSOLVED || document.dissolved || horde.generation >= document.generation
}

/// The assignment of each rnode that counts: that of whom we follow, else the newest.
pub(crate) fn assignments(agent: &Agent) -> BTreeMap<String, Assignment> {
    let published = agent.shared.messages::<Assignment>("assign/");
    newest(published, agent.shared.followed().as_ref())
}

/// Of those that were published, each by its owner's id, the one of each rnode that counts.
fn newest(
    published: impl IntoIterator<Item = (String, Assignment)>,
    followed: Option<&Followed>,
) -> BTreeMap<String, Assignment> {
    let mut newest: BTreeMap<String, Assignment> = BTreeMap::new();
    let rank = |of: &Assignment| {
        let leads = followed.is_some_and(|followed| followed.published(of));
        (leads, of.generation, of.term, of.leader.clone())
    };
    for (owner, assignment) in published {
        if assignment.leader != owner {
            continue;
        }
        let known = newest.get(&assignment.rnode);
        if known.is_none_or(|known| rank(&assignment) > rank(known)) {
            newest.insert(assignment.rnode.clone(), assignment);
        }
    }
    newest
}

/// Prometheus text.
pub(crate) fn metrics(agent: &Agent) -> String {
    let executions = agent.executions.list();
    let running = executions
        .iter()
        .filter(|known| known.outcome.is_none())
        .count();
    let flock = agent.shared.flock(agent);
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, value: u64| {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "# HELP radix_{name} {help}\n# TYPE radix_{name} gauge\nradix_{name} {value}"
        );
    };
    gauge("executions_running", "Executions that run.", running as u64);
    gauge(
        "executions_kept",
        "Executions known, finished ones included.",
        executions.len() as u64,
    );
    gauge(
        "flock_members",
        "Members of the flock.",
        flock.members.len() as u64,
    );
    gauge("flock_term", "Term of the leader.", flock.term);
    gauge(
        "agent_incarnation",
        "Incarnation of the agent.",
        agent.me.incarnation,
    );
    gauge(
        "base",
        "1 on a base rnode.",
        u64::from(agent.configuration().as_deref() == Some(RADIX)),
    );
    for counter in flock.counters {
        let name: String = counter
            .name
            .chars()
            .map(|next| {
                if next.is_ascii_alphanumeric() {
                    next
                } else {
                    '_'
                }
            })
            .collect();
        let _ = writeln!(
            text,
            "# TYPE radix_flock_{name} counter\nradix_flock_{name} {}",
            counter.value
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(leader: &str, term: u64) -> (String, Assignment) {
        let assignment = Assignment {
            rnode: "n1".to_owned(),
            leader: leader.to_owned(),
            generation: 1,
            term,
            ..Assignment::default()
        };
        (leader.to_owned(), assignment)
    }

    #[test]
    fn a_member_that_does_not_lead_assigns_nothing_whatever_term_it_claims() {
        let followed = Followed {
            leader: "good".to_owned(),
            term: 3,
        };
        let all = [
            published("good", 2),
            published("bad", u64::MAX),
            published("good", 3),
        ];
        let counted = newest(all.clone(), Some(&followed)).remove("n1").unwrap();
        assert_eq!((counted.leader.as_str(), counted.term), ("good", 3));
        assert!(followed.published(&counted));

        // Between two leaders the newest is told of, and not acted on.
        let counted = newest(all, None).remove("n1").unwrap();
        assert_eq!(counted.leader, "bad");
        let (_, past) = published("good", 2);
        assert!(!followed.published(&counted) && !followed.published(&past));
    }

    #[test]
    fn the_end_of_a_horde_says_nothing_of_the_one_that_is_asked_for_after_it() {
        let told = |phase: &str, generation| HordeState {
            phase: phase.to_owned(),
            generation,
            ..HordeState::default()
        };
        let asks = |generation, dissolved| Document {
            generation,
            dissolved,
            ..Document::default()
        };
        assert!(still(&told(DISSOLVED, 4), &asks(4, true)));
        assert!(still(&told("dissolving", 4), &asks(5, false)));
        assert!(still(&told("realising", 4), &asks(5, false)));
        assert!(!still(&told(DISSOLVED, 4), &asks(5, false)));
    }
}
