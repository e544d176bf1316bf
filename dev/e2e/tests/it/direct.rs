//! `local` without a base rnode: hordes of commands, for library users.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::{Inventory, Sandbox, User, kill, wait_gone};
use futures_util::StreamExt as _;
use underverse::{
    ByteCount, Capability, End, EventKind, Execable, ExecableBuilder, Generation, Horde, Keep,
    Limits, MaintenancePolicy, NetworkSpec, Reply, Running, RunningState, ServerChange,
    StorageExposure, StorageKind, Strength, Underverse as _, UnderverseAdmin as _, UserSource,
    UserSpec, finish,
};
use underverse_local::{Isolation, Local, VirtualServer, on_this_machine};

/// A script that says what it sees and then stays.
const STAY: &str = "echo $RADIX_HORDE $RADIX_NAME $RADIX_ROLE $RADIX_ORDINAL $RADIX_SERVER $RADIX_IP $GREETING $$; exec sleep 1000000";

/// A backend over the built `radix` in the sandbox's state directory, as a new process would make it.
async fn local(sandbox: &Sandbox) -> Local {
    on_this_machine(&sandbox.home(), &sandbox.binary())
        .await
        .expect("as the test needs it")
}

fn hobbits(count: u32, script: &str) -> Execable {
    ExecableBuilder::command("hobbit", ["/bin/sh", "-c", script])
        .expect("as the test needs it")
        .count(count)
        .env("GREETING", "good-morning")
        .build()
}

fn shire(count: u32) -> Horde {
    let horde = Horde::new("the_shire").expect("as the test needs it");
    horde.execables([hobbits(count, STAY)])
}

async fn realised(horde: &Horde, local: &Local) {
    let end = horde.realise(local).await;
    assert!(end.is_done(), "{end:?}");
}

async fn running(horde: &Horde, local: &Local) -> Vec<Running> {
    let running = horde.running(local).await.expect("as the test needs it");
    assert!(
        running.iter().all(|r| r.state == RunningState::Started),
        "{running:?}"
    );
    running
}

/// Waits until a container has written a whole line, and returns what it wrote.
fn said(running: &Running) -> String {
    let path = running
        .directory
        .clone()
        .expect("as the test needs it")
        .join("stdout");
    let look = || {
        let text = std::fs::read_to_string(&path).ok()?;
        text.ends_with('\n').then_some(text)
    };
    e2e::wait_for(Duration::from_secs(20), look)
        .unwrap_or_else(|| panic!("{} stays empty", path.display()))
}

#[tokio::test]
async fn hordes_whose_names_begin_alike_keep_to_themselves() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let local = local(&sandbox).await;
    let horde = |name: &str| {
        let horde = Horde::new(name).expect("as the test needs it");
        horde.execables([hobbits(1, STAY)])
    };
    // The names of the second one's executions begin with those of the first: `cell-shire-n1-…`.
    let (shire, alike) = (horde("shire"), horde("shire-n1"));
    realised(&shire, &local).await;
    realised(&alike, &local).await;
    let (first, second) = (running(&shire, &local).await, running(&alike, &local).await);
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_ne!(first[0].id, second[0].id);
    released(&shire, &local).await;
    assert_eq!(running(&alike, &local).await, second);
    // Another process finds from disk what this one knew.
    drop(local);
    let local = self::local(&sandbox).await;
    assert_eq!(running(&alike, &local).await, second);
    released(&alike, &local).await;
    assert!(local.list().await.expect("as the test needs it").is_empty());
}

/// The backend that leased an address may be gone; whoever has the address still has it.
#[tokio::test]
async fn an_address_is_its_container_s_while_that_runs_though_no_backend_does() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let open = || {
        shire(2).network(NetworkSpec {
            flock_private: false,
            ..NetworkSpec::default()
        })
    };
    let local = self::local(&sandbox).await;
    realised(&open(), &local).await;
    let first = running(&open(), &local).await;
    // What it says, it says as the command: the cell has taken its name before.
    first.iter().for_each(|one| drop(said(one)));
    drop(local);
    // Below the home, so that what is left of a failed run is found.
    let other = sandbox.home().join("beside");
    let beside = on_this_machine(&other, &sandbox.binary()).await;
    let beside = beside.expect("as the test needs it");
    realised(&open(), &beside).await;
    let second = running(&open(), &beside).await;
    let addresses = |of: &[Running]| of.iter().map(|one| one.address).collect::<BTreeSet<_>>();
    let (held, given) = (addresses(&first), addresses(&second));
    assert!(held.is_disjoint(&given), "{held:?} and {given:?}");
    released(&open(), &beside).await;
    let local = self::local(&sandbox).await;
    assert_eq!(running(&open(), &local).await, first);
    released(&open(), &local).await;
}

async fn released(horde: &Horde, local: &Local) {
    let end = horde.release(local, Keep::Nothing).await;
    assert!(end.is_done(), "{end:?}");
}

/// Files of a home that are there while nothing runs.
fn resting(files: &BTreeSet<PathBuf>) -> Vec<&PathBuf> {
    let kept = [
        "direct",
        "direct/lock",
        "generations",
        "memoirs",
        "storage",
        "servers.lock",
        "servers.json",
    ]
    .map(Path::new);
    let number = |file: &Path| file.starts_with("generations");
    files
        .iter()
        .filter(|file| !kept.contains(&file.as_path()) && !number(file))
        .collect()
}

#[tokio::test]
async fn commands_run_in_cells_with_what_they_are_told_and_are_adopted_by_a_new_process() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let before = Inventory::take(&sandbox.home());
    let backend = local(&sandbox).await;
    let isolated = backend.isolation() == Isolation::PidMount;
    let horde = shire(3);
    realised(&horde, &backend).await;
    let first = running(&horde, &backend).await;
    assert_eq!(first.len(), 3);
    for (container, ordinal) in first.iter().zip(1..) {
        let text = said(container);
        let mut words: Vec<&str> = text.split_whitespace().collect();
        let pid = words.pop().unwrap();
        let ip = container.address.unwrap().to_string();
        let name = format!("n{ordinal}");
        let ordinal = ordinal.to_string();
        let wanted = [
            "the_shire",
            &name,
            "hobbit",
            &ordinal,
            "local",
            &ip,
            "good-morning",
        ];
        assert_eq!(words, wanted);
        // In a process namespace the command is the second process, after its init.
        assert_eq!(isolated, pid == "2", "{pid}");
    }
    assert!(
        backend
            .plan(Generation::of_document(1), horde.spec().unwrap())
            .await
            .unwrap()
            .steps
            .is_empty()
    );
    drop(backend);

    let backend = local(&sandbox).await;
    realised(&horde, &backend).await;
    let adopted = running(&horde, &backend).await;
    assert_eq!(adopted, first);
    released(&horde, &backend).await;
    let after = Inventory::take(&sandbox.home());
    assert_eq!(after.processes, before.processes);
    assert_eq!(after.mounts, before.mounts);
    assert_eq!(resting(&after.files), Vec::<&PathBuf>::new());
    for container in adopted {
        assert!(wait_gone(container.pid.unwrap()));
    }
}

// Shows: EVT-01
#[tokio::test]
async fn how_a_command_ended_is_told_and_another_is_started() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let backend = local(&sandbox).await;
    let horde = Horde::new("the_shire").unwrap();
    let leaves = "echo up; if test -e left; then exec sleep 1000000; fi; \
                  while ! test -e go; do sleep 0.05; done; : > left; exit 7";
    let horde = horde.execables([hobbits(1, leaves), hobbits_as("ring", STAY)]);
    realised(&horde, &backend).await;
    let mut events = horde.from_underverse(&backend, None);
    let started = [events.next().await.unwrap(), events.next().await.unwrap()];
    let starts = |event: &&underverse::UnderverseEvent| event.kind.word() == "container-started";
    assert_eq!(started.iter().filter(starts).count(), 2);

    let first = running(&horde, &backend).await.remove(0);
    let _ = said(&first);
    std::fs::write(first.directory.unwrap().join("work/go"), "").unwrap();
    until_failed(&horde, &backend, "n1").await;
    realised(&horde, &backend).await;
    let failed = events.next().await.unwrap();
    let EventKind::ContainerFailed { reason, container } = failed.kind else {
        panic!("{failed:?}")
    };
    assert_eq!(reason, "exited with code 7");
    let again = events.next().await.unwrap();
    let EventKind::ContainerStarted { replaces, .. } = again.kind else {
        panic!("{again:?}")
    };
    assert_eq!(replaces, Some(container));

    // Nobody is there to see this one die: the kernel told its cell, and the cell wrote it down.
    let ring = running(&horde, &backend).await.remove(1);
    let _ = said(&ring);
    drop((events, backend));
    let inner = command_below(ring.pid.unwrap());
    kill(inner);
    assert!(wait_gone(ring.pid.unwrap()));
    let backend = local(&sandbox).await;
    let found = horde.running(&backend).await.unwrap().remove(1);
    let failed = RunningState::Failed("was ended by signal 9".to_owned());
    assert_eq!(found.state, failed);
    realised(&horde, &backend).await;
    let now = running(&horde, &backend).await.remove(1);
    assert_ne!(now.id, ring.id);
    released(&horde, &backend).await;
}

fn hobbits_as(role: &str, script: &str) -> Execable {
    ExecableBuilder::command(role, ["/bin/sh", "-c", script])
        .expect("as the test needs it")
        .build()
}

async fn until_failed(horde: &Horde, local: &Local, label: &str) {
    for _ in 0..400 {
        let running = horde.running(local).await.expect("as the test needs it");
        let one = running
            .iter()
            .find(|one| one.label == label)
            .expect("as the test needs it");
        if matches!(one.state, RunningState::Failed(_)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{label} never fails");
}

/// The last descendant of a cell: the command itself.
fn command_below(cell: i32) -> i32 {
    let mut pid = cell;
    loop {
        let children = format!("/proc/{pid}/task/{pid}/children");
        let text = std::fs::read_to_string(children).unwrap_or_default();
        match text.split_whitespace().next() {
            Some(child) => pid = child.parse().expect("as the test needs it"),
            None => return pid,
        }
    }
}

// Shows: HRD-11
#[tokio::test]
async fn a_horde_of_three_becomes_five_then_two_then_none_and_leaks_nothing() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let before = Inventory::take(&sandbox.home());
    let backend = local(&sandbox).await;
    let mut kept: Vec<Running> = Vec::new();
    for (generation, count) in [(1, 3), (2, 5), (3, 2), (4, 0)] {
        let horde = shire(count).generation(Generation::of_document(generation));
        realised(&horde, &backend).await;
        let now = running(&horde, &backend).await;
        assert_eq!(now.len(), count as usize);
        let common = now.len().min(kept.len());
        assert_eq!(now[..common], kept[..common], "none beside is touched");
        for gone in kept.get(common..).unwrap_or_default() {
            assert!(wait_gone(gone.pid.unwrap()));
            assert!(!gone.directory.clone().unwrap().exists());
        }
        let seen = Inventory::take(&sandbox.home());
        assert_eq!(
            seen.mounts, before.mounts,
            "cells mount in namespaces of their own"
        );
        kept = now;
    }
    let addresses = sandbox.home().join("hordes/the_shire/addresses.json");
    let leases = std::fs::read_to_string(addresses).unwrap();
    assert!(!leases.contains("127."), "{leases}");
    let last = shire(0).generation(Generation::of_document(4));
    released(&last, &backend).await;
    let after = Inventory::take(&sandbox.home());
    assert_eq!(after.processes, before.processes);
    assert_eq!(resting(&after.files), Vec::<&PathBuf>::new());
}

// Shows: STO-02, STO-05
#[tokio::test]
async fn storage_is_at_its_paths_with_its_size_and_outlives_the_command() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let backend = local(&sandbox).await;
    let exposures = [
        ("trees", StorageKind::FileTree, "robust"),
        ("blocks", StorageKind::Volume, "fast"),
    ];
    for (source, kind, tag) in exposures {
        let source = sandbox.root().join(source);
        std::fs::create_dir(&source).unwrap();
        let exposure = StorageExposure {
            server: "local".to_owned(),
            source: source.display().to_string(),
            bind: "dir".to_owned(),
            kind,
            tags: BTreeSet::from([tag.to_owned()]),
            thin: false,
        };
        backend.administrator().expose(exposure).await.unwrap();
    }
    let mut horde = Horde::new("the_shire").unwrap();
    let data = horde.alloc_file_tree(20, "robust");
    let block = horde.alloc_volume(5, "fast");
    // Where there are no namespaces, words that are paths are rewritten, and nothing else is.
    let script = "echo $0-$(cat $1/ring) $(stat -c %s $2); echo mine > $1/ring; exec sleep 1000000";
    let words = ["/bin/sh", "-c", script, "ring", "/data", "/usr/tmp/block"];
    let hobbit = ExecableBuilder::command("hobbit", words).unwrap();
    let hobbit = hobbit.count(2).mount_storage(&data, "/data");
    let horde = horde.execables([hobbit.mount_storage(&block, "/usr/tmp/block").build()]);
    realised(&horde, &backend).await;
    for container in running(&horde, &backend).await {
        assert_eq!(said(&container), "ring- 5000000\n");
    }
    let first = running(&horde, &backend).await.remove(0);
    kill(first.pid.unwrap());
    // The cell may be gone before what is in it.
    until_failed(&horde, &backend, "n1").await;
    realised(&horde, &backend).await;
    let again = running(&horde, &backend).await.remove(0);
    let look = || said(&again).lines().nth(1).map(str::to_owned);
    let line = e2e::wait_for(Duration::from_secs(20), look);
    assert_eq!(line.as_deref(), Some("ring-mine 5000000"));
    let weaker = backend.effective(horde.name()).await.unwrap().weaker;
    let trees = |weak: &&underverse::Weaker| weak.asked.contains("file tree");
    assert_eq!(weaker.iter().filter(trees).count(), 1, "{weaker:?}");
    released(&horde, &backend).await;
    for source in ["trees", "blocks"] {
        let left = std::fs::read_dir(sandbox.root().join(source)).unwrap();
        assert_eq!(left.count(), 0, "{source}");
    }
}

#[tokio::test]
async fn a_home_serves_one_process_at_a_time_and_ids_are_never_used_again() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let backend = local(&sandbox).await;
    let second = on_this_machine(&sandbox.home(), &sandbox.binary()).await;
    let refused = second.map(drop).map_err(|error| error.kind());
    assert_eq!(refused, Err(underverse::Kind::Taken));
    let horde = shire(1);
    let mut ids = BTreeSet::new();
    for _ in 0..2 {
        realised(&horde, &backend).await;
        ids.insert(running(&horde, &backend).await[0].id.to_string());
        released(&horde, &backend).await;
    }
    assert_eq!(ids.len(), 2, "{ids:?}");
}

#[tokio::test]
async fn a_start_that_was_not_written_down_is_found_by_its_mark_and_not_repeated() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let backend = local(&sandbox).await;
    let horde = shire(1);
    realised(&horde, &backend).await;
    let first = running(&horde, &backend).await;
    let _ = said(&first[0]);
    drop(backend);
    // As if we had been killed between the start and writing it down.
    let execution = sandbox.home().join("direct").join(first[0].id.as_str());
    std::fs::remove_file(execution.join("process.json")).unwrap();
    let backend = local(&sandbox).await;
    realised(&horde, &backend).await;
    assert_eq!(running(&horde, &backend).await, first);
    released(&horde, &backend).await;
    assert!(wait_gone(first[0].pid.unwrap()));
}

// Shows: HRD-12
#[tokio::test]
async fn of_three_the_one_without_a_program_is_missing_by_name_and_completed_later() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let backend = local(&sandbox).await;
    let program = sandbox.root().join("meriadoc");
    let last = program.display().to_string();
    let last = ExecableBuilder::command("meriadoc", [last.as_str()]).unwrap();
    let horde = Horde::new("the_shire").unwrap();
    let horde = horde.execables([hobbits(2, STAY), last.build()]);
    let end = horde.realise(&backend).await;
    let End::Partial(effective, failures) = end else {
        panic!("{end:?}")
    };
    assert_eq!((effective.missing(), failures.len()), (1, 1));
    assert_eq!(failures[0].subject, "n3");
    assert!(
        failures[0].error.to_string().contains("meriadoc"),
        "{}",
        failures[0].error
    );
    let first = horde.running(&backend).await.unwrap();
    std::fs::write(&program, format!("#!/bin/sh\n{STAY}\n")).unwrap();
    std::fs::set_permissions(
        &program,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    realised(&horde, &backend).await;
    let now = running(&horde, &backend).await;
    assert_eq!((now.len(), &now[..2]), (3, &first[..2]));
    released(&horde, &backend).await;
}

// Shows: HRD-06, HRD-13, STO-06
#[tokio::test]
async fn a_server_is_drained_as_its_owner_answers_and_what_moves_keeps_its_files() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let server = |name: &str| VirtualServer {
        name: name.to_owned(),
        tags: BTreeSet::new(),
    };
    let backend = local(&sandbox)
        .await
        .with_servers(vec![server("bree"), server("moria")]);
    let administrator = backend.administrator();
    for name in ["bree", "moria"] {
        let source = sandbox.root().join(name);
        std::fs::create_dir(&source).unwrap();
        let exposure = StorageExposure {
            server: name.to_owned(),
            source: source.display().to_string(),
            bind: "dir".to_owned(),
            kind: StorageKind::FileTree,
            tags: BTreeSet::new(),
            thin: false,
        };
        administrator.expose(exposure).await.unwrap();
    }
    let mut horde = Horde::new("the_shire").unwrap();
    let data = horde.alloc_file_tree(1, "");
    let script = "echo $RADIX_SERVER >> $0/servers; cat $0/servers; exec sleep 1000000";
    let words = ["/bin/sh", "-c", script, "/data"];
    let hobbit = ExecableBuilder::command("hobbit", words).unwrap().count(4);
    let horde = horde.execables([hobbit.mount_storage(&data, "/data").build()]);
    realised(&horde, &backend).await;
    let on = |running: &[Running]| -> Vec<String> {
        running.iter().map(|one| one.server.clone()).collect()
    };
    let first = running(&horde, &backend).await;
    assert_eq!(on(&first), ["bree", "moria", "bree", "moria"]);
    first.iter().for_each(|container| drop(said(container)));

    let change = ServerChange::Maintain { from_unix_ms: 0 };
    let mut events = horde.from_underverse(&backend, None);
    for _ in &first {
        assert_eq!(
            events.next().await.unwrap().kind.word(),
            "container-started"
        );
    }
    administrator.change_server("moria", change).await.unwrap();
    // The owner is asked before anything moves: it answers while the pass has only told it.
    let policy = MaintenancePolicy::DenyUntil { unix_ms: u64::MAX };
    let told = loop {
        let mut pass = backend.realise(
            Generation::of_document(1),
            horde.spec().unwrap(),
            Duration::from_secs(60),
        );
        let _ = pass.next().await;
        drop(pass);
        if let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(5), events.next()).await {
            break event;
        }
    };
    assert_eq!(
        (told.kind.word(), told.subject.as_str()),
        ("maintenance-planned", "moria")
    );
    let answer = |policy| horde.to_underverse(&backend, told.id, Reply::Maintenance(policy));
    answer(policy).await.unwrap();
    let apart = Duration::from_millis(1500);
    answer(MaintenancePolicy::Rolling { at_once: 1, apart })
        .await
        .unwrap();
    let mut left: Vec<usize> = Vec::new();
    while left.last() != Some(&0) {
        realised(&horde, &backend).await;
        let now = on(&running(&horde, &backend).await);
        left.push(now.iter().filter(|server| *server == "moria").count());
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(left.len() < 400, "{left:?}");
    }
    assert!(
        left.windows(2).all(|pair| pair[0] - pair[1] <= 1),
        "{left:?}"
    );
    for (container, before) in running(&horde, &backend).await.iter().zip(&first) {
        let wanted = match before.server.as_str() {
            "moria" => "moria\nbree\n",
            _ => "bree\n",
        };
        let look = || said(container).ends_with(wanted).then_some(());
        assert!(
            e2e::wait_for(Duration::from_secs(20), look).is_some(),
            "{}",
            said(container)
        );
    }
    drop(events);
    released(&horde, &backend).await;
}

#[tokio::test]
async fn limits_hold_where_they_are_enforced_and_are_told_where_not() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let backend = local(&sandbox).await;
    let limits = Limits {
        memory: Some(ByteCount::mebibytes(48)),
        cpu_thousandths: Some(500),
        processes: Some(6),
    };
    // One line of 200 MB, which its reader must hold whole; then more processes than are allowed. A shell that cannot fork
    // ends, so that is another one than the container's own.
    let script = "head -c 200000000 /dev/zero | tail > /dev/null; echo memory $?; \
                  (for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done); echo processes; exec sleep 1000000";
    let hobbit = ExecableBuilder::command("hobbit", ["/bin/sh", "-c", script]).unwrap();
    let horde = Horde::new("the_shire").unwrap();
    let horde = horde.execables([hobbit.limits(limits).build()]);
    let strength = backend.capabilities().strength(Capability::Limits);
    assert!(strength.is_present(), "{strength}");
    realised(&horde, &backend).await;
    let weaker = backend.effective(horde.name()).await.unwrap().weaker;
    let unlimited = weaker
        .iter()
        .filter(|weak| weak.asked.starts_with("at most"))
        .count();
    let container = running(&horde, &backend).await.remove(0);
    let memory = said(&container);
    assert_ne!(
        memory.lines().next(),
        Some("memory 0"),
        "the reader was not stopped"
    );
    if strength == Strength::Enforced {
        assert_eq!(unlimited, 0, "{weaker:?}");
        let directory = container.directory.clone().unwrap();
        let look = || {
            let errors = std::fs::read_to_string(directory.join("stderr")).ok()?;
            errors.to_lowercase().contains("fork").then_some(())
        };
        assert!(
            e2e::wait_for(Duration::from_secs(20), look).is_some(),
            "all could be forked"
        );
    } else {
        assert!(unlimited > 0, "{strength}");
    }
    let file = container.directory.unwrap().join("command.json");
    let text = std::fs::read_to_string(file).unwrap();
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    let groups: Vec<PathBuf> = serde_json::from_value(file["groups"].clone()).unwrap();
    assert!(groups.iter().all(|group| group.exists()));
    released(&horde, &backend).await;
    assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
}

#[tokio::test]
async fn commands_run_as_users_of_their_own_where_those_can_be_leased() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let backend = local(&sandbox).await;
    let source = sandbox.root().join("trees");
    std::fs::create_dir(&source).unwrap();
    let exposure = StorageExposure {
        server: "local".to_owned(),
        source: source.display().to_string(),
        bind: "dir".to_owned(),
        kind: StorageKind::FileTree,
        tags: BTreeSet::new(),
        thin: false,
    };
    backend.administrator().expose(exposure).await.unwrap();
    let mut horde = Horde::new("the_shire").unwrap();
    let data = horde.alloc_file_tree(1, "");
    let script = "id -u; id -u > mine && id -u > $0/mine && cat mine $0/mine; exec sleep 1000000";
    let hobbit = ExecableBuilder::command("hobbit", ["/bin/sh", "-c", script, "/data"]).unwrap();
    let horde = horde.execables([hobbit.count(2).mount_storage(&data, "/data").build()]);
    let mut spec = horde.spec().unwrap().clone();
    spec.users = vec![UserSpec {
        name: "hobbit".to_owned(),
        source: UserSource::Auto,
    }];
    let generation = Generation::of_document(1);
    let end = finish(backend.realise(generation, &spec, Duration::from_secs(60))).await;
    assert!(end.is_done(), "{end:?}");
    let running = running(&horde, &backend).await;
    let leased = backend.capabilities().strength(Capability::Users) == Strength::Enforced;
    let own = nix::unistd::geteuid().as_raw();
    let mut users = BTreeSet::new();
    for container in &running {
        let look = || (said(container).lines().count() == 3).then(|| said(container));
        let text = e2e::wait_for(Duration::from_secs(20), look)
            .unwrap_or_else(|| panic!("{}", said(container)));
        let lines: BTreeSet<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1, "{text}");
        users.insert(text.lines().next().unwrap().to_owned());
    }
    assert_eq!(users.len(), if leased { 2 } else { 1 }, "{users:?}");
    assert_eq!(users.contains(&own.to_string()), !leased, "{users:?}");
    released(&horde, &backend).await;
}

#[tokio::test]
async fn a_command_that_cannot_be_executed_says_why() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let backend = local(&sandbox).await;
    let missing = ExecableBuilder::command("hobbit", ["no-such-program"]).unwrap();
    let horde = Horde::new("the_shire")
        .unwrap()
        .execables([missing.build()]);
    let end = horde.realise(&backend).await;
    assert!(matches!(end, End::Done(_) | End::Partial(..)), "{end:?}");
    until_failed(&horde, &backend, "n1").await;
    let ids = horde.running(&backend).await.unwrap().remove(0).id;
    assert!(ids.as_str().ends_with("-1"), "a pass tries once: {ids}");
    let state = horde.running(&backend).await.unwrap().remove(0).state;
    let RunningState::Failed(reason) = state else {
        panic!("{state:?}")
    };
    assert!(reason.contains("no-such-program"), "{reason}");
    released(&horde, &backend).await;
}
