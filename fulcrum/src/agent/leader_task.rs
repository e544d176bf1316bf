//! Places instances while this rnode leads: computes with khan, publishes one assignment a member.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crux_wire::document::v1::Assignment;
use prost::Message;
use tokio::sync::watch;
use tokio::time::Instant;

use super::context::{Agent, fields};
use super::limits::{
    ENTRY_BYTES_MAX, FOLLOWER_INTERVAL, LEADER_DEBOUNCE, LEADER_GATHER, LEADER_INTERVAL,
    LEADER_SETTLE, LEADER_SETTLE_MIN,
};
use super::placement;
use super::status::ALIVE;

/// Runs until the agent ends.
pub(crate) async fn run(agent: Arc<Agent>) {
    let mut shared = agent.shared.changes();
    let mut documents = agent.documents.changes();
    let mut leading: Option<(u64, Instant)> = None;
    let mut told = Told::default();
    loop {
        shared.mark_unchanged();
        documents.mark_unchanged();
        let mark = agent.shared.mark();
        told.tell(&agent);
        leading = match (agent.shared.leads(), leading) {
            (Some(term), Some((known, since))) if term == known => Some((known, since)),
            (Some(term), _) => Some((term, Instant::now())),
            (None, _) => None,
        };
        let mut wait = if leading.is_some() {
            LEADER_INTERVAL
        } else {
            FOLLOWER_INTERVAL
        };
        match leading {
            Some((term, since)) => {
                let held_back = hold_back(&agent).saturating_sub(since.elapsed());
                if held_back.is_zero() {
                    publish(&agent, term).await;
                } else {
                    wait = held_back;
                }
            }
            None => withdraw(&agent, &BTreeSet::new()),
        }
        tokio::select! {
            () = placement_changed(&agent, &mut shared, mark) => {}
            _ = documents.changed() => {}
            () = tokio::time::sleep(wait) => continue,
            () = agent.shutdown.cancelled() => return,
        }
        // What changes together is placed together; the interval above bounds the wait.
        tokio::time::sleep(LEADER_DEBOUNCE).await;
    }
}

/// Waits until something that placement depends on is no longer as marked.
async fn placement_changed(agent: &Agent, shared: &mut watch::Receiver<u64>, mark: u64) {
    loop {
        // The sender lives in the agent, which outlives this task.
        let _ = shared.changed().await;
        if agent.shared.mark() != mark {
            return;
        }
    }
}

/// How long after winning the lead the first placement waits: until all that could be told has been told.
fn hold_back(agent: &Agent) -> Duration {
    let newest = agent.documents.acting(agent.me.namespace.as_str());
    let wanted = newest.map_or(0, |newest| newest.document.rnodes_wanted);
    if agent
        .shared
        .is_told(usize::try_from(wanted).unwrap_or(usize::MAX))
    {
        return LEADER_SETTLE_MIN;
    }
    // Where nothing runs yet, nobody waits for us but those who are still to come.
    let fresh = agent.shared.entries("instance/").is_empty();
    if fresh { LEADER_GATHER } else { LEADER_SETTLE }
}

/// What operators were told of the flock.
#[derive(Default)]
struct Told {
    leader: String,
    /// Members that take part, with their labels.
    alive: BTreeMap<String, String>,
}

impl Told {
    /// Tells of a change of leader, and of members that came and went.
    fn tell(&mut self, agent: &Agent) {
        let flock = agent.shared.flock(agent);
        let alive: BTreeMap<String, String> = flock
            .members
            .into_iter()
            .filter(|member| member.state == ALIVE)
            .map(|member| (member.id, member.label))
            .collect();
        for (id, label) in &alive {
            if !self.alive.contains_key(id) {
                agent.tell("rnode.up", label, id);
            }
        }
        for (id, label) in &self.alive {
            if !alive.contains_key(id) {
                agent.tell("rnode.down", label, id);
            }
        }
        self.alive = alive;
        if !flock.leader.is_empty() && flock.leader != self.leader {
            agent.tell(
                "leader",
                &flock.leader_label,
                &format!("term {}", flock.term),
            );
            self.leader = flock.leader;
        }
    }
}

/// Publishes the placement of the newest document.
async fn publish(agent: &Agent, term: u64) {
    let Some(placed) = placement::place(agent) else {
        withdraw(agent, &BTreeSet::new());
        return;
    };
    let leader = agent.id();
    let mut keys = BTreeSet::new();
    let mut problems = Vec::new();
    for (rnode, instances) in placed.assignments {
        let key = format!("assign/{rnode}");
        let assignment = Assignment {
            namespace: agent.me.namespace.to_string(),
            generation: placed.generation,
            term,
            leader: leader.clone(),
            rnode: rnode.clone(),
            instances,
        };
        let value = assignment.encode_to_vec();
        if value.len() > ENTRY_BYTES_MAX {
            problems.push(format!(
                "rnode {rnode} was given more instances than one entry can hold"
            ));
            continue;
        }
        if agent.shared.publish_if_changed(&key, &value) {
            let fields = fields! {
                "rnode": rnode, "generation": placed.generation, "term": term,
                "instances": assignment.instances.len(),
            };
            agent.note("assign", fields).await;
        }
        keys.insert(key);
    }
    agent.trouble.set("assignments", problems);
    withdraw(agent, &keys);
}

/// Withdraws our assignments to rnodes that are not in `kept`.
fn withdraw(agent: &Agent, kept: &BTreeSet<String>) {
    for key in agent.shared.own_keys("assign/") {
        if !kept.contains(&key) {
            agent.shared.withdraw(&key);
        }
    }
}
