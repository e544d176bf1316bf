//! Deaths, events and answers.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use underverse::{
    End, EventId, EventKind, Kind, MaintenancePolicy, Reply, RunningState, Underverse as _, finish,
};
use underverse_local::Isolation;
use underverse_local::limits::RNODE_MEMORY;

use crate::fake::{DEADLINE, Fault, World, generation, name, realise, realised, refusal, spec};

// Shows in part: EVT-01
#[tokio::test]
async fn a_cell_that_ended_by_itself_is_started_again_and_both_are_told_with_their_ids() {
    let world = World::new();
    let local = world.local();
    realised(&local, 1, &spec(3)).await;
    let mut events = local.events(&name(), None);
    for _ in 0..3 {
        assert_eq!(
            events.next().await.unwrap().kind.word(),
            "container-started"
        );
    }
    let old = world.base.kill(2);
    let running = local.running(&name()).await.unwrap();
    assert_eq!(
        running[1].state,
        RunningState::Failed("was ended by signal 9".to_owned())
    );
    realised(&local, 1, &spec(3)).await;
    assert_eq!(world.base.cells(), [1, 2, 3]);
    let failed = events.next().await.unwrap();
    let reason = "was ended by signal 9".to_owned();
    assert_eq!(
        failed.kind,
        EventKind::ContainerFailed {
            container: old.clone(),
            reason
        }
    );
    assert_eq!(failed.subject, "n2");
    let started = events.next().await.unwrap();
    let new = local.running(&name()).await.unwrap()[1].id.to_string();
    assert_ne!(new, old);
    let kind = EventKind::ContainerStarted {
        container: new,
        replaces: Some(old),
    };
    assert_eq!(started.kind, kind);
    assert!(started.id > failed.id);
    // A new process tells nothing twice, and a reader resumes after what it saw.
    let later = world.local();
    realised(&later, 1, &spec(3)).await;
    assert_eq!(
        later.events_after(&name(), Some(failed.id)).unwrap(),
        [started]
    );
}

#[tokio::test]
async fn where_memory_is_short_what_is_missing_is_healed_as_far_as_it_goes() {
    let world = World::new();
    let local = world.local();
    realised(&local, 1, &spec(4)).await;
    for ordinal in [2, 3, 4] {
        world.base.kill(ordinal);
    }
    let memory = |rnodes| *world.ground.memory.lock().unwrap() = Some(RNODE_MEMORY.times(rnodes));
    memory(1);
    for _ in 0..2 {
        let End::Partial(effective, failures) = realise(&local, 1, &spec(4)).await else {
            panic!("two of four run and no more can");
        };
        assert_eq!(world.base.cells(), [1, 2]);
        assert_eq!(effective.missing(), 2);
        let subjects: Vec<_> = failures.iter().map(|one| one.subject.as_str()).collect();
        assert_eq!(subjects, ["n3", "n4"]);
        assert_eq!(failures[0].error.kind(), Kind::Limit);
        assert!(failures[0].error.message().contains("25.0 MiB"));
        memory(0);
    }
    // What was never accepted is refused whole, and what runs may always be made fewer.
    let error = refusal(realise(&local, 2, &spec(5)).await);
    assert_eq!(error.kind(), Kind::Limit);
    realised(&local, 2, &spec(2)).await;
    assert_eq!(world.base.cells(), [1, 2]);
    memory(1);
    realised(&local, 3, &spec(3)).await;
    assert_eq!(world.base.cells(), [1, 2, 3]);
}

#[tokio::test]
async fn a_horde_realised_anew_numbers_its_events_on() {
    let world = World::new();
    let local = world.local();
    realised(&local, 1, &spec(1)).await;
    let last = local.events_after(&name(), None).unwrap().pop().unwrap();
    let end = finish(local.dissolve(generation(2), &name(), underverse::Keep::Nothing)).await;
    assert!(end.is_done());
    realised(&local, 3, &spec(1)).await;
    let after = local.events_after(&name(), Some(last.id)).unwrap();
    assert_eq!(after.len(), 1);
}

// Shows in part: HRD-06
#[tokio::test]
async fn an_answer_to_an_event_is_kept_and_one_to_an_unknown_event_refused() {
    let world = World::new();
    let local = world.local();
    realised(&local, 1, &spec(1)).await;
    let event = local.events(&name(), None).next().await.unwrap();
    let policy = MaintenancePolicy::Rolling {
        at_once: 1,
        apart: Duration::from_secs(60),
    };
    local.answer(&name(), event.id, Reply::Ack).await.unwrap();
    local
        .answer(&name(), event.id, Reply::Maintenance(policy))
        .await
        .unwrap();
    let kept = world.json("hordes/stix/answers.json");
    assert_eq!(kept[event.id.to_string()]["rolling"]["apart_ms"], 60_000);
    let unknown = local.answer(&name(), EventId(u64::MAX), Reply::Ack).await;
    assert_eq!(unknown.map_err(|error| error.kind()), Err(Kind::NotFound));
}

#[tokio::test]
async fn a_dead_cell_whose_back_off_has_not_passed_is_confirmed_and_waits() {
    let world = World::new();
    let local = world.local();
    realised(&local, 1, &spec(2)).await;
    let dead = world.base.kill(1);
    let hold = BTreeSet::from([dead]);
    for _ in 0..2 {
        let end = finish(local.tend(generation(1), &spec(2), hold.clone(), DEADLINE)).await;
        let End::Partial(effective, failures) = end else {
            panic!("{end:?}")
        };
        assert_eq!((failures.len(), failures[0].subject.as_str()), (1, "n1"));
        assert_eq!(effective.missing(), 1);
        assert_eq!(world.base.cells(), [2]);
    }
    let failed = local.events_after(&name(), None).unwrap();
    let failed = failed
        .iter()
        .filter(|event| event.kind.word() == "container-failed")
        .count();
    assert_eq!(failed, 1, "told once");
    realised(&local, 1, &spec(2)).await;
    assert_eq!(world.base.cells(), [1, 2]);
}

#[tokio::test]
async fn without_isolation_a_death_is_confirmed_only_after_the_marked_processes_are_ended() {
    let world = World::new();
    let mut settings = world.settings();
    settings.isolation = Isolation::None;
    let local = world.local_with(settings);
    realised(&local, 1, &spec(2)).await;
    let weaker = local.effective(&name()).await.unwrap().weaker;
    assert!(
        weaker
            .iter()
            .any(|weaker| weaker.asked == "process isolation")
    );
    assert!(world.ground.swept.lock().unwrap().is_empty());
    world.base.kill(2);
    realised(&local, 1, &spec(2)).await;
    assert_eq!(*world.ground.swept.lock().unwrap(), ["stix/n2@01234567"]);
    realised(&local, 2, &spec(1)).await;
    assert!(world.ground.swept.lock().unwrap().len() > 1);
}

#[tokio::test(start_paused = true)]
async fn a_rnode_whose_address_was_taken_meanwhile_gets_another() {
    let world = World::new();
    let local = world.local();
    realised(&local, 1, &spec(2)).await;
    let before = local.running(&name()).await.unwrap()[0].address.unwrap();
    let std::net::IpAddr::V4(host) = before else {
        panic!("{before}")
    };
    world.ground.busy.lock().unwrap().insert(host);
    world.base.kill(1);
    realised(&local, 1, &spec(2)).await;
    let after = local.running(&name()).await.unwrap()[0].address.unwrap();
    assert_ne!(before, after);
    let file = world.json("hordes/stix/n1/rnode.json");
    assert_eq!(file["host"], after.to_string());
}

#[tokio::test(start_paused = true)]
async fn an_address_that_another_state_directory_claimed_is_passed_over() {
    let world = World::new();
    let others = [16, 17].map(|host| std::net::Ipv4Addr::new(127, 64, 0, host));
    world.ground.claimed.lock().unwrap().extend(others);
    let local = world.local();
    realised(&local, 1, &spec(2)).await;
    let hosts = || async {
        let running = local.running(&name()).await.unwrap();
        let hosts = running
            .iter()
            .map(|rnode| rnode.address.unwrap().to_string());
        hosts.collect::<Vec<_>>()
    };
    assert_eq!(hosts().await, ["127.64.0.18", "127.64.0.19"]);
    // A backend that begins again keeps what is leased, and moves a dead rnode whose address was claimed meanwhile.
    let local = world.local();
    let taken = std::net::Ipv4Addr::new(127, 64, 0, 18);
    world.ground.claimed.lock().unwrap().insert(taken);
    realised(&local, 1, &spec(2)).await;
    let running = local.running(&name()).await.unwrap();
    assert_eq!(running[0].address, Some(taken.into()), "it has the ports");
    world.base.kill(1);
    realised(&local, 1, &spec(2)).await;
    let moved = local.running(&name()).await.unwrap()[0].address.unwrap();
    assert_eq!(moved.to_string(), "127.64.0.20");
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_does_not_heed_is_ended_by_force() {
    let world = World::new();
    let local = world.local();
    realised(&local, 1, &spec(3)).await;
    world.base.table().stubborn = true;
    realised(&local, 2, &spec(1)).await;
    assert_eq!(world.base.cells(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_outlives_its_deadline_says_what_there_is() {
    let world = World::new();
    let local = world.local();
    // list, describe, then invitations and starts: one start never returns.
    world.base.table().faults.insert(6, Fault::HangBefore);
    let end = realise(&local, 1, &spec(3)).await;
    let End::Partial(_, failures) = end else {
        panic!("{end:?}")
    };
    assert_eq!(failures[0].error.kind(), Kind::DeadlineExceeded);
    realised(&local, 1, &spec(3)).await;
    assert_eq!(world.base.cells(), [1, 2, 3]);
}

#[tokio::test]
async fn an_execution_that_nothing_asked_for_is_ended() {
    let world = World::new();
    let local = world.local();
    realised(&local, 1, &spec(2)).await;
    let mut stray = world.base.table().executions[0].clone();
    stray.label.attempt = 77;
    stray.id = stray.label.execution();
    world.base.table().executions.push(stray);
    assert_eq!(world.base.cells().len(), 3);
    realised(&local, 1, &spec(2)).await;
    assert_eq!(world.base.cells(), [1, 2]);
}
