//! Storage that an administrator offered and what is allotted of it: `storage/` in the state directory.
//!
//! ```text
//! storage/exposures.json     what is offered, with what was probed when it was
//!         allotments.json    what is allotted, to whom, and where it lies; the only account there is
//!         lock               held while either is changed
//! ```
//! An allotment is written down before it is made and after it is gone, so that a kill in between leaves none unknown.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use underverse::{
    ByteCount, EffectiveStorage, Error, Exposed, Kind, StorageExposure, StorageId, StorageKind,
    Strength,
};

use crate::durable;
use crate::execute::io_at;
use crate::label::rnode_label;
use crate::layout::Home;

/// The property of storage that all containers of a horde see alike.
pub(crate) const SHARED: &str = "shared";
/// Why the size of a file tree is not enforced.
pub(crate) const COUNTED: &str =
    "counted, not enforced: a directory grows until its file system is full";
/// Why nothing of a thin exposure is enforced.
pub(crate) const THIN: &str = "thin, size not enforced";

/// An offer as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exposure {
    pub(crate) server: String,
    pub(crate) source: String,
    pub(crate) bind: String,
    pub(crate) kind: Shape,
    pub(crate) tags: BTreeSet<String>,
    pub(crate) thin: bool,
    /// As probed, or less where the offer says so.
    pub(crate) capacity: u64,
}

/// The shape of storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Shape {
    FileTree,
    Volume,
}

impl From<StorageKind> for Shape {
    fn from(kind: StorageKind) -> Self {
        match kind {
            StorageKind::FileTree => Self::FileTree,
            StorageKind::Volume => Self::Volume,
        }
    }
}

impl Shape {
    /// How strongly sizes hold.
    pub(crate) fn size(self, thin: bool) -> Strength {
        match (thin, self) {
            (true, _) => Strength::Absent(THIN.to_owned()),
            (false, Self::FileTree) => Strength::Weak(COUNTED.to_owned()),
            (false, Self::Volume) => Strength::Enforced,
        }
    }
}

/// Storage given to one request of one container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Allotment {
    pub(crate) horde: String,
    pub(crate) id: String,
    /// `None`: shared by all.
    pub(crate) container: Option<u32>,
    pub(crate) server: String,
    pub(crate) source: String,
    pub(crate) kind: Shape,
    pub(crate) capacity: u64,
    pub(crate) thin: bool,
    /// The short id of the state directory, by which its name differs from those of others in one source; empty for
    /// what an older version allotted, which stays where it is.
    #[serde(default)]
    pub(crate) home: String,
}

impl Allotment {
    /// Whether both are the same storage, however large.
    pub(crate) fn same(&self, other: &Self) -> bool {
        let name = |one: &Self| (one.horde.clone(), one.id.clone(), one.container);
        name(self) == name(other)
    }

    /// Where it lies: a directory, or the file behind a volume.
    pub(crate) fn path(&self) -> PathBuf {
        let number = self.id.rsplit('/').next().unwrap_or_default();
        let whose = self
            .container
            .map_or_else(|| SHARED.to_owned(), rnode_label);
        let ending = match self.kind {
            Shape::FileTree => "tree",
            Shape::Volume => "volume",
        };
        let horde = &self.horde;
        let name = match self.home.as_str() {
            "" => format!("radix-{horde}-{number}-{whose}.{ending}"),
            home => format!("radix-{home}-{horde}-{number}-{whose}.{ending}"),
        };
        Path::new(&self.source).join(name)
    }

    pub(crate) fn effective(&self) -> EffectiveStorage {
        EffectiveStorage {
            id: StorageId::from_backend(self.id.clone()),
            container: self.container.map(rnode_label),
            server: self.server.clone(),
            source: self.source.clone(),
            capacity: ByteCount::bytes(self.capacity),
            size: self.kind.size(self.thin),
        }
    }

    /// Whether it lies where it should, at its size.
    pub(crate) fn is_made(&self) -> bool {
        let found = fs::metadata(self.path());
        match self.kind {
            Shape::FileTree => found.is_ok_and(|found| found.is_dir()),
            Shape::Volume => found.is_ok_and(|found| found.len() == self.capacity),
        }
    }

    /// Makes it as large as it should be; what it holds stays.
    fn make(&self, mode: u32) -> io::Result<()> {
        let path = self.path();
        match self.kind {
            Shape::FileTree => {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&path)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            }
            Shape::Volume => {
                let mut options = fs::OpenOptions::new();
                let options = options.create(true).truncate(false).write(true);
                let file = options.open(&path)?;
                if file.metadata()?.len() > self.capacity {
                    return Err(io::Error::other(
                        "a volume is not made smaller: what it holds would be cut",
                    ));
                }
                file.set_len(self.capacity)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o666))?;
                if self.thin {
                    return Ok(());
                }
                // What is promised is there: a file system that is full refuses now, not in the middle of a write.
                let mode = rustix::fs::FallocateFlags::empty();
                match rustix::fs::fallocate(&file, mode, 0, self.capacity) {
                    Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    fn remove(&self) -> io::Result<()> {
        match self.kind {
            Shape::FileTree => durable::remove_tree(&self.path()),
            Shape::Volume => match fs::remove_file(self.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        }
    }
}

/// Why storage is not allotted.
#[derive(Debug)]
pub(crate) enum NotAllotted {
    /// What was chosen has gone to another since, or is not exposed any more; nothing changed, and another pass chooses anew.
    Lost(String),
    /// It is written down, and may be made.
    Io(io::Error),
}

impl NotAllotted {
    /// The same as whoever asked for `wanted` hears it.
    pub(crate) fn of(self, wanted: &Allotment) -> Error {
        let (operation, path) = ("allot storage", wanted.path());
        let error = match self {
            Self::Io(error) => io_at(operation, &path)(error),
            Self::Lost(why) => {
                let message = format!(
                    "what was chosen has gone to another since: {why}; another pass chooses anew"
                );
                Error::new(Kind::Taken, operation, message).with("path", path.display())
            }
        };
        error.with("storage", &wanted.id)
    }
}

impl From<io::Error> for NotAllotted {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// All storage of a state directory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    pub(crate) exposures: Vec<Exposure>,
    pub(crate) allotments: Vec<Allotment>,
}

impl Store {
    pub(crate) fn read(home: &Home) -> io::Result<Self> {
        let exposures = durable::read_json(&home.storage().join("exposures.json"))?;
        let allotments = durable::read_json(&home.storage().join("allotments.json"))?;
        Ok(Self {
            exposures: exposures.unwrap_or_default(),
            allotments: allotments.unwrap_or_default(),
        })
    }

    /// The sum of what is allotted of an exposure.
    pub(crate) fn allotted(&self, exposure: &Exposure) -> u64 {
        let of = |one: &&Allotment| one.server == exposure.server && one.source == exposure.source;
        self.allotments
            .iter()
            .filter(of)
            .map(|one| one.capacity)
            .sum()
    }

    /// Whether there is room for `wanted`, which replaces `held`; what is held stays, whatever became of its exposure.
    fn check(&self, wanted: &Allotment, held: Option<&Allotment>) -> Result<(), NotAllotted> {
        let known = held.filter(|held| held.source == wanted.source);
        if known.is_some_and(|held| held.capacity >= wanted.capacity) {
            return Ok(());
        }
        let of = |one: &&Exposure| one.server == wanted.server && one.source == wanted.source;
        let Some(exposure) = self.exposures.iter().find(of) else {
            if known.is_some() {
                return Ok(());
            }
            let why = format!("{} is not exposed any more", wanted.source);
            return Err(NotAllotted::Lost(why));
        };
        let left = exposure.capacity.saturating_sub(self.allotted(exposure));
        if exposure.thin || wanted.capacity <= left {
            return Ok(());
        }
        let (source, capacity) = (&exposure.source, exposure.capacity);
        let why = format!("{left} of {capacity} bytes are left in {source}");
        Err(NotAllotted::Lost(why))
    }

    pub(crate) fn exposed(&self) -> Vec<Exposed> {
        let mut exposed: Vec<Exposed> = self
            .exposures
            .iter()
            .map(|one| Exposed {
                exposure: StorageExposure {
                    server: one.server.clone(),
                    source: one.source.clone(),
                    bind: one.bind.clone(),
                    kind: match one.kind {
                        Shape::FileTree => StorageKind::FileTree,
                        Shape::Volume => StorageKind::Volume,
                    },
                    tags: one.tags.clone(),
                    thin: one.thin,
                },
                capacity: ByteCount::bytes(one.capacity),
                allotted: ByteCount::bytes(self.allotted(one)),
                size: one.kind.size(one.thin),
            })
            .collect();
        exposed.sort_by(|a, b| {
            let place = |one: &Exposed| (one.exposure.server.clone(), one.exposure.source.clone());
            place(a).cmp(&place(b))
        });
        exposed
    }
}

/// Reads all, changes it and writes what has changed; one process at a time.
pub(crate) fn change<T, E: From<io::Error>>(
    home: &Home,
    change: impl FnOnce(&mut Store) -> Result<T, E>,
) -> Result<T, E> {
    let root = home.storage();
    durable::create_dir(&root)?;
    let mut options = fs::OpenOptions::new();
    let lock = options
        .create(true)
        .truncate(false)
        .write(true)
        .open(root.join("lock"))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(io::Error::from)?;
    let before = Store::read(home)?;
    let mut store = before.clone();
    let result = change(&mut store)?;
    if store.exposures != before.exposures {
        durable::write_json(&root.join("exposures.json"), &store.exposures)?;
    }
    if store.allotments != before.allotments {
        durable::write_json(&root.join("allotments.json"), &store.allotments)?;
    }
    Ok(result)
}

/// Allots: written down first, then made. What cannot be made stays written down and is made by the next pass.
///
/// # Errors
/// [`NotAllotted::Lost`] with nothing changed.
pub(crate) fn allot(home: &Home, wanted: &Allotment, mode: u32) -> Result<(), NotAllotted> {
    change(home, |store| {
        let held = store.allotments.iter().position(|held| held.same(wanted));
        let held = held.map(|at| store.allotments.remove(at));
        store.check(wanted, held.as_ref())?;
        store.allotments.push(wanted.clone());
        Ok::<_, NotAllotted>(())
    })?;
    wanted.make(mode).map_err(NotAllotted::Io)
}

/// Frees: removed first, then forgotten.
pub(crate) fn free(home: &Home, freed: &[Allotment]) -> io::Result<()> {
    freed.iter().try_for_each(Allotment::remove)?;
    change(home, |store| {
        store
            .allotments
            .retain(|held| !freed.iter().any(|one| one.same(held)));
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use underverse::Effect;

    use super::*;

    fn exposure(source: &Path, capacity: u64) -> Exposure {
        Exposure {
            server: "local".to_owned(),
            source: source.display().to_string(),
            bind: "dir".to_owned(),
            kind: Shape::FileTree,
            tags: BTreeSet::new(),
            thin: false,
            capacity,
        }
    }

    fn allotment(horde: &str, source: &Path, capacity: u64) -> Allotment {
        Allotment {
            horde: horde.to_owned(),
            id: format!("{horde}/storage/1"),
            container: Some(1),
            server: "local".to_owned(),
            source: source.display().to_string(),
            kind: Shape::FileTree,
            capacity,
            thin: false,
            home: "0a1b2c3d".to_owned(),
        }
    }

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("storage-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn what_was_given_to_another_since_it_was_chosen_is_not_given_twice() {
        let root = scratch("twice");
        let (home, disk) = (Home::new(root.join("home")), root.join("disk"));
        fs::create_dir_all(&disk).unwrap();
        let offer = |exposures| {
            change(&home, |store| {
                store.exposures = exposures;
                Ok::<_, io::Error>(())
            })
        };
        offer(vec![exposure(&disk, 100)]).unwrap();
        let allot = |horde, bytes| allot(&home, &allotment(horde, &disk, bytes), 0o700);
        // A conflict that changed nothing, so that the pass may be repeated.
        let lost = |result: Result<(), NotAllotted>| {
            let error = result.unwrap_err().of(&allotment("x", &disk, 1));
            assert_eq!(
                (error.kind(), error.what_changed()),
                (Kind::Taken, Effect::None)
            );
            error.to_string()
        };
        allot("a", 60).unwrap();
        assert!(lost(allot("b", 60)).contains("40 of 100 bytes are left"));
        allot("b", 40).unwrap();
        assert!(lost(allot("b", 41)).contains("40 of 100 bytes are left"));
        let held = |store: &Store| {
            let all = store.allotments.iter();
            all.map(|one| (one.horde.clone(), one.capacity))
                .collect::<BTreeSet<_>>()
        };
        let both = BTreeSet::from([("a".to_owned(), 60), ("b".to_owned(), 40)]);
        assert_eq!(held(&Store::read(&home).unwrap()), both);
        // What is held is made again, whatever became of the exposure; nothing new is.
        offer(Vec::new()).unwrap();
        allot("b", 40).unwrap();
        assert!(lost(allot("c", 1)).contains("is not exposed any more"));
        assert_eq!(held(&Store::read(&home).unwrap()), both);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn the_storage_of_two_state_directories_lies_apart_and_old_storage_where_it_was() {
        let disk = Path::new("/disk");
        let of = |home: &Path| Allotment {
            home: Home::new(home).short(),
            ..allotment("stix", disk, 1)
        };
        let (ours, theirs) = (of(Path::new("/a")), of(Path::new("/b")));
        assert_ne!(ours.path(), theirs.path());
        let mut old = serde_json::to_value(&ours).unwrap();
        old.as_object_mut().unwrap().remove("home");
        let old: Allotment = serde_json::from_value(old).unwrap();
        assert_eq!(old.path(), disk.join("radix-stix-1-n1.tree"));
        assert!(old.same(&ours));
    }
}
