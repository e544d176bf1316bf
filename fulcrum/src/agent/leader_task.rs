//! Places instances while this rnode leads: computes with khan, publishes one assignment a member.

use std::collections::BTreeSet;
use std::sync::Arc;

use crux_wire::document::v1::Assignment;
use prost::Message;
use tokio::time::Instant;

use super::context::{Agent, fields};
use super::limits::{
    ENTRY_BYTES_MAX, FOLLOWER_INTERVAL, LEADER_DEBOUNCE, LEADER_INTERVAL, LEADER_SETTLE,
};
use super::placement;

/// Runs until the agent ends.
pub(crate) async fn run(agent: Arc<Agent>) {
    let mut shared = agent.shared.changes();
    let mut documents = agent.documents.changes();
    let mut leading: Option<(u64, Instant)> = None;
    let mut told_leader = String::new();
    loop {
        shared.mark_unchanged();
        documents.mark_unchanged();
        tell_leader(&agent, &mut told_leader);
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
                let settled = agent.shared.settled() || since.elapsed() >= LEADER_SETTLE;
                if settled {
                    publish(&agent, term).await;
                } else {
                    wait = LEADER_SETTLE.saturating_sub(since.elapsed());
                }
            }
            None => withdraw(&agent, &BTreeSet::new()),
        }
        tokio::select! {
            _ = shared.changed() => {}
            _ = documents.changed() => {}
            () = tokio::time::sleep(wait) => continue,
            () = agent.shutdown.cancelled() => return,
        }
        // What changes together is placed together; the interval above bounds the wait.
        tokio::time::sleep(LEADER_DEBOUNCE).await;
    }
}

/// Tells operators of a change of leader.
fn tell_leader(agent: &Agent, told: &mut String) {
    let flock = agent.shared.flock(agent);
    if !flock.leader.is_empty() && flock.leader != *told {
        let text = format!("term {}", flock.term);
        agent.tell("leader", &flock.leader_label, &text);
        told.clone_from(&flock.leader);
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
        if agent.shared.publish_if_changed(&key, value) {
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
