//! The network that another process is in: whoever looks at a container from below goes there.

use std::fs::File;
use std::io;

use nix::sched::{CloneFlags, setns};

use super::enter_user;
use crate::cell::CellError;

/// The network of a process, held open.
#[derive(Debug)]
pub struct Network {
    user: File,
    net: File,
    foreign: bool,
}

impl Network {
    /// The network that process `pid` is in.
    ///
    /// # Errors
    /// The system's, above all that there is no such process or that it is somebody else's.
    pub fn of(pid: i32) -> io::Result<Self> {
        let space = |name| format!("/proc/{pid}/ns/{name}");
        Ok(Self {
            user: File::open(space("user"))?,
            net: File::open(space("net"))?,
            foreign: std::fs::read_link(space("net"))? != std::fs::read_link("/proc/self/ns/net")?,
        })
    }

    /// Whether it was another one than this process was in when it was opened.
    #[must_use]
    pub const fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// Enters it with this process, which must have one thread.
    ///
    /// Sockets that were made before stay where they were made.
    ///
    /// # Errors
    /// [`CellError`]; the process is good for nothing else then.
    pub fn enter(&self) -> Result<(), CellError> {
        if !self.foreign {
            return Ok(());
        }
        enter_user(&self.user)?;
        setns(&self.net, CloneFlags::CLONE_NEWNET)
            .map_err(|error| CellError::io("enter a container's network", error))
    }
}
