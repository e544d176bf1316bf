//! Scenarios: what the requirement rows of flock and shared data say, performed.

mod company;
mod heartbeat;
mod lead;
mod sharing;

use std::time::Duration;

use crux_core::flock::{State, Time};
use sim::{Options, World};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A calm world in which each rnode is told of the next one.
pub(crate) fn chain(seed: u64, count: usize) -> World {
    World::new(seed, count, |index| Options {
        hints: vec![World::address((index + 1) % count)],
        ..Options::default()
    })
}

/// The same, started, and one flock already.
pub(crate) fn flock(seed: u64, count: usize) -> World {
    let mut world = chain(seed, count);
    world.start_all();
    agree(&mut world, 30 * SECOND);
    world
}

/// Runs until all live rnodes are one flock; fails after `limit`.
pub(crate) fn agree(world: &mut World, limit: Duration) -> Duration {
    let taken = world.run_while_not(limit, |world| world.disagreement().is_none());
    taken.unwrap_or_else(|| {
        panic!(
            "not one flock after {limit:?}: {}",
            world.disagreement().unwrap_or_default()
        )
    })
}

/// The index of the leader that the first live rnode acknowledges.
pub(crate) fn leader(world: &World) -> usize {
    let first = world.live()[0];
    let who = world
        .flock(first)
        .and_then(|flock| flock.leader().who)
        .expect("there is a leader");
    world.index_of(&who).expect("it is one of ours")
}

/// What `observer` holds `subject` to be.
pub(crate) fn state(world: &World, observer: usize, subject: usize) -> Option<State> {
    let id = world.rnodes[subject].id;
    world
        .flock(observer)?
        .members()
        .find(|member| member.id == id)
        .map(|member| member.state)
}

/// How many members `index` counts as up.
pub(crate) fn up(world: &World, index: usize) -> usize {
    let members = world
        .flock(index)
        .into_iter()
        .flat_map(|flock| flock.members());
    members.filter(|member| member.state == State::Up).count()
}

/// When `index` last changed its leader, and to whom.
pub(crate) fn led_by(world: &World, index: usize) -> (Option<usize>, Time) {
    let leader = world.flock(index).expect("it lives").leader();
    (
        leader.who.and_then(|who| world.index_of(&who)),
        leader.since,
    )
}
