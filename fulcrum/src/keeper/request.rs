//! Checks a request to start something: what comes out of here can be launched.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use crux_wire::keeper::v1::{Limits, RefusedKind, Spawn};
use nix::sys::resource::Resource;
use nix::unistd::{Gid, Uid};

use super::executions::Refusal;
use super::launch::{Limit, SOCKET_NUMBER};
use super::output_cap::OUTPUT_BYTES_MAX;
use super::packet::TOLD_BYTES_MAX;
use super::record::Start;
use crate::mark::{EXECUTION_MARK, RNODE_MARK};

/// The environment variable that names the descriptor of a process's socket.
pub(crate) const AGENT_FD: &str = "RADIX_AGENT_FD";

/// What the keeper itself was started with and passes on.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// The rnode's mark, if the keeper carries one.
    pub(crate) mark: Option<String>,
    /// The limit of open files that the keeper found, before it raised its own.
    pub(crate) files: (u64, u64),
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
}

/// A request that can be launched; pid, ticks, boot, time and order of `start` are filled in by the launch.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) start: Start,
    pub(crate) program: OwnedFd,
    pub(crate) stdin: Option<OwnedFd>,
    /// The pipe whose byte lets it go; `None`: it need not wait.
    pub(crate) hold: Option<OwnedFd>,
    pub(crate) argv: Vec<CString>,
    pub(crate) environment: Vec<CString>,
    pub(crate) wants_socket: bool,
    pub(crate) directory: CString,
    pub(crate) user: Option<(Uid, Gid)>,
    pub(crate) limits: Vec<Limit>,
}

impl Checked {
    pub(crate) fn check(
        spawn: Spawn,
        fds: Vec<OwnedFd>,
        surroundings: &Surroundings,
    ) -> Result<Self, Refusal> {
        let mut fds = fds.into_iter();
        let program = fds
            .next()
            .ok_or_else(|| invalid("no executable was passed"))?;
        let stdin = if spawn.stdin {
            Some(
                fds.next()
                    .ok_or_else(|| invalid("no standard input was passed"))?,
            )
        } else {
            None
        };
        let hold = if spawn.held {
            let hold = fds.next();
            Some(hold.ok_or_else(|| invalid("nothing was passed that lets it go"))?)
        } else {
            None
        };
        if spawn.argv.is_empty() {
            return Err(invalid("the argument list is empty"));
        }
        let told = [
            ("instance", spawn.instance.len()),
            ("configuration", spawn.configuration.len()),
            ("command", spawn.command.len()),
            ("digest", spawn.digest.len()),
            ("label", spawn.label.len()),
        ];
        if let Some((what, bytes)) = told.iter().find(|(_, bytes)| *bytes > TOLD_BYTES_MAX) {
            return Err(invalid(format!(
                "the {what} has {bytes} bytes, at most {TOLD_BYTES_MAX} are told"
            )));
        }
        let directory = if spawn.working_directory.is_empty() {
            "/"
        } else {
            spawn.working_directory.as_str()
        };
        let checked = Self {
            program,
            stdin,
            hold,
            argv: spawn
                .argv
                .iter()
                .map(|word| text("an argument", word))
                .collect::<Result<_, _>>()?,
            environment: environment(&spawn, surroundings)?,
            wants_socket: spawn.agent_socket,
            directory: text("the working directory", directory)?,
            user: user(&spawn, surroundings)?,
            limits: limits(&spawn.limits.unwrap_or_default(), surroundings),
            start: start(spawn),
        };
        Ok(checked)
    }
}

fn start(spawn: Spawn) -> Start {
    Start {
        execution: spawn.execution,
        instance: spawn.instance,
        configuration: spawn.configuration,
        command: spawn.command,
        argv: spawn.argv,
        digest: spawn.digest,
        label: hex(&spawn.label),
        pid: 0,
        start_ticks: 0,
        boot: String::new(),
        started_unix_ms: 0,
        detached: spawn.detached,
        output_bytes_max: if spawn.output_bytes_max == 0 {
            OUTPUT_BYTES_MAX
        } else {
            spawn.output_bytes_max
        },
        time_limit_ms: spawn.time_limit_ms,
        order: 0,
    }
}

/// The whole environment: what was asked for, with our own marks in place of any like them.
fn environment(spawn: &Spawn, surroundings: &Surroundings) -> Result<Vec<CString>, Refusal> {
    let mut own = vec![(EXECUTION_MARK, spawn.execution.clone())];
    if spawn.agent_socket {
        own.push((AGENT_FD, SOCKET_NUMBER.to_string()));
    }
    // A detached execution may be the cell of another rnode, with that one's mark.
    let other_mark = spawn.detached && spawn.env.iter().any(|variable| variable.name == RNODE_MARK);
    if let Some(mark) = surroundings.mark.as_ref().filter(|_| !other_mark) {
        own.push((RNODE_MARK, mark.clone()));
    }
    let mut variables = Vec::with_capacity(spawn.env.len() + own.len());
    for variable in &spawn.env {
        if variable.name.is_empty() || variable.name.contains('=') {
            return Err(invalid(format!(
                "{:?} cannot name a variable",
                variable.name
            )));
        }
        let ours = own.iter().any(|(name, _)| *name == variable.name) || variable.name == AGENT_FD;
        if !ours {
            variables.push(text(
                "a variable",
                &format!("{}={}", variable.name, variable.value),
            )?);
        }
    }
    for (name, value) in own {
        variables.push(text("a variable", &format!("{name}={value}"))?);
    }
    Ok(variables)
}

/// The user to change to; `None` if that is ours.
fn user(spawn: &Spawn, surroundings: &Surroundings) -> Result<Option<(Uid, Gid)>, Refusal> {
    let Some(user) = spawn.user.filter(|user| user.set) else {
        return Ok(None);
    };
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    if (uid, gid) == (surroundings.uid, surroundings.gid) {
        return Ok(None);
    }
    if !surroundings.uid.is_root() {
        let reason = format!(
            "only root can run it as uid {} and gid {}",
            user.uid, user.gid
        );
        return Err(Refusal::new(RefusedKind::Unsupported, reason));
    }
    Ok(Some((uid, gid)))
}

/// The limits to set; 0 leaves one as it is. Memory is what the program may allocate (RLIMIT_DATA), not what it may map.
fn limits(limits: &Limits, surroundings: &Surroundings) -> Vec<Limit> {
    let (soft, hard) = surroundings.files;
    let files = if limits.files == 0 {
        (soft, hard)
    } else {
        (limits.files.min(hard), limits.files.min(hard))
    };
    let wanted = [
        (Resource::RLIMIT_DATA, limits.memory_bytes),
        (Resource::RLIMIT_NPROC, limits.processes),
        (Resource::RLIMIT_CPU, limits.cpu_seconds),
    ];
    let set = wanted
        .into_iter()
        .filter(|(_, limit)| *limit > 0)
        .map(|(resource, limit)| (resource, limit, limit));
    std::iter::once((Resource::RLIMIT_NOFILE, files.0, files.1))
        .chain(set)
        .collect()
}

fn invalid(reason: impl Into<String>) -> Refusal {
    Refusal::new(RefusedKind::Invalid, reason)
}

fn text(what: &str, text: &str) -> Result<CString, Refusal> {
    CString::new(text).map_err(|_| invalid(format!("{what} holds a zero byte")))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes of a label; what is not hex is left out.
pub(crate) fn from_hex(text: &str) -> Vec<u8> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.as_bytes().chunks(2).filter_map(pair).collect()
}
