//! What becomes of servers: told with the ids it touches, and acted upon as the owner answers.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use underverse::{
    End, EventId, EventKind, ExecableBuilder, HordeSpec, Keep, Kind, MaintenancePolicy, Reply,
    ServerChange, StorageExposure, StorageKind, Tag, Underverse as _, UnderverseAdmin as _,
    UnderverseEvent, finish,
};
use underverse_local::Local;

use crate::fake::{World, generation, name, realise, realised, server, spec};

fn on_three(world: &World) -> Local {
    let mut settings = world.settings();
    settings.servers = vec![server("a", &["GPU"]), server("b", &[]), server("c", &[])];
    world.local_with(settings)
}

async fn servers(local: &Local) -> Vec<String> {
    let running = local.running(&name()).await.unwrap();
    running.into_iter().map(|one| one.server).collect()
}

async fn ids(local: &Local) -> Vec<String> {
    let running = local.running(&name()).await.unwrap();
    running.iter().map(|one| one.id.to_string()).collect()
}

fn told(local: &Local, since: Option<EventId>) -> Vec<UnderverseEvent> {
    local.events_after(&name(), since).unwrap()
}

fn last(local: &Local) -> Option<EventId> {
    told(local, None).last().map(|event| event.id)
}

/// The event with that word after `since`.
fn event(local: &Local, since: Option<EventId>, word: &str) -> UnderverseEvent {
    let events = told(local, since);
    let found = events.iter().find(|event| event.kind.word() == word);
    found
        .unwrap_or_else(|| panic!("{word} is not among {events:?}"))
        .clone()
}

// Shows: HRD-07
#[tokio::test]
async fn six_containers_over_three_servers_and_none_holds_all() {
    let world = World::new();
    let local = on_three(&world);
    realised(&local, 1, &spec(6)).await;
    assert_eq!(servers(&local).await, ["a", "b", "c", "a", "b", "c"]);
}

// Shows: EVT-03
#[tokio::test]
async fn a_reboot_a_degradation_and_a_loss_are_three_events_with_server_and_ids() {
    let world = World::new();
    let local = on_three(&world);
    let administrator = local.administrator();
    realised(&local, 1, &spec(6)).await;
    let before = ids(&local).await;

    let since = last(&local);
    administrator
        .change_server("b", ServerChange::Reboot)
        .await
        .unwrap();
    realised(&local, 1, &spec(6)).await;
    let rebooted = event(&local, since, "server-rebooted");
    let affected = vec![before[1].clone(), before[4].clone()];
    assert_eq!(rebooted.subject, "b");
    assert_eq!(rebooted.kind, EventKind::ServerRebooted { affected });
    let now = ids(&local).await;
    for (index, (old, new)) in before.iter().zip(&now).enumerate() {
        assert_eq!(old != new, index == 1 || index == 4, "n{}", index + 1);
    }
    let words: Vec<&str> = told(&local, since)
        .iter()
        .map(|event| event.kind.word())
        .collect();
    assert_eq!(
        words,
        ["server-rebooted", "container-started", "container-started"]
    );

    let since = last(&local);
    let worse = "a disk reports errors".to_owned();
    administrator
        .change_server("c", ServerChange::Degrade(worse.clone()))
        .await
        .unwrap();
    realised(&local, 1, &spec(6)).await;
    let degraded = event(&local, since, "server-degraded");
    let affected = vec![now[2].clone(), now[5].clone()];
    let kind = EventKind::ServerDegraded {
        reason: worse,
        affected,
    };
    assert_eq!((degraded.subject.as_str(), degraded.kind), ("c", kind));
    assert_eq!(ids(&local).await, now, "what is on it stays");
    realised(&local, 2, &spec(8)).await;
    assert_eq!(
        servers(&local).await[6..],
        ["a", "b"],
        "new ones go elsewhere"
    );
    realised(&local, 3, &spec(6)).await;

    let since = last(&local);
    administrator
        .change_server("a", ServerChange::Withdraw)
        .await
        .unwrap();
    realised(&local, 3, &spec(6)).await;
    let gone = event(&local, since, "server-gone");
    let affected = vec![now[0].clone(), now[3].clone()];
    assert_eq!(
        (gone.subject.as_str(), gone.kind),
        ("a", EventKind::ServerGone { affected })
    );
    assert_eq!(servers(&local).await, ["b", "b", "c", "b", "b", "c"]);

    let since = last(&local);
    administrator
        .change_server("a", ServerChange::Restore)
        .await
        .unwrap();
    realised(&local, 3, &spec(6)).await;
    let restored = told(&local, since);
    assert_eq!(restored.len(), 1, "{restored:?}");
    assert_eq!(restored[0].kind, EventKind::ServerRestored);
    realised(&local, 4, &spec(7)).await;
    assert_eq!(servers(&local).await[6], "a", "it takes containers again");
    // Nothing is told twice, also by a new process.
    let all = told(&local, None);
    realised(&on_three(&world), 4, &spec(7)).await;
    assert_eq!(told(&local, None), all);
    let other = local
        .administrator()
        .change_server("z", ServerChange::Reboot)
        .await;
    assert_eq!(other.map_err(|error| error.kind()), Err(Kind::NotFound));
}

#[tokio::test]
async fn a_reboot_of_the_whole_machine_is_told_for_every_server() {
    let world = World::new();
    let local = on_three(&world);
    realised(&local, 1, &spec(3)).await;
    let before = ids(&local).await;
    let since = last(&local);
    for ordinal in 1..=3 {
        let _ = world.base.kill(ordinal);
    }
    "2".clone_into(&mut world.ground.boot.lock().unwrap());
    realised(&on_three(&world), 1, &spec(3)).await;
    let rebooted: Vec<UnderverseEvent> = told(&local, since)
        .into_iter()
        .filter(|event| event.kind.word() == "server-rebooted")
        .collect();
    let subjects: Vec<&str> = rebooted
        .iter()
        .map(|event| event.subject.as_str())
        .collect();
    assert_eq!(subjects, ["a", "b", "c"]);
    let affected = vec![before[1].clone()];
    assert_eq!(rebooted[1].kind, EventKind::ServerRebooted { affected });
    assert_eq!(world.base.cells(), [1, 2, 3]);
}

#[tokio::test]
async fn a_container_without_a_server_is_missing_with_the_reason_and_comes_back_with_it() {
    let world = World::new();
    let local = on_three(&world);
    let rnode = ExecableBuilder::fulcrum("rnode").unwrap().count(2);
    let mut gpu = spec(1);
    gpu.execables = vec![rnode.require("GPU").unwrap().build()];
    realised(&local, 1, &gpu).await;
    let administrator = local.administrator();
    administrator
        .change_server("a", ServerChange::Withdraw)
        .await
        .unwrap();
    let end = realise(&local, 1, &gpu).await;
    let End::Partial(effective, failures) = end else {
        panic!("{end:?}")
    };
    assert_eq!((effective.missing(), failures.len()), (2, 2));
    assert_eq!(failures[0].error.kind(), Kind::Unsatisfiable);
    assert!(
        failures[0].error.message().ends_with(": a"),
        "{:?}",
        failures[0]
    );
    assert!(world.base.cells().is_empty());
    administrator
        .change_server("a", ServerChange::Restore)
        .await
        .unwrap();
    realised(&local, 1, &gpu).await;
    assert_eq!(world.base.cells(), [1, 2]);
}

/// Plans maintenance of `a` at time 10 000 and answers as `reply` says; the clock stands at 20 000 then.
async fn maintained(
    world: &World,
    local: &Local,
    spec: &HordeSpec,
    reply: Option<Reply>,
) -> EventId {
    world.ground.clock.store(1000, Ordering::Relaxed);
    realised(local, 1, spec).await;
    let since = last(local);
    let change = ServerChange::Maintain {
        from_unix_ms: 10_000,
    };
    local
        .administrator()
        .change_server("a", change)
        .await
        .unwrap();
    let before = ids(local).await;
    realised(local, 1, spec).await;
    assert_eq!(ids(local).await, before, "nothing moves before its time");
    let planned = event(local, since, "maintenance-planned");
    let on_it = before.iter().zip(servers(local).await);
    let affected = on_it
        .filter(|(_, server)| server == "a")
        .map(|(id, _)| id.clone());
    let kind = EventKind::MaintenancePlanned {
        from_unix_ms: 10_000,
        affected: affected.collect(),
    };
    assert_eq!((planned.subject.as_str(), &planned.kind), ("a", &kind));
    if let Some(reply) = reply {
        local.answer(&name(), planned.id, reply).await.unwrap();
    }
    world.ground.clock.store(20_000, Ordering::Relaxed);
    planned.id
}

async fn left_on_a(local: &Local, spec: &HordeSpec) -> usize {
    realised(local, 1, spec).await;
    servers(local)
        .await
        .iter()
        .filter(|server| *server == "a")
        .count()
}

// Shows: EVT-05
#[tokio::test]
async fn one_at_a_time_sixty_seconds_apart_is_obeyed() {
    let world = World::new();
    let local = on_three(&world);
    let apart = Duration::from_secs(60);
    let policy = MaintenancePolicy::Rolling { at_once: 1, apart };
    let spec = spec(9);
    let _ = maintained(&world, &local, &spec, Some(Reply::Maintenance(policy))).await;
    assert_eq!(left_on_a(&local, &spec).await, 2);
    assert_eq!(left_on_a(&local, &spec).await, 2, "not so soon");
    // A new backend process keeps the pace.
    let local = on_three(&world);
    world.ground.clock.store(79_000, Ordering::Relaxed);
    assert_eq!(left_on_a(&local, &spec).await, 2);
    world.ground.clock.store(81_000, Ordering::Relaxed);
    assert_eq!(left_on_a(&local, &spec).await, 1);
    // What died meanwhile is back before the next one goes; and nothing new goes to where it is maintained.
    let _ = world.base.kill(5);
    world.ground.clock.store(200_000, Ordering::Relaxed);
    assert_eq!(left_on_a(&local, &spec).await, 0);
    let words: Vec<&str> = told(&local, None)
        .iter()
        .map(|event| event.kind.word())
        .collect();
    assert_eq!(
        words
            .iter()
            .filter(|word| **word == "container-failed")
            .count(),
        1,
        "{words:?}"
    );
    assert_eq!(world.base.cells().len(), 9);
}

#[tokio::test]
async fn staged_moves_one_and_the_rest_when_acknowledged() {
    let world = World::new();
    let local = on_three(&world);
    let spec = spec(9);
    let reply = Reply::Maintenance(MaintenancePolicy::Staged);
    let event = maintained(&world, &local, &spec, Some(reply)).await;
    assert_eq!(left_on_a(&local, &spec).await, 2);
    assert_eq!(left_on_a(&local, &spec).await, 2);
    local.answer(&name(), event, Reply::Ack).await.unwrap();
    assert_eq!(left_on_a(&local, &spec).await, 0);
}

#[tokio::test]
async fn denied_until_a_time_moves_none_before_it_and_unanswered_all_at_once() {
    let world = World::new();
    let local = on_three(&world);
    let spec = spec(9);
    let policy = MaintenancePolicy::DenyUntil { unix_ms: 90_000 };
    let _ = maintained(&world, &local, &spec, Some(Reply::Maintenance(policy))).await;
    assert_eq!(left_on_a(&local, &spec).await, 3);
    world.ground.clock.store(90_000, Ordering::Relaxed);
    assert_eq!(left_on_a(&local, &spec).await, 0);
    let world = World::new();
    let local = on_three(&world);
    let _ = maintained(&world, &local, &spec, None).await;
    assert_eq!(left_on_a(&local, &spec).await, 0);
}

// Shows: HRD-13
#[tokio::test]
async fn what_moves_keeps_its_storage() {
    let world = World::new();
    let local = on_three(&world);
    for on in ["a", "b", "c"] {
        let source = world.scratch.path().join(on);
        std::fs::create_dir(&source).unwrap();
        let exposure = StorageExposure {
            server: on.to_owned(),
            source: source.display().to_string(),
            bind: "dir".to_owned(),
            kind: StorageKind::FileTree,
            tags: BTreeSet::new(),
            thin: false,
        };
        local.administrator().expose(exposure).await.unwrap();
    }
    let mut horde = underverse::Horde::new("stix").unwrap();
    let data = horde.alloc_file_tree(1, "");
    let rnode = ExecableBuilder::fulcrum("rnode").unwrap().count(3);
    let horde = horde.execables([rnode.mount_storage(&data, "/data").build()]);
    let spec = horde.spec().unwrap().clone();
    realised(&local, 1, &spec).await;
    let tree = || {
        let file = world.json("hordes/stix/n1/rnode.json");
        std::path::PathBuf::from(file["mounts"][0]["host"].as_str().unwrap())
    };
    std::fs::write(tree().join("ring"), "one").unwrap();
    local
        .administrator()
        .change_server("a", ServerChange::Withdraw)
        .await
        .unwrap();
    realised(&local, 1, &spec).await;
    assert_ne!(servers(&local).await[0], "a");
    assert_eq!(std::fs::read_to_string(tree().join("ring")).unwrap(), "one");
    let end = finish(local.dissolve(generation(1), &name(), Keep::Nothing)).await;
    assert!(end.is_done(), "{end:?}");
    let exposed = local.administrator().exposures().await.unwrap();
    assert!(
        exposed.iter().all(|one| one.allotted.get() == 0),
        "{exposed:?}"
    );
}

// Shows: TAG-01
#[tokio::test]
async fn a_tag_given_to_a_server_is_inherited_by_what_starts_later() {
    let world = World::new();
    let local = on_three(&world);
    realised(&local, 1, &spec(3)).await;
    let before = ids(&local).await;
    let tag = |text: &str| Tag::new(text).unwrap();
    let administrator = local.administrator();
    administrator
        .tag("a", &[tag("fast")], &[tag("GPU")])
        .await
        .unwrap();
    realised(&local, 1, &spec(3)).await;
    assert_eq!(ids(&local).await, before, "what runs is left alone");
    let tags = |running: &underverse::Running| -> Vec<String> {
        running.tags.iter().map(ToString::to_string).collect()
    };
    let running = local.running(&name()).await.unwrap();
    assert_eq!(tags(&running[0]), ["GPU"]);
    let servers = local.servers().await.unwrap();
    assert_eq!(servers[0].tags, BTreeSet::from([tag("fast")]));
    let _ = world.base.kill(1);
    realised(&local, 1, &spec(4)).await;
    let running = local.running(&name()).await.unwrap();
    assert_eq!(
        (tags(&running[0]), tags(&running[3])),
        (vec!["fast".to_owned()], vec!["fast".to_owned()])
    );
    let unknown = administrator.tag("z", &[], &[]).await;
    assert_eq!(unknown.map_err(|error| error.kind()), Err(Kind::NotFound));
}

/// A consumer that dies in the middle of a burst and comes back with its last id misses nothing.
// Shows: EVT-06
#[tokio::test]
async fn a_burst_is_delivered_in_order_over_restarts_of_consumer_and_backend() {
    let world = World::new();
    let local = on_three(&world);
    realised(&local, 1, &spec(6)).await;
    let mut seen: Vec<UnderverseEvent> = Vec::new();
    let mut since = None;
    for round in 0..12 {
        let backend = on_three(&world);
        let mut events = backend.events(&name(), since);
        let _ = world.base.kill(round % 6 + 1);
        let _ = world.base.kill((round + 3) % 6 + 1);
        if round % 3 == 0 {
            let change = ServerChange::Degrade(format!("round {round}"));
            backend
                .administrator()
                .change_server("b", change)
                .await
                .unwrap();
        }
        realised(&backend, 1, &spec(6)).await;
        // Some are taken; the last one of them was not acted upon yet when the consumer died.
        for _ in 0..3 {
            seen.push(events.next().await.unwrap());
        }
        since = seen.get(seen.len().saturating_sub(2)).map(|event| event.id);
    }
    let backend = on_three(&world);
    let all = told(&backend, None);
    let mut events = backend.events(&name(), since);
    while seen.last().map(|event| event.id) != last(&backend) {
        seen.push(events.next().await.unwrap());
    }
    let mut distinct: Vec<UnderverseEvent> = Vec::new();
    for event in seen {
        match distinct.iter().find(|held| held.id == event.id) {
            Some(held) => assert_eq!(*held, event, "a duplicate carries the same id"),
            None => distinct.push(event),
        }
    }
    assert_eq!(distinct, all, "in order, and none is lost");
    assert!(all.windows(2).all(|pair| pair[0].id < pair[1].id));
    assert!(all.len() >= 6 + 12 * 4 + 4);
}
