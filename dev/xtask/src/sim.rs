//! One seed of the simulator, as printed by a failing test.

use crate::cargo::{cargo, succeed};

/// The variable by which the tests of crate `sim` take one seed in place of the fixed set.
const SEED: &str = "RADIX_SIM_SEED";

/// Runs the simulator's tests with `seed` alone and shows what they print.
///
/// # Errors
///
/// When `seed` is no number, or the run breaks an invariant.
pub(crate) fn run(seed: &str) -> Result<(), String> {
    let seed: u64 = seed
        .parse()
        .map_err(|error| format!("seed `{seed}`: {error}"))?;
    let mut command = cargo();
    command.args(["test", "-p", "sim", "--test", "it", "--", "--nocapture"]);
    succeed(command.env(SEED, seed.to_string()))
}
