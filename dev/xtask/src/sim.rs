//! The simulator: one seed again, as printed by a failing test, or its measurements.

use crate::cargo::{cargo, succeed};

/// Runs the simulator with these words; `--measure` is worth an optimised build.
///
/// # Errors
///
/// When a run breaks an invariant or does not heal.
pub(crate) fn run(words: &[&str]) -> Result<(), String> {
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "sim"]);
    if words.first() == Some(&"--measure") {
        command.arg("--release");
    }
    succeed(command.arg("--").args(words))
}
