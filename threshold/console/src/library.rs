//! The library of description files that `include` finds when they are not beside the file.

/// Every library file of this binary: name and text.
const FILES: &[(&str, &str)] = &[
    ("consul.begat", include_str!("../library/consul.begat")),
    ("consul.rexec", include_str!("../library/consul.rexec")),
];

/// The library file `name`: from a directory of `RADIX_LIBRARY` first, else from this binary.
pub(crate) fn find(name: &str) -> Option<Vec<u8>> {
    let path = std::env::var_os("RADIX_LIBRARY");
    let directories = path.iter().flat_map(std::env::split_paths);
    for directory in directories {
        if let Ok(bytes) = std::fs::read(directory.join(name)) {
            return Some(bytes);
        }
    }
    FILES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, text)| text.as_bytes().to_vec())
}

/// Names that `include` finds in the library of this binary.
pub(crate) fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = FILES
        .iter()
        .filter_map(|(name, _)| name.rsplit_once('.').map(|(stem, _)| stem))
        .collect();
    names.dedup();
    names
}
