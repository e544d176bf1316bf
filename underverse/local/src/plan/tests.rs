//! The planner by table: what is there, what is wanted, what is done.

use std::collections::{BTreeMap, BTreeSet};

use underverse::{Keep, Limits};

use super::{DirectoryView, Observed, Plan, Step, dissolve, realise};
use crate::address::Lease;
use crate::base::{Ended, ExecutionView};
use crate::config::{Executable, Isolation, RnodeFile};
use crate::label::{Label, Subject};
use crate::limits::Room;
use crate::network::{Carries, OnSwitch, Scope, Way};
use crate::record::{
    ContainerRecord, Door, ForwardRecord, NetworkRecord, Probed, Record, RoleRecord,
};
use crate::servers::Tagging;
use crate::wanted::{Wanted, WantedProgram, WantedRnode, WantedSwitch};

const GENERATION: (u64, u64) = (7, 0);

fn dissolve_all(observed: &Observed) -> Plan {
    dissolve(observed, Keep::Nothing)
}

fn wanted(count: u32, doors: &[u16]) -> Wanted {
    let rnode = |ordinal| WantedRnode {
        program: WantedProgram::Fulcrum,
        ordinal,
        role: "rnode".to_owned(),
        server: "local".to_owned(),
        declared: BTreeSet::new(),
        added: BTreeSet::new(),
        tagging: Tagging::default(),
        kept_tags: Vec::new(),
        urgent: false,
        mounts: Vec::new(),
        env: Vec::new(),
        limits: Limits::none(),
        groups: Vec::new(),
    };
    Wanted {
        namespace: "stix".to_owned(),
        generation: GENERATION,
        roles: vec![RoleRecord {
            role: "rnode".to_owned(),
            count,
        }],
        rnodes: (1..=count).map(rnode).collect(),
        unplaced: Vec::new(),
        room: None,
        servers_serial: 0,
        network: NetworkRecord::default(),
        doors: doors.iter().map(|&port| door(port)).collect(),
        weaker: Vec::new(),
        allotments: Vec::new(),
        user_range_start: None,
        isolation: Isolation::PidMount,
        quota_bytes: None,
        switch: None,
    }
}

fn door(port: u16) -> Door {
    Door {
        listen: ([127, 0, 0, 1], port).into(),
        class: "prog1".to_owned(),
        port: 45_271,
        way: Way::Here,
        carries: Carries::Tcp,
    }
}

fn execution(attempt: u32, subject: Subject) -> ExecutionView {
    let label = Label {
        namespace: "stix".to_owned(),
        generation: GENERATION,
        attempt,
        subject,
    };
    ExecutionView {
        id: label.execution(),
        label,
        pid: 1,
        started_unix_ms: 0,
        linked: true,
        ended: None,
    }
}

fn cell(ordinal: u32, attempt: u32) -> ExecutionView {
    execution(attempt, Subject::Cell { ordinal })
}

fn forward(port: u16) -> ExecutionView {
    let Door {
        listen,
        class,
        port,
        way,
        carries,
    } = door(port);
    execution(
        1,
        Subject::Forward {
            listen,
            class,
            port,
            way,
            carries,
        },
    )
}

fn ended(mut view: ExecutionView) -> ExecutionView {
    view.ended = Some(Ended {
        how: "was ended by signal 9".to_owned(),
        unix_ms: 1,
    });
    view
}

fn container(attempt: u32) -> ContainerRecord {
    ContainerRecord {
        tagging: Tagging::default(),
        role: "rnode".to_owned(),
        server: "local".to_owned(),
        tags: Vec::new(),
        generation: GENERATION,
        attempt,
        replaces: None,
        announced: true,
        ending: false,
        buried: false,
    }
}

/// A horde as `wanted` that was realised in full and runs.
fn running(wanted: &Wanted) -> Observed {
    let ordinals = || wanted.rnodes.iter().map(|rnode| rnode.ordinal);
    let forwards = wanted.doors.iter().map(|door| {
        let forward = ForwardRecord {
            door: door.clone(),
            generation: GENERATION,
            attempt: 1,
        };
        (door.at(), forward)
    });
    let record = Record {
        namespace: wanted.namespace.clone(),
        generation: wanted.generation,
        dissolving: false,
        roles: wanted.roles.clone(),
        network: wanted.network.clone(),
        doors: wanted.doors.clone(),
        weaker: Vec::new(),
        user_range_start: None,
        isolation: Isolation::PidMount,
        told: 0,
        boot: String::new(),
        maintenance: BTreeMap::new(),
        switch: None,
        probed: None,
        containers: ordinals().map(|ordinal| (ordinal, container(1))).collect(),
        forwards: forwards.collect(),
    };
    let cells = ordinals().map(|ordinal| cell(ordinal, 1));
    Observed {
        record: Some(record),
        leases: ordinals().map(lease).collect(),
        directories: ordinals()
            .map(|ordinal| (ordinal, directory(ordinal)))
            .collect(),
        executions: cells
            .chain(wanted.doors.iter().map(|d| forward(d.listen.port())))
            .collect(),
        doors_taken: BTreeMap::new(),
        denied: BTreeSet::new(),
        spent: None,
        news: Vec::new(),
        boot: String::new(),
        allotments: Vec::new(),
        unmade: Vec::new(),
        exists: true,
        ..Observed::default()
    }
}

fn lease(ordinal: u32) -> Lease {
    let host = [127, 64, 0, 15 + u8::try_from(ordinal).unwrap()].into();
    Lease {
        ordinal,
        host,
        tcp_port: 7400,
        flock_port: 7400,
    }
}

fn directory(ordinal: u32) -> DirectoryView {
    let file = RnodeFile {
        label: format!("n{ordinal}"),
        namespace: "stix".to_owned(),
        host: lease(ordinal).host,
        tcp_port: 7400,
        flock_port: 7400,
        hints: Vec::new(),
        base: None,
        memoir_dir: "/m".into(),
        store_dir: "/s".into(),
        executable: Executable {
            path: "/radix".into(),
            digest: "00".to_owned(),
        },
        mounts: Vec::new(),
        isolation: Isolation::PidMount,
        user_range_start: None,
        tags: Vec::new(),
        quota_bytes: None,
    };
    DirectoryView {
        file: Some(file),
        command: None,
    }
}

fn word(step: &Step) -> String {
    match step {
        Step::Record => "record".to_owned(),
        Step::Mark(ordinals) => format!("mark{ordinals:?}"),
        Step::EndForward { at, .. } => format!("close:{}", at.listen.port()),
        Step::EndCell { execution, .. } => {
            format!("end:{}", execution.trim_start_matches("cell-stix-"))
        }
        Step::Bury { ordinal, .. } => format!("bury:{ordinal}"),
        Step::RemoveDirectory { ordinal } => format!("remove:{ordinal}"),
        Step::Forget { ordinals, doors } => format!("forget{ordinals:?}+{}", doors.len()),
        Step::Lease(ordinals) => format!("lease{ordinals:?}"),
        Step::Number { cells, forwards } => format!("number{cells:?}+{}", forwards.len()),
        Step::Prepare { ordinal } => format!("prepare:{ordinal}"),
        Step::StartCell { ordinal, .. } => format!("start:{ordinal}"),
        Step::Announce(ordinals) => format!("announce{ordinals:?}"),
        Step::StartForward { door } => format!("open:{}", door.listen.port()),
        Step::News { news, .. } => format!("news:{}", news.len()),
        Step::Free(freed) => format!("free:{}", freed.len()),
        Step::Allot(one) => format!("allot:{}", one.id),
        Step::Probe(of) => format!("try{:?}", of.executions),
        Step::RemoveHorde => "remove-horde".to_owned(),
    }
}

/// The plan in one word a step, a text a stage.
fn words(plan: &Plan) -> Vec<String> {
    let stage = |stage: &Vec<Step>| stage.iter().map(word).collect::<Vec<_>>().join(" ");
    plan.stages.iter().map(stage).collect()
}

#[track_caller]
fn check(wanted: &Wanted, observed: &Observed, expected: &[&str]) {
    assert_eq!(
        words(&realise(wanted, observed, &BTreeSet::new())),
        expected
    );
}

fn record(observed: &mut Observed) -> &mut Record {
    observed.record.as_mut().unwrap()
}

#[test]
fn from_nothing_everything_is_made_in_order() {
    let steps = [
        "record",
        "lease[1, 2]",
        "number[(1, 1), (2, 1)]+1",
        "prepare:1 prepare:2",
        "start:1 start:2",
        "announce[1, 2]",
        "open:8080",
    ];
    check(&wanted(2, &[8080]), &Observed::default(), &steps);
}

#[test]
fn what_is_as_wanted_needs_nothing() {
    let wanted = wanted(3, &[8080]);
    check(&wanted, &running(&wanted), &[]);
}

#[test]
fn a_new_generation_alone_is_only_written_down() {
    let wanted = wanted(2, &[]);
    let mut observed = running(&wanted);
    record(&mut observed).generation = (6, 0);
    check(&wanted, &observed, &["record"]);
}

#[test]
fn growing_adds_at_the_end() {
    let steps = [
        "record",
        "lease[3]",
        "number[(3, 1)]+0",
        "prepare:3",
        "start:3",
        "announce[3]",
    ];
    check(&wanted(3, &[]), &running(&wanted(2, &[])), &steps);
}

#[test]
fn shrinking_takes_from_the_end_highest_first() {
    let observed = running(&wanted(4, &[8080]));
    let steps = [
        "record",
        "mark[3, 4]",
        "close:8080",
        "end:n4-g7.0-1 end:n3-g7.0-1",
        "remove:4 remove:3",
        "forget[3, 4]+1",
    ];
    check(&wanted(2, &[]), &observed, &steps);
}

#[test]
fn what_was_numbered_and_is_not_known_to_the_base_is_started_under_the_same_number() {
    let wanted = wanted(2, &[]);
    let mut observed = running(&wanted);
    observed.executions.remove(0);
    record(&mut observed)
        .containers
        .get_mut(&1)
        .unwrap()
        .announced = false;
    check(&wanted, &observed, &["prepare:1", "start:1", "announce[1]"]);
}

#[test]
fn a_start_that_was_not_told_is_told() {
    let wanted = wanted(2, &[]);
    let mut observed = running(&wanted);
    record(&mut observed)
        .containers
        .get_mut(&2)
        .unwrap()
        .announced = false;
    check(&wanted, &observed, &["announce[2]"]);
}

#[test]
fn the_dead_are_buried_and_started_under_the_next_number() {
    let wanted = wanted(2, &[]);
    let mut observed = running(&wanted);
    observed.executions[1] = ended(cell(2, 1));
    let steps = [
        "bury:2",
        "number[(2, 2)]+0",
        "prepare:2",
        "start:2",
        "announce[2]",
    ];
    check(&wanted, &observed, &steps);
    record(&mut observed).containers.get_mut(&2).unwrap().buried = true;
    check(&wanted, &observed, &steps[1..]);
    let hold = BTreeSet::from([cell(2, 1).id]);
    let plan = realise(&wanted, &observed, &hold);
    assert!(plan.is_empty());
    assert_eq!(plan.waiting, [2]);
}

#[test]
fn a_denied_rnode_is_replaced_by_one_of_another_identity_running_or_dead() {
    let wanted = wanted(3, &[]);
    let mut observed = running(&wanted);
    observed.denied = BTreeSet::from([2, 3]);
    observed.executions[2] = ended(cell(3, 1));
    let steps = [
        "mark[2]",
        "end:n2-g7.0-1",
        "bury:3",
        "remove:2 remove:3",
        "number[(2, 2), (3, 2)]+0",
        "prepare:2 prepare:3",
        "start:2 start:3",
        "announce[2, 3]",
    ];
    check(&wanted, &observed, &steps);
    // What is made anew has no identity yet, so a pass that is cut there goes on as for any other.
    observed.denied.clear();
    let _ = observed.directories.remove(&3);
    let steps = [
        "bury:3",
        "number[(3, 2)]+0",
        "prepare:3",
        "start:3",
        "announce[3]",
    ];
    check(&wanted, &observed, &steps);
}

#[test]
fn a_number_that_the_base_has_seen_is_never_used_again() {
    let executions = vec![ended(cell(1, 4)), ended(cell(2, 9))];
    let observed = Observed {
        executions,
        ..Observed::default()
    };
    let plan = words(&realise(&wanted(1, &[]), &observed, &BTreeSet::new()));
    assert_eq!(plan[2], "number[(1, 5)]+0");
}

#[test]
fn where_there_is_no_room_the_dead_are_buried_and_the_last_wait() {
    let mut wanted = wanted(3, &[]);
    let mut observed = running(&wanted);
    observed.executions[0] = ended(cell(1, 1));
    observed.executions[2] = ended(cell(3, 1));
    wanted.room = Some(Room {
        fits: 1,
        why: "too little memory".to_owned(),
    });
    let plan = realise(&wanted, &observed, &BTreeSet::new());
    assert_eq!(plan.no_room, [(3, "too little memory".to_owned())]);
    let steps = || plan.stages.iter().flatten();
    let of = |found: fn(&Step) -> Option<u32>| steps().filter_map(found).collect::<Vec<_>>();
    let buried = of(|step| match step {
        Step::Bury { ordinal, .. } => Some(*ordinal),
        _ => None,
    });
    let started = of(|step| match step {
        Step::StartCell { ordinal, .. } => Some(*ordinal),
        _ => None,
    });
    assert_eq!((buried, started), (vec![1, 3], vec![1]));
}

#[test]
fn strays_are_ended() {
    let wanted = wanted(2, &[]);
    let mut observed = running(&wanted);
    observed
        .executions
        .extend([cell(1, 3), cell(9, 1), forward(99)]);
    check(
        &wanted,
        &observed,
        &["close:99", "end:n9-g7.0-1 end:n1-g7.0-3"],
    );
}

#[test]
fn a_forwarder_that_lost_the_base_is_ended_for_another_to_take_over() {
    let wanted = wanted(1, &[80]);
    let mut observed = running(&wanted);
    for execution in &mut observed.executions {
        execution.linked = matches!(execution.label.subject, Subject::Cell { .. });
    }
    check(&wanted, &observed, &["close:80"]);
}

#[test]
fn changed_rnodes_are_replaced_one_at_a_time() {
    let mut wanted = wanted(3, &[]);
    let observed = running(&wanted);
    for rnode in &mut wanted.rnodes {
        rnode.kept_tags.push("new".to_owned());
    }
    let steps = [
        "mark[1]",
        "end:n1-g7.0-1",
        "number[(1, 2)]+0",
        "prepare:1",
        "start:1",
        "announce[1]",
    ];
    check(&wanted, &observed, &steps);
}

#[test]
fn a_door_that_leads_elsewhere_is_closed_and_opened_anew() {
    let mut wanted = wanted(1, &[8080]);
    let observed = running(&wanted);
    wanted.doors[0].port = 1;
    check(
        &wanted,
        &observed,
        &["record", "close:8080", "number[]+1", "open:8080"],
    );
}

#[test]
fn a_taken_door_is_told_and_nothing_is_tried() {
    let mut observed = running(&wanted(1, &[]));
    observed
        .doors_taken
        .insert(door(8080).at(), "port 8080 is taken".to_owned());
    let plan = realise(&wanted(1, &[8080]), &observed, &BTreeSet::new());
    assert_eq!(words(&plan), ["record"]);
    assert_eq!(
        plan.refused,
        [(door(8080), "port 8080 is taken".to_owned())]
    );
}

#[test]
fn a_horde_is_dissolved_from_the_outside_in() {
    let mut observed = running(&wanted(2, &[8080]));
    let steps = [
        "record",
        "close:8080",
        "end:n1-g7.0-1 end:n2-g7.0-1",
        "remove:1 remove:2",
        "remove-horde",
    ];
    assert_eq!(words(&dissolve_all(&observed)), steps);
    record(&mut observed).dissolving = true;
    observed.executions.clear();
    assert_eq!(words(&dissolve_all(&observed)), steps[3..]);
    assert!(dissolve_all(&Observed::default()).is_empty());
}

#[test]
fn cells_without_a_directory_are_dissolved_too() {
    let observed = Observed {
        executions: vec![cell(1, 1)],
        ..Observed::default()
    };
    assert_eq!(
        words(&dissolve_all(&observed)),
        ["end:n1-g7.0-1", "remove-horde"]
    );
}

fn on_switch(mut wanted: Wanted) -> Wanted {
    let on = OnSwitch {
        scope: Scope::Horde,
        number: 1,
    };
    let dir = "/home/hordes/stix/switch".into();
    wanted.switch = Some(WantedSwitch { on, dir });
    for door in &mut wanted.doors {
        door.way = Way::Into(on);
    }
    wanted
}

#[test]
fn a_network_of_its_own_is_tried_once_everything_is_there_and_anew_when_something_started() {
    let wanted = on_switch(wanted(2, &[]));
    let mut observed = running(&wanted);
    let on = wanted.switch.as_ref().unwrap().on;
    record(&mut observed).switch = Some(on);
    check(
        &wanted,
        &observed,
        &["try[\"cell-stix-n1-g7.0-1\", \"cell-stix-n2-g7.0-1\"]"],
    );
    let plan = realise(&wanted, &observed, &BTreeSet::new());
    let Step::Probe(of) = &plan.stages[0][0] else {
        panic!("{plan:?}");
    };
    record(&mut observed).probed = Some(Probed {
        of: of.clone(),
        found: Err("it was not there".to_owned()),
    });
    check(&wanted, &observed, &[]);
    record(&mut observed)
        .containers
        .get_mut(&2)
        .unwrap()
        .attempt = 2;
    observed.executions[1] = cell(2, 2);
    check(
        &wanted,
        &observed,
        &["try[\"cell-stix-n1-g7.0-1\", \"cell-stix-n2-g7.0-2\"]"],
    );
    observed.executions.clear();
    let steps = words(&realise(&wanted, &observed, &BTreeSet::new()));
    assert!(
        !steps.iter().any(|step| step.starts_with("try")),
        "{steps:?}"
    );
}

#[test]
fn a_door_that_leads_another_way_is_another_door() {
    let mut observed = running(&wanted(1, &[8080]));
    let wanted = on_switch(wanted(1, &[8080]));
    record(&mut observed).switch = wanted.switch.as_ref().map(|switch| switch.on);
    record(&mut observed).doors = wanted.doors.clone();
    let steps = words(&realise(&wanted, &observed, &BTreeSet::new()));
    assert_eq!(steps, ["close:8080", "number[]+1", "open:8080"]);
}
