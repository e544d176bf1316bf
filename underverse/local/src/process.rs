//! Processes by pid and start time: together they name one for ever.

use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process that was spawned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessName {
    /// Its pid.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`, in clock ticks from boot.
    pub start_ticks: u64,
}

impl ProcessName {
    /// The process that has `pid` now; `None` if there is none.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let (_, start_ticks) = stat(pid)?;
        Some(Self { pid, start_ticks })
    }

    /// Whether it still runs; one that has ended and was not waited for does not.
    #[must_use]
    pub fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|(state, ticks)| ticks == self.start_ticks && state != "Z")
    }

    /// Sends a signal to it and nobody else; says whether it was there.
    pub(crate) fn signal(self, signal: Signal) -> bool {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return false;
        };
        // Ordering: the descriptor is opened before the start time is read, so a pid used anew is never hit.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
            return false;
        };
        self.is_alive() && pidfd_send_signal(&process, signal).is_ok()
    }
}

/// State and start time of a process.
pub(crate) fn stat(pid: i32) -> Option<(String, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before stands in brackets and may hold anything.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?.to_owned();
    let start_ticks = fields.nth(18)?.parse().ok()?;
    Some((state, start_ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_pid_and_start_time() {
        let own = ProcessName::of(std::process::id().cast_signed()).unwrap();
        assert!(own.is_alive());
        assert!(
            !ProcessName {
                start_ticks: own.start_ticks + 1,
                ..own
            }
            .is_alive()
        );
        assert!(
            !ProcessName {
                start_ticks: own.start_ticks + 1,
                ..own
            }
            .signal(Signal::TERM)
        );
        assert_eq!(ProcessName::of(0), None);
    }
}
