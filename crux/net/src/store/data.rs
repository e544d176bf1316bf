//! Data files and data sets by name: what was registered, of what it consists, and each part's hash.
//!
//! A *data file* is the smallest thing with a name: a file, or a stream of bytes behind a URL. A
//! *data set* is a named collection: a tarball, a pouch (a folder with all in it), or a chunk that
//! can be mounted as a file system. Every part is in the store under its digest; the names lie in
//! `DIR/data`, one JSON file each. Two versions of a name are two digests: registering a name again
//! points it elsewhere, and the older parts stay addressable until they are removed from the store.
//!
//! Not for deciding who may have what: that is fileio's. Nothing here promises that a change on one
//! rnode is seen on another; that belongs to the storage service.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crux_core::digest::Digest;
use serde::{Deserialize, Serialize};

use super::{Error, Put, Store, open_regular};
use crate::durable;

/// Members that one data set may have.
const MEMBERS_MAX: usize = 100_000;
/// Folders below each other in a pouch.
const DEPTH_MAX: usize = 64;
/// Largest description of a data set that is read, in bytes.
const DESCRIPTION_BYTES_MAX: u64 = 64 << 20;
/// Longest name of a data file or set, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// What marks a file system, where in an image, and what it is called.
const FILE_SYSTEMS: [(u64, &[u8], &str); 4] = [
    (0, b"hsqs", "squashfs"),
    (1080, &[0x53, 0xEF], "ext"),
    (32_769, b"CD001", "iso9660"),
    (0, b"XFSB", "xfs"),
];

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// A file.
    File,
    /// A stream of bytes behind a URL.
    Stream,
    /// A tar archive: its members are the files in it, the archive itself is kept as it is.
    Tarball,
    /// A folder with all in it.
    Pouch,
    /// An image that can be mounted as a file system.
    Chunk,
}

/// Where the bytes come from.
pub enum Origin<'a> {
    /// A file on this machine.
    File(&'a Path),
    /// A stream that somebody has opened; nothing here speaks to the network.
    Stream {
        /// What it is identified by.
        url: &'a str,
        /// Its bytes.
        reader: &'a mut dyn Read,
    },
    /// An uncompressed tar archive.
    Tarball(&'a Path),
    /// A folder.
    Pouch(&'a Path),
    /// An image of a file system: squashfs, ext, iso9660 or xfs.
    Chunk(&'a Path),
}

impl fmt::Debug for Origin<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream { url, .. } => write!(formatter, "Stream({url})"),
            Self::File(path) => write!(formatter, "File({})", path.display()),
            Self::Tarball(path) => write!(formatter, "Tarball({})", path.display()),
            Self::Pouch(path) => write!(formatter, "Pouch({})", path.display()),
            Self::Chunk(path) => write!(formatter, "Chunk({})", path.display()),
        }
    }
}

/// One file of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Path within the set; of a data file its name or URL; of a chunk the file system's kind.
    pub path: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// A named data file or data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataSet {
    /// Its name.
    pub name: String,
    /// What it is.
    pub form: Form,
    /// Digest of the whole: of the file, stream, archive or image; of a pouch that of its list.
    pub digest: Digest,
    /// Its members, ascending by path; a data file and a chunk have one.
    pub members: Vec<Member>,
}

/// The names of a store.
#[derive(Debug)]
pub struct Catalogue<'a> {
    store: &'a Store,
    dir: PathBuf,
}

impl<'a> Catalogue<'a> {
    /// Opens the names of `store`.
    ///
    /// # Errors
    /// If their directory cannot be made.
    pub fn open(store: &'a Store) -> Result<Self, Error> {
        let dir = store.dir().join("data");
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir);
        made.map_err(|source| Error::io("make", &dir, source))?;
        Ok(Self { store, dir })
    }

    /// Takes in everything at `origin` and lets `name` stand for it, in place of what it stood for.
    ///
    /// # Errors
    /// As [`Store::put_file`]; [`super::Kind::Format`] for a bad name, an archive that cannot be
    /// read, or an image that is no known file system. The name stands for what it did before.
    pub fn register(&self, name: &str, origin: Origin<'_>) -> Result<DataSet, Error> {
        if !is_name(name) {
            return Err(Error::format(&format!("`{name}` is no name of data")));
        }
        let (form, digest, mut members) = match origin {
            Origin::File(path) => self.file(path)?,
            Origin::Stream { url, reader } => self.stream(url, reader)?,
            Origin::Tarball(path) => self.tarball(path)?,
            Origin::Pouch(path) => self.pouch(path)?,
            Origin::Chunk(path) => self.chunk(path)?,
        };
        members.sort_by(|one, other| one.path.cmp(&other.path));
        let set = DataSet {
            name: name.to_owned(),
            form,
            digest,
            members,
        };
        self.write(&set)?;
        Ok(set)
    }

    /// What `name` stands for, `None` if nothing.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<DataSet> {
        is_name(name).then(|| self.read(name)).flatten()
    }

    /// Everything that has a name, ascending by name; what cannot be read is passed over.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn list(&self) -> Result<Vec<DataSet>, Error> {
        let mut names = super::names(&self.dir)?;
        names.sort_unstable();
        Ok(names
            .iter()
            .filter_map(|name| self.read(name.strip_suffix(".json")?))
            .collect())
    }

    /// Forgets a name; its parts stay in the store. Says whether it stood for anything.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn forget(&self, name: &str) -> Result<bool, Error> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(Error::io("remove", &path, source)),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }

    fn file(&self, path: &Path) -> Result<Parts, Error> {
        let info = self.store.put_file(path)?;
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let path = name.unwrap_or_default();
        let member = Member {
            path,
            digest: info.digest,
            size: info.size,
        };
        Ok((Form::File, info.digest, vec![member]))
    }

    fn stream(&self, url: &str, reader: &mut dyn Read) -> Result<Parts, Error> {
        let info = self.store.put_reader(reader, Put::default())?;
        let member = Member {
            path: url.to_owned(),
            digest: info.digest,
            size: info.size,
        };
        Ok((Form::Stream, info.digest, vec![member]))
    }

    fn chunk(&self, path: &Path) -> Result<Parts, Error> {
        let mut image = open_regular(path)?;
        let Some(kind) = file_system(&mut image) else {
            return Err(Error::format(&format!(
                "{} is no known file system",
                path.display()
            )));
        };
        let info = self.store.put_file(path)?;
        let member = Member {
            path: kind.to_owned(),
            digest: info.digest,
            size: info.size,
        };
        Ok((Form::Chunk, info.digest, vec![member]))
    }

    fn tarball(&self, path: &Path) -> Result<Parts, Error> {
        let whole = self.store.put_file(path)?;
        let (archive, _) = self.store.open_verified(&whole.digest)?;
        let bad = |source| Error::io("read the archive", path, source);
        let mut archive = tar::Archive::new(archive);
        let mut members = Vec::new();
        for entry in archive.entries().map_err(bad)? {
            let mut entry = entry.map_err(bad)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let executable = entry.header().mode().map_err(bad)? & 0o111 != 0;
            let inside = entry.path().map_err(bad)?.to_string_lossy().into_owned();
            let put = Put {
                executable,
                ..Put::default()
            };
            let info = self.store.put_reader(&mut entry, put)?;
            add(
                &mut members,
                Member {
                    path: inside,
                    digest: info.digest,
                    size: info.size,
                },
            )?;
        }
        Ok((Form::Tarball, whole.digest, members))
    }

    fn pouch(&self, path: &Path) -> Result<Parts, Error> {
        let mut members = Vec::new();
        self.folder(path, "", 0, &mut members)?;
        members.sort_by(|one, other| one.path.cmp(&other.path));
        let mut list = String::from("radix-pouch/1\n");
        for Member { path, digest, size } in &members {
            list.push_str(&format!("{digest} {size} {}\n", path.escape_default()));
        }
        let whole = self.store.put_bytes(list.as_bytes())?;
        Ok((Form::Pouch, whole.digest, members))
    }

    /// Takes in every file below `folder`; links and devices are no part of a pouch.
    fn folder(
        &self,
        root: &Path,
        folder: &str,
        depth: usize,
        members: &mut Vec<Member>,
    ) -> Result<(), Error> {
        let path = root.join(folder);
        if depth > DEPTH_MAX {
            return Err(Error::format(&format!("{} is too deep", path.display())));
        }
        for name in super::names(&path)? {
            let below = if folder.is_empty() {
                name
            } else {
                format!("{folder}/{name}")
            };
            let full = root.join(&below);
            let found = fs::symlink_metadata(&full);
            let kind = found
                .map_err(|source| Error::io("inspect", &full, source))?
                .file_type();
            if kind.is_dir() {
                self.folder(root, &below, depth + 1, members)?;
            } else if kind.is_file() {
                let info = self.store.put_file(&full)?;
                add(
                    members,
                    Member {
                        path: below,
                        digest: info.digest,
                        size: info.size,
                    },
                )?;
            }
        }
        Ok(())
    }

    /// Writes the description whole or not at all.
    fn write(&self, set: &DataSet) -> Result<(), Error> {
        let path = self.path(&set.name);
        let failed = |source| Error::io("write", &path, source);
        let text = serde_json::to_vec_pretty(&Twin::from(set)).map_err(io::Error::other);
        let text = text.map_err(failed)?;
        durable::replace(&path, &text).map_err(failed)
    }

    fn read(&self, name: &str) -> Option<DataSet> {
        let path = self.path(name);
        let small = fs::metadata(&path).ok()?.len() <= DESCRIPTION_BYTES_MAX;
        let bytes = small.then(|| fs::read(&path).ok()).flatten()?;
        let twin: Twin = serde_json::from_slice(&bytes).ok()?;
        twin.check(name)
    }
}

/// Form, digest of the whole, members.
type Parts = (Form, Digest, Vec<Member>);

fn add(members: &mut Vec<Member>, member: Member) -> Result<(), Error> {
    if members.len() >= MEMBERS_MAX {
        return Err(Error::format(&format!(
            "it has more than {MEMBERS_MAX} members"
        )));
    }
    members.push(member);
    Ok(())
}

/// Letters, digits, `.`, `_` and `-`; never hidden, so that what is half written is no name.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('.')
        && name.bytes().all(plain)
}

fn file_system(image: &mut File) -> Option<&'static str> {
    FILE_SYSTEMS.iter().find_map(|(offset, mark, kind)| {
        let mut found = vec![0; mark.len()];
        image.seek(SeekFrom::Start(*offset)).ok()?;
        image.read_exact(&mut found).ok()?;
        (found == *mark).then_some(*kind)
    })
}

#[derive(Serialize, Deserialize)]
struct Twin {
    format: String,
    name: String,
    form: Form,
    digest: String,
    members: Vec<MemberTwin>,
}

#[derive(Serialize, Deserialize)]
struct MemberTwin {
    path: String,
    digest: String,
    size: u64,
}

const FORMAT: &str = "radix-data/1";

impl From<&DataSet> for Twin {
    fn from(set: &DataSet) -> Self {
        let member = |member: &Member| MemberTwin {
            path: member.path.clone(),
            digest: member.digest.to_string(),
            size: member.size,
        };
        Self {
            format: FORMAT.to_owned(),
            name: set.name.clone(),
            form: set.form,
            digest: set.digest.to_string(),
            members: set.members.iter().map(member).collect(),
        }
    }
}

impl Twin {
    fn check(self, name: &str) -> Option<DataSet> {
        let member = |twin: MemberTwin| {
            let digest = twin.digest.parse().ok()?;
            Some(Member {
                path: twin.path,
                digest,
                size: twin.size,
            })
        };
        let known = self.format == FORMAT && self.name == name;
        let digest = self.digest.parse().ok().filter(|_| known)?;
        let members = self
            .members
            .into_iter()
            .map(member)
            .collect::<Option<Vec<_>>>()?;
        Some(DataSet {
            name: self.name,
            form: self.form,
            digest,
            members,
        })
    }
}
