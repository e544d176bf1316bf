//! Pids as this machine counts them, for processes that live in a cell's own pid namespace.

use std::collections::BTreeMap;
use std::path::Path;

use crux_net::process::Environment;

use crate::home::Home;
use crate::view::{Instance, Status};

/// What the kernel says of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    parent: i32,
    /// The pid in the innermost namespace.
    inner: i32,
}

/// Replaces the pids that rnodes told us by those of this machine, and looks whether they are there.
///
/// A rnode counts pids in its own namespace; a person kills by those of the machine.
/// Keepers are found by the directory they keep: the backend may not have seen a new one yet.
/// What has just died is still told of as alive; with it the application is not settled, whatever its flock says.
pub(crate) fn translate(status: &mut Status, home: &Home) {
    let processes = processes(Path::new("/proc"));
    let horde = home.join("hordes").join(&status.namespace);
    let mut missing = Vec::new();
    for rnode in &mut status.rnodes {
        let directory = horde.join(&rnode.label);
        if !directory.is_dir() {
            continue;
        }
        let keeper = keeper_of(&processes, &directory.display().to_string());
        let inside = keeper.map(|keeper| descendants(&processes, keeper));
        let inside = inside.unwrap_or_default();
        rnode.keeper_pid = keeper.unwrap_or(0);
        let agent = keeper.and_then(|keeper| agent_of(&processes, keeper));
        rnode.agent_pid = agent.unwrap_or(0);
        if keeper.is_none() {
            missing.push(format!("the keeper of {} does not run", rnode.label));
        } else if agent.is_none() {
            missing.push(format!("the agent of {} does not run", rnode.label));
        }
        let here = |instance: &&mut Instance| instance.rnode == rnode.label;
        for instance in status.instances.iter_mut().filter(here) {
            let pid = inside.get(&instance.pid).copied();
            let pid = pid.filter(|pid| belongs(*pid, &instance.execution));
            // One that has just ended is nobody here: its inner pid would be a stranger's.
            instance.pid = pid.unwrap_or(0);
            if pid.is_none() && instance.state == "ready" && keeper.is_some() {
                missing.push(format!(
                    "{} of {} has just ended",
                    instance.instance, rnode.label
                ));
            }
        }
    }
    if status.settled && !missing.is_empty() {
        status.settled = false;
        status.problems.append(&mut missing);
    }
}

/// Whether a process belongs to this execution, as far as we may look and it has kept its environment.
fn belongs(pid: i32, execution: &str) -> bool {
    let environment = Environment::of(pid).unwrap_or_default();
    let mark = environment.value(fulcrum::mark::EXECUTION_MARK);
    mark.is_none_or(|mark| mark == execution.as_bytes())
}

/// The words a process was started with.
fn words(pid: i32) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0);
    words
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

/// The keeper of a rnode's directory.
fn keeper_of(processes: &BTreeMap<i32, Process>, directory: &str) -> Option<i32> {
    processes.keys().copied().find(|pid| {
        let words = words(*pid);
        words.get(1).is_some_and(|word| word == "keep")
            && words.iter().any(|word| word == directory)
    })
}

/// The agent that `keeper` started: its child whose first word is `agent`.
fn agent_of(processes: &BTreeMap<i32, Process>, keeper: i32) -> Option<i32> {
    let mut children = processes
        .iter()
        .filter(|(_, process)| process.parent == keeper);
    children
        .find(|(pid, _)| words(**pid).get(1).is_some_and(|word| word == "agent"))
        .map(|(pid, _)| *pid)
}

/// Outer pids by inner pid, of `root` and all below it.
fn descendants(processes: &BTreeMap<i32, Process>, root: i32) -> BTreeMap<i32, i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for (pid, process) in processes {
        children.entry(process.parent).or_default().push(*pid);
    }
    let mut found = BTreeMap::new();
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        if let Some(process) = processes.get(&pid)
            && found.insert(process.inner, pid).is_none()
        {
            open.extend(children.get(&pid).into_iter().flatten());
        }
    }
    found
}

/// Every process that this machine shows us.
fn processes(proc: &Path) -> BTreeMap<i32, Process> {
    let Ok(entries) = std::fs::read_dir(proc) else {
        return BTreeMap::new();
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let pid = entry.file_name().to_string_lossy().parse().ok()?;
            let text = std::fs::read_to_string(entry.path().join("status")).ok()?;
            Some((pid, parse(&text)?))
        })
        .collect()
}

/// Reads `PPid` and the last of `NSpid` of a status file.
fn parse(text: &str) -> Option<Process> {
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().next_back()?.parse().ok()
    };
    Some(Process {
        parent: field("PPid:")?,
        inner: field("NSpid:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_in_a_cell_is_found_below_its_keeper() {
        let process = |parent, inner| Process { parent, inner };
        let processes = BTreeMap::from([
            (10, process(1, 10)),
            (20, process(10, 1)),
            (21, process(20, 2)),
            (22, process(21, 7)),
            (30, process(1, 7)),
        ]);
        let inside = descendants(&processes, 20);
        assert_eq!(inside, BTreeMap::from([(1, 20), (2, 21), (7, 22)]));
    }

    #[test]
    fn a_status_file_tells_parent_and_inner_pid() {
        let text = "Name:\tradix\nPid:\t21\nPPid:\t20\nNSpid:\t21\t2\n";
        assert_eq!(
            parse(text),
            Some(Process {
                parent: 20,
                inner: 2
            })
        );
        assert_eq!(parse("Name:\tx\n"), None);
    }
}
