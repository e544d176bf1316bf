//! What khan makes of the document and the flock as this rnode sees them. Publishing it is the leader's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use crux_wire::document::v1::{AssignedInstance, InstanceRecord, InstanceState, RnodeRecord};
use khan::{Holder, Placement, Rnode, View};
use tokio::time::Instant;

use super::application::Application;
use super::context::Agent;
use super::limits::GIVE_UP_RETRY_MAX;
use super::status::ClassWanted;

/// A computed placement.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Placed {
    /// Generation of the document it was made from.
    pub(crate) generation: u64,
    /// What is wanted of each class.
    pub(crate) classes: Vec<ClassWanted>,
    /// What each member gets; members without anything stand in it too.
    pub(crate) assignments: BTreeMap<String, Vec<AssignedInstance>>,
}

/// Rnodes that gave up on a class, remembered for a while after their record has gone with the instance.
#[derive(Debug, Default)]
pub(crate) struct Bars {
    /// (class, rnode) → the spec that failed there, and until when it counts.
    held: Mutex<BTreeMap<(String, String), (String, Instant)>>,
}

impl Bars {
    /// Takes in what the records say and returns the bars that stand.
    fn update(
        &self,
        application: &Application,
        records: &[InstanceRecord],
    ) -> BTreeSet<(String, String)> {
        let now = Instant::now();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for record in records
            .iter()
            .filter(|record| record.state() == InstanceState::GaveUp)
        {
            let key = (record.class.clone(), record.rnode.clone());
            held.insert(key, (record.spec.clone(), now + GIVE_UP_RETRY_MAX));
        }
        held.retain(|(class, _), (spec, until)| {
            *until > now && application.spec(class).to_string() == *spec
        });
        held.keys().cloned().collect()
    }
}

/// Computes the placement; `None` without a live document, and on a base.
pub(crate) fn place(agent: &Agent) -> Option<Placed> {
    if agent.is_base() {
        return None;
    }
    let newest = agent.documents.acting(agent.me.namespace.as_str())?;
    let generation = newest.document.generation;
    if newest.document.dissolved {
        return None;
    }
    let application = agent.applications.get(agent, generation)?;
    let rnodes = rnodes(agent);
    let members: BTreeSet<&str> = rnodes.iter().map(|rnode| rnode.id.as_str()).collect();
    let records: Vec<InstanceRecord> = agent
        .shared
        .messages::<InstanceRecord>("instance/")
        .into_iter()
        .filter(|(owner, record)| members.contains(owner.as_str()) && record.rnode == *owner)
        .map(|(_, record)| record)
        .collect();
    let barred = agent.bars.update(&application, &records);
    let placement = place_around(&application.program, view(rnodes, &records), barred);
    Some(placed(generation, placement))
}

/// Places around the rnodes that gave up; where that leaves a class short, what gave up stays and is seen.
fn place_around(
    program: &khan::Program,
    mut view: View,
    barred: BTreeSet<(String, String)>,
) -> Placement {
    view.barred = barred;
    let placement = khan::place(program, &view);
    let short: BTreeSet<&str> = placement
        .classes
        .iter()
        .filter(|class| class.short.is_some())
        .map(|class| class.class.as_str())
        .collect();
    let before = view.barred.len();
    view.barred
        .retain(|(class, _)| !short.contains(class.as_str()));
    if view.barred.len() == before {
        placement
    } else {
        khan::place(program, &view)
    }
}

/// The members that take part, and those silent ones that may still come back.
fn rnodes(agent: &Agent) -> Vec<Rnode> {
    let records: BTreeMap<String, RnodeRecord> = agent
        .shared
        .messages::<RnodeRecord>("rnode")
        .into_iter()
        .collect();
    agent
        .shared
        .members()
        .into_iter()
        .filter_map(|(id, standing)| {
            let record = records.get(&id)?;
            let mut rnode = Rnode::new(id, record.label.clone());
            rnode.tags = record.tags.iter().cloned().collect();
            rnode.standing = standing;
            Some(rnode)
        })
        .collect()
}

fn view(rnodes: Vec<Rnode>, records: &[InstanceRecord]) -> View {
    let mut view = View {
        rnodes,
        ..View::default()
    };
    for record in records {
        if record.was_ready {
            *view.ready.entry(record.class.clone()).or_default() += 1;
        }
        if !record.execution.is_empty() || record.restarts > 0 || record.was_ready {
            view.released.insert(record.class.clone());
        }
        let holds = match record.state() {
            InstanceState::Waiting
            | InstanceState::Starting
            | InstanceState::Ready
            | InstanceState::Backoff
            | InstanceState::GaveUp
            | InstanceState::Stopped => true,
            // What is being replaced is held; what is leaving is not, and the two look alike here,
            // so that an assignment once taken back is not given again by its own record.
            InstanceState::Stopping => record.reason == REPLACED,
            InstanceState::Unspecified => false,
        };
        if holds {
            view.holders.push(Holder {
                class: record.class.clone(),
                index: record.index,
                rnode: record.rnode.clone(),
            });
        }
    }
    view
}

/// Reason in the record of an instance that is stopped only to be started anew.
pub(crate) const REPLACED: &str = "being replaced";

fn placed(generation: u64, placement: Placement) -> Placed {
    let classes = placement
        .classes
        .into_iter()
        .map(|report| ClassWanted {
            wanted: report.wanted,
            short_by: report.short.as_ref().map_or(0, |short| short.by),
            reason: report
                .short
                .map(|short| short.reason)
                .or(report.held)
                .unwrap_or_default(),
            class: report.class,
        })
        .collect();
    let assignments = placement
        .rnodes
        .into_iter()
        .map(|(rnode, assigned)| {
            let instances = assigned
                .into_iter()
                .map(|assigned| AssignedInstance {
                    class: assigned.class,
                    index: assigned.index,
                    count: assigned.count,
                    held: assigned.held.is_some(),
                    held_reason: assigned.held.unwrap_or_default(),
                })
                .collect();
            (rnode, instances)
        })
        .collect();
    Placed {
        generation,
        classes,
        assignments,
    }
}

/// What is wanted of each class, for the status.
pub(crate) fn classes(agent: &Agent) -> Vec<ClassWanted> {
    place(agent)
        .map(|placed| placed.classes)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crux_core::adf::{self, Source};

    fn program(text: &str) -> khan::Program {
        let sources = [
            Source::new("app.begat", "prog1: rexec/worker\n      rexec/worker\n"),
            Source::new("app.rexec", "worker = /bin/worker\n"),
            Source::new("app.khan", text),
            Source::new("app.rnodes", "local {\n  n = 3\n  cmd = /bin/fulcrum\n}\n"),
        ];
        let (application, findings) = adf::parse("app", &sources, &|_| None);
        assert_eq!(findings, vec![]);
        khan::compile(&application).unwrap()
    }

    fn record(rnode: &str, index: u32, state: InstanceState) -> InstanceRecord {
        InstanceRecord {
            class: "prog1".into(),
            index,
            rnode: rnode.into(),
            state: state.into(),
            ..InstanceRecord::default()
        }
    }

    fn members() -> Vec<Rnode> {
        ["a", "b", "c"].map(|id| Rnode::new(id, id)).to_vec()
    }

    fn where_is(placement: &Placement) -> Vec<&str> {
        placement.classes[0]
            .placed
            .iter()
            .map(|placed| placed.rnode.as_str())
            .collect()
    }

    #[test]
    fn an_instance_moves_away_from_a_rnode_that_gave_up_on_it() {
        let program = program("pick(prog1, 1, ALL)\n");
        let records = [record("b", 0, InstanceState::GaveUp)];
        let barred = BTreeSet::from([("prog1".to_owned(), "b".to_owned())]);
        let placement = place_around(&program, view(members(), &records), barred);
        assert_ne!(where_is(&placement), ["b"]);
        assert!(placement.is_complete());
    }

    #[test]
    fn what_gave_up_stays_to_be_seen_where_nobody_else_could_take_it() {
        let program = program("pick(prog1, size(ALL), ALL)\n");
        let records = [
            record("a", 0, InstanceState::Ready),
            record("b", 1, InstanceState::GaveUp),
            record("c", 2, InstanceState::Ready),
        ];
        let barred = BTreeSet::from([("prog1".to_owned(), "b".to_owned())]);
        let placement = place_around(&program, view(members(), &records), barred);
        assert_eq!(where_is(&placement), ["a", "b", "c"]);
        assert!(placement.is_complete());
    }

    #[test]
    fn an_assignment_that_was_taken_back_is_not_given_again_by_its_own_record() {
        let mut leaving = record("a", 0, InstanceState::Stopping);
        leaving.reason = "no longer assigned".into();
        let mut replaced = record("b", 1, InstanceState::Stopping);
        replaced.reason = REPLACED.into();
        let view = view(members(), &[leaving, replaced]);
        let holders: Vec<&str> = view
            .holders
            .iter()
            .map(|holder| holder.rnode.as_str())
            .collect();
        assert_eq!(holders, ["b"]);
    }

    #[test]
    fn readiness_is_latched_and_a_started_class_is_released() {
        let mut was = record("a", 0, InstanceState::Backoff);
        was.was_ready = true;
        let view = view(members(), &[was, record("b", 1, InstanceState::Waiting)]);
        assert_eq!(view.ready["prog1"], 1);
        assert!(view.released.contains("prog1"));
        let waiting = super::view(members(), &[record("b", 1, InstanceState::Waiting)]);
        assert!(waiting.released.is_empty());
    }
}
