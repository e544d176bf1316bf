//! The keeper's executions: starting, signalling, ending and listing them.
//!
//! What is in memory here is what the records on disk say, plus the descriptors that only a running keeper can hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crux_net::process::{Environment, end_carrying};
use crux_wire::keeper::v1::{Execution, Outcome, OutcomeKind, RefusedKind, Spawn};

use super::launch::{Launched, Plan, Program, failure_of};
use super::raw::{self, Status};
use super::record::{Created, Found, Records, Spare, Start, is_name};
use super::request::{Checked, Surroundings};
use super::{output_cap, packet, process};
use crate::mark::{EXECUTION_MARK, RNODE_MARK};

/// The most executions alive at once.
pub(crate) const LIVE_MAX: usize = 4096;

/// The most ended executions kept; the oldest is forgotten first.
pub(crate) const ENDED_MAX: usize = 1024;

/// The most directories made ahead. 8: as many commands at once start without making any.
const SPARES_MAX: usize = 8;

/// What an execution whose time is over gets to end by itself, before it is killed, and again.
const OVERDUE_GRACE: Duration = Duration::from_secs(5);

/// How long ending what a dead keeper left behind may take.
const SWEEP: Duration = Duration::from_secs(5);

/// Why a request is not served; nothing was changed.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) kind: RefusedKind,
    pub(crate) reason: String,
}

impl Refusal {
    pub(crate) fn new(kind: RefusedKind, reason: impl Into<String>) -> Self {
        Self {
            kind,
            reason: reason.into(),
        }
    }

    fn io(operation: &str, error: &io::Error) -> Self {
        let full = matches!(
            error.raw_os_error(),
            Some(nix::libc::EMFILE | nix::libc::ENFILE | nix::libc::EAGAIN)
        );
        let kind = if full {
            RefusedKind::Limit
        } else {
            RefusedKind::Io
        };
        Self::new(kind, format!("{operation}: {error}"))
    }

    fn unknown(name: &str) -> Self {
        Self::new(
            RefusedKind::NotFound,
            format!("there is no execution {name}"),
        )
    }
}

/// All executions of one keeper.
#[derive(Debug)]
pub(crate) struct Executions {
    records: Records,
    surroundings: Surroundings,
    boot: String,
    null: File,
    entries: BTreeMap<String, Entry>,
    /// Children by pid.
    children: BTreeMap<i32, String>,
    /// Ended ones by the time of their end: what lived longest is not the first to go.
    ended: BTreeSet<(u64, String)>,
    next_order: u64,
    spares: Vec<Spare>,
    next_spare: u64,
    /// How many to make when there is time: one for each execution that ended.
    spares_due: usize,
}

/// One execution.
#[derive(Debug)]
pub(crate) struct Entry {
    start: Start,
    /// The agent's end of its socket; the right to connect lives as long as this.
    socket: Option<Rc<OwnedFd>>,
    /// When its time is over, if it is limited.
    due: Option<Due>,
    state: State,
}

/// What is due to an execution whose time is limited.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    /// It was asked to end; what comes next is to kill it.
    asked: bool,
}

#[derive(Debug)]
enum State {
    /// Our child, recorded and not let go: its agent has yet to say that it may execute.
    Held {
        launched: Launched,
        hold: OwnedFd,
    },
    /// Our child; the descriptor tells whether it could execute.
    Child {
        failure: OwnedFd,
    },
    /// A former keeper's child.
    Adopted {
        pidfd: OwnedFd,
    },
    /// Ended, but its outcome could not be written yet.
    Unwritten(Outcome),
    Ended(Outcome),
}

impl Executions {
    /// Takes over what is recorded in `dir`: adopts detached executions that live, ends what else was left behind.
    pub(crate) fn open(dir: &Path, surroundings: Surroundings) -> io::Result<Self> {
        let mut executions = Self {
            records: Records::open(dir)?,
            surroundings,
            boot: process::boot_id()?,
            null: File::open("/dev/null")?,
            entries: BTreeMap::new(),
            children: BTreeMap::new(),
            ended: BTreeSet::new(),
            next_order: 0,
            spares: Vec::new(),
            next_spare: 0,
            spares_due: 0,
        };
        for found in executions.records.scan()? {
            executions.take_over(found)?;
        }
        executions.limit_ended();
        Ok(executions)
    }

    fn take_over(&mut self, found: Found) -> io::Result<()> {
        let Found { mut start, outcome } = found;
        start.argv = Vec::new();
        if start.shorten() {
            tracing::warn!(
                execution = start.execution,
                "what an older keeper took is too long to be told and is left out"
            );
        }
        self.next_order = self.next_order.max(start.order + 1);
        let name = start.execution.clone();
        if let Some(outcome) = outcome {
            self.ended.insert((outcome.ended_unix_ms, name.clone()));
            self.entries.insert(
                name,
                Entry {
                    start,
                    socket: None,
                    due: None,
                    state: State::Ended(outcome),
                },
            );
            return Ok(());
        }
        let same_boot = start.boot == self.boot;
        let alive = if same_boot {
            process::open(start.pid, start.start_ticks)?
        } else {
            None
        };
        let detached = start.detached;
        let state = match alive {
            Some(pidfd) if detached => State::Adopted { pidfd },
            alive => {
                if same_boot && !detached {
                    self.end_left_behind(&start, alive)?;
                }
                State::Unwritten(lost("its keeper died"))
            }
        };
        // It was adopted in the boot that it was started in, so its ticks tell its age.
        let age = process::age(start.start_ticks).unwrap_or_default();
        let due = due(&start, age);
        self.entries.insert(
            name.clone(),
            Entry {
                start,
                socket: None,
                due,
                state,
            },
        );
        self.write_unwritten(&name);
        Ok(())
    }

    /// Ends an execution of a keeper that died, and whatever it started.
    fn end_left_behind(&self, start: &Start, alive: Option<OwnedFd>) -> io::Result<()> {
        if let Some(pidfd) = alive {
            // It led its group, and its pid is held by the descriptor until it is reaped.
            let _ = raw::kill(-start.pid, nix::libc::SIGKILL);
            raw::kill_fd(pidfd.as_fd(), nix::libc::SIGKILL)?;
        }
        if let Some(own) = &self.surroundings.mark {
            let of_it = |environment: &Environment| {
                environment.holds(EXECUTION_MARK, &start.execution)
                    && environment.holds(RNODE_MARK, own)
            };
            end_carrying(of_it, SWEEP)?;
        }
        Ok(())
    }

    /// Starts what was asked for, or finds it started; true if it existed. One that is held is to be settled next.
    pub(crate) fn spawn(
        &mut self,
        spawn: Spawn,
        fds: Vec<OwnedFd>,
    ) -> Result<(String, bool), Refusal> {
        if !is_name(&spawn.execution) {
            return Err(Refusal::new(
                RefusedKind::Invalid,
                "the execution's name is not a plain file name",
            ));
        }
        // One that its agent took back is no answer to a repeat.
        self.settle(&spawn.execution);
        if self.entries.contains_key(&spawn.execution) {
            return Ok((spawn.execution, true));
        }
        if self.live().count() >= LIVE_MAX {
            return Err(Refusal::new(
                RefusedKind::Limit,
                format!("{LIVE_MAX} executions are alive"),
            ));
        }
        let checked = Checked::check(spawn, fds, &self.surroundings)?;
        let name = checked.start.execution.clone();
        let spare = self.spares.pop();
        let created = self.records.create(&name, spare).map_err(|error| {
            self.discard(&name);
            Refusal::io("make its directory", &error)
        })?;
        match self.start(checked, &created) {
            Ok(entry) => {
                self.next_order += 1;
                self.children.insert(entry.start.pid, name.clone());
                self.entries.insert(name.clone(), entry);
                Ok((name, false))
            }
            Err(error) => {
                self.discard(&name);
                Err(Refusal::io("start it", &error))
            }
        }
    }

    fn start(&self, checked: Checked, created: &Created) -> io::Result<Entry> {
        let Checked {
            mut start,
            program,
            stdin,
            hold,
            wants_socket,
            directory,
            user,
            limits,
            ..
        } = checked;
        if let Some((uid, gid)) = user {
            nix::unistd::fchown(&created.stdout, Some(uid), Some(gid))?;
            nix::unistd::fchown(&created.stderr, Some(uid), Some(gid))?;
        }
        let pair = if wants_socket {
            Some(packet::pair()?)
        } else {
            None
        };
        let (agent_end, process_end) = pair.unzip();
        let launched = Plan {
            program: Program::Descriptor(program.as_fd()),
            argv: checked.argv,
            environment: checked.environment,
            stdin: stdin
                .as_ref()
                .map_or_else(|| self.null.as_fd(), AsFd::as_fd),
            stdout: Some(created.stdout.as_fd()),
            stderr: Some(created.stderr.as_fd()),
            socket: process_end.as_ref().map(AsFd::as_fd),
            directory: Some(directory),
            user,
            limits,
            detached: start.detached,
        }
        .launch()?;
        start.pid = launched.pid;
        start.boot.clone_from(&self.boot);
        start.order = self.next_order;
        start.start_ticks = process::start_ticks(launched.pid)?;
        start.started_unix_ms = now_unix_ms();
        // Ordering: durable before the child may execute. On an error it ends without executing.
        self.records.write_start(created, &start)?;
        let state = match hold {
            Some(hold) => {
                rustix::io::ioctl_fionbio(&hold, true)?;
                State::Held { launched, hold }
            }
            None => State::Child {
                failure: launched.go(),
            },
        };
        start.argv = Vec::new();
        let due = due(&start, Duration::ZERO);
        Ok(Entry {
            start,
            socket: agent_end.map(Rc::new),
            due,
            state,
        })
    }

    /// Lets a held execution go if its agent has said so; forgets it, as if it had not been asked for, if none ever will.
    pub(crate) fn settle(&mut self, name: &str) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        let State::Held { hold, .. } = &entry.state else {
            return;
        };
        let goes = match rustix::io::read(hold, &mut [0; 1]) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
            said => said == Ok(1),
        };
        if !goes {
            let pid = entry.start.pid;
            // Its gate may still be open in a child that was forked after it and is held too.
            let _ = raw::kill(pid, nix::libc::SIGKILL);
            self.children.remove(&pid);
            self.entries.remove(name);
            self.discard(name);
            return;
        }
        let state = std::mem::replace(&mut entry.state, State::Unwritten(Outcome::default()));
        if let State::Held { launched, .. } = state {
            entry.state = State::Child {
                failure: launched.go(),
            };
        }
    }

    /// Settles every held execution: their agent has died, so none stays held.
    pub(crate) fn settle_all(&mut self) {
        let held = |entry: &Entry| matches!(entry.state, State::Held { .. });
        let names = self.entries.iter().filter(|(_, entry)| held(entry));
        let names: Vec<_> = names.map(|(name, _)| name.clone()).collect();
        for name in names {
            self.settle(&name);
        }
    }

    /// Removes what a failed start left.
    fn discard(&self, name: &str) {
        if let Err(error) = self.records.forget(name)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(execution = name, %error, "what a failed start left cannot be removed");
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str, signal: i32, group: bool) -> Result<(), Refusal> {
        if !(0..=64).contains(&signal) {
            return Err(Refusal::new(
                RefusedKind::Invalid,
                format!("{signal} is no signal"),
            ));
        }
        let entry = self
            .entries
            .get(name)
            .ok_or_else(|| Refusal::unknown(name))?;
        let pid = entry.start.pid;
        let sent = match &entry.state {
            // An unreaped child keeps its pid and its group.
            State::Child { .. } | State::Held { .. } if group => raw::kill(-pid, signal),
            State::Child { .. } | State::Held { .. } => raw::kill(pid, signal),
            State::Adopted { pidfd } if group => {
                raw::kill_fd(pidfd.as_fd(), 0).and_then(|()| raw::kill(-pid, signal))
            }
            State::Adopted { pidfd } => raw::kill_fd(pidfd.as_fd(), signal),
            State::Unwritten(_) | State::Ended(_) => {
                return Err(Refusal::new(
                    RefusedKind::NotFound,
                    format!("{name} has ended"),
                ));
            }
        };
        sent.map_err(|error| Refusal::io("signal it", &error))
    }

    /// Drops an ended execution's record and output.
    pub(crate) fn forget(&mut self, name: &str) -> Result<(), Refusal> {
        let entry = self
            .entries
            .get(name)
            .ok_or_else(|| Refusal::unknown(name))?;
        let State::Ended(outcome) = &entry.state else {
            return Err(Refusal::new(
                RefusedKind::Invalid,
                format!("{name} has not ended"),
            ));
        };
        let ended = outcome.ended_unix_ms;
        self.records
            .forget(name)
            .map_err(|error| Refusal::io("forget it", &error))?;
        self.entries.remove(name);
        self.ended.remove(&(ended, name.to_owned()));
        Ok(())
    }

    /// Takes note that a child has ended and reaps it; returns the name of an execution whose outcome is now durable.
    pub(crate) fn child_ended(&mut self, pid: i32) -> io::Result<Option<String>> {
        let name = self.children.remove(&pid);
        let entry = name.as_ref().and_then(|name| self.entries.get_mut(name));
        if entry.as_ref().is_some_and(|entry| !entry.start.detached) {
            // An execution is its process group: with its leader the rest ends too.
            // Ordering: before reaping, while the number cannot be another group's. It fails if nothing is left.
            let _ = raw::kill(-pid, nix::libc::SIGKILL);
        }
        let ended = raw::reap(pid)?;
        let (Some(name), Some(entry)) = (name, entry) else {
            return Ok(None);
        };
        let mut outcome = Outcome {
            ended_unix_ms: now_unix_ms(),
            user_cpu_us: ended.user_cpu_us,
            system_cpu_us: ended.system_cpu_us,
            memory_peak_bytes: ended.memory_peak_bytes,
            timed_out: entry.timed_out(),
            ..Outcome::default()
        };
        match ended.status {
            Status::Exited(code) => {
                (outcome.kind, outcome.code) = (OutcomeKind::Exited.into(), code)
            }
            Status::Signalled(signal) => {
                (outcome.kind, outcome.code) = (OutcomeKind::Signalled.into(), signal)
            }
        }
        let state = std::mem::replace(&mut entry.state, State::Unwritten(Outcome::default()));
        let reason = match state {
            State::Child { failure } => failure_of(failure),
            State::Held { launched, .. } => {
                let reason = failure_of(launched.failure);
                reason.or_else(|| Some("it ended before it was let go".to_owned()))
            }
            State::Adopted { .. } | State::Unwritten(_) | State::Ended(_) => None,
        };
        if let Some(reason) = reason {
            (outcome.kind, outcome.code) = (OutcomeKind::NotStarted.into(), 0);
            outcome.reason = reason;
        }
        Ok(self.end(name, outcome))
    }

    /// Looks at an execution whose descriptor woke us; returns its name if its outcome is now durable.
    pub(crate) fn look_at(&mut self, name: &str) -> Option<String> {
        let state = &self.entries.get(name)?.state;
        match state {
            State::Adopted { .. } => self.adopted_ended(name),
            _ => {
                self.settle(name);
                None
            }
        }
    }

    /// Takes note that an adopted execution has ended.
    fn adopted_ended(&mut self, name: &str) -> Option<String> {
        let lost = lost("it was started by a keeper that died, so its code is unknown");
        let timed_out = self.entries.get(name)?.timed_out();
        self.end(name.to_owned(), Outcome { timed_out, ..lost })
    }

    fn end(&mut self, name: String, outcome: Outcome) -> Option<String> {
        let entry = self.entries.get_mut(&name)?;
        entry.socket = None;
        entry.state = State::Unwritten(outcome);
        let written = self.write_unwritten(&name);
        self.limit_ended();
        self.spares_due = (self.spares_due + 1).min(SPARES_MAX);
        written.then_some(name)
    }

    /// Tries again to write outcomes that could not be written; returns those that now are.
    pub(crate) fn write_all_unwritten(&mut self) -> Vec<String> {
        let unwritten = |(name, entry): (&String, &Entry)| {
            matches!(entry.state, State::Unwritten(_)).then(|| name.clone())
        };
        let names: Vec<_> = self.entries.iter().filter_map(unwritten).collect();
        names
            .into_iter()
            .filter(|name| self.write_unwritten(name))
            .collect()
    }

    fn write_unwritten(&mut self, name: &str) -> bool {
        let Some(entry) = self.entries.get_mut(name) else {
            return false;
        };
        let State::Unwritten(outcome) = &entry.state else {
            return false;
        };
        if let Err(error) = self.records.write_outcome(name, outcome) {
            tracing::error!(execution = name, %error, "an outcome cannot be written, it is tried again");
            return false;
        }
        let ended = outcome.ended_unix_ms;
        entry.state = State::Ended(outcome.clone());
        self.ended.insert((ended, name.to_owned()));
        true
    }

    fn limit_ended(&mut self) {
        while self.ended.len() > ENDED_MAX
            && let Some((_, name)) = self.ended.pop_first()
        {
            self.entries.remove(&name);
            self.discard(&name);
        }
    }

    /// Makes directories ahead, where executions have ended: whoever starts commands one after the other then does not wait
    /// for it. A service that goes on costs none.
    pub(crate) fn make_spares(&mut self) {
        for _ in 0..std::mem::take(&mut self.spares_due) {
            if self.spares.len() >= SPARES_MAX {
                return;
            }
            self.next_spare += 1;
            match self.records.prepare(self.next_spare) {
                Ok(spare) => self.spares.push(spare),
                // The next start says it, if it is still so.
                Err(error) => return tracing::debug!(%error, "no directory can be made ahead"),
            }
        }
    }

    /// When the next time of a living execution is over.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let due = |(_, entry): (&String, &Entry)| Some(entry.due?.at);
        self.live().filter_map(due).min()
    }

    /// Asks what has had its time to end, and kills what was asked and does not.
    pub(crate) fn end_overdue(&mut self, now: Instant) {
        let is_over = |due: &Due| due.at <= now;
        let over = self
            .live()
            .filter_map(|(name, entry)| Some((name.clone(), entry.due.filter(is_over)?)));
        let over: Vec<_> = over.collect();
        for (name, due) in over {
            let signal = match due.asked {
                false => nix::libc::SIGTERM,
                true => nix::libc::SIGKILL,
            };
            // One that ended meanwhile is about to be reaped.
            let _ = self.signal(&name, signal, true);
            if !due.asked {
                // A stopped process would not see the request to end.
                let _ = self.signal(&name, nix::libc::SIGCONT, true);
            }
            if let Some(entry) = self.entries.get_mut(&name) {
                entry.due = Some(Due {
                    at: now + OVERDUE_GRACE,
                    asked: true,
                });
            }
        }
    }

    /// Keeps the output of what is alive below its cap.
    pub(crate) fn cap_outputs(&self) {
        for (name, entry) in self.live() {
            for file in ["stdout", "stderr"] {
                let path = self.records.path(name, file);
                if let Err(error) = output_cap::enforce(&path, entry.start.output_bytes_max) {
                    tracing::warn!(execution = name.as_str(), %error, "output cannot be capped");
                }
            }
        }
    }

    /// Signals every living execution that is not detached, as groups; returns how many there are.
    pub(crate) fn signal_attached(&self, signal: i32) -> usize {
        let mut count = 0;
        for (name, _) in self.live().filter(|(_, entry)| !entry.start.detached) {
            // One that ended meanwhile is about to be reaped.
            let _ = self.signal(name, signal, true);
            count += 1;
        }
        count
    }

    /// Whether any execution lives or waits for its outcome to be written.
    pub(crate) fn needs_care(&self) -> bool {
        self.entries.len() > self.ended.len()
    }

    /// Executions with a descriptor to wait for: an adopted one's tells its end, a held one's that it may go.
    pub(crate) fn watched(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.entries
            .iter()
            .filter_map(|(name, entry)| match &entry.state {
                State::Adopted { pidfd: fd } | State::Held { hold: fd, .. } => {
                    Some((name.as_str(), fd.as_fd()))
                }
                _ => None,
            })
    }

    fn live(&self) -> impl Iterator<Item = (&String, &Entry)> {
        let lives = |(_, entry): &(&String, &Entry)| {
            matches!(
                entry.state,
                State::Held { .. } | State::Child { .. } | State::Adopted { .. }
            )
        };
        self.entries.iter().filter(lives)
    }

    /// One execution as told to the agent, with the agent's end of its socket.
    pub(crate) fn describe(&self, name: &str) -> Option<(Execution, Option<Rc<OwnedFd>>)> {
        let Entry {
            start,
            socket,
            state,
            ..
        } = self.entries.get(name)?;
        let outcome = match state {
            State::Ended(outcome) => Some(outcome.clone()),
            State::Held { .. }
            | State::Child { .. }
            | State::Adopted { .. }
            | State::Unwritten(_) => None,
        };
        let path = |file| self.records.path(name, file).to_string_lossy().into_owned();
        let execution = Execution {
            execution: start.execution.clone(),
            instance: start.instance.clone(),
            configuration: start.configuration.clone(),
            command: start.command.clone(),
            pid: start.pid,
            start_ticks: start.start_ticks,
            started_unix_ms: start.started_unix_ms,
            outcome,
            stdout_path: path("stdout"),
            stderr_path: path("stderr"),
            label: super::request::from_hex(&start.label),
            detached: start.detached,
            has_socket: socket.is_some(),
            digest: start.digest.clone(),
        };
        Some((execution, socket.clone()))
    }

    /// The names of all executions in the order of their start.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .entries
            .iter()
            .map(|(name, entry)| (entry.start.order, name))
            .collect();
        names.sort();
        names.into_iter().map(|(_, name)| name.clone()).collect()
    }
}

impl Entry {
    /// Whether it was asked to end because its time was over.
    fn timed_out(&self) -> bool {
        self.due.is_some_and(|due| due.asked)
    }
}

/// When the time of an execution of that age is over.
fn due(start: &Start, age: Duration) -> Option<Due> {
    if start.time_limit_ms == 0 {
        return None;
    }
    let left = Duration::from_millis(start.time_limit_ms).saturating_sub(age);
    // One that is too far away for the clock never comes.
    let at = Instant::now().checked_add(left)?;
    Some(Due { at, asked: false })
}

fn lost(reason: &str) -> Outcome {
    Outcome {
        kind: OutcomeKind::Lost.into(),
        ended_unix_ms: now_unix_ms(),
        reason: reason.to_owned(),
        ..Outcome::default()
    }
}

pub(crate) fn now_unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
