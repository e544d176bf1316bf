//! Control groups: how memory, processor time and processes of a command are limited, where this machine lets us.
//!
//! A container has a group of its own below ours in each controller, found out by trying. The cell's command joins it
//! before it executes; the group goes with the container's directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use underverse::Limits;

/// Where controllers are.
const ROOT: &str = "/sys/fs/cgroup";
/// Period over which processor time is shared out, in microseconds: the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;
/// Least memory of a group that is tried, in bytes.
const TRIED_MEMORY: u64 = 64 << 20;

/// What can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Controller {
    Memory,
    Cpu,
    Pids,
}

impl Controller {
    pub(crate) const ALL: [Self; 3] = [Self::Memory, Self::Cpu, Self::Pids];

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
        }
    }

    /// What is written into a group's files, by the kernel's first and second interface.
    fn values(self, limits: &Limits, version: Version) -> Option<Vec<(&'static str, String)>> {
        let share = |thousandths: u32| u64::from(thousandths) * CPU_PERIOD_US / 1000;
        Some(match (self, version) {
            (Self::Memory, Version::First) => {
                vec![("memory.limit_in_bytes", limits.memory?.get().to_string())]
            }
            (Self::Memory, Version::Second) => {
                let swap = ("memory.swap.max", "0".to_owned());
                vec![("memory.max", limits.memory?.get().to_string()), swap]
            }
            (Self::Cpu, Version::First) => {
                let share = share(limits.cpu_thousandths?).to_string();
                vec![
                    ("cpu.cfs_period_us", CPU_PERIOD_US.to_string()),
                    ("cpu.cfs_quota_us", share),
                ]
            }
            (Self::Cpu, Version::Second) => {
                let share = share(limits.cpu_thousandths?);
                vec![("cpu.max", format!("{share} {CPU_PERIOD_US}"))]
            }
            (Self::Pids, _) => vec![("pids.max", limits.processes?.to_string())],
        })
    }
}

/// The kernel's interface to control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    First,
    Second,
}

/// Where groups can be made, by controller; what is not there cannot be limited here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups {
    found: Vec<(Controller, PathBuf)>,
    second: bool,
}

impl Groups {
    /// Finds out, by trying, in which controllers this process may make groups with limits.
    #[must_use]
    pub fn probe() -> Self {
        let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let limits = Limits {
            memory: Some(underverse::ByteCount::bytes(TRIED_MEMORY)),
            cpu_thousandths: Some(1000),
            processes: Some(64),
        };
        let mut groups = Self::default();
        for controller in Controller::ALL {
            for (version, place) in places(&text, controller) {
                if tries(&place, controller, &limits, version).is_ok() {
                    groups.second |= version == Version::Second;
                    groups.found.push((controller, place));
                    break;
                }
            }
        }
        groups
    }

    /// Whether `controller` limits here.
    pub(crate) fn has(&self, controller: Controller) -> bool {
        self.found.iter().any(|(found, _)| *found == controller)
    }

    /// The groups of a container with these limits; `name` is nobody else's on this machine.
    pub(crate) fn of(&self, name: &str, limits: &Limits) -> Vec<Group> {
        let version = if self.second {
            Version::Second
        } else {
            Version::First
        };
        let group = |(controller, place): &(Controller, PathBuf)| {
            let values = controller.values(limits, version)?;
            Some(Group {
                path: place.join(name),
                values,
            })
        };
        let mut groups: Vec<Group> = Vec::new();
        for group in self.found.iter().filter_map(group) {
            // All controllers of the second interface share one directory.
            match groups.iter_mut().find(|held| held.path == group.path) {
                Some(held) => held.values.extend(group.values),
                None => groups.push(group),
            }
        }
        groups
    }
}

/// A group to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) path: PathBuf,
    values: Vec<(&'static str, String)>,
}

impl Group {
    /// Whether it limits memory.
    pub(crate) fn limits_memory(&self) -> bool {
        self.values
            .iter()
            .any(|(file, _)| file.starts_with("memory."))
    }

    /// Makes it, or sets its limits anew.
    pub(crate) fn make(&self) -> io::Result<()> {
        match fs::create_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        for (file, value) in &self.values {
            match fs::write(self.path.join(file), value) {
                // A machine without swap has nothing to limit there.
                Err(_) if *file == "memory.swap.max" => {}
                other => other?,
            }
        }
        Ok(())
    }
}

/// Removes a group whose processes have ended; one that is not there is fine.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Where groups of ours may be made: below our own one.
fn places(own: &str, controller: Controller) -> Vec<(Version, PathBuf)> {
    let mut places = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let path = path.trim_start_matches('/');
        if controllers.split(',').any(|word| word == controller.word()) {
            let place = Path::new(ROOT).join(controllers).join(path);
            places.push((Version::First, place));
        } else if controllers.is_empty() {
            places.push((Version::Second, Path::new(ROOT).join(path)));
        }
    }
    places
}

fn tries(
    place: &Path,
    controller: Controller,
    limits: &Limits,
    version: Version,
) -> io::Result<()> {
    let values = controller.values(limits, version).unwrap_or_default();
    let trial = Group {
        path: place.join(format!(
            "radix-trial-{}-{}",
            std::process::id(),
            controller.word()
        )),
        values,
    };
    let made = trial.make();
    remove(&trial.path)?;
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_looked_for_below_our_own_in_either_interface() {
        let own = "8:pids:/a\n4:memory:/\n1:cpu,cpuacct:/b/c\n0::/d\n";
        let check = |controller, first: &str| {
            let places = places(own, controller);
            let found: Vec<String> = places
                .iter()
                .map(|(_, path)| path.display().to_string())
                .collect();
            assert_eq!(found, [first, "/sys/fs/cgroup/d"]);
        };
        check(Controller::Pids, "/sys/fs/cgroup/pids/a");
        check(Controller::Memory, "/sys/fs/cgroup/memory/");
        check(Controller::Cpu, "/sys/fs/cgroup/cpu,cpuacct/b/c");
    }

    #[test]
    fn a_limit_is_written_as_the_kernel_reads_it() {
        let limits = Limits {
            memory: None,
            cpu_thousandths: Some(1500),
            processes: Some(7),
        };
        let first = Controller::Cpu.values(&limits, Version::First).unwrap();
        assert_eq!(first[1], ("cpu.cfs_quota_us", "150000".to_owned()));
        let second = Controller::Cpu.values(&limits, Version::Second).unwrap();
        assert_eq!(second, [("cpu.max", "150000 100000".to_owned())]);
        assert_eq!(Controller::Memory.values(&limits, Version::First), None);
        let pids = Controller::Pids.values(&limits, Version::Second).unwrap();
        assert_eq!(pids, [("pids.max", "7".to_owned())]);
    }
}
