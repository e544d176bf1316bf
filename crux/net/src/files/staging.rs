//! The folder below a root in which files are staged, shared by all who write below that root.
//!
//! Whoever stages shares its lock; whoever lets go of it removes it only if nobody else has it, since a folder that is taken
//! away below another's hands lets no file be made in it any more.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crux_core::files::path::STAGING;
use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, Stat, flock, fstat, mkdirat, openat, statat, unlinkat,
};
use rustix::io::Errno;

/// Times that the folder may be taken away between making and locking it, or be found locked by who removes it.
const TRIES_MAX: u32 = 200;
/// Pause after it was found locked. 5 ms, 1 s in all: whoever removes it has it alone for one call.
const LOCKED_PAUSE: Duration = Duration::from_millis(5);

/// The open folder; it goes with the last who has it if nothing is left in it.
#[derive(Debug)]
pub(super) struct Staging {
    folder: OwnedFd,
    /// What it lies in.
    top: OwnedFd,
}

impl Staging {
    /// Opens that below `top`, made if it is not there. Blocks, at most about 1 s.
    ///
    /// # Errors
    /// `PermissionDenied` for one that somebody else made, who could exchange what is staged in it; `WouldBlock` for one that
    /// somebody has locked for long or removes again and again.
    pub(super) fn open(top: impl AsFd) -> io::Result<Self> {
        let top = top.as_fd().try_clone_to_owned()?;
        let own = rustix::process::geteuid().as_raw();
        for _ in 0..TRIES_MAX {
            match mkdirat(&top, STAGING, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let folder = match openat(&top, STAGING, flags, Mode::empty()) {
                Ok(folder) => folder,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno.into()),
            };
            if !is_ours(&fstat(&folder)?, &fstat(&top)?, own) {
                let text = format!("{STAGING} belongs to another user");
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
            }
            match flock(&folder, FlockOperation::NonBlockingLockShared) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    std::thread::sleep(LOCKED_PAUSE);
                    continue;
                }
                Err(errno) => return Err(errno.into()),
            }
            let top = top.try_clone()?;
            let staging = Self { folder, top };
            if staging.has_its_name()? {
                return Ok(staging);
            }
        }
        let text = format!("{STAGING} is locked, or removed again and again");
        Err(io::Error::new(io::ErrorKind::WouldBlock, text))
    }

    /// Whether it still is what its name leads to: whoever is not one of us may have removed it, and another made it anew.
    fn has_its_name(&self) -> io::Result<bool> {
        let ours = fstat(&self.folder)?;
        match statat(&self.top, STAGING, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => Ok((there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Whether nobody exchanges what is staged who could not exchange what is named: it is of our making (`own`), or of whom the
/// root is, who some file systems say we are.
const fn is_ours(folder: &Stat, top: &Stat, own: u32) -> bool {
    folder.st_uid == 0 || folder.st_uid == own || folder.st_uid == top.st_uid
}

impl AsFd for Staging {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

impl Drop for Staging {
    /// The kernel lets go of the shared lock before it tries the other: of those who leave at once, one is the last.
    fn drop(&mut self) {
        let alone = flock(&self.folder, FlockOperation::NonBlockingLockExclusive).is_ok();
        if alone && self.has_its_name().is_ok_and(|its| its) {
            let _ = unlinkat(&self.top, STAGING, AtFlags::REMOVEDIR);
        }
        // Closing does not suffice: a process that is being forked elsewhere has the descriptor until it executes.
        let _ = flock(&self.folder, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    /// Threads that let go of it together, and how often.
    const LEAVERS: usize = 4;
    const ROUNDS: u32 = 500;

    fn can_make_a_file(staging: &Staging) -> bool {
        let flags = OFlags::WRONLY | OFlags::CREATE;
        openat(staging, "a", flags, Mode::from_raw_mode(0o600)).is_ok()
            && unlinkat(staging, "a", AtFlags::empty()).is_ok()
    }

    #[test]
    fn it_stays_below_the_hands_of_others_and_goes_with_the_last() {
        let at = std::env::temp_dir().join(format!("radix-staging-{}", std::process::id()));
        fs::create_dir_all(&at).unwrap();
        let top = File::open(&at).unwrap();
        let (one, other) = (Staging::open(&top).unwrap(), Staging::open(&top).unwrap());
        drop(one);
        assert!(can_make_a_file(&other));
        drop(other);
        assert!(!at.join(STAGING).exists());
        let next = Staging::open(&top).unwrap();
        assert!(can_make_a_file(&next));
        fs::write(at.join(STAGING).join("left"), "").unwrap();
        drop(next);
        assert!(at.join(STAGING).join("left").exists());
        fs::remove_dir_all(&at).unwrap();
    }

    #[test]
    fn of_those_who_leave_at_once_one_is_the_last() {
        let at = std::env::temp_dir().join(format!("radix-leave-{}", std::process::id()));
        fs::create_dir_all(&at).unwrap();
        let top = File::open(&at).unwrap();
        for _ in 0..ROUNDS {
            let together = std::sync::Barrier::new(LEAVERS);
            std::thread::scope(|scope| {
                for _ in 0..LEAVERS {
                    scope.spawn(|| {
                        let staging = Staging::open(&top).unwrap();
                        together.wait();
                        drop(staging);
                    });
                }
            });
            assert!(!at.join(STAGING).exists());
        }
        fs::remove_dir_all(&at).unwrap();
    }

    #[test]
    fn one_that_was_removed_behind_our_back_takes_nothing_from_who_made_it_anew() {
        let at = std::env::temp_dir().join(format!("radix-anew-{}", std::process::id()));
        fs::create_dir_all(&at).unwrap();
        let top = File::open(&at).unwrap();
        let old = Staging::open(&top).unwrap();
        fs::remove_dir(at.join(STAGING)).unwrap();
        let new = Staging::open(&top).unwrap();
        drop(old);
        assert!(can_make_a_file(&new));
        drop(new);
        assert!(!at.join(STAGING).exists());
        fs::remove_dir_all(&at).unwrap();
    }

    #[test]
    fn one_that_is_locked_for_long_or_is_somebody_elses_is_refused() {
        let at = std::env::temp_dir().join(format!("radix-locked-{}", std::process::id()));
        fs::create_dir_all(at.join(STAGING)).unwrap();
        let top = File::open(&at).unwrap();
        let locked = File::open(at.join(STAGING)).unwrap();
        locked.lock().unwrap();
        let refused = Staging::open(&top).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(locked);
        drop(Staging::open(&top).unwrap());

        let stat = |uid| {
            let mut stat = fstat(&top).unwrap();
            stat.st_uid = uid;
            stat
        };
        let ours = |folder, top| is_ours(&stat(folder), &stat(top), 7);
        assert!(ours(7, 0) && ours(0, 0) && ours(8, 8));
        assert!(!ours(8, 0) && !ours(8, 7));
        if rustix::process::geteuid().is_root() {
            fs::create_dir(at.join(STAGING)).unwrap();
            std::os::unix::fs::chown(at.join(STAGING), Some(8), None).unwrap();
            let refused = Staging::open(&top).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        }
        fs::remove_dir_all(&at).unwrap();
    }
}
