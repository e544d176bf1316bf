//! The folder below a root in which files are staged, shared by all who write below that root.
//!
//! Whoever stages shares its lock; whoever is done removes it only if nobody else has it, since a folder that is taken away
//! below another's hands lets no file be made in it any more.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crux_core::files::path::STAGING;
use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, flock, fstat, mkdirat, openat, statat, unlinkat,
};
use rustix::io::Errno;

/// Times that the folder may be taken away between making and locking it.
const TRIES_MAX: u32 = 100;

/// The open folder.
#[derive(Debug)]
pub(super) struct Staging(OwnedFd);

impl Staging {
    /// Opens that below `top`, made if it is not there. Blocks.
    pub(super) fn open(top: impl AsFd) -> io::Result<Self> {
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
                    return Ok(Self(folder));
                }
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let text = "the staging folder is removed again and again";
        Err(io::Error::new(io::ErrorKind::WouldBlock, text))
    }

    /// Removes it from below `top` if nothing is left in it and nobody else has it.
    pub(super) fn remove(&self, top: impl AsFd) {
        // Otherwise the last of the others removes it.
        if flock(self, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = unlinkat(top, STAGING, AtFlags::REMOVEDIR);
        }
        // Also when it was refused: the kernel lets go of the one lock before it tries the other.
        let _ = flock(self, FlockOperation::LockShared);
    }
}

impl AsFd for Staging {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Staging {
    /// Closing does not suffice: a process that is being forked elsewhere has the descriptor until it executes.
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

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
        one.remove(&top);
        assert!(can_make_a_file(&other));
        drop(one);
        other.remove(&top);
        assert!(!at.join(STAGING).exists());
        let next = Staging::open(&top).unwrap();
        assert!(can_make_a_file(&next));
        fs::write(at.join(STAGING).join("left"), "").unwrap();
        next.remove(&top);
        assert!(at.join(STAGING).join("left").exists() && can_make_a_file(&next));
        fs::remove_dir_all(&at).unwrap();
    }
}
