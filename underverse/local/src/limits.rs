//! How many rnodes this machine can hold, with the reason when it is fewer than asked.

use std::fs;
use std::path::Path;

use underverse::{ByteCount, Error, Kind};

use crate::address;

/// Memory one nested rnode is reckoned at: keeper, agent and cell at rest, with room for tables. 25 MiB.
pub const RNODE_MEMORY: ByteCount = ByteCount::mebibytes(25);
/// Processes and threads one nested rnode is reckoned at: cell, keeper, agent with its workers.
pub const RNODE_TASKS: u64 = 8;
/// Most rnodes in one horde on one machine: the flock of this version is made for 50, with room to try.
pub const RNODES_MAX: u32 = 200;

/// What a machine has to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Processors.
    pub cpus: u32,
    /// Memory installed, or the control group's limit where that is lower.
    pub memory: ByteCount,
    /// Memory that can be had now.
    pub memory_available: ByteCount,
    /// Most processes and threads.
    pub tasks_max: u64,
    /// Processes and threads that exist.
    pub tasks: u64,
}

impl Machine {
    /// Reads this machine's figures from the kernel; what cannot be read counts as no limit.
    #[must_use]
    pub fn read() -> Self {
        let root = Path::new("/");
        let text = meminfo(root).unwrap_or_default();
        let memory_limit = memory_limit(root).unwrap_or(u64::MAX);
        let memory_used = number("/sys/fs/cgroup/memory.current").unwrap_or(0);
        let installed = bytes_of(&text, "MemTotal:").unwrap_or(u64::MAX);
        let available = bytes_of(&text, "MemAvailable:").unwrap_or(u64::MAX);
        let tasks_max = [
            number("/proc/sys/kernel/pid_max"),
            number("/proc/sys/kernel/threads-max"),
            number("/sys/fs/cgroup/pids.max"),
        ];
        Self {
            cpus: std::thread::available_parallelism()
                .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
            memory: ByteCount::bytes(installed.min(memory_limit)),
            memory_available: ByteCount::bytes(
                available.min(memory_limit.saturating_sub(memory_used)),
            ),
            tasks_max: tasks_max.into_iter().flatten().min().unwrap_or(u64::MAX),
            tasks: loadavg_tasks().unwrap_or(0),
        }
    }
}

/// The memory of the machine whose files are below `root`, or its control group's limit where that is lower, in bytes.
pub(crate) fn memory(root: &Path) -> Option<u64> {
    let text = meminfo(root).unwrap_or_default();
    let installed = bytes_of(&text, "MemTotal:");
    installed.into_iter().chain(memory_limit(root)).min()
}

fn memory_limit(root: &Path) -> Option<u64> {
    number(root.join("sys/fs/cgroup/memory.max"))
}

fn number(path: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn meminfo(root: &Path) -> Option<String> {
    fs::read_to_string(root.join("proc/meminfo")).ok()
}

/// A field of meminfo, in bytes.
fn bytes_of(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes.saturating_mul(1024))
}

/// The fourth field of loadavg: runnable/existing tasks.
fn loadavg_tasks() -> Option<u64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace()
        .nth(3)?
        .split_once('/')?
        .1
        .parse()
        .ok()
}

/// Whether `machine` can hold `wanted` rnodes of a horde of which `running` exist already.
///
/// # Errors
/// `Limit`, with every reason in figures.
pub fn check(wanted: u32, running: u32, machine: &Machine) -> Result<(), Error> {
    let more = u64::from(wanted.saturating_sub(running));
    if more == 0 {
        return Ok(());
    }
    let mut reasons = Vec::new();
    let memory = RNODE_MEMORY.times(more);
    if memory > machine.memory_available {
        reasons.push(format!(
            "{more} more at {RNODE_MEMORY} each need {memory} of memory, of which {} of {} can be had",
            machine.memory_available, machine.memory,
        ));
    }
    let tasks = RNODE_TASKS.saturating_mul(more);
    let tasks_free = machine.tasks_max.saturating_sub(machine.tasks);
    if tasks > tasks_free {
        reasons.push(format!(
            "at {RNODE_TASKS} processes and threads each they need {tasks}, of which {tasks_free} of {} are left",
            machine.tasks_max,
        ));
    }
    if wanted > RNODES_MAX.min(address::ADDRESSES_MAX) {
        reasons.push(format!(
            "backend local holds at most {RNODES_MAX} rnodes a horde"
        ));
    }
    if reasons.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        Kind::Limit,
        "hold so many rnodes on this machine",
        format!("{wanted} rnodes asked for: {}", reasons.join("; ")),
    ))
}

/// How many rnodes of a new horde `machine` can hold now.
#[must_use]
pub fn largest(machine: &Machine) -> u32 {
    let fits = |count: &u32| check(*count, 0, machine).is_ok();
    (1..=RNODES_MAX).take_while(fits).last().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laptop() -> Machine {
        Machine {
            cpus: 2,
            memory: ByteCount::mebibytes(24 << 10),
            memory_available: ByteCount::mebibytes(20 << 10),
            tasks_max: 32_768,
            tasks: 300,
        }
    }

    #[test]
    fn six_rnodes_fit_and_ten_thousand_are_refused_with_every_reason() {
        assert!(check(6, 0, &laptop()).is_ok());
        assert_eq!(largest(&laptop()), RNODES_MAX);
        let small = Machine {
            memory_available: RNODE_MEMORY.times(3),
            ..laptop()
        };
        assert_eq!(largest(&small), 3);
        let error = check(10_000, 0, &laptop()).unwrap_err();
        assert_eq!(error.kind(), Kind::Limit);
        for part in [
            "10000 rnodes",
            "25.0 MiB",
            "244.1 GiB",
            "20.0 GiB",
            "80000",
            "32468",
            "200",
        ] {
            assert!(error.message().contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn what_runs_already_is_not_counted_against_the_machine() {
        let small = Machine {
            memory_available: ByteCount::mebibytes(1),
            ..laptop()
        };
        assert!(check(6, 6, &small).is_ok());
        assert!(check(7, 6, &small).is_err());
    }

    #[test]
    fn this_machine_has_figures() {
        let machine = Machine::read();
        assert!(machine.memory.get() > 0 && machine.tasks_max > 0 && machine.cpus > 0);
        assert!(check(10_000, 0, &machine).is_err());
    }
}
