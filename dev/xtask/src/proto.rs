//! Generates `crux/wire/src/generated/` from `crux/wire/proto/` without protoc.

use std::path::{Path, PathBuf};

/// The workspace root, from this crate's own place in it.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every `.proto` file of the contracts, sorted.
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
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            out.push(path);
        }
    }
    Ok(())
}

/// Writes the generated code into `out`.
pub(crate) fn generate_into(out: &Path) -> Result<(), String> {
    let protos = root().join("crux/wire/proto");
    let mut files = Vec::new();
    sources(&protos, &mut files)?;
    let descriptors = protox::compile(&files, [&protos]).map_err(|error| format!("{error:?}"))?;
    std::fs::create_dir_all(out).map_err(|error| error.to_string())?;
    let mut config = tonic_prost_build::Config::new();
    config.btree_map(["."]);
    tonic_prost_build::configure()
        .out_dir(out)
        .compile_well_known_types(false)
        .compile_fds_with_config(descriptors, config)
        .map_err(|error| error.to_string())
}

/// Regenerates the committed code.
pub(crate) fn generate() -> Result<(), String> {
    generate_into(&root().join("crux/wire/src/generated"))
}
