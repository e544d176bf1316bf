//! Processes as the tests see them: by what stands in `/proc`, killed only when they are ours.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crux_net::process::Environment;
use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

/// Pids whose environment names this state directory, with their command lines.
#[must_use]
pub fn find_marked(home: &Path) -> BTreeMap<i32, String> {
    let directory = home.display().to_string();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return BTreeMap::new();
    };
    let mut found = BTreeMap::new();
    for entry in entries.filter_map(Result::ok) {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        if Path::new(&format!("/proc/{pid}/exe")).read_link().is_err() {
            continue;
        }
        let environment = Environment::of(pid).unwrap_or_default();
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let marked = environment.holds("RADIX_HOME", &directory);
        if (marked || command.contains(&directory)) && pid != std::process::id().cast_signed() {
            found.insert(pid, command);
        }
    }
    found
}

/// Pids below `home` whose command line contains `word`.
#[must_use]
pub fn pids_of(home: &Path, word: &str) -> Vec<i32> {
    find_marked(home)
        .into_iter()
        .filter(|(_, command)| command.contains(word))
        .map(|(pid, _)| pid)
        .collect()
}

/// Kills one process outright.
pub fn kill(pid: i32) {
    let _ = send(Pid::from_raw(pid), Signal::SIGKILL);
}

/// Stops a process: what it listens on takes connections, and nothing answers.
pub fn stop(pid: i32) {
    send(Pid::from_raw(pid), Signal::SIGSTOP).expect("it can be stopped");
}

/// Lets a stopped process go on.
pub fn resume(pid: i32) {
    send(Pid::from_raw(pid), Signal::SIGCONT).expect("it can go on");
}

/// Waits until a process is gone, at most ten seconds; true when it is.
#[must_use]
pub fn wait_gone(pid: i32) -> bool {
    crate::wait_for(Duration::from_secs(10), || {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let zombie = state
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim().starts_with('Z'));
        (state.is_empty() || zombie).then_some(())
    })
    .is_some()
}

/// What a machine holds that `down` must give back: marked processes, mounts, files.
///
/// Ports are not listed: other tests hold some at the same time, and without a process there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// Command lines of processes that carry the state directory's mark.
    pub processes: Vec<String>,
    /// Mounts that name the state directory.
    pub mounts: Vec<String>,
    /// Paths below the state directory, relative.
    pub files: BTreeSet<PathBuf>,
}

impl Inventory {
    /// Takes stock of everything that belongs to `home`.
    #[must_use]
    pub fn take(home: &Path) -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let name = home.display().to_string();
        let mut files = BTreeSet::new();
        walk(home, home, &mut files);
        Self {
            processes: find_marked(home).into_values().collect(),
            mounts: mounts
                .lines()
                .filter(|line| line.contains(&name))
                .map(str::to_owned)
                .collect(),
            files,
        }
    }
}

fn walk(root: &Path, directory: &Path, files: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        if let Ok(relative) = path.strip_prefix(root) {
            files.insert(relative.to_owned());
        }
        if path.is_dir() && !path.is_symlink() {
            walk(root, &path, files);
        }
    }
}
