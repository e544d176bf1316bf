//! `clone`: fresh clone to a ready examples/stix, compile included.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::measure::cost;
use crate::peer;
use crate::radix::{root, succeeded};
use crate::row::{Row, show};

pub(super) fn run() -> Result<Vec<Row>, String> {
    let folder = peer::folder("clone")?;
    let (tree, home) = (folder.join("radix"), folder.join("home"));
    let cloned = Command::new("git")
        .arg("clone")
        .arg("--quiet")
        .arg(root())
        .arg(&tree)
        .output();
    succeeded("git clone", cloned.map_err(|error| error.to_string())?)?;
    let ((), building) = cost(|| build(&tree))?;
    let ready = cost(|| radix(&tree, &home, &["up", "examples/stix", "--yes"]));
    let ended = radix(&tree, &home, &["down", "--purge", "--yes"]);
    let ((), starting) = ready?;
    ended?;
    drop(std::fs::remove_dir_all(&folder));
    let sum = building.wall + starting.wall;
    Ok(vec![
        Row::alone("fresh clone to ready stix, packages downloaded", show(sum)),
        Row::alone("… of it compiling `radix`", show(building.wall)),
    ])
}

/// Compiles as `cargo run` would, into the clone's own target directory.
fn build(tree: &Path) -> Result<(), String> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--quiet", "--release", "--bin", "radix"])
        .current_dir(tree);
    wait(cargo.env_remove("CARGO_TARGET_DIR"), "cargo build")
}

fn radix(tree: &Path, home: &Path, arguments: &[&str]) -> Result<(), String> {
    let mut radix = Command::new(tree.join("target/release/radix"));
    radix
        .args(arguments)
        .current_dir(tree)
        .env("RADIX_HOME", home);
    wait(radix.env_remove("CARGO_TARGET_DIR"), "radix")
}

fn wait(command: &mut Command, name: &str) -> Result<(), String> {
    let status = command.stdin(Stdio::null()).status();
    let status = status.map_err(|error| format!("{name}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{name}: {status}"))
    }
}
