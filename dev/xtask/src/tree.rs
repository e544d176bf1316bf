//! The files of the working tree, read once.

use std::path::{Path, PathBuf};

/// What is never part of the house; in a linked worktree `.git` is a file.
const OUTSIDE: [&str; 2] = ["target", ".git"];

/// One text file of the tree.
#[derive(Debug)]
pub(crate) struct File {
    /// Its path below the root, with `/` between the parts.
    pub(crate) path: String,
    /// Its text; a file that is not UTF-8 is not listed.
    pub(crate) text: String,
}

impl File {
    /// Whether the path ends in this extension, given without its dot.
    pub(crate) fn is(&self, extension: &str) -> bool {
        Path::new(&self.path)
            .extension()
            .is_some_and(|own| own == extension)
    }

    /// Whether a generator wrote this file.
    pub(crate) fn is_generated(&self) -> bool {
        self.path.contains("/generated/")
    }

    /// Its lines with their numbers, counted from one.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }
}

/// Every text file below `root`, sorted by path.
///
/// # Errors
///
/// Names the folder or file that cannot be read.
pub(crate) fn read(root: &Path) -> Result<Vec<File>, String> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let listing = std::fs::read_dir(root.join(&folder))
            .map_err(|error| format!("failed to list {}: {error}", folder.display()))?;
        for entry in listing.filter_map(Result::ok) {
            let name = entry.file_name();
            let path = folder.join(&name);
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if OUTSIDE.iter().any(|outside| name == *outside) {
                continue;
            }
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file()
                && let Ok(text) = std::fs::read_to_string(root.join(&path))
            {
                files.push(File {
                    path: path.to_string_lossy().into_owned(),
                    text,
                });
            }
        }
    }
    files.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(files)
}
