//! Benchmarks beside their peers: builds what is measured, then hands over to crate `bench`.

use crate::cargo::{cargo, radix, succeed, target_dir};

/// Prints the scenarios.
///
/// # Errors
///
/// When the bench binary does not build.
pub(crate) fn list() -> Result<(), String> {
    run("list", &[])
}

/// Runs one scenario; it prints its rows for docs/numbers.md.
///
/// # Errors
///
/// When something does not build, or the scenario says that it could not be measured.
pub(crate) fn run(name: &str, rest: &[&str]) -> Result<(), String> {
    succeed(cargo().args(["build", "--release", "--locked", "-p", "bench"]))?;
    if name != "list" {
        succeed(cargo().args(["build", "--release", "--locked", "--bin", "radix"]))?;
    }
    let mut command = crate::cargo::command(target_dir().join("release/bench"));
    succeed(command.arg(name).args(rest).env("RADIX_BIN", radix()))
}
