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
    /// Memory that can be had now, with what the kernel gives back when it is asked for.
    pub memory_available: ByteCount,
    /// Most processes and threads, of the machine or of its control group, whichever leaves fewer.
    pub tasks_max: u64,
    /// Processes and threads that exist where `tasks_max` counts them.
    pub tasks: u64,
}

impl Machine {
    /// Reads this machine's figures from the kernel; what cannot be read counts as no limit.
    #[must_use]
    pub fn read() -> Self {
        Self::read_at(Path::new("/"))
    }

    /// The same of a machine whose `/proc` and `/sys` are below `root`.
    pub(crate) fn read_at(root: &Path) -> Self {
        let text = meminfo(root).unwrap_or_default();
        let memory_limit = memory_limit(root).unwrap_or(u64::MAX);
        let installed = bytes_of(&text, "MemTotal:").unwrap_or(u64::MAX);
        let available = bytes_of(&text, "MemAvailable:").unwrap_or(u64::MAX);
        let (tasks_max, tasks) = tasks(root);
        Self {
            cpus: std::thread::available_parallelism()
                .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
            memory: ByteCount::bytes(installed.min(memory_limit)),
            memory_available: ByteCount::bytes(
                available.min(memory_limit.saturating_sub(memory_held(root))),
            ),
            tasks_max,
            tasks,
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

/// Memory of the control group that is not given back when its limit is near, in bytes.
///
/// Pages of files that nobody has used lately count in `memory.current` and are dropped before anything is refused.
fn memory_held(root: &Path) -> u64 {
    let group = root.join("sys/fs/cgroup");
    let current = number(group.join("memory.current")).unwrap_or(0);
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let inactive = stat
        .lines()
        .find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse().ok());
    current.saturating_sub(inactive.unwrap_or(0))
}

/// Most processes and threads, and how many there are: of the machine or of its control group, whichever leaves fewer.
fn tasks(root: &Path) -> (u64, u64) {
    let kernel = root.join("proc/sys/kernel");
    let most = [
        number(kernel.join("pid_max")),
        number(kernel.join("threads-max")),
    ];
    let most = most.into_iter().flatten().min().unwrap_or(u64::MAX);
    let machine = (most, loadavg_tasks(root).unwrap_or(0));
    let group = root.join("sys/fs/cgroup");
    // A limit is compared with what is counted against it: the machine's total says nothing of the group's.
    let group = number(group.join("pids.max"))
        .map(|most| (most, number(group.join("pids.current")).unwrap_or(0)));
    let left = |(most, there): &(u64, u64)| most.saturating_sub(*there);
    let group = group.filter(|group| left(group) < left(&machine));
    group.unwrap_or(machine)
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
fn loadavg_tasks(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/loadavg")).ok()?;
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
    let mut reasons = lacking(more, machine);
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

/// What `machine` has too little of for so many more rnodes, in figures.
fn lacking(more: u64, machine: &Machine) -> Vec<String> {
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
    reasons
}

/// How many more rnodes there is room for, where that is fewer than are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) fits: u32,
    /// What there is too little of for the others.
    pub(crate) why: String,
}

/// How far the room of `machine` goes for `missing` rnodes; `None`: all of them fit.
pub(crate) fn room(missing: u32, machine: &Machine) -> Option<Room> {
    let why = lacking(u64::from(missing), machine);
    let fits = |more: &u32| lacking(u64::from(*more), machine).is_empty();
    (!why.is_empty()).then(|| Room {
        fits: (1..missing).take_while(fits).last().unwrap_or(0),
        why: why.join("; "),
    })
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
    fn what_is_missing_is_started_as_far_as_there_is_room() {
        assert_eq!(room(RNODES_MAX, &laptop()), None);
        let small = Machine {
            memory_available: RNODE_MEMORY.times(3),
            ..laptop()
        };
        assert_eq!(room(3, &small), None);
        let short = room(4, &small).unwrap();
        assert_eq!(short.fits, 3);
        assert!(short.why.contains("75.0 MiB"), "{}", short.why);
        let full = Machine {
            tasks: 32_768,
            ..laptop()
        };
        assert_eq!(room(4, &full).unwrap().fits, 0);
    }

    /// A machine of 24 GiB with 20 000 processes, whose control group has the files of `group`.
    fn within(name: &str, group: &[(&str, &str)]) -> Machine {
        let root = std::env::temp_dir().join(format!("limits-{}-{name}", std::process::id()));
        let proc = [
            (
                "proc/meminfo",
                "MemTotal: 25165824 kB\nMemAvailable: 20971520 kB\n",
            ),
            ("proc/loadavg", "0.10 0.20 0.30 2/20000 4711\n"),
            ("proc/sys/kernel/pid_max", "4194304\n"),
            ("proc/sys/kernel/threads-max", "200000\n"),
        ];
        let group = group
            .iter()
            .map(|(name, text)| (format!("sys/fs/cgroup/{name}"), *text));
        let proc = proc.iter().map(|(name, text)| ((*name).to_owned(), *text));
        for (path, text) in proc.chain(group) {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let machine = Machine::read_at(&root);
        fs::remove_dir_all(root).unwrap();
        machine
    }

    #[test]
    fn pages_that_the_kernel_gives_back_are_memory_to_be_had() {
        let group = [
            ("memory.max", "4294967296\n"),
            ("memory.current", "4194304000\n"),
            (
                "memory.stat",
                "anon 1048576\nactive_file 4096\ninactive_file 4089446400\n",
            ),
        ];
        let machine = within("memory", &group);
        assert_eq!(machine.memory, ByteCount::mebibytes(4096));
        assert_eq!(machine.memory_available, ByteCount::mebibytes(3996));
        let bare = within("no-stat", &group[..2]);
        assert_eq!(bare.memory_available, ByteCount::mebibytes(96));
    }

    #[test]
    fn a_limit_of_processes_is_compared_with_what_is_counted_against_it() {
        let pids = |max, current| within("pids", &[("pids.max", max), ("pids.current", current)]);
        let of = |machine: &Machine| (machine.tasks_max, machine.tasks);
        assert_eq!(of(&pids("4096\n", "120\n")), (4096, 120));
        assert!(check(6, 0, &pids("4096\n", "120\n")).is_ok());
        assert!(check(6, 0, &pids("4096\n", "4090\n")).is_err());
        // Where the machine has fewer left, or the group has no limit, it is the machine's own.
        assert_eq!(of(&pids("1000000\n", "120\n")), (200_000, 20_000));
        assert_eq!(of(&pids("max\n", "120\n")), (200_000, 20_000));
    }

    #[test]
    fn this_machine_has_figures() {
        let machine = Machine::read();
        assert!(machine.memory.get() > 0 && machine.tasks_max > 0 && machine.cpus > 0);
        assert!(check(10_000, 0, &machine).is_err());
    }
}
