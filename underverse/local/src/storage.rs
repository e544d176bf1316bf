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
    ByteCount, EffectiveStorage, Exposed, StorageExposure, StorageId, StorageKind, Strength,
};

use crate::durable;
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
        let name = format!("radix-{}-{number}-{whose}.{ending}", self.horde);
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
pub(crate) fn change<T>(
    home: &Home,
    change: impl FnOnce(&mut Store) -> io::Result<T>,
) -> io::Result<T> {
    let root = home.storage();
    durable::create_dir(&root)?;
    let mut options = fs::OpenOptions::new();
    let lock = options
        .create(true)
        .truncate(false)
        .write(true)
        .open(root.join("lock"))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
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
pub(crate) fn allot(home: &Home, wanted: &Allotment, mode: u32) -> io::Result<()> {
    change(home, |store| {
        store.allotments.retain(|held| !held.same(wanted));
        store.allotments.push(wanted.clone());
        Ok(())
    })?;
    wanted.make(mode)
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
