//! A blob that arrives in parts and survives the cuts between them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crux_core::digest::Groups;

use super::partial::Partial;
use super::writer::{make_shard, remove_unless_locked, sync_dir};
use super::{Error, Info, Put, Store};

/// The folder in a store where blobs arrive.
const FOLDER: &str = "partial";
/// Age after which a part that nobody came back for is removed: a week, longer than any outage.
const ABANDONED_AFTER_SECONDS: u64 = 7 * 24 * 3600;

/// A blob on its way: the groups that are here outlive a crash, and are checked again after it.
#[derive(Debug)]
pub struct Arrival {
    partial: Partial,
    path: PathBuf,
}

impl Arrival {
    /// Takes the blob up where it was left.
    ///
    /// # Errors
    /// [`super::Kind::TooLarge`], [`super::Kind::Full`]; [`super::Kind::Io`] also while another process is at it.
    pub fn resume(store: &Store, groups: Groups) -> Result<Self, Error> {
        if groups.size() > store.limits.blob_bytes_max {
            return Err(Error::too_large(store.limits.blob_bytes_max));
        }
        store.admit(groups.size())?;
        let dir = store.dir.join(FOLDER);
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir);
        made.map_err(|source| Error::io("make", &dir, source))?;
        sweep(&dir);
        let path = dir.join(groups.digest().to_string());
        let failed = |source| Error::io("write into", &path, source);
        let mut options = File::options();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let file = options.open(&path).or_else(|error| {
            if error.kind() != io::ErrorKind::PermissionDenied {
                return Err(error);
            }
            // A kill came between its mode and its name, unless somebody is just there.
            if File::open(&path)?.try_lock().is_err() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            fs::remove_file(&path)?;
            options.open(&path)
        });
        let file = file.map_err(failed)?;
        file.try_lock()
            .map_err(|_| failed(io::ErrorKind::WouldBlock.into()))?;
        let partial = Partial::resume(file, groups).map_err(failed)?;
        Ok(Self { partial, path })
    }

    /// What is here and what is missing.
    #[must_use]
    pub const fn partial(&self) -> &Partial {
        &self.partial
    }

    /// The same, to take the next group.
    pub const fn partial_mut(&mut self) -> &mut Partial {
        &mut self.partial
    }

    /// Gives back the room of what came.
    pub fn discard(self) {
        // What stays is swept in a week.
        let _ = fs::remove_file(&self.path);
    }

    /// Syncs the whole blob and gives it its name.
    ///
    /// # Errors
    /// [`super::Kind::Full`], [`super::Kind::Io`]; what came stays for the next try.
    ///
    /// # Panics
    /// If groups are missing.
    pub fn commit(mut self, store: &Store, executable: bool) -> Result<Info, Error> {
        assert!(self.partial.is_whole(), "only what is whole gets its name");
        let digest = self.partial.groups().digest();
        let put = Put {
            expected: Some(digest),
            executable,
        };
        if let Some(info) = store.held(&digest, put) {
            let _ = fs::remove_file(&self.path);
            return Ok(info);
        }
        let size = self.partial.groups().size();
        let claim = store.claim(size)?;
        let path = store.path(&digest);
        self.name(store, &path, executable)
            .map_err(|source| Error::io("write", &path, source))?;
        claim.named();
        Ok(Info {
            digest,
            size,
            executable,
        })
    }

    /// Data first, then the mode, with which it could not be taken up again, then the name, then the folders on the way.
    fn name(&mut self, store: &Store, path: &Path, executable: bool) -> io::Result<()> {
        let mode = if executable { 0o555 } else { 0o444 };
        self.partial.sync()?;
        let shard = make_shard(&store.dir, path)?;
        let file = self.partial.file();
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        fs::rename(&self.path, path)?;
        sync_dir(shard)
    }
}

fn sweep(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        let old = changed
            .ok()
            .and_then(|changed| SystemTime::now().duration_since(changed).ok())
            .is_some_and(|age| age.as_secs() > ABANDONED_AFTER_SECONDS);
        if old {
            remove_unless_locked(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Limits};
    use super::*;
    use crux_core::digest::{Digest, GroupHasher};

    const GROUP: usize = 16 * 1024;

    fn groups(bytes: &[u8]) -> Groups {
        let mut hasher = GroupHasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    fn content() -> Vec<u8> {
        (0..3 * GROUP + 5).map(|at| (at * 11 % 241) as u8).collect()
    }

    fn with_store(name: &str, limits: Limits, check: impl FnOnce(&Store)) {
        let dir = std::env::temp_dir().join(format!("radix-arrival-{name}-{}", std::process::id()));
        let store = Store::open_with(&dir, limits).unwrap();
        check(&store);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_blob_cut_anywhere_is_resumed_and_named_only_when_whole() {
        with_store("cut", Limits::default(), |store| {
            let bytes = content();
            let digest = Digest::of(&bytes);
            for group in 0..4 {
                assert!(!store.has(&digest));
                let mut arrival = Arrival::resume(store, groups(&bytes)).unwrap();
                let at = group * GROUP;
                assert_eq!(arrival.partial().held(), at as u64);
                let end = (at + GROUP).min(bytes.len());
                let taken = arrival.partial_mut().take(at as u64, &bytes[at..end]);
                assert!(taken.is_ok());
            }
            let arrival = Arrival::resume(store, groups(&bytes)).unwrap();
            assert!(arrival.partial().is_whole());
            assert!(
                Arrival::resume(store, groups(&bytes)).is_err(),
                "somebody is at it"
            );
            let info = arrival.commit(store, true).unwrap();
            assert_eq!((info.digest, info.executable), (digest, true));
            assert_eq!(store.open_verified(&digest).unwrap().1, bytes.len() as u64);
            assert_eq!(fs::read_dir(store.dir().join(FOLDER)).unwrap().count(), 0);
        });
    }

    /// Processes that are started meanwhile: each fork has, for a moment, every descriptor that its parent had.
    const OTHERS: u32 = 200;

    #[test]
    fn what_was_let_go_is_resumed_at_once_while_processes_are_started() {
        with_store("forks", Limits::default(), |store| {
            let done = std::sync::atomic::AtomicBool::new(false);
            let ordering = std::sync::atomic::Ordering::Relaxed;
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for _ in 0..OTHERS {
                        std::process::Command::new("true").status().unwrap();
                    }
                    done.store(true, ordering);
                });
                let bytes = content();
                while !done.load(ordering) {
                    drop(Arrival::resume(store, groups(&bytes)).unwrap());
                }
            });
        });
    }

    #[test]
    fn beyond_the_quota_a_blob_is_refused_and_nothing_is_lost() {
        let limits = Limits {
            total_bytes_max: Some(100_000),
            ..Limits::default()
        };
        with_store("quota", limits, |store| {
            let first = store.put_bytes(&[7; 60_000]).unwrap();
            let refused = Arrival::resume(store, groups(&content())).unwrap_err();
            assert_eq!(refused.kind(), Kind::Full);
            assert!(refused.to_string().contains("quota of 100000 bytes"));
            assert_eq!(
                store.put_bytes(&[8; 90_000]).unwrap_err().kind(),
                Kind::Full
            );
            assert!(store.open_verified(&first.digest).is_ok());
            assert_eq!(store.list().unwrap().count(), 1);
            assert!(store.remove(&first.digest).unwrap());
            assert!(store.put_bytes(&[8; 90_000]).is_ok());
        });
    }
}
