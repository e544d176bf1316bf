//! Two hundred seeds of chaos, each followed by calm.

use std::thread;

use sim::Fired;
use sim::chaos::{self, Outcome};

const SEEDS: u64 = 200;
/// One seed instead of all: how `cargo xtask sim --seed N` repeats a run.
const SEED: &str = "RADIX_SIM_SEED";

fn run_all(seeds: Vec<u64>) -> Vec<Result<Outcome, String>> {
    seeds.into_iter().map(chaos::run).collect()
}

/// Shows: CLU-02
/// Shows in part: FLK-12, RND-05
#[test]
fn after_chaos_every_flock_is_one_again_and_knows_everything() {
    if let Ok(seed) = std::env::var(SEED) {
        let seed = seed.parse().expect("RADIX_SIM_SEED is a number");
        let outcome = chaos::run(seed).expect("the run is right");
        println!(
            "healed after {:?}, trace {}, faults {:?}",
            outcome.healed_after, outcome.trace, outcome.fired
        );
        return;
    }
    let halves = [
        (0..SEEDS).step_by(2).collect(),
        (1..SEEDS).step_by(2).collect(),
    ];
    let outcomes: Vec<_> = thread::scope(|scope| {
        let threads = halves.map(|half: Vec<u64>| scope.spawn(|| run_all(half)));
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("invariants held"))
            .collect()
    });
    let mut fired = Fired::new();
    let mut failures = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(outcome) => {
                for (kind, count) in outcome.fired {
                    *fired.entry(kind).or_insert(0) += count;
                }
            }
            Err(failure) => failures.push(failure),
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {SEEDS} seeds failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert_eq!(
        chaos::never_fired(&fired),
        [],
        "these faults never did anything"
    );
}

#[test]
fn one_seed_gives_one_trace() {
    for seed in [3, 1000, 77_777] {
        let (first, second) = (
            chaos::run(seed).expect("right"),
            chaos::run(seed).expect("right"),
        );
        assert_eq!(first, second, "seed {seed}");
    }
    assert_ne!(
        chaos::run(1).expect("right").trace,
        chaos::run(2).expect("right").trace
    );
}

#[test]
fn forty_rnodes_are_one_again_too() {
    for seed in 0..3 {
        chaos::run_sized(seed, Some(40)).expect("the run is right");
    }
}
