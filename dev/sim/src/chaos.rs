//! Chaos, then calm: faults strike for a while, then stop, and the flock must be one again and know everything.

use std::sync::Arc;
use std::time::Duration;

use crux_core::digest::Digest;
use crux_core::flock::Input;
use crux_core::ken::DocumentId;

use crate::network::{FaultKind, Fired, Network};
use crate::random::Random;
use crate::rnode::Options;
use crate::world::World;

/// How long faults strike.
const CHAOS: Duration = Duration::from_secs(45);
/// Bound on healing: the longest pause before a lost rnode is tried again, then three windows to agree on a leader and
/// to let go of what the dead had published.
const HEAL_MAX: Duration = Duration::from_secs(30 + 3 * 5 + 10);

/// What one run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Which faults did something.
    pub fired: Fired,
    /// A hash of everything that happened.
    pub trace: String,
    /// How long after the last fault all were one again.
    pub healed_after: Duration,
}

/// Runs one seed.
///
/// # Errors
/// Says what was not right in the end, and how to repeat it.
///
/// # Panics
/// When an invariant is broken on the way.
pub fn run(seed: u64) -> Result<Outcome, String> {
    run_sized(seed, None)
}

/// Runs one seed with `size` rnodes; none: 3 to 12, as the seed says.
///
/// # Errors
/// As [`run`].
///
/// # Panics
/// As [`run`].
pub fn run_sized(seed: u64, size: Option<usize>) -> Result<Outcome, String> {
    let mut random = Random::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let drawn = 3 + random.below(10);
    let count = size.unwrap_or(drawn);
    let mut world = World::new(seed, count, |index| {
        options(index, count, &mut random.clone())
    });
    weather(&mut world.network, &mut random);
    for index in 0..count {
        world.run(random.between(Duration::ZERO, Duration::from_millis(400)));
        world.start(index);
    }
    let mut generation = 0;
    while world.now < CHAOS {
        let pause = random.between(Duration::from_millis(50), Duration::from_millis(1500));
        world.run(pause);
        disturb(&mut world, &mut random, &mut generation);
    }
    calm(&mut world, &mut random);
    let settled = |world: &World| world.disagreement().is_none() && world.wrong_entries().is_none();
    let Some(healed_after) = world.run_while_not(HEAL_MAX, settled) else {
        let problem = world
            .disagreement()
            .or_else(|| world.wrong_entries())
            .unwrap_or_default();
        return Err(format!(
            "after {HEAL_MAX:?} of calm {problem}; repeat with: cargo xtask sim --seed {seed}"
        ));
    };
    check_document(&world, generation, seed)?;
    Ok(Outcome {
        fired: std::mem::take(&mut world.fired),
        trace: world.trace(),
        healed_after,
    })
}

fn options(index: usize, count: usize, random: &mut Random) -> Options {
    let mut own = Random::new(random.next() ^ index as u64);
    // A chain holds all together; other hints are chance, and some lead nowhere.
    let mut hints = vec![World::address((index + 1) % count)];
    for _ in 0..own.below(3) {
        hints.push(World::address(own.below(count * 2)));
    }
    let vote = if own.chance(500) {
        100
    } else {
        90 + u32::try_from(own.below(20)).unwrap_or(0)
    };
    Options {
        vote,
        hints,
        ..Options::default()
    }
}

/// Chooses how bad the network is throughout one run.
fn weather(network: &mut Network, random: &mut Random) {
    let choose = |random: &mut Random, choices: [u32; 4]| choices[random.below(4)];
    network.loss = choose(random, [0, 10, 50, 150]);
    network.burst = choose(random, [0, 0, 2, 10]);
    network.duplicate = choose(random, [0, 10, 50, 100]);
    network.reorder = choose(random, [0, 10, 50, 100]);
    network.corrupt = choose(random, [0, 0, 5, 20]);
    network.delay_max = Duration::from_millis(u64::from(choose(random, [1, 5, 40, 120])));
}

fn disturb(world: &mut World, random: &mut Random, generation: &mut u64) {
    let count = world.rnodes.len();
    let (one, other) = (random.below(count), random.below(count));
    match random.below(20) {
        0 => world.crash(one),
        1 => world.crash_losing_disk(one),
        2 if random.chance(300) => world.crash_losing_identity(one),
        3..=5 => {
            if world.flock(one).is_none() {
                world.start(one);
            }
        }
        6 => world.stall(
            one,
            random.between(Duration::from_millis(50), Duration::from_secs(4)),
        ),
        7 => split(world, random),
        8 | 9 => world.network.side = vec![0; count],
        10 => {
            if one != other {
                world.network.one_way.insert((one, other));
            }
        }
        11 => world.network.one_way.clear(),
        12 | 13 => put_document(world, one, generation),
        14 => world.withdraw(one, &format!("key/{}", random.below(6))),
        _ => {
            let value = vec![u8::try_from(random.below(256)).unwrap_or(0); random.below(600)];
            world.publish(one, &format!("key/{}", random.below(6)), &value);
        }
    }
}

fn split(world: &mut World, random: &mut Random) {
    let sides = 2 + random.below(2);
    for side in &mut world.network.side {
        *side = u8::try_from(random.below(sides)).unwrap_or(0);
    }
}

fn put_document(world: &mut World, index: usize, generation: &mut u64) {
    if world.flock(index).is_none() {
        return;
    }
    *generation += 1;
    let size = 100 + usize::try_from(*generation % 7).unwrap_or(0) * 15_000;
    let mut bytes = format!("signed: generation {generation} ").into_bytes();
    bytes.resize(size, b'.');
    let id = DocumentId {
        generation: *generation,
        digest: Digest::of(&bytes),
    };
    world.input(
        index,
        Input::PutDocument {
            id,
            bytes: Arc::from(bytes),
        },
    );
}

/// Ends all faults; whoever is down starts again.
fn calm(world: &mut World, random: &mut Random) {
    world.network.heal();
    for index in 0..world.rnodes.len() {
        if world.flock(index).is_none() {
            world.run(random.between(Duration::ZERO, Duration::from_millis(100)));
            world.start(index);
        }
    }
    let stalls = world.rnodes.iter().filter_map(|rnode| rnode.stalled_until);
    if let Some(end) = stalls.max() {
        world.run_until(end.max(world.now));
    }
}

/// A document that some living rnode held must be on all.
fn check_document(world: &World, generation: u64, seed: u64) -> Result<(), String> {
    let held: Vec<Option<u64>> = world
        .live()
        .into_iter()
        .map(|index| {
            world
                .flock(index)
                .and_then(|flock| flock.document())
                .map(|document| document.id.generation)
        })
        .collect();
    let same = held.windows(2).all(|pair| pair[0] == pair[1]);
    let sensible = held.iter().flatten().all(|held| *held <= generation);
    if same && sensible {
        Ok(())
    } else {
        Err(format!(
            "documents differ: {held:?}; repeat with: cargo xtask sim --seed {seed}"
        ))
    }
}

/// Which kinds of faults never did anything in `fired`.
#[must_use]
pub fn never_fired(fired: &Fired) -> Vec<FaultKind> {
    FaultKind::ALL
        .into_iter()
        .filter(|kind| fired.get(kind).is_none_or(|count| *count == 0))
        .collect()
}
