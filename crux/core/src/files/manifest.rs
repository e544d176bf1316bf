//! What a file or folder consists of: names, modes, links, digests, in one canonical text.
//!
//! ```text
//! radix-manifest/1\n
//! d MODE PATH\n                      a folder; MODE is three octal digits
//! f MODE SIZE DIGEST PATH\n          a file
//! l TARGET_BYTES TARGET PATH\n       a symbolic link, kept and never followed
//! ```
//!
//! Lines ascend by path, each path once, the empty path (the thing itself) first; a folder stands
//! before what lies in it. Two trees are equal when their manifests are, so the manifest's digest
//! names the tree. See docs/formats/file-manifest.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::path::{PathRefusal, RelPath};
use crate::digest::Digest;

const VERSION_LINE: &str = "radix-manifest/1";
/// Entries that one manifest may have.
pub const ENTRIES_MAX: usize = 1_000_000;
/// Largest manifest, in bytes: a million entries with paths of ordinary length.
pub const MANIFEST_BYTES_MAX: usize = 256 << 20;
/// Longest target of a link, in bytes: what the kernel takes.
pub const TARGET_BYTES_MAX: usize = 4095;

/// One thing in a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A folder.
    Folder {
        /// Permission bits, at most 0o777.
        mode: u32,
    },
    /// A file.
    File {
        /// Permission bits, at most 0o777.
        mode: u32,
        /// Length in bytes.
        size: u64,
        /// Digest of the content.
        digest: Digest,
    },
    /// A symbolic link.
    Link {
        /// What it says, as it says it.
        target: String,
    },
}

/// Why a manifest was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is not of a version we know.
    #[error("read a manifest: it does not begin with `radix-manifest/1`")]
    Version,
    /// A line is none.
    #[error("read a manifest: line {0} is no entry")]
    Line(usize),
    /// A path may not be used.
    #[error("read a manifest: refuse the path of line {0}: {1}")]
    Path(usize, PathRefusal),
    /// The lines do not ascend, or what holds an entry is no folder.
    #[error("read a manifest: line {0} is out of its place")]
    Order(usize),
    /// It is too large.
    #[error("read a manifest: it has more than {ENTRIES_MAX} entries")]
    TooMany,
    /// Its files have more bytes than can be counted.
    #[error("read a manifest: its files have more than 2^63 bytes together")]
    TooLarge,
}

/// A checked manifest: every path stays below its root, everything lies in a folder that is listed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    entries: BTreeMap<RelPath, Entry>,
}

impl Manifest {
    /// Takes entries.
    ///
    /// # Errors
    /// [`ManifestError::Order`] with the position of an entry that lies in no listed folder.
    pub fn new(entries: BTreeMap<RelPath, Entry>) -> Result<Self, ManifestError> {
        if entries.len() > ENTRIES_MAX {
            return Err(ManifestError::TooMany);
        }
        for (index, (path, entry)) in entries.iter().enumerate() {
            placed(&entries, path, entry).map_err(|()| ManifestError::Order(index + 2))?;
        }
        Self { entries }.counted()
    }

    /// Reads the canonical text; any other text is refused.
    ///
    /// # Errors
    /// [`ManifestError`] with the line.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let mut lines = text.split_terminator('\n').enumerate();
        if lines.next().is_none_or(|(_, line)| line != VERSION_LINE) || !text.ends_with('\n') {
            return Err(ManifestError::Version);
        }
        let mut entries = BTreeMap::new();
        for (index, line) in lines {
            if entries.len() >= ENTRIES_MAX {
                return Err(ManifestError::TooMany);
            }
            let (path, entry) = parse_line(line).ok_or(ManifestError::Line(index + 1))?;
            let path =
                RelPath::new(path).map_err(|refusal| ManifestError::Path(index + 1, refusal))?;
            let ascends = entries
                .last_key_value()
                .is_none_or(|(last, _)| *last < path);
            if !ascends || placed(&entries, &path, &entry).is_err() {
                return Err(ManifestError::Order(index + 1));
            }
            entries.insert(path, entry);
        }
        Self { entries }.counted()
    }

    /// The same, if its bytes can be counted: whoever adds up sizes of some of its files need not look.
    fn counted(self) -> Result<Self, ManifestError> {
        let add = |sum: u64, (_, size, _): (&RelPath, u64, Digest)| sum.checked_add(size);
        let sum = self.files().try_fold(0, add);
        match sum {
            Some(bytes) if i64::try_from(bytes).is_ok() => Ok(self),
            _ => Err(ManifestError::TooLarge),
        }
    }

    /// The canonical text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{VERSION_LINE}\n");
        for (path, entry) in &self.entries {
            let path = path.as_str();
            let written = match entry {
                Entry::Folder { mode } => writeln!(text, "d {mode:03o} {path}"),
                Entry::File { mode, size, digest } => {
                    writeln!(text, "f {mode:03o} {size} {digest} {path}")
                }
                Entry::Link { target } => writeln!(text, "l {} {target} {path}", target.len()),
            };
            // Writing into a string cannot fail.
            debug_assert!(written.is_ok());
        }
        text
    }

    /// Its entries, ascending by path.
    #[must_use]
    pub const fn entries(&self) -> &BTreeMap<RelPath, Entry> {
        &self.entries
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files().map(|(_, size, _)| size).sum()
    }

    /// Path, size and digest of every file.
    pub fn files(&self) -> impl Iterator<Item = (&RelPath, u64, Digest)> {
        self.entries.iter().filter_map(|(path, entry)| match entry {
            Entry::File { size, digest, .. } => Some((path, *size, *digest)),
            Entry::Folder { .. } | Entry::Link { .. } => None,
        })
    }
}

/// Whether an entry lies in a folder that is listed, or is the thing itself.
fn placed(entries: &BTreeMap<RelPath, Entry>, path: &RelPath, entry: &Entry) -> Result<(), ()> {
    if let Entry::Link { target } = entry
        && (target.is_empty() || target.len() > TARGET_BYTES_MAX || target.contains(['\0', '\n']))
    {
        return Err(());
    }
    let Some((folder, _)) = path.split() else {
        return Ok(());
    };
    match entries.get(&folder) {
        Some(Entry::Folder { .. }) => Ok(()),
        Some(Entry::File { .. } | Entry::Link { .. }) | None => Err(()),
    }
}

fn parse_line(line: &str) -> Option<(&str, Entry)> {
    let (kind, rest) = line.split_once(' ')?;
    match kind {
        "d" => {
            let (mode, path) = rest.split_once(' ')?;
            Some((path, Entry::Folder { mode: octal(mode)? }))
        }
        "f" => {
            let mut parts = rest.splitn(4, ' ');
            let mode = octal(parts.next()?)?;
            let size = decimal(parts.next()?)?;
            let digest = lower_hex(parts.next()?)?;
            Some((parts.next()?, Entry::File { mode, size, digest }))
        }
        "l" => {
            let (length, rest) = rest.split_once(' ')?;
            let length = usize::try_from(decimal(length)?).ok()?;
            let (target, path) = (rest.get(..length)?, rest.get(length..)?);
            let target = target.to_owned();
            Some((path.strip_prefix(' ')?, Entry::Link { target }))
        }
        _ => None,
    }
}

fn octal(text: &str) -> Option<u32> {
    let digits = text.len() == 3 && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    digits.then(|| u32::from_str_radix(text, 8).ok())?
}

fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    (canonical && digits).then(|| text.parse().ok())?
}

fn lower_hex(text: &str) -> Option<Digest> {
    let digest: Digest = text.parse().ok()?;
    (digest.to_string() == text).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    fn tree() -> Manifest {
        let file = |bytes: &[u8], mode| Entry::File {
            mode,
            size: bytes.len() as u64,
            digest: Digest::of(bytes),
        };
        Manifest::new(BTreeMap::from([
            (RelPath::ROOT, Entry::Folder { mode: 0o755 }),
            (path("a b"), file(b"one", 0o644)),
            (path("bin"), Entry::Folder { mode: 0o700 }),
            (path("bin/run"), file(b"two", 0o755)),
            (
                path("bin/up"),
                Entry::Link {
                    target: "../a b".to_owned(),
                },
            ),
        ]))
        .unwrap()
    }

    #[test]
    fn sizes_that_cannot_be_added_up_are_refused() {
        let digest = Digest::of(b"x");
        let text = |size: u64| {
            let file = |name| format!("f 644 {size} {digest} {name}\n");
            format!("{VERSION_LINE}\nd 755 \n{}{}", file("a"), file("b"))
        };
        assert!(Manifest::parse(&text(1 << 61)).is_ok());
        for size in [1 << 62, 1 << 63, u64::MAX] {
            let refused = Manifest::parse(&text(size));
            assert_eq!(refused, Err(ManifestError::TooLarge), "{size}");
        }
    }

    #[test]
    fn a_manifest_reads_back_what_it_prints() {
        let text = tree().text();
        assert_eq!(Manifest::parse(&text), Ok(tree()), "{text}");
        assert_eq!(tree().bytes(), 6);
        assert_eq!(tree().files().count(), 2);
    }

    #[test]
    fn a_manifest_that_is_not_canonical_is_refused() {
        let check = |text: &str, error: ManifestError| {
            assert_eq!(Manifest::parse(text), Err(error), "{text}");
        };
        let with = |line: &str| format!("radix-manifest/1\nd 755 \n{line}\n");
        check("", ManifestError::Version);
        check("radix-manifest/2\n", ManifestError::Version);
        check(&with("x 755 a"), ManifestError::Line(3));
        check(&with("d 0755 a"), ManifestError::Line(3));
        check(&with("d 799 a"), ManifestError::Line(3));
        check(&with("l 9 a b"), ManifestError::Line(3));
        let digest = Digest::of(b"");
        check(
            &with(&format!("f 644 00 {digest} a")),
            ManifestError::Line(3),
        );
        check(
            &with("d 755 ../a"),
            ManifestError::Path(3, PathRefusal::Dots),
        );
        check(
            &with("d 755 /a"),
            ManifestError::Path(3, PathRefusal::Absolute),
        );
        check(&with("d 755 b/c"), ManifestError::Order(3));
        check(&with("d 755 b\nd 755 a"), ManifestError::Order(4));
        check(&with("l 1 x b\nd 755 b/c"), ManifestError::Order(4));
        check(&with("d 755 b\nd 755 b"), ManifestError::Order(4));
    }
}
