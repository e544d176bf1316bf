//! Paths below a root: what they may be, and the documented reason why not.

use std::fmt;
use std::str::FromStr;

/// Longest path below a root, in bytes: what the kernel takes.
pub const PATH_BYTES_MAX: usize = 4095;
/// Longest single name, in bytes: what file systems take.
pub const NAME_BYTES_MAX: usize = 255;
/// Folders below each other that a path may have.
pub const DEPTH_MAX: usize = 64;
/// The folder at the top of a root in which files arrive; no path may name it.
pub const STAGING: &str = ".radix-partial";

/// Why a path was refused. The words are part of the contract: docs/design/fileio.md lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathRefusal {
    /// It is absolute.
    #[error("it is absolute")]
    Absolute,
    /// A part of it is `..` or `.`.
    #[error("it has `..` or `.`")]
    Dots,
    /// A part of it is empty.
    #[error("it has an empty part")]
    Empty,
    /// A part of it has a control character.
    #[error("it has a control character")]
    Control,
    /// A name in it is longer than [`NAME_BYTES_MAX`].
    #[error("it has a name of more than 255 bytes")]
    NameTooLong,
    /// It is longer than [`PATH_BYTES_MAX`].
    #[error("it is longer than 4095 bytes")]
    TooLong,
    /// It has more than [`DEPTH_MAX`] parts.
    #[error("it is more than 64 folders deep")]
    TooDeep,
    /// It names the folder in which files arrive.
    #[error("it names `.radix-partial`, where files arrive")]
    Reserved,
    /// It is not UTF-8.
    #[error("its name is not UTF-8")]
    NotUtf8,
}

/// A path below a root: UTF-8, relative, without `..`; may be empty, which is the root itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath(String);

impl RelPath {
    /// The root itself.
    pub const ROOT: Self = Self(String::new());

    /// Takes a path apart and together again.
    ///
    /// # Errors
    /// [`PathRefusal`], the first reason from the left.
    pub fn new(text: &str) -> Result<Self, PathRefusal> {
        if text.is_empty() {
            return Ok(Self::ROOT);
        }
        if text.starts_with('/') {
            return Err(PathRefusal::Absolute);
        }
        if text.len() > PATH_BYTES_MAX {
            return Err(PathRefusal::TooLong);
        }
        for (depth, part) in text.split('/').enumerate() {
            check_part(part, depth)?;
        }
        Ok(Self(text.to_owned()))
    }

    /// Takes a name that may not be UTF-8.
    ///
    /// # Errors
    /// [`PathRefusal`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PathRefusal> {
        Self::new(std::str::from_utf8(bytes).map_err(|_| PathRefusal::NotUtf8)?)
    }

    /// The path as text, `/` between its parts.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the root itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// This path with another below it.
    ///
    /// # Errors
    /// [`PathRefusal`] when both together are too long or too deep.
    pub fn join(&self, below: &Self) -> Result<Self, PathRefusal> {
        match (self.is_root(), below.is_root()) {
            (true, _) => Ok(below.clone()),
            (_, true) => Ok(self.clone()),
            _ => Self::new(&format!("{}/{}", self.0, below.0)),
        }
    }

    /// The folder it lies in and its last name; `None` for the root.
    #[must_use]
    pub fn split(&self) -> Option<(Self, &str)> {
        if self.is_root() {
            return None;
        }
        let (folder, name) = self.0.rsplit_once('/').unwrap_or(("", &self.0));
        Some((Self(folder.to_owned()), name))
    }

    /// Its parts, from the root down.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|part| !part.is_empty())
    }
}

fn check_part(part: &str, depth: usize) -> Result<(), PathRefusal> {
    match part {
        "" => Err(PathRefusal::Empty),
        "." | ".." => Err(PathRefusal::Dots),
        STAGING => Err(PathRefusal::Reserved),
        _ if depth >= DEPTH_MAX => Err(PathRefusal::TooDeep),
        _ if part.len() > NAME_BYTES_MAX => Err(PathRefusal::NameTooLong),
        _ if part.chars().any(char::is_control) => Err(PathRefusal::Control),
        _ => Ok(()),
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.is_root() { "." } else { &self.0 })
    }
}

impl FromStr for RelPath {
    type Err = PathRefusal;

    fn from_str(text: &str) -> Result<Self, PathRefusal> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_could_leave_its_root_is_refused_with_its_reason() {
        let long = "x".repeat(256);
        let deep = vec!["d"; 65].join("/");
        let longest = vec!["y".repeat(200); 25].join("/");
        let cases: [(&str, PathRefusal); 12] = [
            ("/etc/passwd", PathRefusal::Absolute),
            ("..", PathRefusal::Dots),
            ("a/../../b", PathRefusal::Dots),
            ("./a", PathRefusal::Dots),
            ("a//b", PathRefusal::Empty),
            ("a/", PathRefusal::Empty),
            ("a\nb", PathRefusal::Control),
            ("a\0b", PathRefusal::Control),
            (&long, PathRefusal::NameTooLong),
            (&deep, PathRefusal::TooDeep),
            (&longest, PathRefusal::TooLong),
            (".radix-partial/x", PathRefusal::Reserved),
        ];
        for (text, why) in cases {
            assert_eq!(RelPath::new(text), Err(why), "{text}");
        }
        assert_eq!(RelPath::from_bytes(b"a\xff"), Err(PathRefusal::NotUtf8));
    }

    #[test]
    fn paths_are_put_together_and_taken_apart() {
        let folder = RelPath::new("a/b").unwrap();
        let file = folder.join(&RelPath::new("c").unwrap()).unwrap();
        assert_eq!(file.as_str(), "a/b/c");
        assert_eq!(file.split(), Some((folder, "c")));
        assert_eq!(RelPath::ROOT.split(), None);
        assert_eq!(file.parts().count(), 3);
        assert_eq!(RelPath::ROOT.join(&file), Ok(file.clone()));
        assert_eq!(file.join(&RelPath::ROOT), Ok(file));
    }
}
