//! What the status says, by table.

use crux_wire::document::v1::{
    AssignedInstance, Assignment, Document, InstanceRecord, InstanceState,
};
use crux_wire::fulcrum::v1::{FlockReply, Member};

use super::{ClassWanted, Facts, fold};

fn member(id: &str, state: &str) -> Member {
    Member {
        id: id.into(),
        label: id.into(),
        state: state.into(),
        ..Member::default()
    }
}

fn record(rnode: &str, index: u32, state: InstanceState) -> (String, InstanceRecord) {
    let record = InstanceRecord {
        class: "prog1".into(),
        index,
        rnode: rnode.into(),
        state: state.into(),
        generation: 3,
        ..InstanceRecord::default()
    };
    (rnode.into(), record)
}

fn assignment(rnode: &str, indices: &[u32]) -> (String, Assignment) {
    let instances = indices
        .iter()
        .map(|&index| AssignedInstance {
            class: "prog1".into(),
            index,
            ..Default::default()
        })
        .collect();
    (
        rnode.into(),
        Assignment {
            generation: 3,
            instances,
            ..Assignment::default()
        },
    )
}

/// Two rnodes, one instance of prog1 on each, all ready.
fn calm() -> Facts {
    Facts {
        namespace: "stix".into(),
        document: Some(Document {
            generation: 3,
            rnodes_wanted: 2,
            ..Document::default()
        }),
        classes: vec![ClassWanted {
            class: "prog1".into(),
            wanted: 2,
            short_by: 0,
            reason: String::new(),
        }],
        instances: vec![
            record("n2", 1, InstanceState::Ready),
            record("n1", 0, InstanceState::Ready),
        ],
        assignments: [assignment("n1", &[0]), assignment("n2", &[1])].into(),
        flock: FlockReply {
            leader: "n1".into(),
            members: vec![member("n1", "alive"), member("n2", "alive")],
            ..FlockReply::default()
        },
        ..Facts::default()
    }
}

#[test]
fn a_status_is_settled_when_every_wanted_instance_is_ready_and_nothing_else_runs() {
    let status = fold(&calm());
    assert!(status.settled);
    assert_eq!((status.classes[0].running, status.classes[0].ready), (2, 2));
    assert_eq!(status.instances[0].rnode, "n1");
    assert!(status.rnodes[0].leader);
    assert_eq!(status.problems, Vec::<String>::new());
}

#[test]
fn what_is_not_yet_as_wanted_keeps_a_status_from_being_settled() {
    let mut starting = calm();
    starting.instances[0] = record("n2", 1, InstanceState::Starting);
    let status = fold(&starting);
    assert!(!status.settled);
    assert_eq!((status.classes[0].running, status.classes[0].ready), (2, 1));

    let mut surplus = calm();
    surplus
        .instances
        .push(record("n2", 5, InstanceState::Stopping));
    assert!(!fold(&surplus).settled);

    let mut old = calm();
    old.instances[0].1.generation = 2;
    assert!(!fold(&old).settled);

    let mut unplaced = calm();
    unplaced.assignments.remove("n2");
    assert!(!fold(&unplaced).settled);

    let mut leaderless = calm();
    leaderless.flock.leader.clear();
    assert!(!fold(&leaderless).settled);

    let mut few = calm();
    few.document.as_mut().unwrap().rnodes_wanted = 6;
    let status = fold(&few);
    assert!(!status.settled);
    assert_eq!(status.problems, ["2 of 6 rnodes are in the flock"]);

    assert!(
        !fold(&Facts {
            document: None,
            ..calm()
        })
        .settled
    );
}

#[test]
fn records_of_rnodes_that_left_do_not_count() {
    let mut facts = calm();
    facts.flock.members[1].state = "dead".into();
    let status = fold(&facts);
    assert_eq!(status.classes[0].ready, 1);
    assert_eq!(status.rnodes_running, 1);
    assert!(!status.settled);
}

#[test]
fn problems_that_block_come_first() {
    let mut facts = calm();
    facts.classes[0].short_by = 1;
    facts.classes[0].reason = "4 wanted, 3 rnodes match".into();
    facts.instances[0] = record("n2", 1, InstanceState::Backoff);
    facts.instances[0].1.reason = "exit code 1".into();
    facts.instances[1] = record("n1", 0, InstanceState::GaveUp);
    facts.instances[1].1.reason = "failed 8 times".into();
    assert_eq!(
        fold(&facts).problems,
        [
            "prog1 is short by 1: 4 wanted, 3 rnodes match",
            "prog1/0 on n1 was given up: failed 8 times",
            "prog1/1 on n2: exit code 1",
        ]
    );
}

#[test]
fn a_dissolved_namespace_has_ended_when_no_instance_is_left() {
    let mut facts = calm();
    facts.document.as_mut().unwrap().dissolved = true;
    assert!(!fold(&facts).ended);
    facts.instances.clear();
    let status = fold(&facts);
    assert!(status.ended);
    assert!(!status.settled);
}
