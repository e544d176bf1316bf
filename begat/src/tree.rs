//! The user's files: what a pattern matches, and what the files hold.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use begat_core::glob;
use crux_core::digest::Digest;
use crux_net::boundary::{Kind as Boundary, cross_file};
use crux_net::store::{StatKey, hash};

use crate::error::{Error, Kind};

/// Files that one pattern may match.
const MATCHES_MAX: usize = 200_000;
/// Folders below each other that `**` goes down.
const DEPTH_MAX: usize = 64;
/// Age that a file's last change must have before its digest is remembered: within it, a second
/// change might leave the same [`StatKey`] (clocks tick every few milliseconds; 2 s is ample).
const SETTLED_AFTER_NS: i128 = 2_000_000_000;
/// First line of the file of remembered digests.
const VERSION_LINE: &str = "begat-stat/1";
/// Largest file of remembered digests that is read.
const REMEMBERED_BYTES_MAX: u64 = 256 << 20;
/// A folder with this file in it is a cache, and no pattern goes into it unless it names it.
const CACHE_TAG: &str = "CACHEDIR.TAG";

/// The tree whose files dictums read, with the digests remembered from earlier builds.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    remembered_in: PathBuf,
    remembered: Mutex<Remembered>,
}

#[derive(Debug, Default)]
struct Remembered {
    digests: HashMap<PathBuf, (StatKey, Digest)>,
    changed: bool,
}

/// A source file as it was when it was looked at.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Relative to the root.
    pub(crate) name: String,
    path: PathBuf,
    key: StatKey,
    pub(crate) digest: Digest,
    pub(crate) executable: bool,
}

impl Tree {
    /// Opens the tree at `root`; digests are remembered in a file of `cache`.
    ///
    /// # Errors
    /// If `root` is no directory.
    pub fn open(root: &Path, cache: &Path) -> Result<Self, Error> {
        let root = root
            .canonicalize()
            .map_err(|source| Error::io("open", root, source))?;
        let name = Digest::of(root.as_os_str().as_encoded_bytes()).short();
        let remembered_in = cache.join(format!("stat-{name}"));
        let remembered = Mutex::new(read_remembered(&remembered_in));
        Ok(Self {
            root,
            remembered_in,
            remembered,
        })
    }

    /// Its root, without symbolic links.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The files that `pattern` matches, bytewise sorted, relative to the root.
    ///
    /// A pattern without `*` and `?` matches the file of that name. Symbolic links to folders are
    /// not followed by `**`; names with a leading dot and caches are passed over.
    ///
    /// # Errors
    /// A folder that cannot be read, more matches than begat takes, a name that is not text.
    pub fn matches(&self, pattern: &str) -> Result<Vec<String>, Error> {
        if !glob::is_glob(pattern) {
            let found = fs::metadata(self.root.join(pattern)).is_ok_and(|found| found.is_file());
            return Ok(if found {
                vec![pattern.to_owned()]
            } else {
                Vec::new()
            });
        }
        let (folder, rest) = glob::split(pattern);
        let rest: Vec<&str> = rest.split('/').collect();
        let mut walk = Walk {
            tree: self,
            seen: HashSet::new(),
            found: BTreeSet::new(),
        };
        walk.folder(&folder, &rest, 0)?;
        Ok(walk.found.into_iter().collect())
    }

    /// Names in a folder, each with whether it is a folder itself; none if there is no such folder.
    fn names(&self, folder: &str) -> Result<Vec<(String, bool)>, Error> {
        let path = self.root.join(folder);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(Error::io("list", &path, source)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| Error::io("list", &path, source))?;
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if let Ok(name) = entry.file_name().into_string() {
                names.push((name, is_folder));
            }
        }
        Ok(names)
    }

    /// Looks at a source file: its digest, from memory if it has not been touched since.
    pub(crate) fn see(&self, path: &str) -> Result<Seen, Error> {
        let full = self.root.join(path);
        let failed = |source| Error::io("read", &full, source);
        let mut file = fs::File::open(&full).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let key = StatKey::of(&metadata);
        let executable = {
            use std::os::unix::fs::PermissionsExt;
            metadata.permissions().mode() & 0o111 != 0
        };
        let known = self.lock().digests.get(&full).copied();
        if let Some((_, digest)) = known.filter(|(before, _)| *before == key) {
            return Ok(Seen {
                name: path.to_owned(),
                path: full,
                key,
                digest,
                executable,
            });
        }
        let now = now_ns();
        let digest = hash(&mut file).map_err(failed)?;
        if now - key.ctime_ns.max(key.mtime_ns) > SETTLED_AFTER_NS {
            let mut remembered = self.lock();
            remembered.digests.insert(full.clone(), (key, digest));
            remembered.changed = true;
        }
        Ok(Seen {
            name: path.to_owned(),
            path: full,
            key,
            digest,
            executable,
        })
    }

    /// Writes down the digests for the next build; a failure costs that build time, nothing else.
    pub(crate) fn remember(&self) {
        let remembered = self.lock();
        if remembered.changed {
            let _ = write_remembered(&self.remembered_in, &remembered.digests);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// One pattern's way through the tree.
struct Walk<'a> {
    tree: &'a Tree,
    /// Folders looked at, with how much of the pattern was left: several `**` meet them again.
    seen: HashSet<(String, usize)>,
    found: BTreeSet<String>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &str, rest: &[&str], depth: usize) -> Result<(), Error> {
        let Some((part, after)) = rest.split_first() else {
            return Ok(());
        };
        if !self.seen.insert((folder.to_owned(), rest.len())) {
            return Ok(());
        }
        if depth > DEPTH_MAX {
            return Err(Error::new(
                Kind::TooLarge,
                format!("look into {folder}: it is too deep"),
            ));
        }
        if !glob::is_glob(part) {
            let path = joined(folder, part);
            return match after.is_empty() {
                true => self.file(path),
                false => self.folder(&path, after, depth + 1),
            };
        }
        let deep = *part == "**";
        if deep && !after.is_empty() {
            self.folder(folder, after, depth)?;
        }
        for (name, is_folder) in self.tree.names(folder)? {
            let path = joined(folder, &name);
            let matched = glob::name_matches(part, &name);
            if is_folder && matched {
                let rest = if deep { rest } else { after };
                if !(rest.is_empty() || self.tree.root.join(&path).join(CACHE_TAG).exists()) {
                    self.folder(&path, rest, depth + 1)?;
                }
            } else if matched && after.is_empty() {
                self.file(path)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: String) -> Result<(), Error> {
        if self.found.len() >= MATCHES_MAX {
            let message = format!("match files: there are more than {MATCHES_MAX}");
            return Err(Error::new(Kind::TooLarge, message));
        }
        if fs::metadata(self.tree.root.join(&path)).is_ok_and(|found| found.is_file()) {
            self.found.insert(path);
        }
        Ok(())
    }
}

impl Seen {
    /// Whether the file has not been touched since it was looked at.
    pub(crate) fn holds(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| StatKey::of(&metadata) == self.key)
    }
}

fn joined(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

fn now_ns() -> i128 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i128::try_from(now.as_nanos()).unwrap_or(i128::MAX)
}

/// Whatever cannot be read is not remembered: the files are hashed again.
fn read_remembered(path: &Path) -> Remembered {
    let mut remembered = Remembered::default();
    let small = fs::metadata(path).is_ok_and(|found| found.len() <= REMEMBERED_BYTES_MAX);
    let Some(text) = small.then(|| fs::read_to_string(path).ok()).flatten() else {
        return remembered;
    };
    let mut lines = text.lines();
    if lines.next() != Some(VERSION_LINE) {
        return remembered;
    }
    for line in lines {
        if let Some((path, entry)) = read_line(line) {
            remembered.digests.insert(path, entry);
        }
    }
    remembered
}

fn read_line(line: &str) -> Option<(PathBuf, (StatKey, Digest))> {
    let mut words = line.splitn(7, ' ');
    let mut number = || words.next()?.parse::<i128>().ok();
    let (dev, ino, size) = (number()?, number()?, number()?);
    let (mtime_ns, ctime_ns) = (number()?, number()?);
    let digest = words.next()?.parse().ok()?;
    let key = StatKey {
        dev: u64::try_from(dev).ok()?,
        ino: u64::try_from(ino).ok()?,
        size: u64::try_from(size).ok()?,
        mtime_ns,
        ctime_ns,
    };
    Some((PathBuf::from(words.next()?), (key, digest)))
}

fn write_remembered(
    path: &Path,
    digests: &HashMap<PathBuf, (StatKey, Digest)>,
) -> std::io::Result<()> {
    let sorted: BTreeMap<_, _> = digests.iter().collect();
    let mut text = format!("{VERSION_LINE}\n");
    for (path, (key, digest)) in sorted {
        // A name that is not one line of text is not remembered.
        let Some(path) = path.to_str().filter(|path| !path.contains('\n')) else {
            continue;
        };
        let StatKey {
            dev,
            ino,
            size,
            mtime_ns,
            ctime_ns,
        } = key;
        text.push_str(&format!(
            "{dev} {ino} {size} {mtime_ns} {ctime_ns} {digest} {path}\n"
        ));
    }
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = fs::File::create(&beside)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| {
        cross_file(Boundary::Rename, path);
        fs::rename(&beside, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}
