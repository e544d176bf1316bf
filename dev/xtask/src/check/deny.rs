//! `cargo deny`: licences, banned crates, sources. Advisories need a database from elsewhere.

use std::path::PathBuf;

use super::Outcome;
use crate::cargo::{cargo, command, find, is_ci, succeed};

/// The line that brings the tool to a person's machine.
const BRING: &str = "cargo install --locked cargo-deny";

/// Runs the checks of `deny.toml`.
///
/// With `CI=true` the tool is built if it is not there, into a folder outside the clone.
pub(super) fn run() -> Outcome {
    let tool = match find("cargo-deny").or_else(kept) {
        Some(tool) => tool,
        None if is_ci() => match install() {
            Ok(tool) => tool,
            Err(message) => return Outcome::Failed(message),
        },
        None => return Outcome::Skipped(format!("cargo-deny is not here: {BRING}")),
    };
    let mut check = command(tool);
    check.args([
        "--log-level",
        "error",
        "check",
        "bans",
        "licenses",
        "sources",
    ]);
    succeed(&mut check).into()
}

/// Where the gate keeps tools that it built itself.
fn folder() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    Some(cache.or_else(home)?.join("radix/gate"))
}

fn kept() -> Option<PathBuf> {
    folder()
        .map(|folder| folder.join("bin/cargo-deny"))
        .filter(|path| path.is_file())
}

/// Builds the tool without optimisation: it runs for seconds, and compiling is what costs.
fn install() -> Result<PathBuf, String> {
    let folder = folder().ok_or("neither XDG_CACHE_HOME nor HOME is set")?;
    let mut install = cargo();
    install
        .args(["install", "--locked", "--debug", "cargo-deny", "--root"])
        .arg(&folder);
    install
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env_remove("CARGO_TARGET_DIR");
    succeed(&mut install)?;
    Ok(folder.join("bin/cargo-deny"))
}
