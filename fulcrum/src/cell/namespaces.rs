//! Leaves the host's namespaces: user (unless root), process and mount.

use std::fs::OpenOptions;
use std::io::Write;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, getegid, geteuid};

use super::error::CellError;

/// No source, type or data for a mount call that needs none.
pub(super) const NONE: Option<&str> = None;

/// The namespaces this process is in now; its children are in the new process namespace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Namespaces {
    /// Whether there is a user namespace of our own, with the rights of root over what we mount only.
    pub(super) user: bool,
}

/// Whether an ordinary user has the rights that making namespaces needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Privilege {
    /// Not yet: a user namespace gives them.
    Needed,
    /// It is in a user namespace of ours, the switch's.
    Held,
}

impl Namespaces {
    /// Enters new namespaces in which no mount comes from or goes to the host.
    pub(super) fn enter(privilege: Privilege) -> Result<Self, CellError> {
        let ids = (geteuid(), getegid());
        let user = !ids.0.is_root();
        let new_user = user && privilege == Privilege::Needed;
        let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
        flags.set(CloneFlags::CLONE_NEWUSER, new_user);
        unshare(flags).map_err(|error| CellError::io("leave the host's namespaces", error))?;
        if new_user {
            map_user(ids)?;
        }
        // Ordering: before any other mount, so that none can reach the host.
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
            .map_err(|error| CellError::io("keep mounts from the host", error))?;
        Ok(Self { user })
    }

    /// In the first process of the new process namespace: shows its processes, not the host's.
    pub(super) fn mount_proc(self) -> Result<(), CellError> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("proc"), "/proc", Some("proc"), flags, NONE)
            .map_err(|error| CellError::io("mount /proc", error))
    }
}

/// Maps an ordinary user and its group to themselves in the user namespace this process has just made.
pub(crate) fn map_user((uid, gid): (Uid, Gid)) -> Result<(), CellError> {
    // The kernel lets an ordinary user map its group only after it has renounced setgroups.
    map("setgroups", "deny")?;
    map("uid_map", &format!("{uid} {uid} 1"))?;
    map("gid_map", &format!("{gid} {gid} 1"))
}

fn map(file: &str, text: &str) -> Result<(), CellError> {
    let path = format!("/proc/self/{file}");
    let write = || {
        OpenOptions::new()
            .write(true)
            .open(&path)?
            .write_all(text.as_bytes())
    };
    write().map_err(|error| CellError::io(format!("write {path}"), error))
}
