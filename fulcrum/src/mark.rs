//! The mark that every process of a rnode carries in its environment, and ending all that carry it.
//!
//! Only for rnodes without a process namespace of their own: a process can shed the mark by executing with another
//! environment, or hide it from a user of equal rank by making itself undumpable, so this is the weaker way.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::keeper::{process, raw};

/// The environment variable that holds a rnode's mark, `<namespace>/<label>@<owner id8>`.
pub const RNODE_MARK: &str = "RADIX_RNODE";

/// The environment variable that holds the name of the execution a process belongs to.
pub const EXECUTION_MARK: &str = "RADIX_EXECUTION";

/// How long one process may take to die after SIGKILL before the next round looks again.
const ROUND: Duration = Duration::from_millis(500);

/// A process that carries a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marked {
    /// Its pid in our process namespace.
    pub pid: i32,
    /// Its start, in clock ticks from boot.
    pub start_ticks: u64,
}

/// The processes whose environment holds `RADIX_RNODE=mark`, ourselves left out.
///
/// Processes whose environment we may not read are left out too.
///
/// # Errors
/// The system's, where `/proc` cannot be listed.
pub fn marked(mark: &str) -> io::Result<Vec<Marked>> {
    carrying(&[(RNODE_MARK, mark)])
}

/// Ends every process that carries the mark, ourselves left out, and returns how many there were.
///
/// It looks again until none is left, since a process may fork while it is looked for. Blocks.
///
/// # Errors
/// `TimedOut` when some are left after `limit`; else the system's.
pub fn end_marked(mark: &str, limit: Duration) -> io::Result<usize> {
    end_carrying(&[(RNODE_MARK, mark)], limit)
}

/// Ends every process whose environment holds all of `variables`.
pub(crate) fn end_carrying(variables: &[(&str, &str)], limit: Duration) -> io::Result<usize> {
    let begun = Instant::now();
    let mut ended = 0;
    loop {
        let found = carrying(variables)?;
        if found.is_empty() {
            return Ok(ended);
        }
        if begun.elapsed() > limit {
            let text = format!("{} marked processes are left", found.len());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        let mut dying = Vec::new();
        for one in found {
            let Some(pidfd) = process::open(one.pid, one.start_ticks)? else {
                continue;
            };
            // The descriptor now names the very process; it may have executed something else since.
            if !environment_holds(one.pid, variables) {
                continue;
            }
            match raw::kill_fd(pidfd.as_fd(), nix::libc::SIGKILL) {
                Ok(()) => dying.push(pidfd),
                Err(error) if process::is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        ended += dying.len();
        for pidfd in dying {
            process::wait(&pidfd, ROUND)?;
        }
    }
}

fn carrying(variables: &[(&str, &str)]) -> io::Result<Vec<Marked>> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if pid == own || !environment_holds(pid, variables) {
            continue;
        }
        // A process that is gone by now needs no ending.
        if let Ok(start_ticks) = process::start_ticks(pid) {
            found.push(Marked { pid, start_ticks });
        }
    }
    Ok(found)
}

fn environment_holds(pid: i32, variables: &[(&str, &str)]) -> bool {
    // A zombie's environment is empty, so only living processes are found.
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    variables.iter().all(|(name, value)| {
        let wanted = format!("{name}={value}");
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == wanted.as_bytes())
    })
}
