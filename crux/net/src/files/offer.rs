//! The giving side: what a path consists of, and its parts on request.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crux_core::digest::{Digest, GROUP_BYTES, Groups, SEAL_BYTES};
use crux_core::files::manifest::{ENTRIES_MAX, Entry, Manifest};
use crux_core::files::path::{RelPath, STAGING};
use crux_wire::fileio::v1::{Piece, Range, Want};
use rustix::fs::{FileType, Stat};

use super::cache::HashCache;
use super::error::{Error, Kind};
use super::folders::Folders;
use super::root::{Root, file_type, open_file, stat_in, stat_key};
use crate::store::StatKey;

/// Bytes of seals in one message: well below what a gRPC message may have.
const SEALS_PAGE_BYTES: usize = 1 << 20;
/// Bytes of a file in one message: whole groups, and the whole of a small file.
pub(crate) const PIECE_BYTES: u64 = 64 * 1024;
/// Permission bits that are copied.
const MODE_BITS: u32 = 0o777;

/// What to do with a file that has other hard links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HardLinks {
    /// Refuse it: its other name may lie outside the root, put there by somebody else.
    Refuse,
    /// Copy it as a file of its own: for a person's own files.
    AsFiles,
}

/// A file or folder that was walked and hashed.
#[derive(Debug)]
pub struct Offered {
    root: Arc<Root>,
    base: RelPath,
    /// The name of the thing itself, without its folder; empty for a whole root.
    name: String,
    manifest: Manifest,
    text: Arc<str>,
    digest: Digest,
    files: HashMap<RelPath, (StatKey, Arc<Groups>)>,
}

/// Walks and hashes what lies at `base`. Blocks: call it off the runtime.
///
/// # Errors
/// [`Kind::Refused`] naming the first thing that may not be copied, [`Kind::NotFound`],
/// [`Kind::Denied`], [`Kind::Io`].
pub fn offer(
    root: Arc<Root>,
    base: &RelPath,
    links: HardLinks,
    cache: &HashCache,
) -> Result<Offered, Error> {
    let stat = root.stat(base)?.ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            format!("copy {base}: there is no such file"),
        )
    })?;
    let mut walk = Walk {
        links,
        cache,
        entries: BTreeMap::new(),
        files: HashMap::new(),
    };
    match base.split() {
        None => walk.folder(&root.folder(base)?, base, &RelPath::ROOT, &stat)?,
        Some((folder, name)) => {
            let folder = root.folder(&folder)?;
            walk.entry(&Found {
                folder: &folder,
                name,
                shown: base,
                at: &RelPath::ROOT,
                stat: &stat,
            })?;
        }
    }
    let manifest =
        Manifest::new(walk.entries).map_err(|error| Error::refused(base, &error.to_string()))?;
    let text: Arc<str> = manifest.text().into();
    Ok(Offered {
        digest: Digest::of(text.as_bytes()),
        name: base
            .split()
            .map_or(String::new(), |(_, name)| name.to_owned()),
        base: base.clone(),
        files: walk.files,
        root,
        manifest,
        text,
    })
}

struct Walk<'a> {
    links: HardLinks,
    cache: &'a HashCache,
    entries: BTreeMap<RelPath, Entry>,
    files: HashMap<RelPath, (StatKey, Arc<Groups>)>,
}

/// What stands at `name` in `folder`: `shown` from the root, `at` within the manifest.
struct Found<'a> {
    folder: &'a OwnedFd,
    name: &'a str,
    shown: &'a RelPath,
    at: &'a RelPath,
    stat: &'a Stat,
}

impl Walk<'_> {
    fn entry(&mut self, found: &Found<'_>) -> Result<(), Error> {
        let Found {
            folder,
            name,
            shown,
            at,
            stat,
        } = *found;
        if self.entries.len() >= ENTRIES_MAX {
            return Err(Error::refused(shown, "it has too many entries"));
        }
        let entry = match file_type(stat) {
            FileType::Directory => {
                let flags = rustix::fs::OFlags::DIRECTORY
                    | rustix::fs::OFlags::NOFOLLOW
                    | rustix::fs::OFlags::CLOEXEC;
                let below = rustix::fs::openat(folder, name, flags, rustix::fs::Mode::empty())
                    .map_err(|errno| Error::io("open", shown, errno))?;
                return self.folder(&below, shown, at, stat);
            }
            FileType::RegularFile => self.file(found)?,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(folder, name, Vec::new())
                    .map_err(|errno| Error::io("read the link", shown, errno))?;
                let target = target
                    .into_string()
                    .map_err(|_| Error::refused(shown, "its target is not UTF-8"))?;
                Entry::Link { target }
            }
            _ => return Err(Error::refused(shown, "it is a device, pipe or socket")),
        };
        self.entries.insert(at.clone(), entry);
        Ok(())
    }

    fn folder(
        &mut self,
        folder: &OwnedFd,
        shown: &RelPath,
        at: &RelPath,
        stat: &Stat,
    ) -> Result<(), Error> {
        let mode = stat.st_mode & MODE_BITS;
        self.entries.insert(at.clone(), Entry::Folder { mode });
        let listing =
            rustix::fs::Dir::read_from(folder).map_err(|errno| Error::io("list", shown, errno))?;
        for found in listing {
            let found = found.map_err(|errno| Error::io("list", shown, errno))?;
            let name = found.file_name().to_bytes();
            if name == b"." || name == b".." || name == STAGING.as_bytes() {
                continue;
            }
            let named = RelPath::from_bytes(name).map_err(|refusal| {
                let text = format!("{shown}/{}", String::from_utf8_lossy(name));
                Error::path(&text, refusal)
            })?;
            let below = |path: &RelPath| {
                path.join(&named)
                    .map_err(|refusal| Error::path(&format!("{path}/{named}"), refusal))
            };
            let (shown, at) = (below(shown)?, below(at)?);
            // Gone since it was listed: the folder is as if it had been listed now.
            if let Some(stat) = stat_in(folder, named.as_str(), &shown)? {
                self.entry(&Found {
                    folder,
                    name: named.as_str(),
                    shown: &shown,
                    at: &at,
                    stat: &stat,
                })?;
            }
        }
        Ok(())
    }

    fn file(&mut self, found: &Found<'_>) -> Result<Entry, Error> {
        let Found {
            folder,
            name,
            shown,
            at,
            stat,
        } = *found;
        if stat.st_nlink > 1 && self.links == HardLinks::Refuse {
            return Err(Error::refused(shown, "it has other hard links"));
        }
        let key = stat_key(stat);
        let (key, groups) = match self.cache.find(&key) {
            Some(groups) => (key, groups),
            None => {
                let mut file = open_file(folder, name, shown)?;
                self.cache
                    .hash(&mut file)
                    .map_err(|error| Error::io("read", shown, error))?
            }
        };
        let entry = Entry::File {
            mode: stat.st_mode & MODE_BITS,
            size: groups.size(),
            digest: groups.digest(),
        };
        self.files.insert(at.clone(), (key, groups));
        Ok(entry)
    }
}

impl Offered {
    /// The name of the thing itself; empty for a whole root.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The root it lies in, which is open as long as this lives.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// What it consists of.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest's text.
    #[must_use]
    pub fn text(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }

    /// The manifest's digest, by which the tree is known.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Whether it is a folder.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        matches!(
            self.manifest.entries().get(&RelPath::ROOT),
            Some(Entry::Folder { .. })
        )
    }

    /// Gives what is asked for, piece by piece; stops when `send` says that nobody listens.
    /// What cannot be given is said in a piece. Blocks: call it off the runtime.
    pub fn give(&self, wants: &[Want], send: &mut dyn FnMut(Piece) -> bool) {
        let mut folders = Folders::new(&self.root);
        for (index, want) in (0..).zip(wants) {
            if let Err(error) = self.try_give(&mut folders, index, want, send) {
                send(Piece {
                    want: index,
                    refused: error.to_string(),
                    ..Piece::default()
                });
            }
        }
    }

    fn try_give(
        &self,
        folders: &mut Folders<'_>,
        index: u32,
        want: &Want,
        send: &mut dyn FnMut(Piece) -> bool,
    ) -> Result<(), Error> {
        let at = RelPath::new(&want.path).map_err(|refusal| Error::path(&want.path, refusal))?;
        let (key, groups) = self
            .files
            .get(&at)
            .ok_or_else(|| Error::refused(&at, "the offer has no such file"))?;
        let shown = self
            .base
            .join(&at)
            .map_err(|refusal| Error::path(&want.path, refusal))?;
        let file = folders.file(&shown)?;
        let metadata = file
            .metadata()
            .map_err(|error| Error::io("look at", &shown, error))?;
        if StatKey::of(&metadata) != *key {
            return Err(Error::refused(&shown, "it changed since it was offered"));
        }
        let given = Given {
            file: &file,
            groups,
            executable: false,
        };
        given
            .give(index, want, send)
            .map_err(|error| Error::io("read", &shown, error))
    }
}

/// An open file with the seals of its content, to be given in parts.
#[derive(Debug)]
pub struct Given<'a> {
    /// The file.
    pub file: &'a File,
    /// What it holds.
    pub groups: &'a Groups,
    /// Whether it is an executable.
    pub executable: bool,
}

impl Given<'_> {
    /// Gives the seals, or the ranges asked for, or, without ranges, all.
    ///
    /// # Errors
    /// What the file says.
    pub fn give(
        &self,
        index: u32,
        want: &Want,
        send: &mut dyn FnMut(Piece) -> bool,
    ) -> std::io::Result<()> {
        if want.seals_only {
            let _ = seals_of(self.groups, (index, want), self.executable).all(send);
            return Ok(());
        }
        let all = [Range {
            offset: 0,
            length: self.groups.size(),
        }];
        let ranges = if want.ranges.is_empty() {
            &all[..]
        } else {
            &want.ranges[..]
        };
        for range in ranges {
            if !self.give_range(index, range, send)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Says whether somebody still listens.
    fn give_range(
        &self,
        index: u32,
        range: &Range,
        send: &mut dyn FnMut(Piece) -> bool,
    ) -> std::io::Result<bool> {
        let end = range
            .offset
            .saturating_add(range.length)
            .min(self.groups.size());
        let mut offset = range.offset - range.offset % GROUP_BYTES;
        loop {
            let length = end.saturating_sub(offset).min(PIECE_BYTES);
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            self.file.read_exact_at(&mut bytes, offset)?;
            let piece = Piece {
                want: index,
                offset,
                bytes,
                total: self.groups.size(),
                executable: self.executable,
                ..Piece::default()
            };
            if !send(piece) {
                return Ok(false);
            }
            offset += PIECE_BYTES;
            if offset >= end {
                return Ok(true);
            }
        }
    }
}

/// The seals of a file that are asked for, in messages; one without seals when it needs none, for the size is told of
/// every file.
pub(crate) fn seals_of(
    groups: &Groups,
    (index, want): (u32, &Want),
    executable: bool,
) -> impl Iterator<Item = Piece> {
    let all = groups.seals();
    let above = usize::try_from(want.above).ok();
    let seals = if let Some(above) = above.and_then(|above| groups.above(above)) {
        above.concat()
    } else if want.ranges.is_empty() {
        all.as_flattened().to_vec()
    } else {
        let first = |offset: u64| usize::try_from(offset / GROUP_BYTES).unwrap_or(usize::MAX);
        let range = |range: &Range| {
            let end = range.offset.saturating_add(range.length);
            let end = first(end.saturating_add(GROUP_BYTES - 1)).min(all.len());
            all.get(first(range.offset)..end)
                .unwrap_or_default()
                .as_flattened()
        };
        // Each range at most once over, however often it is asked for.
        let asked = want.ranges.iter().flat_map(range);
        asked.copied().take(all.len() * SEAL_BYTES).collect()
    };
    let mut pages: Vec<Vec<u8>> = seals.chunks(SEALS_PAGE_BYTES).map(<[u8]>::to_vec).collect();
    if pages.is_empty() {
        pages.push(Vec::new());
    }
    let total = groups.size();
    pages.into_iter().map(move |seals| Piece {
        want: index,
        seals,
        total,
        executable,
        ..Piece::default()
    })
}
