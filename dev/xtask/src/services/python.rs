//! Components from PyPI, each in a virtual environment of its own below the target directory.

use std::path::PathBuf;

use crate::cargo::{command, find, root, succeed, target_dir};

const REQUIREMENTS: &str = "dev/xtask/python/schemathesis.txt";

fn folder() -> PathBuf {
    target_dir().join("services/schemathesis")
}

/// Which versions an environment was made of; it is written last, so that half of one is never taken for it.
fn made_of() -> PathBuf {
    folder().join("made-of.txt")
}

/// The fuzzer, if it is here in the versions that the tests were written for.
pub(super) fn schemathesis() -> Option<PathBuf> {
    let wanted = std::fs::read(root().join(REQUIREMENTS)).ok()?;
    let have = std::fs::read(made_of()).ok()?;
    let program = folder().join("bin/schemathesis");
    (have == wanted && program.is_file()).then_some(program)
}

/// Makes the environment anew.
///
/// # Errors
///
/// When there is no python3, or PyPI cannot be reached.
pub(super) fn bring_schemathesis() -> Result<(), String> {
    let python =
        find("python3").ok_or("python3 is missing: apt-get install python3 python3-venv")?;
    let folder = folder();
    // What an earlier run left, if it broke off.
    drop(std::fs::remove_dir_all(&folder));
    succeed(command(python).args(["-m", "venv"]).arg(&folder))?;
    let mut install = command(folder.join("bin/python"));
    install
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--no-input"])
        .args(["--disable-pip-version-check", "--requirement"])
        .arg(root().join(REQUIREMENTS));
    succeed(&mut install)?;
    std::fs::copy(root().join(REQUIREMENTS), made_of())
        .map(drop)
        .map_err(|error| format!("{}: {error}", made_of().display()))
}
