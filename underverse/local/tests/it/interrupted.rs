//! A backend killed at every call, in every way, then another one: the end is the same.

use futures_util::StreamExt as _;
use underverse::{End, HordeSpec, Keep, Progress, ProgressStream, Underverse as _, finish};

use crate::fake::{DEADLINE, Fault, World, generation, name, realised, spec};
use crate::realise::door;

/// Most calls a pass here makes; reaching it means that the loop does not end.
const CALLS_MAX: u32 = 200;
const FAULTS: [Fault; 4] = [
    Fault::Refuse,
    Fault::LoseAnswer,
    Fault::HangBefore,
    Fault::HangAfter,
];

/// Follows a pass until it ends or hangs, then drops it, as a kill would. Says whether the fault was met.
async fn until_killed(world: &World, call: u32, mut stream: ProgressStream<'_>) -> bool {
    let mut hung = world.base.hung.subscribe();
    loop {
        tokio::select! {
            item = stream.next() => {
                if item.is_none_or(|item| matches!(item, Progress::End(_))) {
                    break;
                }
            }
            _ = hung.changed() => break,
        }
    }
    drop(stream);
    let mut table = world.base.table();
    table.faults.clear();
    table.calls >= call
}

/// Runs `before` undisturbed, then `after` with `fault` at call `call`; says whether it was met.
async fn disturbed(
    before: Option<&HordeSpec>,
    after: &HordeSpec,
    (call, fault): (u32, Fault),
) -> (World, bool) {
    let world = World::new();
    if let Some(before) = before {
        realised(&world.local(), 1, before).await;
    }
    {
        let mut table = world.base.table();
        table.calls = 0;
        table.faults.insert(call, fault);
    }
    let local = world.local();
    let met = until_killed(&world, call, local.realise(generation(2), after, DEADLINE)).await;
    (world, met)
}

async fn converges(before: Option<HordeSpec>, after: HordeSpec) {
    let wanted: Vec<u32> = (1..=after.count()).collect();
    let mut met_all = 0;
    for fault in FAULTS {
        for call in 1..CALLS_MAX {
            let (world, met) = disturbed(before.as_ref(), &after, (call, fault)).await;
            let local = world.local();
            realised(&local, 2, &after).await;
            assert_eq!(world.base.cells(), wanted, "{fault:?} at call {call}");
            assert_eq!(world.base.forwards().len(), after.network.ports.len());
            let mutations = world.base.table().mutations;
            realised(&local, 2, &after).await;
            assert_eq!(
                world.base.table().mutations,
                mutations,
                "{fault:?} at call {call}"
            );
            let told = local.events_after(&name(), None).unwrap();
            let started =
                |event: &&underverse::UnderverseEvent| event.kind.word() == "container-started";
            let starts = told.iter().filter(started).count();
            assert!(starts >= wanted.len(), "{fault:?} at call {call}: {told:?}");
            let failed = told
                .iter()
                .any(|event| event.kind.word() == "container-failed");
            assert!(
                !failed,
                "{fault:?} at call {call}: nothing failed, but {told:?}"
            );
            if !met {
                break;
            }
            met_all += 1;
        }
    }
    assert!(
        met_all >= 4 * FAULTS.len(),
        "only {met_all} faults were met"
    );
}

#[tokio::test(start_paused = true)]
async fn a_realise_killed_at_any_call_is_completed_and_nothing_is_doubled() {
    let mut after = spec(3);
    after.network.ports = vec![door(8080)];
    converges(None, after).await;
}

#[tokio::test(start_paused = true)]
async fn a_growing_horde_killed_at_any_call_is_completed() {
    converges(Some(spec(2)), spec(4)).await;
}

#[tokio::test(start_paused = true)]
async fn a_shrinking_horde_killed_at_any_call_is_completed() {
    converges(Some(spec(4)), spec(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_replacement_killed_at_any_call_is_completed() {
    let mut after = spec(2);
    after.execables[0]
        .added
        .insert(underverse::Tag::new("new").unwrap());
    converges(Some(spec(2)), after).await;
}

#[tokio::test(start_paused = true)]
async fn a_dissolve_killed_at_any_call_is_completed() {
    for fault in FAULTS {
        for call in 1..CALLS_MAX {
            let world = World::new();
            let mut realised_spec = spec(3);
            realised_spec.network.ports = vec![door(8080)];
            realised(&world.local(), 1, &realised_spec).await;
            {
                let mut table = world.base.table();
                table.calls = 0;
                table.faults.insert(call, fault);
            }
            let local = world.local();
            let horde = name();
            let stream = local.dissolve(generation(2), &horde, Keep::Nothing);
            let met = until_killed(&world, call, stream).await;
            let end = finish(world.local().dissolve(generation(2), &horde, Keep::Nothing)).await;
            assert!(
                matches!(end, End::Done(_)),
                "{fault:?} at call {call}: {end:?}"
            );
            assert!(world.base.cells().is_empty() && world.base.forwards().is_empty());
            assert!(!world.scratch.path().join("hordes").exists());
            if !met {
                break;
            }
        }
    }
}
