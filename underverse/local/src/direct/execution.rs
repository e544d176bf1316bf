//! One execution: its directory, its process, its end.
//!
//! ```text
//! direct/<name>/start.json     what was asked; synced before anything runs
//!               alive          locked by the process from its fork on, through its standard input; free: it is gone
//!               process.json   pid and start time; may be missing after a kill, then the mark tells
//!               outcome        how what ran in it ended, written by a cell itself
//!               log            what it said
//!               ended.json     that its death is confirmed: nothing that carries its mark is left
//! ```
//! Invariant: a second process is started only if `alive` is free and no first one was ever written down, so nothing
//! runs twice under one name, wherever an earlier one of us was killed.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::FlockOperation;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, waitid};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use underverse::{Effect, Error, Kind};

use crate::base::{EndSignal, Ended, ExecutionView, Start};
use crate::execute::io_at;
use crate::label::Label;
use crate::process::{ProcessName, stat};
use crate::{durable, mark};

/// Variable that every process of an execution carries; its value is the execution's directory.
const DIRECT_MARK: &str = "RADIX_DIRECT";
/// Variable that names the file in which a cell writes how it ended.
const OUTCOME: &str = "RADIX_OUTCOME";
/// Variables that a started process takes over from us.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];
/// Largest log of which the last line is read.
const LOG_BYTES_MAX: u64 = 1 << 20;
/// How often a lock is tried that nobody who lives holds, [`LOOKER_PAUSE`] apart: 5 s in all.
const LOOKERS_MAX: u32 = 1000;
/// Time that somebody who looks is given to let go.
const LOOKER_PAUSE: Duration = Duration::from_millis(5);

/// What was asked, as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    label: Label,
    args: Vec<String>,
    started_unix_ms: u64,
}

/// How it ended, as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Confirmed {
    how: String,
    unix_ms: u64,
}

/// An execution by its directory.
#[derive(Debug)]
pub(super) struct Execution {
    directory: PathBuf,
}

impl Execution {
    pub(super) const fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn mark(&self) -> String {
        self.directory.display().to_string()
    }

    fn asked(&self) -> Option<Asked> {
        // One that was never whole was never followed by a start.
        durable::read_json(&self.file("start.json")).ok().flatten()
    }

    /// The process as far as it is known; the oldest that carries the mark where nothing was written down.
    fn process(&self) -> Option<ProcessName> {
        if let Ok(Some(process)) = durable::read_json(&self.file("process.json")) {
            return Some(process);
        }
        let marked = mark::marked(DIRECT_MARK, &self.mark()).ok()?;
        let found = marked.into_iter().filter_map(ProcessName::of);
        let process = found.min_by_key(|process| process.start_ticks)?;
        // If it is not kept, it is found again.
        drop(durable::write_json(&self.file("process.json"), &process));
        Some(process)
    }

    fn alive(&self) -> io::Result<fs::File> {
        let mut options = fs::OpenOptions::new();
        let options = options.create(true).truncate(false).read(true).write(true);
        options.open(self.file("alive"))
    }

    /// Shares the lock that its process holds alone while it lives; `None`: it lives.
    ///
    /// Shared, since a process that is forked elsewhere meanwhile has the descriptor too and keeps what it locks until
    /// it executes: whoever only looks must not be taken for a life by the next who looks.
    fn share_alive(&self) -> io::Result<Option<fs::File>> {
        let file = self.alive()?;
        let shared = try_lock(&file, FlockOperation::NonBlockingLockShared)?;
        Ok(shared.then_some(file))
    }

    /// Whether its process holds the lock; makes no file where there is none.
    pub(super) fn lives(&self) -> io::Result<bool> {
        Ok(self.file("alive").exists() && self.share_alive()?.is_none())
    }

    /// Takes the lock for a process that is to hold it; `None`: one lives.
    fn take_alive(&self) -> io::Result<Option<fs::File>> {
        let file = self.alive()?;
        for _ in 0..LOOKERS_MAX {
            if try_lock(&file, FlockOperation::NonBlockingLockExclusive)? {
                return Ok(Some(file));
            }
            if !try_lock(&file, FlockOperation::NonBlockingLockShared)? {
                return Ok(None);
            }
            // Somebody looks, or was forked while somebody did.
            std::thread::sleep(LOOKER_PAUSE);
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Starts it, unless it was started.
    pub(super) fn start(&self, radix: &Path, start: &Start) -> Result<(), Error> {
        let failed = |error| io_at("start an execution", &self.directory)(error);
        durable::create_dir(&self.directory).map_err(failed)?;
        let Some(alive) = self.take_alive().map_err(failed)? else {
            return Ok(());
        };
        let was_started = ["ended.json", "process.json"].map(|name| self.file(name).exists());
        if was_started.contains(&true) && self.asked().is_some() {
            return Ok(());
        }
        let asked = Asked {
            label: start.label.clone(),
            args: start.args.clone(),
            started_unix_ms: unix_ms(),
        };
        durable::write_json(&self.file("start.json"), &asked).map_err(failed)?;
        let child = self.command(radix, start, alive).and_then(|mut command| {
            // What it says of a missing executable is about `radix`, not about the directory.
            command.spawn()
        });
        let child = child.map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::NotFound => Kind::NotFound,
                io::ErrorKind::PermissionDenied => Kind::Denied,
                _ => Kind::Io,
            };
            let error = Error::new(kind, "start a process", error.to_string()).caused_by(error);
            error
                .effect(Effect::None)
                .with("executable", radix.display())
        })?;
        if let Some(process) = ProcessName::of(child.id().cast_signed()) {
            durable::write_json(&self.file("process.json"), &process).map_err(failed)?;
        }
        Ok(())
    }

    fn command(&self, radix: &Path, start: &Start, alive: fs::File) -> io::Result<Command> {
        let log = fs::File::create(self.file("log"))?;
        let inherited = INHERITED
            .iter()
            .filter_map(|name| Some((*name, std::env::var_os(name)?)));
        let mut command = Command::new(radix);
        command
            .args(&start.args)
            .env_clear()
            .envs(inherited)
            .envs(start.env.iter().map(|(name, value)| (name, value)))
            .env(DIRECT_MARK, &self.directory)
            .env(OUTCOME, self.file("outcome"))
            .current_dir("/")
            .stdin(Stdio::from(alive))
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .process_group(0);
        Ok(command)
    }

    /// How it is now; `None` if it was never started. Confirms its death if it is dead.
    pub(super) fn look(&self) -> io::Result<Option<ExecutionView>> {
        let Some(asked) = self.asked() else {
            return Ok(None);
        };
        let view = |pid, ended| ExecutionView {
            id: asked.label.execution(),
            label: asked.label.clone(),
            pid,
            started_unix_ms: asked.started_unix_ms,
            linked: true,
            ended,
        };
        let confirmed = durable::read_json::<Confirmed>(&self.file("ended.json"))?;
        if let Some(Confirmed { how, unix_ms }) = confirmed {
            return Ok(Some(view(0, Some(Ended { how, unix_ms }))));
        }
        let Some(_alive) = self.share_alive()? else {
            let pid = self.process().map_or(0, |process| process.pid);
            return Ok(Some(view(pid, None)));
        };
        let Ok(Some(process)) = durable::read_json::<ProcessName>(&self.file("process.json"))
        else {
            // Nobody was started, or it ended before it was written down: it may be started again.
            return Ok(None);
        };
        let how = self.how(process);
        mark::end_marked(DIRECT_MARK, &self.mark())?;
        let ended = Confirmed {
            how,
            unix_ms: unix_ms(),
        };
        durable::write_json(&self.file("ended.json"), &ended)?;
        let Confirmed { how, unix_ms } = ended;
        Ok(Some(view(process.pid, Some(Ended { how, unix_ms }))))
    }

    /// The namespace it was asked for; `None` if it was never wholly asked for.
    pub(super) fn namespace(&self) -> Option<String> {
        self.asked().map(|asked| asked.label.namespace)
    }

    /// Lets go of it unless something of it runs; says whether it did.
    ///
    /// Also of one that was asked for and never started, or never wholly asked for: after a kill nobody may ask for it again.
    pub(super) fn forget(&self) -> io::Result<bool> {
        if !self.directory.exists() {
            return Ok(true);
        }
        if self.look()?.is_some_and(|view| view.ended.is_none()) {
            return Ok(false);
        }
        let Some(_alive) = self.share_alive()? else {
            return Ok(false);
        };
        mark::end_marked(DIRECT_MARK, &self.mark())?;
        durable::remove_tree(&self.directory).map(|()| true)
    }

    /// How it ended: as it said itself, else as the kernel tells its parent, if that is us.
    fn how(&self, process: ProcessName) -> String {
        let reaped = reap(process);
        let told = fs::read_to_string(self.file("outcome")).unwrap_or_default();
        if !told.trim().is_empty() {
            return told.trim().to_owned();
        }
        let how = reaped.unwrap_or_else(|| "ended while nobody watched".to_owned());
        match self.last_words() {
            Some(words) if how != "exited with code 0" => format!("{how}: {words}"),
            _ => how,
        }
    }

    fn last_words(&self) -> Option<String> {
        let log = self.file("log");
        if fs::metadata(&log).ok()?.len() > LOG_BYTES_MAX {
            return None;
        }
        let text = fs::read(log).ok()?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut lines = text.lines().rev().map(str::trim);
        lines.find(|line| !line.is_empty()).map(str::to_owned)
    }

    /// Returns true once its process has ended, false if that cannot be watched now.
    pub(super) async fn until_ended(&self) -> bool {
        let Some(process) = self.process() else {
            return self.share_alive().is_ok_and(|alive| alive.is_some());
        };
        let Some(pid) = Pid::from_raw(process.pid) else {
            return true;
        };
        // Ordering: the descriptor is opened before the start time is read, so it names this very process.
        let Ok(descriptor) = pidfd_open(pid, PidfdFlags::NONBLOCK) else {
            return true;
        };
        if !process.is_alive() {
            return true;
        }
        #[expect(
            deprecated,
            reason = "sound for an owned descriptor, which stays open for as long as it is registered"
        )]
        let registered = AsyncFd::with_interest(descriptor, Interest::READABLE);
        match registered {
            Ok(descriptor) => descriptor.readable().await.is_ok(),
            Err(_) => false,
        }
    }

    pub(super) fn signal(&self, signal: EndSignal) -> Result<(), Error> {
        let Some(_) = self.asked() else {
            return Err(Error::new(
                Kind::NotFound,
                "signal an execution",
                "it was never started",
            ));
        };
        let Some(process) = self.process() else {
            return Ok(());
        };
        match signal {
            EndSignal::Ask => drop(process.signal(Signal::TERM)),
            EndSignal::Force => {
                process.signal(Signal::KILL);
                mark::end_marked(DIRECT_MARK, &self.mark())
                    .map(drop)
                    .map_err(io_at("end an execution by force", &self.directory))?;
            }
        }
        Ok(())
    }
}

/// Whether the lock was had at once.
fn try_lock(file: &fs::File, operation: FlockOperation) -> io::Result<bool> {
    match rustix::fs::flock(file, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Reaps a child of ours; `None` if it is none, or somebody else did.
fn reap(process: ProcessName) -> Option<String> {
    let (state, ticks) = stat(process.pid)?;
    if state != "Z" || ticks != process.start_ticks {
        return None;
    }
    let pid = Pid::from_raw(process.pid)?;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = waitid(WaitId::Pid(pid), options).ok()??;
    let exited = status
        .exit_status()
        .map(|code| format!("exited with code {code}"));
    let killed = || {
        status
            .terminating_signal()
            .map(|s| format!("was ended by signal {s}"))
    };
    exited.or_else(killed)
}

/// Wall clock, for people only.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label::Subject;

    /// Executions that were asked for by somebody who was killed before anything was started.
    const ASKED: u32 = 60;

    /// A process that is forked while somebody looks has what he locked, until it executes.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_looked_at_is_started_whoever_is_forked_meanwhile() {
        let root = std::env::temp_dir().join(format!("radix-execution-{}", std::process::id()));
        let label = |attempt| Label {
            namespace: "stix".to_owned(),
            generation: (1, 0),
            attempt,
            subject: Subject::Cell { ordinal: 1 },
        };
        let mut others = tokio::task::JoinSet::new();
        for _ in 0..4 {
            others.spawn(async {
                loop {
                    let other = tokio::process::Command::new("true").status();
                    assert!(other.await.unwrap().success());
                }
            });
        }
        let mut started = 0;
        for attempt in 1..=ASKED {
            let execution = Execution::new(root.join(attempt.to_string()));
            durable::create_dir(&execution.directory).unwrap();
            let asked = Asked {
                label: label(attempt),
                args: Vec::new(),
                started_unix_ms: 0,
            };
            durable::write_json(&execution.file("start.json"), &asked).unwrap();
            for _ in 0..20 {
                assert_eq!(execution.look().unwrap(), None, "it was never started");
                tokio::task::yield_now().await;
            }
            let start = Start {
                label: label(attempt),
                args: Vec::new(),
                env: Vec::new(),
            };
            execution.start(Path::new("/bin/true"), &start).unwrap();
            started += u32::from(execution.file("process.json").exists());
        }
        others.shutdown().await;
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(started, ASKED);
    }
}
