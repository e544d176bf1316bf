//! Makes a child process from a plan: everything is prepared while the caller records the start, then it executes.
//!
//! ```text
//! keeper   fork ───── write and sync `start` ── open the gate ─▶
//! child      └─ group, descriptors, limits, user ── wait ──┴─▶ exec
//! ```

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::fcntl::AtFlags;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{
    Gid, Pid, Uid, execve, execveat, getppid, setgid, setgroups, setpgid, setsid, setuid,
};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};

use super::raw;

/// The descriptor number at which a child finds its socket.
pub(crate) const SOCKET_NUMBER: i32 = 3;

/// Above the numbers that a child finds filled.
const LIFTED_MIN: i32 = 10;

/// What to execute.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Program<'a> {
    /// This very file, whatever its path is now.
    Descriptor(BorrowedFd<'a>),
    /// What is at this path.
    Path(&'a CStr),
}

/// A limit of a resource: soft and hard.
pub(crate) type Limit = (Resource, u64, u64);

/// Everything a child is started with.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) program: Program<'a>,
    pub(crate) argv: Vec<CString>,
    /// The whole environment.
    pub(crate) environment: Vec<CString>,
    pub(crate) stdin: BorrowedFd<'a>,
    /// `None`: ours.
    pub(crate) stdout: Option<BorrowedFd<'a>>,
    pub(crate) stderr: Option<BorrowedFd<'a>>,
    /// What it finds at [`SOCKET_NUMBER`].
    pub(crate) socket: Option<BorrowedFd<'a>>,
    pub(crate) directory: Option<CString>,
    pub(crate) user: Option<(Uid, Gid)>,
    pub(crate) limits: Vec<Limit>,
    /// Its own session and not ended with us; else its own process group, killed by the kernel when we die.
    pub(crate) detached: bool,
}

/// A child that is prepared or running.
///
/// Dropped before [`Launched::go`], it ends the child without executing anything.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) pid: i32,
    gate: OwnedFd,
    /// Holds the reason if it could not execute.
    pub(crate) failure: OwnedFd,
}

impl Plan<'_> {
    /// Forks the child; it waits for [`Launched::go`].
    pub(crate) fn launch(&self) -> io::Result<Launched> {
        let (gate_read, gate_write) = pipe_with(PipeFlags::CLOEXEC)?;
        let (failure_read, failure_write) = pipe_with(PipeFlags::CLOEXEC)?;
        let parent = nix::unistd::getpid();
        let child = raw::fork(|| self.child(&gate_write, &gate_read, &failure_write, parent))?;
        // Both sides do it, so that the group exists whoever comes first; it fails once the child has executed.
        if !self.detached {
            let _ = setpgid(child, child);
        }
        rustix::io::ioctl_fionbio(&failure_read, true)?;
        Ok(Launched {
            pid: child.as_raw(),
            gate: gate_write,
            failure: failure_read,
        })
    }

    /// What the child does; it does not come back.
    fn child(&self, gate: &OwnedFd, wait: &OwnedFd, failure: &OwnedFd, parent: Pid) -> Infallible {
        let failure = fcntl_dupfd_cloexec(failure, LIFTED_MIN).map(std::fs::File::from);
        let result = self.prepare(gate, wait, parent);
        let text = match result {
            Ok(never) => match never {},
            Err((step, error)) => format!("{step}: {error}"),
        };
        if let Ok(mut failure) = failure {
            // Nobody is left to tell if this fails.
            let _ = failure.write_all(text.as_bytes());
        }
        raw::exit_now(127)
    }

    fn prepare(&self, gate: &OwnedFd, wait: &OwnedFd, parent: Pid) -> Result<Infallible, Failed> {
        let wait = lift(wait.as_fd())?;
        // Ordering: before its number is taken by something else; only the keeper's copy may hold the gate shut.
        close(gate);
        let program = match self.program {
            Program::Descriptor(fd) => Some(lift(fd)?),
            Program::Path(_) => None,
        };
        self.place_descriptors()?;
        let alone = if self.detached {
            setsid().map(drop)
        } else {
            setpgid(Pid::from_raw(0), Pid::from_raw(0))
        };
        alone.map_err(at("leave the keeper's group"))?;
        raw::default_sigpipe().map_err(|error| ("reset signals", error))?;
        SigSet::empty()
            .thread_set_mask()
            .map_err(at("reset signals"))?;
        self.drop_rights()?;
        if let Some(directory) = &self.directory {
            nix::unistd::chdir(directory.as_c_str()).map_err(at("enter the working directory"))?;
        }
        if !self.detached {
            // Ordering: after the change of user, which would clear it; the parent may be gone by then.
            prctl::set_pdeathsig(Signal::SIGKILL).map_err(at("be tied to the keeper"))?;
            if getppid() != parent {
                return Err(("be tied to the keeper", io::Error::other("it is gone")));
            }
        }
        raw::close_on_exec_from(4).map_err(|error| ("close descriptors", error))?;
        pass(wait)?;
        self.execute(program)
    }

    fn place_descriptors(&self) -> Result<(), Failed> {
        let lift_some = |fd: Option<BorrowedFd<'_>>| fd.map(lift).transpose();
        let stdin = lift(self.stdin)?;
        let (stdout, stderr) = (lift_some(self.stdout)?, lift_some(self.stderr)?);
        let socket = lift_some(self.socket)?;
        let wanted = [
            (Some(stdin), 0),
            (stdout, 1),
            (stderr, 2),
            (socket, SOCKET_NUMBER),
        ];
        for (fd, number) in wanted {
            if let Some(fd) = fd {
                raw::place(fd.as_fd(), number).map_err(|error| ("place descriptors", error))?;
            }
        }
        if self.socket.is_none() {
            raw::close_on_exec_from(3).map_err(|error| ("close descriptors", error))?;
        }
        Ok(())
    }

    fn drop_rights(&self) -> Result<(), Failed> {
        for (resource, soft, hard) in &self.limits {
            setrlimit(*resource, *soft, *hard).map_err(at("set a limit"))?;
        }
        if let Some((uid, gid)) = self.user {
            setgroups(&[]).map_err(at("drop groups"))?;
            setgid(gid).map_err(at("change the group"))?;
            setuid(uid).map_err(at("change the user"))?;
            prctl::set_no_new_privs().map_err(at("renounce privileges"))?;
        }
        Ok(())
    }

    fn execute(&self, program: Option<OwnedFd>) -> Result<Infallible, Failed> {
        let failed = at("execute the program");
        match (program, self.program) {
            (Some(fd), _) => {
                let file = std::fs::File::from(fd);
                let mut start = [0; 2];
                if file.read_exact_at(&mut start, 0).is_ok() && &start == b"#!" {
                    // A script's interpreter opens the descriptor again, so it must survive the exec.
                    fcntl_setfd(&file, FdFlags::empty())
                        .map_err(|error| ("pass the script", error.into()))?;
                }
                execveat(
                    &file,
                    c"",
                    &self.argv,
                    &self.environment,
                    AtFlags::AT_EMPTY_PATH,
                )
                .map_err(failed)
            }
            (None, Program::Path(path)) => {
                execve(path, &self.argv, &self.environment).map_err(failed)
            }
            (None, Program::Descriptor(_)) => {
                Err(("execute the program", io::Error::other("it is not open")))
            }
        }
    }
}

impl Launched {
    /// Lets the child execute its program; what is left is the descriptor that tells whether it could.
    ///
    /// A gate that cannot be opened ends the child, whose outcome says why it did not execute.
    pub(crate) fn go(self) -> OwnedFd {
        let mut gate = std::fs::File::from(self.gate);
        match gate.write_all(&[1]) {
            // The child may have failed before the gate; its outcome says why.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                tracing::error!(%error, pid = self.pid, "a child cannot be let go");
            }
            _ => {}
        }
        self.failure
    }
}

/// Why a child could not execute its program; `None` if it did.
pub(crate) fn failure_of(failure: OwnedFd) -> Option<String> {
    let mut text = Vec::new();
    // The child has ended, so the end is there; an error means that nothing was written.
    let _ = std::fs::File::from(failure)
        .take(512)
        .read_to_end(&mut text);
    (!text.is_empty()).then(|| String::from_utf8_lossy(&text).into_owned())
}

/// A step and why it failed.
type Failed = (&'static str, io::Error);

fn at(step: &'static str) -> impl Fn(nix::Error) -> Failed {
    move |error| (step, error.into())
}

/// Copies a descriptor above the numbers that will be filled.
fn lift(fd: BorrowedFd<'_>) -> Result<OwnedFd, Failed> {
    fcntl_dupfd_cloexec(fd, LIFTED_MIN).map_err(|error| ("copy a descriptor", error.into()))
}

/// Closes the child's copy of a descriptor that the parent owns.
fn close(fd: &OwnedFd) {
    // The child never drops the parent's value, so nothing closes the number again.
    let _ = nix::unistd::close(fd.as_raw_fd());
}

/// Waits for the gate.
fn pass(wait: OwnedFd) -> Result<(), Failed> {
    let mut byte = [0];
    std::fs::File::from(wait)
        .read_exact(&mut byte)
        .map_err(|error| ("be let go", error))
}
