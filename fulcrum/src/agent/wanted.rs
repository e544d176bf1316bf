//! What this rnode should run: its own assignment and the document of the same generation.

use std::collections::BTreeMap;
use std::sync::Arc;

use crux_core::digest::Digest;
use crux_wire::document::v1::{AssignedInstance, InstanceRecord, InstanceState, Pin};

use super::application::{Application, restart};
use super::context::Agent;
use super::describe;
use super::paths::digest;
use super::reconcile::{InstanceId, Restart, Wanted};

/// An assignment that was accepted, with the application it speaks of.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Generation of the document.
    pub(crate) generation: u64,
    /// Term of the leader.
    pub(crate) term: u64,
    /// The application of that generation.
    pub(crate) application: Arc<Application>,
    /// What we run of it.
    pub(crate) instances: Vec<AssignedInstance>,
}

/// The newest assignment that may be acted on; the present one while there is no newer.
pub(crate) fn plan(agent: &Agent, present: Option<Plan>) -> Option<Plan> {
    let namespace = agent.me.namespace.as_str();
    let newest = agent.documents.acting(namespace)?;
    if newest.document.dissolved {
        let application = agent.applications.get(agent, newest.document.generation);
        let application = application.or_else(|| present.map(|plan| plan.application))?;
        let (generation, term) = (newest.document.generation, 0);
        return Some(Plan {
            generation,
            term,
            application,
            instances: Vec::new(),
        });
    }
    let Some(assignment) = describe::assignments(agent).remove(&agent.id()) else {
        return present;
    };
    // A member that does not lead could stop everything with a term that no leader ever reaches.
    let followed = agent.shared.followed();
    if !followed.is_some_and(|followed| followed.published(&assignment)) {
        return present;
    }
    let mark = (assignment.generation, assignment.term);
    if present
        .as_ref()
        .is_some_and(|plan| mark < (plan.generation, plan.term))
    {
        return present;
    }
    let Some(application) = agent.applications.get(agent, assignment.generation) else {
        // Its document has not arrived yet.
        return present;
    };
    match agent
        .documents
        .assigned(namespace, assignment.generation, assignment.term)
    {
        Ok(true) => {}
        Ok(false) => return present,
        Err(error) => {
            tracing::error!(%error, "an assignment cannot be persisted, so it is not acted on");
            return present;
        }
    }
    Some(Plan {
        generation: assignment.generation,
        term: assignment.term,
        application,
        instances: assignment.instances,
    })
}

/// The instances of a plan, with what holds each back.
pub(crate) fn wanted(agent: &Agent, plan: &Plan) -> BTreeMap<InstanceId, Wanted> {
    let records = living_records(agent);
    plan.instances
        .iter()
        .map(|assigned| {
            let instance = InstanceId {
                class: assigned.class.clone(),
                index: assigned.index,
            };
            let want = want(agent, plan, assigned, &records);
            (instance, want)
        })
        .collect()
}

fn want(
    agent: &Agent,
    plan: &Plan,
    assigned: &AssignedInstance,
    records: &[InstanceRecord],
) -> Wanted {
    let application = &plan.application;
    let Some(rule) = application.class(&assigned.class) else {
        let held = Some(format!("the document has no class {}", assigned.class));
        let spec = Digest::of(b"");
        return Wanted {
            spec,
            held,
            replacement_held: None,
            restart: Restart::Always,
        };
    };
    let pins = application.pins(rule);
    let missing: Vec<&str> = pins
        .iter()
        .filter(|pin| !present(agent, pin))
        .map(|pin| pin.path.as_str())
        .collect();
    let held = if assigned.held {
        Some(assigned.held_reason.clone())
    } else if application.executable(rule).is_none() {
        Some(format!("no file is pinned for {}", rule.command.value))
    } else if missing.is_empty() {
        None
    } else {
        Some(format!("waits for {}", missing.join(", ")))
    };
    let spec = application.spec(&assigned.class);
    let replacement_held = replacement_held(application, assigned, records);
    Wanted {
        spec,
        held,
        replacement_held,
        restart: restart(rule),
    }
}

fn present(agent: &Agent, pin: &Pin) -> bool {
    digest(&pin.digest).is_some_and(|digest| agent.has_file(&digest))
}

/// Instance records of members that are alive.
fn living_records(agent: &Agent) -> Vec<InstanceRecord> {
    let alive = agent.shared.alive();
    agent
        .shared
        .messages::<InstanceRecord>("instance/")
        .into_iter()
        .filter(|(owner, record)| alive.contains(owner) && record.rnode == *owner)
        .map(|(_, record)| record)
        .collect()
}

/// Why an instance must not be replaced yet: a lower index of its class is not ready with its new spec.
fn replacement_held(
    application: &Application,
    assigned: &AssignedInstance,
    records: &[InstanceRecord],
) -> Option<String> {
    let spec = application.spec(&assigned.class).to_string();
    let first = first_unready(&spec, assigned, records)?;
    Some(format!("{}/{} first", first.class, first.index))
}

/// The lowest index before an instance that runs, or tries to, and is not ready with `spec`.
fn first_unready<'r>(
    spec: &str,
    assigned: &AssignedInstance,
    records: &'r [InstanceRecord],
) -> Option<&'r InstanceRecord> {
    records
        .iter()
        .filter(|record| record.class == assigned.class && record.index < assigned.index)
        .filter(|record| match record.state() {
            InstanceState::Ready => record.spec != spec,
            InstanceState::Starting
            | InstanceState::Backoff
            | InstanceState::GaveUp
            | InstanceState::Stopping => true,
            InstanceState::Unspecified | InstanceState::Waiting | InstanceState::Stopped => false,
        })
        .min_by_key(|record| record.index)
}

/// Every pinned file of a plan: digest, executable or not, and its path for people.
pub(crate) fn files(plan: &Plan) -> impl Iterator<Item = (Digest, bool, String)> + '_ {
    let classes: std::collections::BTreeSet<&str> = plan
        .instances
        .iter()
        .map(|assigned| assigned.class.as_str())
        .collect();
    let mut seen = std::collections::BTreeSet::new();
    classes
        .into_iter()
        .filter_map(|class| plan.application.class(class))
        .flat_map(|rule| plan.application.pins(rule))
        .filter_map(|pin| Some((digest(&pin.digest)?, pin.executable, pin.path)))
        .filter(move |(digest, ..)| seen.insert(*digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(index: u32, state: InstanceState, spec: &str) -> InstanceRecord {
        InstanceRecord {
            class: "prog2".into(),
            index,
            state: state.into(),
            spec: spec.into(),
            ..InstanceRecord::default()
        }
    }

    #[track_caller]
    fn check(records: &[InstanceRecord], expected: Option<u32>) {
        let assigned = AssignedInstance {
            class: "prog2".into(),
            index: 2,
            ..Default::default()
        };
        let first = first_unready("new", &assigned, records);
        assert_eq!(first.map(|record| record.index), expected);
    }

    #[test]
    fn instances_of_a_class_are_replaced_one_after_another() {
        use InstanceState::{Backoff, GaveUp, Ready, Starting, Waiting};
        check(&[], None);
        check(&[record(1, Ready, "old"), record(0, Ready, "old")], Some(0));
        check(&[record(0, Ready, "new"), record(1, Ready, "old")], Some(1));
        check(
            &[record(0, Ready, "new"), record(1, Starting, "new")],
            Some(1),
        );
        check(&[record(0, Ready, "new"), record(1, Ready, "new")], None);
        check(
            &[
                record(0, Ready, "new"),
                record(1, Ready, "new"),
                record(3, Ready, "old"),
            ],
            None,
        );
        check(&[record(0, Backoff, "new")], Some(0));
        check(&[record(0, GaveUp, "new")], Some(0));
        check(&[record(0, Waiting, "new")], None);
        let other = InstanceRecord {
            class: "prog1".into(),
            ..record(0, Ready, "old")
        };
        check(&[other], None);
    }
}
