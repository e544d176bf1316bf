//! How rnodes find each other, and how they part.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crux_core::flock::{Admin, Input, Output, State};
use sim::{Options, World};

use super::{SECOND, agree, chain, flock, state, up};

/// Shows: FLK-04
#[test]
fn ten_lone_rnodes_begin_with_ten_names_and_end_with_one() {
    let mut world = World::new(1, 10, |_| Options::default());
    world.start_all();
    world.run(3 * SECOND);
    let names = |world: &World| -> BTreeSet<String> {
        (0..10)
            .filter_map(|index| world.flock(index))
            .map(|flock| flock.flock().to_string())
            .collect()
    };
    assert_eq!(names(&world).len(), 10);
    for index in 0..9 {
        world.input(index, Input::Admin(Admin::Hint(World::address(index + 1))));
    }
    agree(&mut world, 30 * SECOND);
    assert_eq!(names(&world).len(), 1);
}

/// Shows: FLK-05
#[test]
fn a_chain_of_fifty_hints_makes_one_flock() {
    let mut world = World::new(2, 50, |index| Options {
        hints: if index + 1 < 50 {
            vec![World::address(index + 1)]
        } else {
            Vec::new()
        },
        ..Options::default()
    });
    world.start_all();
    let taken = agree(&mut world, 30 * SECOND);
    assert!(taken <= 10 * SECOND, "{taken:?}");
}

/// Shows: FLK-10
#[test]
fn who_crashes_is_dropped_after_a_while_and_who_quits_at_once() {
    let mut world = flock(3, 6);
    world.run(20 * SECOND);
    world.crash(4);
    world.run(SECOND);
    assert!(
        world
            .live()
            .into_iter()
            .all(|index| state(&world, index, 4) == Some(State::Up)),
        "silence alone is no proof"
    );
    world.run(4 * SECOND);
    assert!(
        world
            .live()
            .into_iter()
            .all(|index| state(&world, index, 4) == Some(State::Down))
    );
    world.input(2, Input::Admin(Admin::Quit));
    world.run(Duration::from_millis(5));
    for index in [0, 1, 3, 5] {
        assert_eq!(state(&world, index, 2), Some(State::Left));
        assert_eq!(up(&world, index), 4);
    }
    // Final for that incarnation: not even a hint brings it back.
    world.input(0, Input::Admin(Admin::Hint(World::address(2))));
    world.run(20 * SECOND);
    assert_eq!(state(&world, 0, 2), Some(State::Left));
    world.crash(2);
    world.start(2);
    world.start(4);
    agree(&mut world, 20 * SECOND);
    assert_eq!(state(&world, 0, 2), Some(State::Up));
}

/// Shows: FLK-11
#[test]
fn half_the_hints_may_be_dead_and_are_tried_at_a_bounded_rate() {
    let mut world = World::new(4, 20, |index| Options {
        hints: vec![
            World::address((index + 1) % 20),
            World::address(100 + index),
        ],
        ..Options::default()
    });
    world.start_all();
    agree(&mut world, 30 * SECOND);
    world.run(300 * SECOND);
    let before = dials(&world);
    world.run(600 * SECOND);
    let tried = dials(&world) - before;
    // Twenty dead addresses, each at most twice a minute, and not given up.
    assert!(
        (20 * 10..=20 * 21).contains(&tried),
        "{tried} tries in ten minutes"
    );
}

fn dials(world: &World) -> u64 {
    world
        .fired
        .get(&sim::FaultKind::DeadHint)
        .copied()
        .unwrap_or(0)
}

/// Shows in part: FLK-02
#[test]
fn the_same_inputs_give_the_same_outputs() {
    let run = || {
        let mut world = chain(5, 5);
        let log: Arc<Mutex<Vec<Vec<Output>>>> = Arc::default();
        world.start_all();
        for round in 0..200 {
            let outputs = world.input(
                round % 5,
                Input::Publish {
                    key: format!("k{}", round % 7),
                    value: vec![1; round],
                },
            );
            log.lock().expect("no panic").push(outputs);
            world.run(Duration::from_millis(100));
        }
        (
            world.trace(),
            Arc::into_inner(log).and_then(|log| log.into_inner().ok()),
        )
    };
    assert_eq!(run(), run());
}

#[test]
fn a_rnode_that_can_hear_nobody_does_not_lead_those_who_hear_it() {
    let mut world = flock(6, 6);
    world.run(40 * SECOND);
    let leading = super::leader(&world);
    let deaf = (leading + 1) % 6;
    world.network.one_way = (0..6)
        .filter(|from| *from != deaf)
        .map(|from| (from, deaf))
        .collect();
    world.run(60 * SECOND);
    for index in (0..6).filter(|index| *index != deaf) {
        assert_eq!(super::led_by(&world, index).0, Some(leading));
    }
    world.network.heal();
    agree(&mut world, 40 * SECOND);
    assert_eq!(super::leader(&world), leading);
}

#[test]
fn two_sides_of_a_bridge_stay_one_flock() {
    let mut world = flock(7, 3);
    world.run(40 * SECOND);
    // 0 and 2 reach each other only through 1, which still hears both.
    world.network.one_way = [(0, 2), (2, 0)].into_iter().collect();
    world.run(120 * SECOND);
    world.network.heal();
    agree(&mut world, 40 * SECOND);
}
