//! Who holds a switch: files named `PID-STARTTICKS` below `DIR/holders`, read and written under the lock `DIR/lock`.
//!
//! A holder is a process that is in the switch's network namespace. One that has died is passed over and its file removed:
//! pid and start time together are never used again before the machine starts anew, when no file is believed either,
//! since the boot's id stands in the name of the directory.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// How often the lock is taken again because its directory was removed meanwhile: it happens once at most.
const LOCK_TRIES: u32 = 100;

/// Namespaces of a living holder.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) user: File,
    pub(super) net: File,
}

/// The holders of one switch, locked.
#[derive(Debug)]
pub(super) struct Holders {
    dir: PathBuf,
    _lock: File,
}

impl Holders {
    /// Waits for the lock; it is given back when this is dropped.
    pub(super) fn lock(dir: &Path) -> io::Result<Self> {
        let lock = (0..LOCK_TRIES).find_map(|_| take(dir).transpose());
        let lock = lock.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let dir = dir.join("holders").join(boot.trim());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)?;
        Ok(Self { dir, _lock: lock })
    }

    /// The namespaces of a holder that lives; files of the dead are removed on the way.
    pub(super) fn living(&self) -> io::Result<Option<Held>> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let named = entry.file_name().to_str().and_then(Process::parse);
            if let Some(held) = named.and_then(Process::namespaces) {
                return Ok(Some(held));
            }
            fs::remove_file(entry.path())?;
        }
        Ok(None)
    }

    /// Registers this process, which is in the switch.
    pub(super) fn register(&self, member: &str) -> io::Result<()> {
        let own = Process::own()?;
        fs::write(self.dir.join(own.file()), member)
    }

    /// The network namespace of the member with this address: what its cell keeps open.
    pub(super) fn member(&self, address: &str) -> io::Result<Option<(Held, File)>> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let text = fs::read_to_string(entry.path())?;
            let Some((_, descriptor)) = text
                .split_once(' ')
                .filter(|(member, _)| *member == address)
            else {
                continue;
            };
            let named = entry.file_name().to_str().and_then(Process::parse);
            let Some(process) = named else { continue };
            let inside = File::open(format!("/proc/{}/fd/{descriptor}", process.pid));
            if let (Some(held), Ok(inside)) = (process.namespaces(), inside) {
                return Ok(Some((held, inside)));
            }
        }
        Ok(None)
    }
}

/// Waits for the lock of `dir`; `None` if the directory was removed meanwhile, by whoever dissolved the last horde on it.
fn take(dir: &Path) -> io::Result<Option<File>> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    let path = dir.join("lock");
    let lock = File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let held = lock.metadata()?;
    let there = fs::metadata(&path);
    let same = there.is_ok_and(|there| (there.dev(), there.ino()) == (held.dev(), held.ino()));
    Ok(same.then_some(lock))
}

/// A process, by pid and start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: u32,
    start_ticks: u64,
}

impl Process {
    fn own() -> io::Result<Self> {
        let pid = std::process::id();
        let start_ticks = start_ticks(pid).ok_or_else(|| io::Error::other("/proc is not ours"))?;
        Ok(Self { pid, start_ticks })
    }

    fn parse(name: &str) -> Option<Self> {
        let (pid, start_ticks) = name.split_once('-')?;
        Some(Self {
            pid: pid.parse().ok()?,
            start_ticks: start_ticks.parse().ok()?,
        })
    }

    fn file(self) -> String {
        format!("{}-{}", self.pid, self.start_ticks)
    }

    /// Its namespaces if it lives.
    fn namespaces(self) -> Option<Held> {
        let open = |name| File::open(format!("/proc/{}/ns/{name}", self.pid));
        let (user, net) = (open("user").ok()?, open("net").ok()?);
        // Ordering: looked at after opening, so that what was opened is of this process and of no later one with its pid.
        (start_ticks(self.pid) == Some(self.start_ticks)).then_some(Held { user, net })
    }
}

/// Field 22 of `/proc/PID/stat`.
fn start_ticks(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before stands in brackets and may hold anything.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
    fields.nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_pid_and_start_time() {
        let own = Process::own().unwrap();
        assert_eq!(Process::parse(&own.file()), Some(own));
        assert!(own.namespaces().is_some());
        let other = Process {
            start_ticks: own.start_ticks + 1,
            ..own
        };
        assert!(other.namespaces().is_none());
        for name in ["", "1", "-", "a-1", "1-", "1-2-3"] {
            assert_eq!(Process::parse(name), None, "{name}");
        }
    }
}
