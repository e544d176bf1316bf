//! The window of five seconds and its two heartbeats.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sim::{Options, World};

use super::{SECOND, agree, chain, flock, leader};

const HOUR: Duration = Duration::from_secs(3600);

fn flock_overs(world: &World) -> u64 {
    world
        .live()
        .into_iter()
        .filter_map(|index| world.flock(index))
        .map(|flock| flock.counters().flock_overs)
        .sum()
}

/// Shows: FLK-06
#[test]
fn one_heartbeat_of_two_is_enough_and_none_of_two_is_not() {
    let mut world = flock(1, 6);
    let before = flock_overs(&world);
    world.filter = Some(Box::new(|parcel| {
        parcel
            .inspection
            .heartbeat
            .is_none_or(|(_, _, sequence)| sequence % 2 == 0)
    }));
    world.run(HOUR);
    assert_eq!(
        flock_overs(&world),
        before,
        "with every odd heartbeat dropped for an hour"
    );

    // Both of a window, and every neighbour's answer: over at five seconds of silence.
    let (silence, overs) = cut_off(Answers::Dropped);
    assert!(
        overs == 1 && silence >= 5 * SECOND && silence < 5 * SECOND + SECOND / 10,
        "{overs} after {silence:?}"
    );

    // With a neighbour's answers nothing happens.
    let (_, overs) = cut_off(Answers::Passed);
    assert_eq!(overs, 0);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answers {
    Passed,
    Dropped,
}

/// Keeps two heartbeats of the leader from one member; returns its silence when it flocked over, and how often it did.
fn cut_off(answers: Answers) -> (Duration, u64) {
    let mut world = flock(2, 6);
    world.run(60 * SECOND);
    let leading = leader(&world);
    let victim = (leading + 1) % 6;
    let heard = Arc::new(Mutex::new(Duration::ZERO));
    let noted = Arc::clone(&heard);
    world.filter = Some(Box::new(move |parcel| {
        if parcel.to == victim && parcel.inspection.kind == "heartbeat" {
            *noted.lock().expect("no panic") = parcel.now;
        }
        true
    }));
    while *heard.lock().expect("no panic") == Duration::ZERO {
        world.run(Duration::from_millis(1));
    }
    world.run(Duration::from_millis(5));
    let last = *heard.lock().expect("no panic");
    let before = world
        .flock(victim)
        .expect("it lives")
        .counters()
        .flock_overs;
    let mut dropped = 0;
    world.filter = Some(Box::new(move |parcel| {
        if parcel.to != victim || parcel.inspection.kind != "heartbeat" {
            return true;
        }
        if parcel.from == leading && dropped < 2 && parcel.now > last + SECOND {
            // What the leader says in answer to a question is an answer, and passes or not as the others'.
            dropped += u32::from(answers == Answers::Passed);
            return false;
        }
        answers == Answers::Passed
    }));
    let overs = |world: &World| {
        world
            .flock(victim)
            .expect("it lives")
            .counters()
            .flock_overs
            - before
    };
    while overs(&world) == 0 && world.now < last + 6 * SECOND {
        world.run(Duration::from_millis(10));
    }
    let silence = world.now - last;
    world.filter = None;
    agree(&mut world, 30 * SECOND);
    assert_eq!(
        leader(&world),
        leading,
        "a member that flocked over comes back to its leader"
    );
    (silence, overs(&world))
}

#[test]
fn the_literal_rule_restarts_where_asking_does_not() {
    let overs_with = |ask_after| {
        let mut world = chain(3, 6);
        for rnode in &mut world.rnodes {
            rnode.options.config.ask_after = ask_after;
        }
        world.start_all();
        agree(&mut world, 30 * SECOND);
        world.network.loss = 50;
        let before = flock_overs(&world);
        world.run(HOUR);
        flock_overs(&world) - before
    };
    assert_eq!(
        overs_with(Options::default().config.ask_after),
        0,
        "at 5 % loss"
    );
    assert!(overs_with(None) > 0, "at 5 % loss, by the literal rule");
}
