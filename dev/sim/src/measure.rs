//! Convergence times and bytes, for docs/numbers.md: properties of the protocol, not of a machine.

use std::fmt;
use std::time::Duration;

use crux_core::flock::{Input, State};

use crate::rnode::Options;
use crate::world::World;

/// Bytes that QUIC, UDP and IP add to a datagram: short header with 4 bytes of connection id, tag, frame, 28 of UDP/IPv4.
pub const OVERHEAD_BYTES: u64 = 28 + 1 + 4 + 2 + 16 + 3;

/// What one size came to.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Rnodes.
    pub count: usize,
    /// From the start of all, each knowing one other, to one flock that knows everything.
    pub formed: Duration,
    /// Payload bytes and messages a rnode sends a second when nothing happens, the leader included.
    pub idle_bytes: u64,
    /// The same with what a link adds to each datagram.
    pub idle_wire_bytes: u64,
    /// Messages a rnode sends a second when nothing happens.
    pub idle_messages: f64,
    /// What the leader alone sends a second, in payload bytes.
    pub leader_bytes: u64,
    /// From a publication until it is everywhere.
    pub update: Duration,
    /// From a crash until all others know, median and worst of the tries.
    pub crash: (Duration, Duration),
    /// From the leader's crash until all others follow the next, median and worst.
    pub leader_crash: (Duration, Duration),
    /// From the end of a split into halves of 60 s to one flock.
    pub heal: Duration,
}

impl fmt::Display for Measured {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |duration: Duration| duration.as_millis();
        write!(
            formatter,
            "{:>3} rnodes: formed {} ms; idle {} B/s ({} on the wire) in {:.1} messages/s a rnode, leader {} B/s; \
             update {} ms; crash known p50 {} max {} ms; next leader p50 {} max {} ms; healed {} ms",
            self.count,
            ms(self.formed),
            self.idle_bytes,
            self.idle_wire_bytes,
            self.idle_messages,
            self.leader_bytes,
            ms(self.update),
            ms(self.crash.0),
            ms(self.crash.1),
            ms(self.leader_crash.0),
            ms(self.leader_crash.1),
            ms(self.heal),
        )
    }
}

const LIMIT: Duration = Duration::from_secs(120);
const TRIES: usize = 9;

/// Measures a flock of `count` without loss.
///
/// # Errors
/// When it does not come together.
pub fn measure(seed: u64, count: usize) -> Result<Measured, String> {
    let mut world = World::new(seed, count, |index| Options {
        hints: vec![World::address((index + 1) % count)],
        ..Options::default()
    });
    world.start_all();
    let formed = agree(&mut world)?;
    world.run(Duration::from_secs(60));
    let (idle_bytes, messages, leader_bytes) = idle(&mut world, Duration::from_secs(60));
    let idle_messages = messages as f64 / (60 * count) as f64;
    let per_second = idle_bytes / (60 * count as u64);
    let idle_wire_bytes = (idle_bytes + messages * OVERHEAD_BYTES) / (60 * count as u64);
    let update = update(&mut world)?;
    let mut crashes = Vec::new();
    let mut leader_crashes = Vec::new();
    for attempt in 0..TRIES {
        crashes.push(crash(&mut world, Victim::Member(attempt))?);
        leader_crashes.push(crash(&mut world, Victim::Leader)?);
    }
    let heal = heal(&mut world)?;
    Ok(Measured {
        count,
        formed,
        idle_bytes: per_second,
        idle_wire_bytes,
        idle_messages,
        leader_bytes: leader_bytes / 60,
        update,
        crash: middle_and_worst(crashes),
        leader_crash: middle_and_worst(leader_crashes),
        heal,
    })
}

fn middle_and_worst(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (
        times.get(times.len() / 2).copied().unwrap_or_default(),
        times.last().copied().unwrap_or_default(),
    )
}

fn agree(world: &mut World) -> Result<Duration, String> {
    let taken = world.run_while_not(LIMIT, |world| world.disagreement().is_none());
    taken.ok_or_else(|| world.disagreement().unwrap_or_default())
}

fn leader(world: &World) -> Option<usize> {
    let first = *world.live().first()?;
    world
        .flock(first)?
        .leader()
        .who
        .and_then(|who| world.index_of(&who))
}

fn idle(world: &mut World, length: Duration) -> (u64, u64, u64) {
    let leader = leader(world).unwrap_or(0);
    for rnode in &mut world.rnodes {
        rnode.sent = (0, 0);
    }
    world.run(length);
    let sum = world.rnodes.iter().fold((0, 0), |sum, rnode| {
        (sum.0 + rnode.sent.0, sum.1 + rnode.sent.1)
    });
    (sum.0, sum.1, world.rnodes[leader].sent.0)
}

fn update(world: &mut World) -> Result<Duration, String> {
    world.input(
        0,
        Input::Publish {
            key: "measured".to_owned(),
            value: vec![7; 128],
        },
    );
    let start = world.now;
    while world.live().iter().any(|index| {
        world
            .flock(*index)
            .is_some_and(|flock| flock.entries("measured").count() == 0)
    }) {
        world.run(Duration::from_millis(1));
        if world.now > start + LIMIT {
            return Err("an update did not reach all".to_owned());
        }
    }
    Ok(world.now - start)
}

#[derive(Debug, Clone, Copy)]
enum Victim {
    Member(usize),
    Leader,
}

fn crash(world: &mut World, victim: Victim) -> Result<Duration, String> {
    let leading = leader(world).unwrap_or(0);
    let victim = match victim {
        Victim::Leader => leading,
        Victim::Member(attempt) if attempt % world.rnodes.len() == leading => {
            (leading + 1) % world.rnodes.len()
        }
        Victim::Member(attempt) => attempt % world.rnodes.len(),
    };
    let id = world.rnodes[victim].id;
    let start = world.now;
    world.crash(victim);
    let known = |world: &World| {
        world
            .live()
            .into_iter()
            .filter_map(|index| world.flock(index))
            .all(|flock| {
                let lost = flock
                    .members()
                    .any(|member| member.id == id && member.state == State::Down);
                lost && flock.leader().who.is_some_and(|who| who != id)
            })
    };
    while !known(world) {
        world.run(Duration::from_millis(10));
        if world.now > start + LIMIT {
            return Err("a crash did not become known".to_owned());
        }
    }
    let taken = world.now - start;
    world.run(Duration::from_secs(12));
    world.start(victim);
    agree(world)?;
    world.run(Duration::from_secs(8));
    Ok(taken)
}

fn heal(world: &mut World) -> Result<Duration, String> {
    let count = world.rnodes.len();
    world.network.side = (0..count)
        .map(|index| u8::from(index >= count / 2))
        .collect();
    world.run(Duration::from_secs(60));
    world.network.side = vec![0; count];
    agree(world)
}
