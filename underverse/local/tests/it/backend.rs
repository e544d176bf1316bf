//! The whole backend: documents in, hordes and reports out.

use std::future::{Future, pending};

use crux_wire::document::v1::{Document, SourceFile};
use crux_wire::fulcrum::v1::HordeState;
use underverse_local::backend;

use crate::fake::World;

const BEGAT: &str = "prog1: rexec/worker\n      rexec/worker -rnode %rnode\n";
const REXEC: &str = "worker = /var/stix/bin/worker\n";

fn document(generation: u64, rnodes: u32) -> Document {
    let block = format!(
        "myriad {{\n  n = {rnodes}\n  cmd = /var/radix/bin/fulcrum\n  mount . = /var/stix\n  \
         user stix = auto\n  expose 8080 = prog1:45271\n}}\n"
    );
    let file = |kind: &str, text: &str| SourceFile {
        name: format!("stix.{kind}"),
        text: text.to_owned(),
        library: false,
    };
    Document {
        namespace: "stix".to_owned(),
        application: "stix".to_owned(),
        generation,
        backend: "local".to_owned(),
        directory: "/home/andrew/stix".to_owned(),
        files: vec![
            file("begat", BEGAT),
            file("rexec", REXEC),
            file("khan", "pick(prog1, 2, ALL)\n"),
            file("rnodes", &block),
        ],
        ..Document::default()
    }
}

/// Runs a backend process until `story` ends.
async fn with_backend(world: &World, story: impl Future<Output = ()>) {
    tokio::select! {
        () = backend::run(world.local(), pending()) => {}
        () = story => {}
    }
}

/// Waits for a report that fits.
async fn told(world: &World, fits: impl Fn(&HordeState) -> bool) -> HordeState {
    let mut reported = world.base.reported.subscribe();
    loop {
        let last = world.base.table().reports.last().cloned();
        if let Some(state) = last.filter(|state| fits(state)) {
            return state;
        }
        reported.changed().await.unwrap();
    }
}

fn done(generation: u64) -> impl Fn(&HordeState) -> bool {
    move |state| state.phase == "done" && state.generation == generation
}

// Shows in part: HRD-01
#[tokio::test(start_paused = true)]
async fn a_document_becomes_a_horde_and_its_end_ends_it() {
    let world = World::new();
    world.base.announce(document(1, 3));
    with_backend(&world, async {
        let state = told(&world, done(1)).await;
        assert_eq!(state.backend, "local");
        assert_eq!(state.rnodes.len(), 3);
        for (index, rnode) in state.rnodes.iter().enumerate() {
            assert_eq!(rnode.label, format!("n{}", index + 1));
            assert_eq!((rnode.state.as_str(), rnode.port), ("running", 7400));
            assert!(rnode.keeper_pid > 1000 && !rnode.host.is_empty());
        }
        assert_eq!(state.exposures.len(), 1);
        assert_eq!(state.exposures[0].address, "127.0.0.1:8080");
        assert_eq!(
            (state.exposures[0].class.as_str(), state.exposures[0].port),
            ("prog1", 45_271)
        );
        assert_eq!(state.exposures[0].state, "open");
        let file = world.json("hordes/stix/n1/rnode.json");
        assert_eq!(file["mounts"][0]["host"], "/home/andrew/stix");
        assert_eq!(file["mounts"][0]["target"], "/var/stix");

        world.base.announce(document(2, 5));
        let state = told(&world, done(2)).await;
        assert_eq!(state.rnodes.len(), 5);

        world.base.announce(Document {
            dissolved: true,
            ..document(3, 5)
        });
        let state = told(&world, |state| state.phase == "dissolved").await;
        assert_eq!((state.generation, state.rnodes.len()), (3, 0));
        assert!(world.base.cells().is_empty() && world.base.forwards().is_empty());
    })
    .await;
    assert!(!world.scratch.path().join("hordes").exists());
}

// Shows in part: EVT-01
#[tokio::test(start_paused = true)]
async fn a_killed_cell_is_started_again_after_its_back_off_and_the_base_hears_of_it() {
    let world = World::new();
    world.base.announce(document(1, 3));
    with_backend(&world, async {
        told(&world, done(1)).await;
        for round in 0..3 {
            let killed = tokio::time::Instant::now();
            let old = world.base.kill(2);
            let again = |state: &HordeState| {
                let rnode = &state.rnodes[1];
                state.phase == "done" && rnode.execution != old && rnode.state == "running"
            };
            told(&world, again).await;
            // In the time of this test: the back-off of the first, second and third death.
            let waited = killed.elapsed().as_millis();
            assert!(
                (100 << round..150 << round).contains(&waited),
                "{waited} ms"
            );
            assert_eq!(world.base.cells(), [1, 2, 3]);
            let table = world.base.table();
            let of = |kind: &str| table.events.iter().filter(|e| e.kind == kind).count();
            assert_eq!(of("container-failed"), round + 1);
            assert_eq!(of("container-started"), 3 + round + 1);
            let failed = table
                .events
                .iter()
                .rfind(|e| e.kind == "container-failed")
                .unwrap();
            assert_eq!(
                (failed.subject.as_str(), failed.namespace.as_str()),
                ("n2", "stix")
            );
            assert_eq!(failed.fields[0].value, old);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_new_backend_process_finds_everything_and_changes_nothing() {
    let world = World::new();
    world.base.announce(document(1, 3));
    with_backend(&world, async { drop(told(&world, done(1)).await) }).await;
    let mutations = world.base.table().mutations;
    let told_before = world.base.table().events.len();
    world.base.table().reports.clear();
    with_backend(&world, async {
        let state = told(&world, done(1)).await;
        assert_eq!(state.rnodes.len(), 3);
    })
    .await;
    assert_eq!(world.base.table().mutations, mutations);
    assert_eq!(
        world.base.table().events.len(),
        told_before,
        "nothing is told twice"
    );
    // A death while no backend ran is found by the next one.
    world.base.kill(3);
    world.base.table().reports.clear();
    with_backend(&world, async {
        let whole = |state: &HordeState| state.phase == "done" && world.base.cells().len() == 3;
        told(&world, whole).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_base_that_is_away_for_a_while_is_waited_for() {
    let world = World::new();
    world.base.announce(document(1, 2));
    world.base.table().away = true;
    with_backend(&world, async {
        tokio::time::sleep(std::time::Duration::from_secs(20)).await;
        assert!(world.base.cells().is_empty());
        world.base.table().away = false;
        told(&world, done(1)).await;
        world.base.kill(1);
        world.base.table().away = true;
        tokio::time::sleep(std::time::Duration::from_secs(20)).await;
        world.base.table().away = false;
        let whole = |state: &HordeState| state.phase == "done" && world.base.cells() == [1, 2];
        told(&world, whole).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_realised_is_refused_in_words_and_a_better_document_heals_it() {
    let world = World::new();
    let mut broken = document(1, 3);
    broken.files[3].text = "myriad {\n  n = many\n}\n".to_owned();
    world.base.announce(broken);
    with_backend(&world, async {
        let state = told(&world, |state| state.phase == "refused").await;
        assert!(state.message.contains("stix.rnodes:2"), "{}", state.message);
        world.base.announce(document(2, 4000));
        let state = told(&world, |state| {
            state.phase == "refused" && state.generation == 2
        })
        .await;
        assert!(state.message.contains("4000 rnodes"), "{}", state.message);
        assert!(world.base.cells().is_empty());
        world.base.announce(document(3, 2));
        told(&world, done(3)).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_base_namespace_and_other_backends_are_left_alone() {
    let world = World::new();
    world.base.announce(Document {
        namespace: "base".to_owned(),
        ..document(9, 3)
    });
    let other = Document {
        namespace: "o".to_owned(),
        backend: "docker".to_owned(),
        ..document(1, 3)
    };
    world.base.announce(other);
    world.base.announce(document(1, 1));
    with_backend(&world, async { drop(told(&world, done(1)).await) }).await;
    assert_eq!(world.base.cells(), [1]);
}
