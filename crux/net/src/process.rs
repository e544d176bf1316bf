//! Processes of this machine, found and ended by what stands in their environment.
//!
//! The weaker way, for what has no process namespace of its own: a process can execute with another environment, or hide
//! its own from a user of equal rank by making itself undumpable.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How long one process may take to die of SIGKILL before the next round looks again.
const ROUND: Duration = Duration::from_millis(500);
/// Pause between two looks at a process that is just executing.
const EXECUTING_PAUSE: Duration = Duration::from_millis(1);
/// Looks at a process that is just executing, after which its environment counts as empty.
///
/// 200: loading a program takes microseconds, on a machine without a free core tens of milliseconds.
const EXECUTING_LOOKS_MAX: u32 = 200;

/// Files that a process which carries connections has open besides. 32: its outputs, runtime, listeners and agent are a dozen.
const FILES_SPARED: usize = 32;
/// Bits of the flags in `/proc/PID/stat` of what has no memory: a process that exits, a thread of the kernel.
const EXITING_OR_KERNEL: u64 = 0x4 | 0x20_0000;
/// Where fields of `/proc/PID/stat` stand behind the program's name: the flags, and where the environment ends.
const FLAGS: usize = 6;
const ENVIRONMENT_END: usize = 48;

/// Raises this process's limit of open files as far as it may, and returns the one found: soft and hard.
///
/// What is executed afterwards inherits it: whoever starts programs of others gives them back what was found.
///
/// # Errors
/// The system's; nothing was changed.
pub fn raise_open_files() -> io::Result<(u64, u64)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok((soft, hard))
}

/// Whether an error says that this process or the machine has too many files open.
#[must_use]
pub fn is_out_of_files(error: &io::Error) -> bool {
    let numbers = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    error
        .raw_os_error()
        .is_some_and(|number| numbers.contains(&number))
}

/// Makes room for connections of two descriptors each, as those that are carried on have: raises the limit of open files as
/// far as it may, and tells how many fit; one at least and `most` at most.
#[must_use]
pub fn room_for_connections(most: usize) -> usize {
    if let Err(error) = raise_open_files() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    fitting(open_files_max().unwrap_or(usize::MAX), most)
}

fn fitting(files: usize, most: usize) -> usize {
    let fitting = files.saturating_sub(FILES_SPARED) / 2;
    fitting.clamp(1, most.max(1))
}

/// How many files this process may have open at once.
///
/// # Errors
/// The system's.
pub fn open_files_max() -> io::Result<usize> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(usize::try_from(soft).unwrap_or(usize::MAX))
}

/// The environment a process was executed with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment(Vec<u8>);

impl Environment {
    /// That of a process; empty for one that ended and for threads of the kernel.
    ///
    /// A process that executes a program has for a moment the new memory without its environment; that moment is waited
    /// out, since whoever looks then would take a living process for a stranger. Blocks, at most 0.2 s.
    ///
    /// # Errors
    /// `NotFound` if there is no such process, or `PermissionDenied` if it may not be read.
    pub fn of(pid: i32) -> io::Result<Self> {
        for _ in 0..EXECUTING_LOOKS_MAX {
            let found = read(pid)?;
            if !found.is_empty() {
                return Ok(Self(found));
            }
            if !is_executing(pid)? {
                // Ordering: it may have been executing when it was read, and have done since.
                return read(pid).map(Self);
            }
            std::thread::sleep(EXECUTING_PAUSE);
        }
        Ok(Self::default())
    }

    /// Its variables, in their order, as name and value; what has no `=` is left out.
    pub fn variables(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.split(|byte| *byte == 0).filter_map(|variable| {
            let equals = variable.iter().position(|byte| *byte == b'=')?;
            Some((&variable[..equals], &variable[equals + 1..]))
        })
    }

    /// Its variables as text; what is not UTF-8 in them is replaced.
    #[must_use]
    pub fn to_text(&self) -> BTreeMap<String, String> {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let variables = self.variables();
        variables
            .map(|(name, value)| (text(name), text(value)))
            .collect()
    }

    /// The value of a variable, of the first one where it stands more than once.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        let mut variables = self.variables();
        variables.find_map(|(found, value)| (found == name.as_bytes()).then_some(value))
    }

    /// Whether some variable of this name has this value.
    #[must_use]
    pub fn holds(&self, name: &str, value: &str) -> bool {
        self.variables()
            .any(|found| found == (name.as_bytes(), value.as_bytes()))
    }
}

fn read(pid: i32) -> io::Result<Vec<u8>> {
    let found = fs::read(format!("/proc/{pid}/environ"));
    // Some kernels refuse to open that of the dead, others find it empty.
    found.or_else(|error| match Errno::from_io_error(&error) {
        Some(Errno::SRCH) => Ok(Vec::new()),
        _ => Err(error),
    })
}

/// Whether a process whose environment is empty has one soon.
fn is_executing(pid: i32) -> io::Result<bool> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The program's name may hold anything, brackets and blanks included.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    let has_memory = number(FLAGS).is_some_and(|flags| flags & EXITING_OR_KERNEL == 0);
    Ok(has_memory && number(ENVIRONMENT_END) == Some(0))
}

/// The pids of processes whose environment is `wanted`, ourselves left out, ascending.
///
/// Processes that vanish or may not be read are passed over. Blocks.
///
/// # Errors
/// The system's, where `/proc` cannot be listed.
pub fn carrying(wanted: impl Fn(&Environment) -> bool) -> io::Result<Vec<i32>> {
    let own = std::process::id().cast_signed();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if pid != own && carries(pid, &wanted) {
            found.push(pid);
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn carries(pid: i32, wanted: &impl Fn(&Environment) -> bool) -> bool {
    Environment::of(pid).is_ok_and(|environment| wanted(&environment))
}

/// Signals a process if its environment still is `wanted`; a descriptor of it, or `None` if it is another by now or gone.
///
/// # Errors
/// The system's, where it may not be signalled.
pub fn signal(
    pid: i32,
    wanted: impl Fn(&Environment) -> bool,
    signal: Signal,
) -> io::Result<Option<OwnedFd>> {
    let Some(pid_typed) = Pid::from_raw(pid) else {
        return Ok(None);
    };
    // Ordering: the descriptor is held before the environment is read again, so a pid used anew is never hit.
    let process = match pidfd_open(pid_typed, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if !carries(pid, &wanted) {
        return Ok(None);
    }
    match pidfd_send_signal(&process, signal) {
        Ok(()) => Ok(Some(process)),
        Err(Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Kills every process whose environment is `wanted`, ourselves left out, and says how many that were.
///
/// It looks again until none is left, since a process may fork while it is looked for. Blocks.
///
/// # Errors
/// `TimedOut` when some are left after `limit`; else the system's, when all that may be killed are.
pub fn end_carrying(wanted: impl Fn(&Environment) -> bool, limit: Duration) -> io::Result<usize> {
    let begun = Instant::now();
    let mut ended = 0;
    loop {
        let found = carrying(&wanted)?;
        if found.is_empty() {
            return Ok(ended);
        }
        if begun.elapsed() > limit {
            let text = format!("{} processes do not end", found.len());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        let signalled: Vec<io::Result<Option<OwnedFd>>> = found
            .into_iter()
            .map(|pid| signal(pid, &wanted, Signal::KILL))
            .collect();
        for process in signalled {
            if let Some(process) = process? {
                ended += 1;
                wait(&process, ROUND.min(limit.saturating_sub(begun.elapsed())))?;
            }
        }
    }
}

/// Waits until the process behind a descriptor ended, at most `limit`.
fn wait(process: &OwnedFd, limit: Duration) -> io::Result<()> {
    let mut fds = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
    let timeout = Timespec::try_from(limit).map_err(io::Error::other)?;
    match poll(&mut fds, Some(&timeout)) {
        // Interrupted: whoever waits looks again.
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    const MARK: &str = "RADIX_TEST_MARK";
    /// Processes that are looked at while they begin; the moment without an environment is met about once in twenty.
    const STARTS: u32 = 500;
    const LIMIT: Duration = Duration::from_secs(10);

    /// A child that is ended with the test.
    struct Guard(Child);

    impl Drop for Guard {
        fn drop(&mut self) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }

    /// A shell that says when all its processes are there.
    fn shell(mark: &str, script: &str) -> Guard {
        let child = Command::new("sh")
            .args(["-c", script])
            .env(MARK, mark)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut guard = Guard(child);
        let mut byte = [0];
        io::Read::read_exact(guard.0.stdout.as_mut().unwrap(), &mut byte).unwrap();
        guard
    }

    #[test]
    fn connections_fit_two_descriptors_each_beside_what_else_is_open() {
        let fit = |files| fitting(files, 4096);
        assert_eq!([1024, 1 << 20, 34, 10, 0].map(fit), [496, 4096, 1, 1, 1]);
        assert_eq!(fitting(1024, 0), 1);
    }

    #[test]
    fn every_process_that_carries_the_mark_is_ended_wherever_it_went_and_nobody_else() {
        let own = format!("n1@{}", std::process::id());
        let other = format!("n11@{}", std::process::id());
        let script = "sleep 600 & (setsid sleep 600 &) ; echo; wait";
        let (mut gone, mut stays) = (shell(&own, script), shell(&other, script));
        let wanted = |found: &Environment| found.holds(MARK, &own);
        assert!(carrying(wanted).unwrap().len() >= 2);
        assert!(end_carrying(wanted, LIMIT).unwrap() >= 2);
        assert!(carrying(wanted).unwrap().is_empty());
        assert!(gone.0.wait().is_ok());
        assert!(stays.0.try_wait().unwrap().is_none());
        end_carrying(|found| found.holds(MARK, &other), LIMIT).unwrap();
        assert_eq!(end_carrying(wanted, LIMIT).unwrap(), 0);
    }

    #[test]
    fn a_process_carries_its_mark_from_the_moment_it_is_started() {
        let mark = format!("new@{}", std::process::id());
        for start in 0..STARTS {
            let child = Command::new("sleep").arg("600").env(MARK, &mark).spawn();
            let child = Guard(child.unwrap());
            let found = Environment::of(child.0.id().cast_signed()).unwrap();
            assert!(found.holds(MARK, &mark), "at start {start}");
        }
    }

    #[test]
    fn the_dead_the_kernel_and_nobody_have_no_environment() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id().cast_signed();
        let process = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        wait(&process, LIMIT).unwrap();
        assert_eq!(Environment::of(pid).unwrap(), Environment::default());
        child.wait().unwrap();
        assert!(Environment::of(pid).is_err());
        let bare = Command::new("sleep").arg("600").env_clear().spawn();
        let bare = Guard(bare.unwrap());
        assert_eq!(
            Environment::of(bare.0.id().cast_signed()).unwrap(),
            Environment::default()
        );
        // Thread 2 of the first namespace is the kernel's; elsewhere it is anybody or nobody.
        assert!(is_executing(2).is_err() || !is_executing(2).unwrap());
    }

    #[test]
    fn variables_are_split_at_the_first_equals_sign() {
        let found = Environment(b"A=1\0B=x=y\0odd\0A=2\0".to_vec());
        assert_eq!(found.value("A"), Some(&b"1"[..]));
        assert_eq!(found.value("B"), Some(&b"x=y"[..]));
        assert_eq!(found.value("odd"), None);
        assert!(found.holds("A", "2") && !found.holds("A", "3"));
        assert_eq!(found.variables().count(), 3);
    }
}
