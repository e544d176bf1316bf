//! Realising, resizing and dissolving when nothing goes wrong.

use std::collections::BTreeSet;

use underverse::{
    ExternalAddress, Keep, Kind, Members, PortConnect, PortState, Protocol, RunningState,
    Underverse as _, finish,
};

use crate::fake::{World, generation, name, realise, realised, refusal, spec};

pub(crate) fn door(port: u16) -> PortConnect {
    PortConnect {
        external: ExternalAddress::Default,
        external_port: port,
        internal_port: 45_271,
        members: Members::Class("prog1".to_owned()),
        protocol: Protocol::Tcp,
    }
}

// Shows in part: HRD-01
#[tokio::test]
async fn a_realised_horde_runs_and_realising_it_again_makes_no_mutating_call() {
    let world = World::new();
    let local = world.local();
    let mut spec = spec(3);
    spec.network.ports = vec![door(8080)];
    let plan = local.plan(generation(1), &spec).await.unwrap();
    assert_eq!(plan.steps.len(), 3 + 3 + 1, "{plan}");
    assert_eq!(world.base.table().mutations, 0);
    realised(&local, 1, &spec).await;
    assert_eq!(world.base.cells(), [1, 2, 3]);
    assert_eq!(world.base.forwards(), ["127.0.0.1:8080".parse().unwrap()]);
    let mutations = world.base.table().mutations;
    let before: Vec<_> = world.scratch.inventory();
    for local in [&local, &world.local()] {
        assert!(
            local
                .plan(generation(1), &spec)
                .await
                .unwrap()
                .steps
                .is_empty()
        );
        realised(local, 1, &spec).await;
    }
    assert_eq!(world.base.table().mutations, mutations);
    assert_eq!(world.scratch.inventory(), before);
}

// Shows in part: HRD-03
#[tokio::test]
async fn what_runs_is_told_with_unique_ids_and_the_count_asked_for() {
    let world = World::new();
    let local = world.local();
    realised(&local, 1, &spec(4)).await;
    let running = local.running(&name()).await.unwrap();
    let ids: BTreeSet<_> = running.iter().map(|running| running.id.clone()).collect();
    assert_eq!(ids.len(), 4);
    assert!(
        running
            .iter()
            .all(|running| running.state == RunningState::Started)
    );
    let addresses: BTreeSet<_> = running
        .iter()
        .map(|running| running.address.unwrap())
        .collect();
    assert_eq!(addresses.len(), 4);
    let effective = local.effective(&name()).await.unwrap();
    assert_eq!((effective.roles[0].wanted, effective.missing()), (4, 0));
    assert_eq!(local.list().await.unwrap(), [name()]);
    assert_eq!(
        local
            .effective(&"other".parse().unwrap())
            .await
            .map_err(|e| e.kind()),
        Err(Kind::NotFound)
    );
}

#[tokio::test]
async fn each_rnode_gets_a_directory_an_invitation_and_no_more_than_one_hint() {
    let world = World::new();
    realised(&world.local(), 1, &spec(3)).await;
    let mut hints = BTreeSet::new();
    for label in ["n1", "n2", "n3"] {
        let file = world.json(&format!("hordes/stix/{label}/rnode.json"));
        assert_eq!(file["label"], label);
        assert_eq!(file["namespace"], "stix");
        assert_eq!(file["isolation"], "pid,mount");
        assert_eq!(file["base"]["host"], "127.64.0.1");
        assert_eq!(file["hints"].as_array().unwrap().len(), 1);
        let own = format!("{}:{}", file["host"].as_str().unwrap(), file["flock_port"]);
        let hint = file["hints"][0].as_str().unwrap().to_owned();
        assert_ne!(hint, own);
        hints.insert(hint);
        let invitation = format!("hordes/stix/{label}/invitation");
        assert_eq!(world.file(&invitation), format!("invitation stix/{label}"));
        let path = world.scratch.path().join(invitation);
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
    assert_eq!(hints.len(), 3);
    let table = world.base.table();
    let start = table
        .starts
        .iter()
        .find(|start| start.label.execution().contains("-n2-"))
        .unwrap();
    assert_eq!(start.args[..2], ["cell", "--dir"]);
    assert!(start.args[2].ends_with("hordes/stix/n2"));
    let mark = ("RADIX_RNODE".to_owned(), "stix/n2@01234567".to_owned());
    assert!(start.env.contains(&mark));
}

#[tokio::test]
async fn a_lone_rnode_has_no_hint_and_an_enrolled_one_is_not_invited_again() {
    let world = World::new();
    let local = world.local();
    realised(&local, 1, &spec(1)).await;
    let file = world.json("hordes/stix/n1/rnode.json");
    assert!(file["hints"].as_array().unwrap().is_empty());
    let directory = world.scratch.path().join("hordes/stix/n1");
    std::fs::create_dir(directory.join("identity")).unwrap();
    std::fs::write(directory.join("identity/chain"), "chain").unwrap();
    std::fs::remove_file(directory.join("invitation")).unwrap();
    world.base.kill(1);
    realised(&local, 1, &spec(1)).await;
    assert!(!directory.join("invitation").exists());
}

// Shows in part: HRD-11
#[tokio::test]
async fn a_horde_grows_and_shrinks_and_nothing_beside_is_touched() {
    let world = World::new();
    let local = world.local();
    realised(&local, 1, &spec(3)).await;
    let first = local.running(&name()).await.unwrap();
    realised(&local, 2, &spec(5)).await;
    assert_eq!(world.base.cells(), [1, 2, 3, 4, 5]);
    realised(&local, 3, &spec(2)).await;
    assert_eq!(world.base.cells(), [1, 2]);
    let running = local.running(&name()).await.unwrap();
    assert_eq!(running.len(), 2);
    assert_eq!(running[0].id, first[0].id);
    assert_eq!(running[1].id, first[1].id);
    assert!(!world.scratch.path().join("hordes/stix/n3").exists());
    let leases = world.json("hordes/stix/addresses.json");
    assert_eq!(leases["leases"].as_array().unwrap().len(), 2);
    realised(&local, 4, &spec(0)).await;
    assert!(world.base.cells().is_empty());
    assert!(local.running(&name()).await.unwrap().is_empty());
    realised(&local, 5, &spec(1)).await;
    assert_eq!(world.base.cells(), [1]);
}

// Shows in part: DUS-02
#[tokio::test]
async fn a_dissolved_horde_leaves_nothing_but_memoirs_and_its_generation() {
    let world = World::new();
    let local = world.local();
    let memoir = world.scratch.path().join("memoirs/stix/n1");
    std::fs::create_dir_all(&memoir).unwrap();
    std::fs::write(memoir.join("memoir.jsonl"), "{}").unwrap();
    let before = world.scratch.inventory();
    let mut spec = spec(3);
    spec.network.ports = vec![door(8080)];
    realised(&local, 7, &spec).await;
    for _ in 0..2 {
        let end = finish(local.dissolve(generation(8), &name(), Keep::Nothing)).await;
        assert!(end.is_done(), "{end:?}");
        assert!(world.base.cells().is_empty() && world.base.forwards().is_empty());
        assert!(local.list().await.unwrap().is_empty());
        let mut left = world.scratch.inventory();
        left.retain(|path| !path.starts_with(world.scratch.path().join("generations")));
        assert_eq!(left, before);
    }
    assert_eq!(world.file("generations/stix"), "8\n");
    let error = refusal(realise(&world.local(), 7, &spec).await);
    assert_eq!(error.kind(), Kind::Stale);
    realised(&local, 9, &spec).await;
    assert_eq!(world.base.cells(), [1, 2, 3]);
}

#[tokio::test]
async fn an_older_generation_is_refused_by_a_new_process_too() {
    let world = World::new();
    realised(&world.local(), 5, &spec(2)).await;
    let mutations = world.base.table().mutations;
    let local = world.local();
    let error = refusal(realise(&local, 4, &spec(6)).await);
    assert_eq!(error.kind(), Kind::Stale);
    assert!(
        error.message().contains("generation 4 is older than 5"),
        "{error}"
    );
    let end = finish(local.dissolve(generation(4), &"stix".parse().unwrap(), Keep::Nothing)).await;
    assert_eq!(refusal(end).kind(), Kind::Stale);
    assert_eq!(world.base.table().mutations, mutations);
    assert_eq!(world.base.cells(), [1, 2]);
}

#[tokio::test]
async fn a_taken_port_leaves_the_rest_running_and_opens_when_it_is_free() {
    let world = World::new();
    let local = world.local();
    let address = "127.0.0.1:8080".parse().unwrap();
    world.ground.closed.lock().unwrap().insert(address);
    let mut spec = spec(2);
    spec.network.ports = vec![door(8080), door(8081)];
    let end = realise(&local, 1, &spec).await;
    let underverse::End::Partial(effective, failures) = end else {
        panic!("{end:?}")
    };
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].error.kind(), Kind::Taken);
    assert_eq!(effective.missing(), 0);
    let taken = PortState::Refused("port 8080 of 127.0.0.1 is taken".to_owned());
    assert_eq!(effective.network.ports[0].state, taken);
    assert_eq!(effective.network.ports[1].state, PortState::Open);
    assert_eq!(
        local.effective(&name()).await.unwrap().network.ports[0].state,
        taken
    );
    world.ground.closed.lock().unwrap().clear();
    realised(&local, 1, &spec).await;
    assert_eq!(world.base.forwards().len(), 2);
    spec.network.ports.remove(0);
    realised(&local, 2, &spec).await;
    assert_eq!(world.base.forwards(), ["127.0.0.1:8081".parse().unwrap()]);
}

#[tokio::test]
async fn changed_mounts_replace_rnodes_one_at_a_time_without_calling_them_failed() {
    let world = World::new();
    let local = world.local();
    realised(&local, 1, &spec(3)).await;
    let mut changed = spec(3);
    changed.execables[0].mounts = vec![underverse::Mount {
        source: underverse::MountSource::Host("/data".into()),
        target: "/var/stix".into(),
    }];
    realised(&local, 2, &changed).await;
    assert_eq!(world.base.cells(), [1, 2, 3]);
    for label in ["n1", "n2", "n3"] {
        let file = world.json(&format!("hordes/stix/{label}/rnode.json"));
        assert_eq!(file["mounts"][0]["host"], "/data");
    }
    let events = local.events_after(&name(), None).unwrap();
    assert!(
        events
            .iter()
            .all(|event| event.kind.word() == "container-started"),
        "{events:?}"
    );
    assert_eq!(events.len(), 6);
}

#[tokio::test]
async fn two_hordes_never_share_an_address_and_end_apart() {
    let world = World::new();
    let local = world.local();
    realised(&local, 1, &spec(3)).await;
    let mut other = spec(3);
    other.name = "other".parse().unwrap();
    realised(&local, 1, &other).await;
    let mut addresses = BTreeSet::new();
    for horde in ["stix", "other"] {
        for running in local.running(&horde.parse().unwrap()).await.unwrap() {
            addresses.insert(running.address.unwrap());
        }
    }
    assert_eq!(addresses.len(), 6);
    let end = finish(local.dissolve(generation(2), &name(), Keep::Nothing)).await;
    assert!(end.is_done());
    assert_eq!(world.base.cells(), [1, 2, 3]);
    assert_eq!(local.list().await.unwrap(), ["other".parse().unwrap()]);
}

#[tokio::test]
async fn a_door_for_connections_and_one_for_datagrams_are_two_doors_at_one_address() {
    let world = World::new();
    let local = world.local();
    let mut spec = spec(1);
    let at_53 = |protocol| PortConnect {
        protocol,
        ..door(53)
    };
    spec.network.ports = vec![at_53(Protocol::Udp), at_53(Protocol::Tcp)];
    realised(&local, 1, &spec).await;
    let at: std::net::SocketAddr = "127.0.0.1:53".parse().unwrap();
    assert_eq!(world.base.forwards(), [at, at]);
    let told = async |local: &underverse_local::Local| {
        let effective = local.effective(&name()).await.unwrap();
        let ports = effective.network.ports.into_iter();
        ports
            .map(|port| (port.protocol, port.state))
            .collect::<Vec<_>>()
    };
    let both = [Protocol::Udp, Protocol::Tcp].map(|protocol| (protocol, PortState::Open));
    assert_eq!(told(&local).await, both);
    // A new process finds both in the record, and one goes without the other.
    let local = world.local();
    let mutations = world.base.table().mutations;
    realised(&local, 1, &spec).await;
    assert_eq!(world.base.table().mutations, mutations);
    spec.network.ports.remove(0);
    realised(&local, 2, &spec).await;
    assert_eq!(world.base.forwards(), [at]);
    assert_eq!(told(&local).await, both[1..]);
}

#[tokio::test(start_paused = true)]
async fn an_address_is_let_go_only_once_no_door_leads_there_any_more() {
    let world = World::new();
    let local = world.local();
    let asked = |count| {
        let mut asked = spec(count);
        let members = Members::All;
        asked.network.ports = vec![PortConnect {
            members,
            ..door(8080)
        }];
        asked
    };
    realised(&local, 1, &asked(2)).await;
    let leases = || world.json("hordes/stix/addresses.json").to_string();
    let lost = local.running(&name()).await.unwrap()[1].address.unwrap();
    assert!(leases().contains(&lost.to_string()));
    let smaller = asked(1);
    {
        let mut pass = std::pin::pin!(realise(&local, 2, &smaller));
        let first = tokio::time::timeout(std::time::Duration::from_millis(490), &mut pass);
        assert!(first.await.is_err(), "doors are given time to look");
        assert_eq!(world.base.cells(), [1]);
        assert!(
            !leases().contains(&lost.to_string()),
            "doors see that it left"
        );
        assert!(pass.await.is_done());
    }
    // Without a door there is nobody to wait for.
    let world = World::new();
    let local = world.local();
    realised(&local, 1, &spec(2)).await;
    let begun = tokio::time::Instant::now();
    realised(&local, 2, &spec(1)).await;
    assert!(begun.elapsed() < std::time::Duration::from_millis(490));
}
