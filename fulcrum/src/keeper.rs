//! The keeper: parent of a rnode's agent and of every execution in it.
//!
//! One process, one thread, no async runtime: it waits for signals, for packets of its agent and for the ends of adopted
//! executions, and what it knows is on disk before it says so. See docs/design/keeper.md; the agent's end of the
//! conversation is [`client`]. Not for decisions about what should run: those are the agent's.

mod agent_process;
pub mod client;
pub(crate) mod executions;
pub(crate) mod launch;
pub(crate) mod output_cap;
pub(crate) mod packet;
mod pen;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod record;
mod request;
mod serve;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;

use self::agent_process::{AgentProcess, AgentStart};
use self::executions::Executions;
use self::pen::Pen;
use self::request::Surroundings;
use self::serve::{Greeting, Served};
use crate::config::RnodeConfig;
use crate::error::KeeperError;
use crate::mark::RNODE_MARK;
use crate::signals;

/// The environment variable, set to `1`, that tells a keeper to die with the cell that started it.
pub const CELL_MARK: &str = "RADIX_CELL";

/// What executions get to end by themselves when the keeper is told to by SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(5);

/// What killed executions get to be gone; beyond that the keeper leaves them to the kernel.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// What the agent gets to end by itself at last.
const AGENT_GRACE: Duration = Duration::from_secs(2);

/// How often output files are held against their cap, and unwritten outcomes tried again.
const CARE_EVERY: Duration = Duration::from_secs(1);

/// Requests served before executions and timers are looked at again.
const REQUESTS_PER_TURN: usize = 64;

/// Runs the keeper of the rnode in `dir` until it is retired by its agent, SIGTERM or SIGINT.
///
/// Must be called first thing in a process of its own, with one thread: it blocks signals, becomes the reaper of orphans,
/// and forks. Detached executions outlive it; everything else ends with it.
///
/// # Errors
/// [`KeeperError::PenTaken`] when another keeper runs on `dir`; the others when it cannot go on.
pub fn run(dir: &Path) -> Result<(), KeeperError> {
    Keeper::start(dir)?.run()
}

#[derive(Debug)]
struct Keeper {
    dir: PathBuf,
    config: RnodeConfig,
    pen: Pen,
    signals: SignalFd,
    files: (u64, u64),
    executions: Executions,
    agent: AgentProcess,
    retiring: Option<Retiring>,
    next_care: Instant,
}

/// How far retiring has come.
#[derive(Debug)]
struct Retiring {
    /// The request to answer when all executions have ended.
    request: Option<u64>,
    stage: Stage,
    deadline: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Executions were asked to end.
    Asked,
    /// They were killed.
    Killed,
    /// Only the agent is left, and was asked to end.
    AgentAsked,
    /// The agent was killed.
    AgentKilled,
}

/// What a turn of waiting found.
#[derive(Debug, Default)]
struct Ready {
    signals: bool,
    agent: bool,
    /// Executions whose descriptor woke us.
    executions: Vec<String>,
}

impl Keeper {
    fn start(dir: &Path) -> Result<Self, KeeperError> {
        let dir = std::path::absolute(dir).map_err(|error| KeeperError::at("find", dir, error))?;
        die_with_cell()?;
        let config = RnodeConfig::load(&dir)?;
        let signals = signals::take().map_err(|error| KeeperError::io("watch signals", error))?;
        let pen = Pen::take(&dir)?;
        // Else what executions leave behind would be reaped by somebody who knows nothing of it.
        prctl::set_child_subreaper(true)
            .map_err(|error| KeeperError::io("become the reaper of orphans", error))?;
        // Children get back what was found, but the agent.
        let files = crux_net::process::raise_open_files()
            .map_err(|error| KeeperError::io("raise the limit of open files", error))?;
        let surroundings = Surroundings {
            mark: std::env::var(RNODE_MARK)
                .ok()
                .filter(|mark| !mark.is_empty()),
            files,
            uid: nix::unistd::geteuid(),
            gid: nix::unistd::getegid(),
        };
        let executions = Executions::open(&dir, surroundings)
            .map_err(|error| KeeperError::at("take over the executions in", &dir, error))?;
        let now = Instant::now();
        let agent = AgentProcess::new(now);
        Ok(Self {
            dir,
            config,
            pen,
            signals,
            files,
            executions,
            agent,
            retiring: None,
            next_care: now,
        })
    }

    fn run(mut self) -> Result<(), KeeperError> {
        loop {
            if self.retiring.is_none() {
                self.start_agent();
            }
            let ready = self.wait()?;
            for name in ready.executions {
                if let Some(name) = self.executions.look_at(&name) {
                    self.agent.tell_exit(name);
                }
            }
            if ready.signals {
                self.take_signals()?;
            }
            if ready.agent {
                self.serve();
            }
            self.take_care();
            if self.retire_further() {
                return Ok(());
            }
            let executions = &self.executions;
            self.agent.send(|name| serve::exited(executions, name));
            if self.retiring.is_none() {
                // Ordering: after the ends are told.
                self.executions.make_spares();
            }
        }
    }

    fn start_agent(&mut self) {
        let now = Instant::now();
        if self.agent.due().is_none_or(|due| due > now) {
            return;
        }
        // The executable may have been replaced since; a file that cannot be read changes nothing.
        match RnodeConfig::load(&self.dir) {
            Ok(config) => self.config = config,
            Err(error) => {
                tracing::warn!(%error, "the configuration cannot be read, the last one stays")
            }
        }
        let start = AgentStart {
            dir: &self.dir,
            config: &self.config,
            files_max: self.files.1,
        };
        self.agent.start_if_due(now, &self.pen, &start);
    }

    fn wait(&self) -> Result<Ready, KeeperError> {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let names: Vec<_> = self.executions.watched().collect();
        fds.extend(
            names
                .iter()
                .map(|(_, pidfd)| PollFd::new(*pidfd, PollFlags::POLLIN)),
        );
        if let Some((socket, read, write)) = self.agent.socket() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, read);
            flags.set(PollFlags::POLLOUT, write);
            fds.push(PollFd::new(socket, flags));
        }
        match poll(&mut fds, self.timeout()) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(KeeperError::io("wait", error)),
        }
        let is_ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        let woken = names.iter().zip(&fds[1..]).filter(|(_, fd)| is_ready(fd));
        Ok(Ready {
            signals: is_ready(&fds[0]),
            agent: fds.len() > 1 + names.len() && fds.last().is_some_and(is_ready),
            executions: woken.map(|((name, _), _)| (*name).to_owned()).collect(),
        })
    }

    /// Until the next thing that is due without an event; none when all is quiet.
    fn timeout(&self) -> PollTimeout {
        let care = self.executions.needs_care().then_some(self.next_care);
        let agent = if self.retiring.is_none() {
            self.agent.due()
        } else {
            None
        };
        let retiring = self.retiring.as_ref().map(|retiring| retiring.deadline);
        let due = self.executions.next_due();
        let Some(next) = [care, agent, retiring, due].into_iter().flatten().min() else {
            return PollTimeout::NONE;
        };
        // Rounded up, else the last part of a millisecond would be spent in a spin.
        let wait = next.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
    }

    fn take_signals(&mut self) -> Result<(), KeeperError> {
        if signals::ask_to_end(&self.signals) {
            self.retire(None, TERM_GRACE);
        }
        // One SIGCHLD may stand for many children.
        let failed = |error| KeeperError::io("reap children", error);
        while let Some(pid) = raw::ended_child().map_err(failed)? {
            if self.agent.pid() == Some(pid) {
                // Its group may hold what it started by itself; only before reaping is the number certainly its own.
                let _ = raw::kill(-pid, nix::libc::SIGKILL);
                let ended = raw::reap(pid).map_err(failed)?;
                self.agent.died(Instant::now(), ended.status);
                // Ordering: before the next one is started, which must not find what the last one never let go.
                self.executions.settle_all();
            } else if let Some(name) = self.executions.child_ended(pid).map_err(failed)? {
                self.agent.tell_exit(name);
            }
        }
        Ok(())
    }

    fn serve(&mut self) {
        for _ in 0..REQUESTS_PER_TURN {
            let Some(packet) = self.agent.receive() else {
                return;
            };
            let greeting = Greeting {
                dir: &self.dir,
                incarnation: self.agent.incarnation(),
                retiring: self.retiring.is_some(),
            };
            let mut started = None;
            match serve::serve(packet, &mut self.executions, &greeting) {
                Served::Replies(replies) => self.agent.reply(replies),
                Served::Started(replies, name) => {
                    self.agent.reply(replies);
                    started = Some(name);
                }
                Served::Retire { request, grace_ms } => {
                    self.retire(Some(request), Duration::from_millis(grace_ms.into()));
                }
            }
            let executions = &self.executions;
            self.agent.send(|name| serve::exited(executions, name));
            if let Some(name) = started {
                self.executions.settle(&name);
            }
        }
    }

    fn take_care(&mut self) {
        let now = Instant::now();
        self.executions.end_overdue(now);
        if now < self.next_care || !self.executions.needs_care() {
            return;
        }
        self.next_care = now + CARE_EVERY;
        self.executions.cap_outputs();
        for name in self.executions.write_all_unwritten() {
            self.agent.tell_exit(name);
        }
    }

    /// Begins to retire; told a second time, it goes on to the next stage at once.
    fn retire(&mut self, request: Option<u64>, grace: Duration) {
        let now = Instant::now();
        match &mut self.retiring {
            Some(retiring) => {
                retiring.deadline = now;
                retiring.request = request.or(retiring.request);
            }
            None => {
                tracing::info!("the keeper retires");
                self.executions.signal_attached(nix::libc::SIGTERM);
                // A stopped process would not see the request to end.
                self.executions.signal_attached(nix::libc::SIGCONT);
                self.retiring = Some(Retiring {
                    request,
                    stage: Stage::Asked,
                    deadline: now + grace,
                });
            }
        }
    }

    /// Takes the steps of retiring that are due; true when the keeper is done.
    fn retire_further(&mut self) -> bool {
        let Some(retiring) = &mut self.retiring else {
            return false;
        };
        let now = Instant::now();
        let due = now >= retiring.deadline;
        let left = self.executions.signal_attached(0);
        match retiring.stage {
            Stage::Asked if left > 0 => {
                if due {
                    self.executions.signal_attached(nix::libc::SIGKILL);
                    (retiring.stage, retiring.deadline) = (Stage::Killed, now + KILL_GRACE);
                }
            }
            Stage::Killed if left > 0 && !due => {}
            Stage::Asked | Stage::Killed => {
                let executions = &self.executions;
                self.agent
                    .reply(retiring.request.take().map(serve::retired));
                self.agent.send(|name| serve::exited(executions, name));
                self.agent.retire();
                self.agent.signal(nix::libc::SIGTERM);
                (retiring.stage, retiring.deadline) = (Stage::AgentAsked, now + AGENT_GRACE);
            }
            Stage::AgentAsked if due => {
                self.agent.signal(nix::libc::SIGKILL);
                (retiring.stage, retiring.deadline) = (Stage::AgentKilled, now + KILL_GRACE);
            }
            Stage::AgentKilled if due => return true,
            Stage::AgentAsked | Stage::AgentKilled => {}
        }
        matches!(retiring.stage, Stage::AgentAsked | Stage::AgentKilled)
            && self.agent.pid().is_none()
    }
}

/// Ties this process to its cell, where it has one.
fn die_with_cell() -> Result<(), KeeperError> {
    if std::env::var_os(CELL_MARK).is_some_and(|value| value == "1") {
        // The cell set this before it let us execute, and checked that it lived then; it survives the exec. Said again
        // here for a keeper that was started by something else in the cell's place.
        prctl::set_pdeathsig(Signal::SIGKILL)
            .map_err(|error| KeeperError::io("be tied to the cell", error))?;
    }
    Ok(())
}
