//! `radix-underverse-toy`: the toy as a plug-in.

use std::path::PathBuf;
use std::process::ExitCode;

use toy::{Toy, ToyBelow};
use underverse_conformance::Tap;
use underverse_plugin::{GROUND_VARIABLE, Served};

fn main() -> ExitCode {
    let ground = std::env::var_os(GROUND_VARIABLE);
    let root = ground.map_or_else(|| std::env::temp_dir().join("radix-toy"), PathBuf::from);
    Served::new(Toy::new(root, Tap::from_env()))
        .below(ToyBelow)
        .version(env!("CARGO_PKG_VERSION"))
        .run()
}
