//! The agent as the keeper sees it: a child with a packet socket, started again under a new incarnation when it dies.

use std::collections::VecDeque;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::resource::Resource;

use super::client::KEEPER_FD;
use super::launch::{Plan, Program, SOCKET_NUMBER, failure_of};
use super::packet::{self, Packet};
use super::pen::Pen;
use super::{CELL_MARK, raw, request};
use crate::config::RnodeConfig;
use crate::error::KeeperError;
use crate::mark::EXECUTION_MARK;

/// How long to wait before the first restart.
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// How long to wait between restarts at most.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Life after which an agent is held to be sound.
const SOUND_LIFE: Duration = Duration::from_secs(10);

/// The agent and what is under way between it and the keeper.
#[derive(Debug)]
pub(crate) struct AgentProcess {
    state: State,
    backoff: Duration,
    /// Replies not yet sent. While there are any, no request is taken, so they are those of one request.
    replies: VecDeque<Outgoing>,
    /// Executions whose end is not yet told; at most one entry an execution.
    exits: VecDeque<String>,
}

/// A packet to be sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fds: Vec<Rc<OwnedFd>>,
}

#[derive(Debug)]
enum State {
    Running(Running),
    Waiting {
        until: Instant,
    },
    /// Not to be started again.
    Retired,
}

#[derive(Debug)]
struct Running {
    pid: i32,
    incarnation: u64,
    since: Instant,
    /// `None` once the agent has closed its end.
    socket: Option<OwnedFd>,
    failure: OwnedFd,
}

impl AgentProcess {
    /// An agent that is due to be started.
    pub(crate) fn new(now: Instant) -> Self {
        let state = State::Waiting { until: now };
        Self {
            state,
            backoff: BACKOFF_MIN,
            replies: VecDeque::new(),
            exits: VecDeque::new(),
        }
    }

    /// Starts the agent if it is due; a failure to do so is one more death of it.
    pub(crate) fn start_if_due(&mut self, now: Instant, pen: &Pen, start: &AgentStart<'_>) {
        let State::Waiting { until } = self.state else {
            return;
        };
        if until > now {
            return;
        }
        match pen
            .next_incarnation()
            .and_then(|incarnation| start.launch(incarnation, now))
        {
            Ok(running) => {
                tracing::info!(
                    pid = running.pid,
                    incarnation = running.incarnation,
                    "agent started"
                );
                self.state = State::Running(running);
            }
            Err(error) => {
                tracing::error!(%error, source = ?std::error::Error::source(&error), "the agent cannot be started");
                self.back_off(now);
            }
        }
    }

    fn back_off(&mut self, now: Instant) {
        self.state = State::Waiting {
            until: now + self.backoff,
        };
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }

    /// Its pid while it lives.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.running().map(|running| running.pid)
    }

    /// The incarnation that lives, 0 without one.
    pub(crate) fn incarnation(&self) -> u64 {
        self.running().map_or(0, |running| running.incarnation)
    }

    /// When it is due to be started.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Running(_) | State::Retired => None,
        }
    }

    fn running(&self) -> Option<&Running> {
        match &self.state {
            State::Running(running) => Some(running),
            State::Waiting { .. } | State::Retired => None,
        }
    }

    /// Takes note that it has died and been reaped.
    pub(crate) fn died(&mut self, now: Instant, status: raw::Status) {
        self.replies.clear();
        self.exits.clear();
        let State::Running(running) = std::mem::replace(&mut self.state, State::Retired) else {
            return;
        };
        let failure = failure_of(running.failure);
        tracing::warn!(
            incarnation = running.incarnation,
            ?status,
            failure,
            "agent died"
        );
        if now.duration_since(running.since) >= SOUND_LIFE {
            self.backoff = BACKOFF_MIN;
        }
        self.back_off(now);
    }

    /// Never starts it again.
    pub(crate) fn retire(&mut self) {
        if !matches!(self.state, State::Running(_)) {
            self.state = State::Retired;
        }
    }

    /// Signals it, if it lives.
    pub(crate) fn signal(&self, signal: i32) {
        if let Some(pid) = self.pid() {
            // It fails only if the agent has just ended.
            let _ = raw::kill(pid, signal);
        }
    }

    /// Its socket, with whether we would read from it and whether we would write to it.
    pub(crate) fn socket(&self) -> Option<(BorrowedFd<'_>, bool, bool)> {
        let socket = self.running()?.socket.as_ref()?;
        let idle = self.replies.is_empty();
        Some((socket.as_fd(), idle, !idle || !self.exits.is_empty()))
    }

    /// Queues the replies to one request.
    pub(crate) fn reply(&mut self, replies: impl IntoIterator<Item = Outgoing>) {
        self.replies.extend(replies);
    }

    /// Queues the news of an execution's end, if there is an agent to hear it; one that starts later asks for a list.
    pub(crate) fn tell_exit(&mut self, name: String) {
        if self.running().is_some() {
            self.exits.push_back(name);
        }
    }

    /// The next request, unless replies to the last one are waiting.
    pub(crate) fn receive(&mut self) -> Option<Packet> {
        let State::Running(running) = &mut self.state else {
            return None;
        };
        if !self.replies.is_empty() {
            return None;
        }
        match packet::receive(running.socket.as_ref()?.as_fd()) {
            Ok(Some(packet)) => return Some(packet),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!("the agent sent a packet that is too large");
                return None;
            }
            Ok(None) => tracing::warn!("the agent closed its socket"),
            Err(error) => tracing::warn!(%error, "the agent's socket failed"),
        }
        self.cut_off();
        None
    }

    /// Ends an agent that cannot be reached: it is as good as dead, and keeps the next one from its work.
    fn cut_off(&mut self) {
        if let State::Running(running) = &mut self.state {
            running.socket = None;
        }
        self.signal(nix::libc::SIGKILL);
    }

    /// Sends what is queued, as far as the agent takes it; `describe` makes an exit's packet.
    pub(crate) fn send(&mut self, describe: impl Fn(&str) -> Option<Vec<u8>>) {
        match self.send_queued(describe) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // It is dying; what it still asked for is read before its end is seen.
            Err(error) if has_died(&error) => {
                self.replies.clear();
                self.exits.clear();
            }
            Err(error) => {
                // It would wait for ever for what is not sent; the next one begins with a list.
                tracing::error!(%error, "a packet cannot be sent to the agent, it is ended");
                self.replies.clear();
                self.exits.clear();
                self.cut_off();
            }
        }
    }

    fn send_queued(&mut self, describe: impl Fn(&str) -> Option<Vec<u8>>) -> io::Result<()> {
        let State::Running(Running {
            socket: Some(socket),
            ..
        }) = &self.state
        else {
            return Ok(());
        };
        while let Some(reply) = self.replies.front() {
            let fds: Vec<_> = reply.fds.iter().map(|fd| fd.as_fd()).collect();
            packet::send(socket.as_fd(), &reply.bytes, &fds)?;
            self.replies.pop_front();
        }
        while let Some(name) = self.exits.front() {
            if let Some(bytes) = describe(name) {
                packet::send(socket.as_fd(), &bytes, &[])?;
            }
            self.exits.pop_front();
        }
        Ok(())
    }
}

/// What an agent is started from.
#[derive(Debug)]
pub(crate) struct AgentStart<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) config: &'a RnodeConfig,
    /// How many files the agent may open: all that we may, since it serves whoever comes and starts nothing itself.
    pub(crate) files_max: u64,
}

impl AgentStart<'_> {
    fn launch(&self, incarnation: u64, now: Instant) -> Result<Running, KeeperError> {
        let path = &self.config.executable.path;
        let failed = |error: io::Error| KeeperError::at("start the agent from", path, error);
        let (keeper_end, agent_end) = packet::pair().map_err(failed)?;
        let null = File::open("/dev/null").map_err(failed)?;
        let text =
            |text: &OsStr| CString::new(text.as_bytes()).map_err(|error| failed(error.into()));
        let program = text(path.as_os_str())?;
        let arguments = [
            OsStr::new("radix"),
            OsStr::new("agent"),
            OsStr::new("--dir"),
            self.dir.as_os_str(),
        ];
        let launched = Plan {
            program: Program::Path(&program),
            argv: arguments.into_iter().map(text).collect::<Result<_, _>>()?,
            environment: environment(),
            stdin: null.as_fd(),
            stdout: None,
            stderr: None,
            socket: Some(agent_end.as_fd()),
            directory: None,
            user: None,
            limits: vec![(Resource::RLIMIT_NOFILE, self.files_max, self.files_max)],
            detached: false,
        }
        .launch()
        .map_err(failed)?;
        let pid = launched.pid;
        let failure = launched.go();
        Ok(Running {
            pid,
            incarnation,
            since: now,
            socket: Some(keeper_end),
            failure,
        })
    }
}

/// Whether a send failed because the other end is gone; with packets of ours still unread there, it is a reset.
fn has_died(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// The keeper's own environment, without what concerns the keeper alone.
fn environment() -> Vec<CString> {
    let ours = [CELL_MARK, EXECUTION_MARK, KEEPER_FD, request::AGENT_FD].map(OsStr::new);
    let inherited = std::env::vars_os().filter(|(name, _)| !ours.contains(&name.as_os_str()));
    let joined = inherited.map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name.as_bytes().to_vec()
    });
    let own = format!("{KEEPER_FD}={SOCKET_NUMBER}").into_bytes();
    joined
        .chain([own])
        .filter_map(|variable| CString::new(variable).ok())
        .collect()
}
