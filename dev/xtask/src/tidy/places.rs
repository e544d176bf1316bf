//! Nothing of one person's machine in the tree.

use super::Findings;
use crate::tree::File;

/// Folders of machines, spelt in parts so that this file does not find itself.
const FOLDERS: [&str; 3] = [
    concat!("/wo", "rk/main"),
    concat!("/wo", "rk/shared"),
    concat!("/ro", "ot/"),
];

/// The one place packages come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// No absolute path of the machine something was written on.
pub(super) fn no_machine_paths(files: &[File], findings: &mut Findings) {
    for file in files {
        for (number, line) in file.lines() {
            if FOLDERS.iter().any(|folder| names(line, folder)) {
                findings.error(format!("{}:{number}: a path of one machine", file.path));
            }
        }
    }
}

/// Whether `line` has `folder` as the start of a path, not within one.
fn names(line: &str, folder: &str) -> bool {
    let within = |letter: char| letter.is_alphanumeric() || "_-./}>*$".contains(letter);
    line.match_indices(folder)
        .any(|(at, _)| !line[..at].chars().next_back().is_some_and(within))
}

/// Every locked package comes from the public registry or from this tree.
pub(super) fn lock_sources(files: &[File], findings: &mut Findings) {
    let locks = files
        .iter()
        .filter(|file| file.path.ends_with("Cargo.lock"));
    for (file, (number, line)) in locks.flat_map(|file| file.lines().map(move |line| (file, line)))
    {
        if line
            .strip_prefix("source = ")
            .is_some_and(|source| source.trim_matches('"') != REGISTRY)
        {
            findings.error(format!(
                "{}:{number}: not from the public registry",
                file.path
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_start_of_a_path_counts() {
        let folder = FOLDERS[0];
        assert!(names(&format!("see {folder}/x"), folder));
        assert!(!names(&format!("cell{folder}/x"), folder));
        assert!(!names("no path at all", folder));
    }
}
