//! The folder below a root in which files are staged, shared by all who write below that root.
//!
//! Whoever stages shares its lock; whoever lets go of it removes it only if nobody else has it, since a folder that is taken
//! away below another's hands lets no file be made in it any more.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crux_core::files::path::STAGING;
use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, flock, fstat, mkdirat, openat, statat, unlinkat,
};
use rustix::io::Errno;

/// Times that the folder may be taken away between making and locking it.
const TRIES_MAX: u32 = 100;

/// The open folder; it goes with the last who has it if nothing is left in it.
#[derive(Debug)]
pub(super) struct Staging {
    folder: OwnedFd,
    /// What it lies in.
    top: OwnedFd,
}

impl Staging {
    /// Opens that below `top`, made if it is not there. Blocks.
    pub(super) fn open(top: impl AsFd) -> io::Result<Self> {
        let top = top.as_fd().try_clone_to_owned()?;
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
            // Whoever removes it has it alone for a moment only.
            flock(&folder, FlockOperation::LockShared)?;
            let ours = fstat(&folder)?;
            match statat(&top, STAGING, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(there) if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino) => {
                    return Ok(Self { folder, top });
                }
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let text = "the staging folder is removed again and again";
        Err(io::Error::new(io::ErrorKind::WouldBlock, text))
    }
}

impl AsFd for Staging {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

impl Drop for Staging {
    /// The kernel lets go of the shared lock before it tries the other: of those who leave at once, one is the last.
    fn drop(&mut self) {
        if flock(&self.folder, FlockOperation::NonBlockingLockExclusive).is_ok() {
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
}
