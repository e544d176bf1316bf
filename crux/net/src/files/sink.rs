//! The taking side on disk: compare, stage, sync, name. Blocks: call it off the runtime.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use crux_core::digest::{Digest, Groups};
use crux_core::files::manifest::{Entry, Manifest};
use crux_core::files::path::RelPath;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use super::cache::HashCache;
use super::error::{Error, Kind};
use super::folders::Folders;
use super::offer::PIECE_BYTES;
use super::quota::{Quota, Reserved};
use super::relay::Relay;
use super::root::{Root, file_type, stat_key, sync_folder};
use super::staging::Staging;
use crate::store::{Partial, StatKey};

/// Staged small files after which one call syncs the file system instead of one for each.
const SYNC_TOGETHER: usize = 8;
/// Seals of older versions that one copy keeps for itself, 32 bytes each; past it they are known for as long as the cache
/// keeps them, and all seals are asked for where it does not. 1 << 18: 8 MiB, for 4 GiB of older files.
const OLDER_SEALS_MAX: usize = 1 << 18;
/// Age after which something staged is taken for abandoned: a resumed copy comes sooner.
const ABANDONED_AFTER_SECONDS: u64 = 7 * 24 * 3600;
/// Tells apart what one process stages.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// A place below a root that takes a file or folder.
#[derive(Debug)]
pub struct Sink {
    root: Arc<Root>,
    /// Opened when the first thing is staged, so that a refusal changes nothing.
    staging: OnceLock<Staging>,
    dest: RelPath,
    cache: Arc<HashCache>,
    /// Whether folders hold new names that are not synced yet.
    unsynced: AtomicBool,
    quota: Option<Arc<Quota>>,
    /// The room that it has.
    reserved: Mutex<Option<Reserved>>,
    /// Whoever gives on what comes.
    relay: Option<Arc<Relay>>,
}

/// One file that is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// Within the manifest.
    pub(crate) at: RelPath,
    pub(crate) mode: u32,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
    /// What stands at its final name, if that is of the same size, and as long as it is known.
    pub(crate) older: Weak<Groups>,
}

/// Seals that are kept until the copy needs them.
#[derive(Debug, Default)]
struct Kept {
    seals: usize,
    groups: Vec<Arc<Groups>>,
}

impl Kept {
    /// Keeps these, unless that makes it more than `seals_max`.
    fn keep(&mut self, groups: Arc<Groups>, seals_max: usize) {
        let seals = self.seals.saturating_add(groups.count());
        if seals <= seals_max {
            self.seals = seals;
            self.groups.push(groups);
        }
    }
}

/// What a manifest means for what is there.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Where it goes; the manifest's paths are below it.
    pub(crate) dest: RelPath,
    pub(crate) items: Vec<Item>,
    /// Links, with what they say.
    pub(crate) links: Vec<(RelPath, String)>,
    /// Folders with their modes, parents first.
    pub(crate) folders: Vec<(RelPath, u32)>,
    /// Files that are right but for their mode.
    pub(crate) modes: Vec<(RelPath, u32)>,
    pub(crate) same_files: u64,
    pub(crate) same_bytes: u64,
    /// Of files that are wanted and have an older version.
    older: Kept,
}

#[derive(Debug)]
enum Same {
    Yes,
    ButMode,
    /// With what is there instead, if it can be compared.
    No(Option<Arc<Groups>>),
}

/// A large file on its way.
#[derive(Debug)]
pub(crate) struct Large {
    pub(crate) partial: Partial,
    pub(crate) seeded: u64,
    name: String,
}

/// A small file whose bytes are verified.
#[derive(Debug)]
pub(crate) struct Small {
    pub(crate) item: Item,
    /// Shared with other files of the same content.
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) groups: Arc<Groups>,
}

impl Sink {
    /// A sink at `dest`; a single file goes into it if it is a folder. Changes nothing yet.
    #[must_use]
    pub const fn new(root: Arc<Root>, dest: RelPath, cache: Arc<HashCache>) -> Self {
        Self {
            root,
            staging: OnceLock::new(),
            dest,
            cache,
            unsynced: AtomicBool::new(false),
            quota: None,
            reserved: Mutex::new(None),
            relay: None,
        }
    }

    /// The same, which takes room for what it brings; what is staged already counts as new.
    #[must_use]
    pub fn within(mut self, quota: Option<Arc<Quota>>) -> Self {
        self.quota = quota;
        self
    }

    /// The same, which tells a relay what comes.
    #[must_use]
    pub fn relaying(mut self, relay: Option<Arc<Relay>>) -> Self {
        self.relay = relay;
        self
    }

    /// Whoever gives on what comes.
    pub(crate) const fn relay(&self) -> Option<&Arc<Relay>> {
        self.relay.as_ref()
    }

    /// Takes room for what is wanted, for as long as this lives or until it is asked again; refuses if a quota leaves
    /// none.
    pub(crate) fn admit(&self, wanted: &Wanted) -> Result<(), Error> {
        // A manifest whose files can be counted together was read before.
        let bytes: u64 = wanted.items.iter().map(|item| item.size).sum();
        self.fits(bytes)?;
        let Some(quota) = &self.quota else {
            return Ok(());
        };
        let mut reserved = self.reserved();
        // Of the try before.
        *reserved = None;
        match quota.reserve(bytes) {
            Ok(room) => {
                *reserved = Some(room);
                Ok(())
            }
            Err(beyond) => {
                let (left, quota) = (beyond.left_bytes, beyond.quota_bytes);
                let text = format!(
                    "copy {}: it brings {bytes} bytes, and the rnode's quota of {quota} bytes leaves {left}",
                    self.dest
                );
                Err(Error::new(Kind::Full, text))
            }
        }
    }

    /// Refuses what the whole file system could not hold, before there are seals of it: they take memory.
    fn fits(&self, bytes: u64) -> Result<(), Error> {
        let top = self.root.folder(&RelPath::ROOT)?;
        let Ok(stat) = rustix::fs::fstatvfs(&top) else {
            return Ok(());
        };
        let whole = stat.f_blocks.saturating_mul(stat.f_frsize);
        // Some do not say.
        if whole == 0 || bytes <= whole {
            return Ok(());
        }
        let text = format!(
            "copy {}: no room is left there: it brings {bytes} bytes, and the file system has {whole} in all",
            self.dest
        );
        Err(Error::new(Kind::Full, text))
    }

    fn named(&self, bytes: u64) {
        if let Some(reserved) = &*self.reserved() {
            reserved.named(bytes);
        }
    }

    fn reserved(&self) -> std::sync::MutexGuard<'_, Option<Reserved>> {
        // Whole values are put in only.
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The staging folder, made when it is first asked for.
    fn staging(&self) -> Result<&Staging, Error> {
        if let Some(staging) = self.staging.get() {
            return Ok(staging);
        }
        let at = RelPath::ROOT;
        let staging = Staging::open(self.root.folder(&at)?)
            .map_err(|error| Error::io("make the staging folder in", &at, error))?;
        sweep(&staging);
        Ok(self.staging.get_or_init(|| staging))
    }

    /// Compares a manifest with what is there. Changes nothing.
    pub(crate) fn compare(&self, manifest: &Manifest, name: &str) -> Result<Wanted, Error> {
        let mut wanted = Wanted {
            dest: self.destination(manifest, name)?,
            ..Wanted::default()
        };
        let mut folders = Folders::new(&self.root);
        for (at, entry) in manifest.entries() {
            let path = below(&wanted.dest, at)?;
            let found = folders.stat(&path)?;
            let is_folder = |stat: &Stat| file_type(stat) == FileType::Directory;
            match entry {
                Entry::Folder { mode } => {
                    if found.as_ref().is_some_and(|stat| !is_folder(stat)) {
                        return Err(Error::refused(
                            &path,
                            "a link or a file stands where a folder should",
                        ));
                    }
                    wanted.folders.push((at.clone(), *mode));
                }
                Entry::File { .. } | Entry::Link { .. }
                    if path.is_root() || found.as_ref().is_some_and(is_folder) =>
                {
                    return Err(Error::refused(&path, "a folder stands where a file should"));
                }
                Entry::Link { target } => wanted.links.push((at.clone(), target.clone())),
                Entry::File { mode, size, digest } => {
                    let mut item = Item {
                        at: at.clone(),
                        mode: *mode,
                        size: *size,
                        digest: *digest,
                        older: Weak::new(),
                    };
                    match self.same(&mut folders, &path, &item, found)? {
                        Same::No(older) => {
                            // Small ones come whole.
                            if let Some(older) = older.filter(|_| *size > PIECE_BYTES) {
                                item.older = Arc::downgrade(&older);
                                wanted.older.keep(older, OLDER_SEALS_MAX);
                            }
                            wanted.items.push(item);
                            continue;
                        }
                        Same::ButMode => wanted.modes.push((at.clone(), *mode)),
                        Same::Yes => {}
                    }
                    wanted.same_files += 1;
                    wanted.same_bytes += size;
                }
            }
        }
        Ok(wanted)
    }

    /// A single file goes into a folder under its own name, everything else is the destination.
    fn destination(&self, manifest: &Manifest, name: &str) -> Result<RelPath, Error> {
        let single = !matches!(
            manifest.entries().get(&RelPath::ROOT),
            Some(Entry::Folder { .. })
        );
        let found = self.root.stat(&self.dest)?;
        let folder = found.is_some_and(|stat| file_type(&stat) == FileType::Directory);
        if !single || !folder || name.is_empty() {
            return Ok(self.dest.clone());
        }
        let name = RelPath::new(name).map_err(|refusal| Error::path(name, refusal))?;
        below(&self.dest, &name)
    }

    /// Whether the file is there already.
    fn same(
        &self,
        folders: &mut Folders<'_>,
        path: &RelPath,
        item: &Item,
        found: Option<Stat>,
    ) -> Result<Same, Error> {
        let Some(stat) = found.filter(|stat| {
            file_type(stat) == FileType::RegularFile && u64::try_from(stat.st_size) == Ok(item.size)
        }) else {
            return Ok(Same::No(None));
        };
        let right_mode = stat.st_mode & 0o7777 == item.mode;
        // Another name of the same file is not ours to change.
        if !right_mode && stat.st_nlink > 1 {
            return Ok(Same::No(None));
        }
        let groups = match self.cache.find(&stat_key(&stat)) {
            Some(groups) => groups,
            None => {
                let mut file = match folders.file(path) {
                    Err(error) if error.kind() == Kind::NotFound => return Ok(Same::No(None)),
                    file => file?,
                };
                let hashed = self.cache.hash(&mut file);
                hashed.map_err(|error| Error::io("read", path, error))?.1
            }
        };
        Ok(match groups.digest() == item.digest {
            true if right_mode => Same::Yes,
            true => Same::ButMode,
            false => Same::No(Some(groups)),
        })
    }

    /// Makes the folders, open to us until the end.
    pub(crate) fn make_folders(&self, wanted: &Wanted) -> Result<(), Error> {
        if let Some((parent, _)) = wanted.dest.split() {
            self.root.make_folder(&parent)?;
        }
        let mut folders = Folders::new(&self.root);
        for (at, mode) in &wanted.folders {
            let path = below(&wanted.dest, at)?;
            let Some((_, name)) = path.split() else {
                continue;
            };
            let parent = folders.parent(&path)?.ok_or_else(|| {
                Error::new(Kind::NotFound, format!("make {path}: its folder is gone"))
            })?;
            match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(mode | 0o700)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(errno) => return Err(Error::io("make", &path, errno)),
            }
        }
        Ok(())
    }

    /// Puts the modes of folders right, innermost first, and syncs each.
    pub(crate) fn finish(&self, wanted: &Wanted) -> Result<(), Error> {
        for (at, mode) in wanted.folders.iter().rev() {
            let path = below(&wanted.dest, at)?;
            let folder = self.root.folder(&path)?;
            let stat =
                rustix::fs::fstat(&folder).map_err(|errno| Error::io("look at", &path, errno))?;
            if !path.is_root() && stat.st_mode & 0o777 != *mode {
                rustix::fs::fchmod(&folder, Mode::from_raw_mode(*mode))
                    .map_err(|errno| Error::io("set the mode of", &path, errno))?;
                sync_folder(&folder).map_err(|error| Error::io("sync", &path, error))?;
            }
        }
        for (at, mode) in &wanted.modes {
            let path = below(&wanted.dest, at)?;
            let file = self.root.file(&path)?;
            file.set_permissions(std::fs::Permissions::from_mode(*mode))
                .and_then(|()| file.sync_all())
                .map_err(|error| Error::io("set the mode of", &path, error))?;
        }
        self.sync_names()
            .map_err(|error| Error::io("sync", &wanted.dest, error))?;
        Ok(())
    }

    /// Syncs the folders of all small files that were named: one call for all of them.
    fn sync_names(&self) -> io::Result<()> {
        match self.staging.get() {
            Some(staging) if self.unsynced.swap(false, Ordering::Relaxed) => {
                rustix::fs::syncfs(staging).map_err(io::Error::from)
            }
            _ => Ok(()),
        }
    }

    /// Stages small files and links, syncs them together, names them, and syncs their folders.
    pub(crate) fn place_small(
        &self,
        dest: &RelPath,
        files: &[Small],
        links: &[(RelPath, String)],
    ) -> Result<(), Error> {
        let staging = self.staging()?;
        let mut staged = Staged {
            sink: self,
            staging,
            together: files.len() >= SYNC_TOGETHER,
            folders: BTreeMap::new(),
        };
        for small in files {
            let path = below(dest, &small.item.at)?;
            staged.file(&path, small)?;
        }
        for (at, target) in links {
            staged.link(&below(dest, at)?, target)?;
        }
        if staged.together {
            rustix::fs::syncfs(staging).map_err(|errno| Error::io("sync", &self.dest, errno))?;
        }
        staged.name_all()?;
        self.named(files.iter().map(|small| small.item.size).sum());
        if let Some(relay) = &self.relay {
            relay.named(None);
        }
        Ok(())
    }

    /// Takes up a large file where it was left; equal groups come from what has the final name, and from
    /// a `twin` of the same content that has just been named.
    pub(crate) fn begin(
        &self,
        dest: &RelPath,
        item: &Item,
        groups: Groups,
        twin: Option<&RelPath>,
    ) -> Result<Large, Error> {
        let path = below(dest, &item.at)?;
        let (file, name) = self.open_staged(&path, &item.digest)?;
        let failed = |error| Error::io("stage", &path, error);
        let mut partial = Partial::resume(file, groups).map_err(failed)?;
        let mut seeded = partial.held();
        let twin = twin.map(|at| below(dest, at)).transpose()?;
        for old in [Some(&path), twin.as_ref()].into_iter().flatten() {
            if !partial.is_whole()
                && let Ok(old) = self.root.file(old)
            {
                seeded += partial.seed(&old).map_err(failed)?;
            }
        }
        if let Some(relay) = &self.relay {
            partial.flush().map_err(failed)?;
            // Opened anew: a copy of the descriptor would hold the lock beyond this try.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let staged = rustix::fs::openat(self.staging()?, &name, flags, Mode::empty());
            let staged = staged.map_err(|errno| failed(errno.into()))?;
            relay.begun(&item.at, staged.into(), partial.groups(), partial.have());
        }
        Ok(Large {
            partial,
            seeded,
            name,
        })
    }

    /// Gives back the room of what was staged.
    pub(crate) fn discard(&self, large: &Large) {
        if let Some(staging) = self.staging.get() {
            let _ = rustix::fs::unlinkat(staging, &large.name, AtFlags::empty());
        }
    }

    /// Syncs a whole file, names it, and syncs its folder.
    pub(crate) fn end(&self, dest: &RelPath, item: &Item, large: &mut Large) -> Result<(), Error> {
        let path = below(dest, &item.at)?;
        assert!(large.partial.is_whole(), "only what is whole gets its name");
        large.partial.sync().map_err(|error| {
            let error = Error::io("sync", &path, error);
            // What cannot be finished must not keep the disk full; the last of it is written only now.
            if error.kind() == Kind::Full {
                self.discard(large);
            }
            error
        })?;
        let (folder, name) = self.parent(&path)?;
        // Ordering: last of all, for what may not be written could not be taken up again where it was left.
        let mode = std::fs::Permissions::from_mode(item.mode);
        let set = large.partial.file().set_permissions(mode);
        set.map_err(|error| Error::io("set the mode of", &path, error))?;
        rustix::fs::renameat(self.staging()?, &large.name, &folder, name)
            .map_err(|errno| Error::io("name", &path, errno))?;
        self.named(item.size);
        self.remember(
            large.partial.file(),
            &Arc::new(large.partial.groups().clone()),
        );
        if let Some(relay) = &self.relay {
            relay.named(Some(&item.at));
        }
        sync_folder(&folder).map_err(|error| Error::io("sync the folder of", &path, error))
    }

    /// The staged file of a content; another name where somebody else is at it.
    fn open_staged(&self, path: &RelPath, digest: &Digest) -> Result<(File, String), Error> {
        let mut name = digest.to_string();
        for _ in 0..2 {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(0o600);
            let staging = self.staging()?;
            let file = rustix::fs::openat(staging, &name, flags, mode).or_else(|errno| {
                if errno != rustix::io::Errno::ACCESS {
                    return Err(errno);
                }
                // A kill came between its mode and its name, unless somebody is just there.
                let reading = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let left = rustix::fs::openat(staging, &name, reading, Mode::empty())?;
                if File::from(left).try_lock().is_err() {
                    return Err(errno);
                }
                rustix::fs::unlinkat(staging, &name, AtFlags::empty())?;
                rustix::fs::openat(staging, &name, flags, mode)
            });
            let file = file
                .map(File::from)
                .map_err(|errno| Error::io("stage", path, errno))?;
            if file.try_lock().is_ok() {
                return Ok((file, name));
            }
            name = format!("{digest}-{}", serial());
        }
        Err(Error::io("stage", path, io::ErrorKind::WouldBlock))
    }

    fn parent<'a>(&self, path: &'a RelPath) -> Result<(OwnedFd, &'a str), Error> {
        let (folder, _) = path
            .split()
            .ok_or_else(|| Error::refused(path, "a folder stands where a file should"))?;
        let name = path.as_str().rsplit('/').next().unwrap_or_default();
        Ok((self.root.folder(&folder)?, name))
    }

    fn remember(&self, file: &File, groups: &Arc<Groups>) {
        if let Ok(metadata) = file.metadata() {
            self.cache.remember(StatKey::of(&metadata), groups);
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // After an error: the next copy finds these files in place and would not sync them.
        let _ = self.sync_names();
    }
}

/// Removes what nobody came back for.
fn sweep(staging: &Staging) {
    let Ok(listing) = rustix::fs::Dir::read_from(staging) else {
        return;
    };
    let now = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    for found in listing.filter_map(Result::ok) {
        let stat = rustix::fs::statat(staging, found.file_name(), AtFlags::SYMLINK_NOFOLLOW);
        let old = stat.is_ok_and(|stat| {
            let changed = u64::try_from(stat.st_mtime).unwrap_or(0);
            file_type(&stat) != FileType::Directory
                && now.saturating_sub(changed) > ABANDONED_AFTER_SECONDS
        });
        if old {
            let _ = rustix::fs::unlinkat(staging, found.file_name(), AtFlags::empty());
        }
    }
}

/// Small files that are staged and not yet named; what has no name yet when it is dropped is removed.
struct Staged<'a> {
    sink: &'a Sink,
    staging: &'a Staging,
    /// Whether they are synced all at once, and their folders when the copy ends.
    together: bool,
    /// By folder, so that each is opened and synced once.
    folders: BTreeMap<RelPath, Vec<Name>>,
}

/// What gets its name.
struct Name {
    staged: String,
    last: String,
    /// What it holds, if it is a file, and what it looked like then.
    holds: Option<(StatKey, Arc<Groups>)>,
}

impl Name {
    /// What it is known to hold now that it has its name; `None` if something else has it.
    fn known(&self, folder: &OwnedFd) -> Option<(StatKey, &Arc<Groups>)> {
        let (staged, groups) = self.holds.as_ref()?;
        let stat = rustix::fs::statat(folder, &self.last, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let named = stat_key(&stat);
        // Naming changes this time, and nothing else.
        let expected = StatKey {
            ctime_ns: named.ctime_ns,
            ..*staged
        };
        (named == expected).then_some((named, groups))
    }
}

impl Staged<'_> {
    fn file(&mut self, path: &RelPath, small: &Small) -> Result<(), Error> {
        let failed = |error: io::Error| Error::io("stage", path, error);
        let staged = format!("small-{}", serial());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let mut file = rustix::fs::openat(self.staging, &staged, flags, mode)
            .map(File::from)
            .map_err(|errno| failed(errno.into()))?;
        let name = self.add(path, staged);
        file.write_all(&small.bytes).map_err(failed)?;
        file.set_permissions(std::fs::Permissions::from_mode(small.item.mode))
            .map_err(failed)?;
        let key = StatKey::of(&file.metadata().map_err(failed)?);
        if let Some(name) = name {
            name.holds = Some((key, Arc::clone(&small.groups)));
        }
        if !self.together {
            file.sync_all().map_err(failed)?;
        }
        Ok(())
    }

    fn link(&mut self, path: &RelPath, target: &str) -> Result<(), Error> {
        let name = format!("small-{}", serial());
        rustix::fs::symlinkat(target, self.staging, &name)
            .map_err(|errno| Error::io("stage", path, errno))?;
        self.add(path, name);
        Ok(())
    }

    fn add(&mut self, path: &RelPath, staged: String) -> Option<&mut Name> {
        let (folder, name) = path.split()?;
        let names = self.folders.entry(folder).or_default();
        names.push(Name {
            staged,
            last: name.to_owned(),
            holds: None,
        });
        names.last_mut()
    }

    fn name_all(mut self) -> Result<(), Error> {
        while let Some((at, names)) = self.folders.pop_first() {
            let placed = self.name_in(&at, &names);
            if placed.is_err() {
                self.folders.insert(at, names);
                return placed;
            }
        }
        Ok(())
    }

    fn name_in(&self, at: &RelPath, names: &[Name]) -> Result<(), Error> {
        let folder = self.sink.root.folder(at)?;
        for name in names {
            rustix::fs::renameat(self.staging, &name.staged, &folder, &name.last)
                .map_err(|errno| Error::io("name a file in", at, errno))?;
            if let Some((key, groups)) = name.known(&folder) {
                self.sink.cache.remember(key, groups);
            }
        }
        if self.together {
            self.sink.unsynced.store(true, Ordering::Relaxed);
            return Ok(());
        }
        sync_folder(&folder).map_err(|error| Error::io("sync", at, error))
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        for name in self.folders.values().flatten() {
            let _ = rustix::fs::unlinkat(self.staging, &name.staged, AtFlags::empty());
        }
    }
}

fn below(dest: &RelPath, at: &RelPath) -> Result<RelPath, Error> {
    dest.join(at)
        .map_err(|refusal| Error::path(&format!("{dest}/{at}"), refusal))
}

fn serial() -> String {
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    format!("{}-{serial}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_whole_file_system_could_not_hold_is_refused_before_it_is_asked_for() {
        let root = Arc::new(Root::open(&std::env::temp_dir()).unwrap());
        let sink = Sink::new(root, RelPath::ROOT, Arc::default());
        let wanted = |size| Wanted {
            items: vec![Item {
                at: RelPath::new("a").unwrap(),
                mode: 0o644,
                size,
                digest: Digest::of(b"a"),
                older: Weak::new(),
            }],
            ..Wanted::default()
        };
        sink.admit(&wanted(1)).unwrap();
        let refused = sink.admit(&wanted(1 << 62)).unwrap_err();
        assert_eq!(refused.kind(), Kind::Full);
    }

    #[test]
    fn seals_of_older_versions_are_kept_within_a_bound_and_those_of_small_files_not_at_all() {
        let groups = |bytes: usize| {
            let mut hasher = crux_core::digest::GroupHasher::new();
            hasher.update(&vec![7; bytes]);
            Arc::new(hasher.finish())
        };
        let mut kept = Kept::default();
        let older: Vec<Weak<Groups>> = [3, 5, 2]
            .map(|count| {
                let groups = groups(count * (16 << 10));
                let older = Arc::downgrade(&groups);
                kept.keep(groups, 5);
                older
            })
            .into();
        let known: Vec<bool> = older
            .iter()
            .map(|older| older.upgrade().is_some())
            .collect();
        assert_eq!((kept.seals, &known[..]), (5, &[true, false, true][..]));

        let at = std::env::temp_dir().join(format!("radix-older-{}", std::process::id()));
        std::fs::create_dir_all(&at).unwrap();
        let mut text = "radix-manifest/1\nd 755 \n".to_owned();
        for (name, size) in [("large", 200_000), ("small", 1000)] {
            std::fs::write(at.join(name), vec![1; size]).unwrap();
            let digest = Digest::of(&vec![2; size]);
            text.push_str(&format!("f 644 {size} {digest} {name}\n"));
        }
        let root = Arc::new(Root::open(&at).unwrap());
        let sink = Sink::new(root, RelPath::ROOT, Arc::default());
        let wanted = sink.compare(&Manifest::parse(&text).unwrap(), "").unwrap();
        let known = wanted
            .items
            .iter()
            .map(|item| item.older.upgrade().is_some());
        assert_eq!(known.collect::<Vec<_>>(), [true, false]);
        assert_eq!(wanted.older.groups.len(), 1);
        std::fs::remove_dir_all(&at).unwrap();
    }
}
