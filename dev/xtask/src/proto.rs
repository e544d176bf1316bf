//! Generates Rust from the protos of the contracts and of examples/stix, without protoc.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use prost_types::FileDescriptorSet;

use crate::cargo::root;

/// Every `.proto` file below `dir`, sorted within each folder.
fn sources(dir: &Path, out: &mut Vec<PathBuf>) -> Result<(), String> {
    let mut entries: Vec<_> = std::fs::read_dir(dir)
        .map_err(|error| format!("failed to read {}: {error}", dir.display()))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, out)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            out.push(path);
        }
    }
    Ok(())
}

/// A folder of protos and the folder of the code made from them.
struct Pair {
    protos: &'static str,
    generated: &'static str,
}

const CONTRACTS: Pair = Pair {
    protos: "crux/wire/proto",
    generated: "crux/wire/src/generated",
};
const PAIRS: [Pair; 2] = [
    CONTRACTS,
    Pair {
        protos: "examples/stix/proto",
        generated: "examples/stix/src/generated",
    },
];

/// The contracts between Radix's own parts, as descriptors.
///
/// # Errors
///
/// The compiler's own message, with its place.
pub(crate) fn contracts() -> Result<FileDescriptorSet, String> {
    descriptors(&CONTRACTS)
}

fn descriptors(pair: &Pair) -> Result<FileDescriptorSet, String> {
    let protos = root().join(pair.protos);
    let mut files = Vec::new();
    sources(&protos, &mut files)?;
    protox::compile(&files, [&protos]).map_err(|error| format!("{error:?}"))
}

/// Writes the code of one pair into `out`.
fn generate_into(pair: &Pair, out: &Path) -> Result<(), String> {
    std::fs::create_dir_all(out).map_err(|error| error.to_string())?;
    let mut config = tonic_prost_build::Config::new();
    config.btree_map(["."]);
    tonic_prost_build::configure()
        .out_dir(out)
        .compile_well_known_types(false)
        .compile_fds_with_config(descriptors(pair)?, config)
        .map_err(|error| error.to_string())
}

/// Regenerates the committed code.
///
/// # Errors
///
/// When a proto does not parse or a file cannot be written.
pub(crate) fn generate() -> Result<(), String> {
    PAIRS
        .iter()
        .try_for_each(|pair| generate_into(pair, &root().join(pair.generated)))
}

/// Compares the committed code with what the protos give now.
///
/// # Errors
///
/// Names each file that differs.
pub(crate) fn compare() -> Result<(), String> {
    let mut differ = Vec::new();
    for pair in &PAIRS {
        let fresh = crate::cargo::target_dir()
            .join("xtask/generated")
            .join(pair.generated);
        // What an earlier run left would hide a file that is no longer generated.
        drop(std::fs::remove_dir_all(&fresh));
        generate_into(pair, &fresh)?;
        let (fresh, committed) = (texts(&fresh)?, texts(&root().join(pair.generated))?);
        let names: BTreeSet<_> = fresh.keys().chain(committed.keys()).collect();
        let differing = names
            .into_iter()
            .filter(|name| fresh.get(*name) != committed.get(*name));
        differ.extend(differing.map(|name| format!("{}/{name}", pair.generated)));
    }
    if differ.is_empty() {
        return Ok(());
    }
    Err(format!(
        "generated code differs, run `cargo xtask proto`: {}",
        differ.join(", ")
    ))
}

fn texts(folder: &Path) -> Result<BTreeMap<String, String>, String> {
    crate::tree::read(folder).map(|files| {
        files
            .into_iter()
            .map(|file| (file.path, file.text))
            .collect()
    })
}
