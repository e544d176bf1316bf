//! Naming a process for ever: its pid together with the tick of its start, from `/proc`.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The longest such line: 52 numbers of up to 20 digits, and a name.
const STAT_BYTES_MAX: usize = 2048;

/// Field 22 of `/proc/<pid>/stat`: clock ticks from boot to the start of the process.
pub(crate) fn start_ticks(pid: i32) -> io::Result<u64> {
    let mut stat = [0; STAT_BYTES_MAX];
    // One call: the kernel gives the whole line, or what of it there is room for.
    let length = fs::File::open(format!("/proc/{pid}/stat"))?.read(&mut stat)?;
    let stat = &stat[..length];
    let wrong = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "a stat line that cannot be read",
        )
    };
    // The second field is the program's name in brackets and may hold anything, brackets and blanks included.
    let end = stat
        .iter()
        .rposition(|byte| *byte == b')')
        .ok_or_else(wrong)?;
    let rest = std::str::from_utf8(&stat[end + 1..]).map_err(|_| wrong())?;
    rest.split_ascii_whitespace()
        .nth(19)
        .and_then(|ticks| ticks.parse().ok())
        .ok_or_else(wrong)
}

/// How long ago a process of this boot was started.
pub(crate) fn age(start_ticks: u64) -> io::Result<Duration> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)?;
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?;
    let ticks = ticks
        .and_then(|ticks| u64::try_from(ticks).ok())
        .unwrap_or(100);
    let start = Duration::from_millis(start_ticks.saturating_mul(1000) / ticks.max(1));
    Ok(Duration::from(now).saturating_sub(start))
}

/// Names the running system; ticks of another boot mean nothing.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// A descriptor of exactly the process with this pid and start; `None` if it is gone.
pub(crate) fn open(pid: i32, ticks: u64) -> io::Result<Option<OwnedFd>> {
    let Some(number) = Pid::from_raw(pid).filter(|_| pid > 0) else {
        return Ok(None);
    };
    let pidfd = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // Ordering: the start is read after the descriptor is held, so a reused pid cannot slip in between.
    match start_ticks(pid) {
        Ok(now) if now == ticks && !has_ended(&pidfd)? => Ok(Some(pidfd)),
        Ok(_) => Ok(None),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the process behind a pidfd has ended, reaped or not.
pub(crate) fn has_ended(pidfd: &OwnedFd) -> io::Result<bool> {
    wait(pidfd, Duration::ZERO)
}

/// Waits until the process behind a pidfd has ended; false when it has not within `limit`.
pub(crate) fn wait(pidfd: &OwnedFd, limit: Duration) -> io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    let timeout = Timespec::try_from(limit).map_err(io::Error::other)?;
    Ok(poll(&mut fds, Some(&timeout))? > 0)
}

/// Whether an error of reading `/proc/<pid>` says that the process is gone.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_pid_and_start_and_by_no_other_start() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let ticks = start_ticks(pid).unwrap();
        assert!(open(pid, ticks).unwrap().is_some());
        assert!(open(pid, ticks + 1).unwrap().is_none());
        assert!(open(i32::MAX, ticks).unwrap().is_none());
        assert!(open(0, ticks).unwrap().is_none());
    }
}
