//! The cell: prepares what a rnode's keeper runs in, starts it there, and waits.
//!
//! ```text
//! cell ─ user namespace (unless root), process and mount namespaces ─ mounts ─ fork ─▶ keeper, process 1 in there
//!   └──────── waits, passes SIGTERM and SIGINT on, exits as the keeper did ◀──────────┘
//! ```
//! Killing either ends both and everything inside. With isolation `none` the keeper is only tied to the cell, and what it
//! leaves behind is ended by its mark. Nothing on the host changes but files below the rnode's own directory;
//! how mounts are made without touching the host is in `cell/stage.rs`.

mod command;
mod error;
mod layers;
mod mounts;
mod namespaces;
mod probe;
mod stage;

use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

pub use self::command::{COMMAND_FILE, CommandConfig, CommandLimits};
pub use self::error::CellError;
pub use self::layers::clear;
pub(crate) use self::namespaces::map_user;
use self::namespaces::{Namespaces, Privilege};
pub use self::probe::{Probe, probe, trial};
use crate::config::{Isolation, RnodeConfig};
use crate::keeper::CELL_MARK;
use crate::keeper::launch::failure_of;
use crate::keeper::raw::{self, Status};
use crate::mark::{self, RNODE_MARK};
use crate::signals;
use crate::switch::{self, Plugged, Switch};

/// The variable that names the file in which the cell writes how it ended.
pub const OUTCOME: &str = "RADIX_OUTCOME";

/// How long ending what a keeper left behind may take, where only its mark finds it.
const SWEEP: Duration = Duration::from_secs(5);

/// Runs the cell of the rnode in `dir` until its keeper ends; returns the code to exit with.
///
/// That is the keeper's own, or 128 and the number of the signal that ended it.
/// Must be called first thing in a process of its own, with one thread: it leaves namespaces, blocks signals and forks.
///
/// # Errors
/// [`CellError`]; nothing runs then, and nothing on the host was changed.
pub fn run(dir: &Path) -> Result<i32, CellError> {
    let dir =
        std::path::absolute(dir).map_err(|error| CellError::io("find the directory", error))?;
    if let Some(config) = CommandConfig::load(&dir)? {
        return command::run(&config, &dir);
    }
    let config = RnodeConfig::load(&dir)?;
    let signals = watch_signals()?;
    // Ordering: before any mount, since the switch is found on the host. This process stays in the switch and holds it.
    let network = config.network.as_ref();
    let network = network.map(|network| Switch::plug(&network.switch, network.address));
    let network = network.transpose()?.map(|(_, plugged)| plugged);
    let privilege = network
        .as_ref()
        .map_or(Privilege::Needed, |_| Privilege::Held);
    let isolated = match config.isolation {
        Isolation::None => None,
        Isolation::PidMount => {
            let namespaces = Namespaces::enter(privilege)?;
            let own = [
                config.store_dir.as_path(),
                &config.memoir_dir,
                &config.executable.path,
            ];
            mounts::make(&config.mounts, &own, &dir, namespaces)?;
            Some(namespaces)
        }
    };
    let pid = start_keeper(&config, &dir, (isolated, network.as_ref()))?;
    let status = wait(&signals, pid, None)?;
    if isolated.is_none()
        && let Ok(mark) = std::env::var(RNODE_MARK)
        // The mark of another rnode, passed on by whoever started us, must not end that one.
        && mark.starts_with(&format!("{}/{}@", config.namespace, config.label))
    {
        // Nothing here waits for anything else of the rnode, so what is left has lost its keeper.
        mark::end_marked(&mark, SWEEP)
            .map_err(|error| CellError::io("end what the keeper left behind", error))?;
    }
    tell(&words(status));
    Ok(code(status))
}

/// How something ended, in the words of outcomes.
fn words(status: Status) -> String {
    match status {
        Status::Exited(code) => format!("exited with code {code}"),
        Status::Signalled(signal) => format!("was ended by signal {signal}"),
    }
}

/// The code of a process that ends as another did.
const fn code(status: Status) -> i32 {
    match status {
        Status::Exited(code) => code,
        Status::Signalled(signal) => 128 + signal,
    }
}

/// Writes how the cell ended where whoever started it asks for it; it outlives us that way.
fn tell(how: &str) {
    if let Some(path) = std::env::var_os(OUTCOME)
        && let Err(error) = std::fs::write(&path, format!("{how}\n"))
    {
        tracing::warn!(%error, how, "how the cell ended is not kept");
    }
}

fn start_keeper(
    config: &RnodeConfig,
    dir: &Path,
    inside: (Option<Namespaces>, Option<&Plugged>),
) -> Result<i32, CellError> {
    let failed = |error: std::io::Error| CellError::io("start the keeper", error);
    let child = Child::new(config, dir, inside).map_err(failed)?;
    let (failure_read, failure_write) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let (alive_read, alive_write) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let pid = raw::fork(|| child.run(&alive_write, &alive_read, failure_write.as_fd()))
        .map_err(failed)?;
    drop(failure_write);
    // The end comes when the keeper has executed, or has failed to.
    if let Some(reason) = failure_of(failure_read) {
        raw::reap(pid.as_raw()).map_err(failed)?;
        return Err(failed(std::io::Error::other(reason)));
    }
    Ok(pid.as_raw())
}

/// What the forked child needs to become the keeper.
struct Child<'a> {
    program: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    isolated: Option<Namespaces>,
    network: Option<&'a Plugged>,
}

impl<'a> Child<'a> {
    fn new(
        config: &RnodeConfig,
        dir: &Path,
        (isolated, network): (Option<Namespaces>, Option<&'a Plugged>),
    ) -> std::io::Result<Self> {
        let text = |text: &OsStr| CString::new(text.as_bytes()).map_err(std::io::Error::from);
        let arguments = [
            OsStr::new("radix"),
            OsStr::new("keep"),
            OsStr::new("--dir"),
            dir.as_os_str(),
        ];
        let inherited =
            std::env::vars_os().filter(|(name, _)| name != CELL_MARK && name != OUTCOME);
        let joined = inherited.map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            name.as_bytes().to_vec()
        });
        let environment = joined.chain([format!("{CELL_MARK}=1").into_bytes()]);
        Ok(Self {
            program: text(config.executable.path.as_os_str())?,
            arguments: arguments.into_iter().map(text).collect::<Result<_, _>>()?,
            environment: environment.map(CString::new).collect::<Result<_, _>>()?,
            isolated,
            network,
        })
    }

    fn run(
        &self,
        alive: &OwnedFd,
        watch: &OwnedFd,
        failure: std::os::fd::BorrowedFd<'_>,
    ) -> Infallible {
        let text = match self.become_keeper(alive, watch) {
            Ok(never) => match never {},
            Err(error) => error.chain(),
        };
        if let Ok(failure) = failure.try_clone_to_owned() {
            // Nobody is left to tell if this fails.
            let _ = File::from(failure).write_all(text.as_bytes());
        }
        raw::exit_now(127)
    }

    fn become_keeper(&self, alive: &OwnedFd, watch: &OwnedFd) -> Result<Infallible, CellError> {
        let tie = "tie the keeper to the cell";
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| CellError::io(tie, error))?;
        // Ordering: our copy of the cell's end is closed, then the pipe tells whether the cell lived when we were tied to it.
        nix::unistd::close(alive.as_raw_fd()).map_err(|error| CellError::io(tie, error))?;
        let mut fds = [PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::empty())];
        poll(&mut fds, Some(&Timespec::default())).map_err(|error| CellError::io(tie, error))?;
        if !fds[0].revents().is_empty() {
            return Err(CellError::io(
                tie,
                std::io::Error::other("the cell is gone"),
            ));
        }
        if let Some(network) = self.network {
            let join = "join the container's network";
            network
                .enter()
                .map_err(|error| CellError::io(join, error))?;
        }
        if let Some(namespaces) = self.isolated {
            namespaces.mount_proc()?;
        }
        if self.network.is_some() && nix::unistd::geteuid().is_root() {
            // What an ordinary user has in here goes with the switch's user namespace as soon as it executes.
            switch::give_up_rights().map_err(|error| CellError::io("give up rights", error))?;
        }
        raw::default_sigpipe().map_err(|error| CellError::io("reset signals", error))?;
        SigSet::empty()
            .thread_set_mask()
            .map_err(|error| CellError::io("reset signals", error))?;
        let error = nix::unistd::execve(&self.program, &self.arguments, &self.environment);
        error.map_err(|error| CellError::io("execute the keeper", error))
    }
}

/// What is done while waiting, and how often.
type Tick<'a> = (Timespec, &'a dyn Fn());

/// Waits for the child, passing requests to end on.
fn wait(signals: &SignalFd, child: i32, tick: Option<Tick<'_>>) -> Result<Status, CellError> {
    let failed = |error: std::io::Error| CellError::io("wait for what runs in the cell", error);
    loop {
        let mut fds = [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
        match poll(&mut fds, tick.as_ref().map(|(every, _)| every)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(failed(error.into())),
        }
        if let Some((_, act)) = tick {
            act();
        }
        if signals::ask_to_end(signals) {
            // It fails only if the keeper has just ended.
            let _ = raw::kill(child, nix::libc::SIGTERM);
        }
        while let Some(pid) = raw::ended_child().map_err(failed)? {
            let ended = raw::reap(pid).map_err(failed)?;
            if pid == child {
                return Ok(ended.status);
            }
        }
    }
}

fn watch_signals() -> Result<SignalFd, CellError> {
    signals::take().map_err(|error| CellError::io("watch signals", error))
}
