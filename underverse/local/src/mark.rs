//! Processes by the mark in their environment: how what belongs to a rnode is found without a pid namespace.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Name of the variable that carries a rnode's mark.
pub const RNODE_MARK: &str = "RADIX_RNODE";

/// Most rounds of looking and ending: each round outlives one generation of forks.
const ROUNDS_MAX: u32 = 100;
/// Pause between two rounds, for the kernel to take the dead away.
const ROUND_PAUSE: Duration = Duration::from_millis(10);

/// The mark of a rnode's processes: `<namespace>/<label>@<first 8 digits of the owner>`.
#[must_use]
pub fn rnode_mark(namespace: &str, label: &str, owner: &str) -> String {
    format!("{namespace}/{label}@{}", owner.get(..8).unwrap_or(owner))
}

/// Pids of processes other than ourselves whose environment has `name=value`.
///
/// # Errors
/// Only if `/proc` cannot be read; processes that vanish or deny reading are passed over.
pub fn marked(name: &str, value: &str) -> io::Result<Vec<i32>> {
    let own = std::process::id().cast_signed();
    let wanted = format!("{name}={value}");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        if pid != own && carries(pid, &wanted) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// A zombie's environment is empty, so the dead are never found.
fn carries(pid: i32, wanted: &str) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    environment
        .split(|&byte| byte == 0)
        .any(|variable| variable == wanted.as_bytes())
}

/// Asks every process that carries the mark and is not among `asked` to end, and adds it there; says how many are left.
///
/// # Errors
/// Only if `/proc` cannot be read.
pub fn ask_marked(name: &str, value: &str, asked: &mut BTreeSet<i32>) -> io::Result<usize> {
    let wanted = format!("{name}={value}");
    let found = marked(name, value)?;
    for &pid in &found {
        if asked.insert(pid) {
            signal(pid, &wanted, Signal::TERM);
        }
    }
    Ok(found.len())
}

/// Ends every process that carries the mark, and says how many signals that took.
///
/// # Errors
/// `TimedOut` if some remain after the last round; what was ended stays ended.
pub fn end_marked(name: &str, value: &str) -> io::Result<u32> {
    let wanted = format!("{name}={value}");
    let mut sent = 0;
    for round in 0..ROUNDS_MAX {
        let pids = marked(name, value)?;
        if pids.is_empty() {
            return Ok(sent);
        }
        if round > 0 {
            std::thread::sleep(ROUND_PAUSE);
        }
        for pid in pids {
            sent += u32::from(signal(pid, &wanted, Signal::KILL));
        }
    }
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        format!("processes marked {wanted} do not end"),
    ))
}

/// Ordering: the descriptor is opened before the mark is read again, so a pid used anew is never hit.
fn signal(pid: i32, wanted: &str, signal: Signal) -> bool {
    let Some(pid_typed) = Pid::from_raw(pid) else {
        return false;
    };
    let Ok(process) = pidfd_open(pid_typed, PidfdFlags::empty()) else {
        return false;
    };
    carries(pid, wanted) && pidfd_send_signal(&process, signal).is_ok()
}
