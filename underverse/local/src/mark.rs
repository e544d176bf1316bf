//! Processes by the mark in their environment: how what belongs to a rnode is found without a pid namespace.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use crux_net::process::{self, Environment};
use rustix::process::Signal;

/// Name of the variable that carries a rnode's mark.
pub const RNODE_MARK: &str = "RADIX_RNODE";

/// How long ending all that carry a mark may take: each round outlives one generation of forks.
const END_MAX: Duration = Duration::from_secs(5);

/// The mark of a rnode's processes: `<namespace>/<label>@<first 8 digits of the owner>`.
#[must_use]
pub fn rnode_mark(namespace: &str, label: &str, owner: &str) -> String {
    format!("{namespace}/{label}@{}", owner.get(..8).unwrap_or(owner))
}

/// Pids of processes other than ourselves whose environment has `name=value`.
///
/// # Errors
/// As [`process::carrying`].
pub fn marked(name: &str, value: &str) -> io::Result<Vec<i32>> {
    process::carrying(|environment| environment.holds(name, value))
}

/// The values that processes other than ourselves have of a variable, each of them one or more: one look for all.
///
/// # Errors
/// As [`process::carrying`].
pub(crate) fn values(name: &str) -> io::Result<BTreeSet<Vec<u8>>> {
    let values = RefCell::new(BTreeSet::new());
    process::carrying(|environment| {
        let named = environment
            .variables()
            .filter(|(found, _)| *found == name.as_bytes());
        values
            .borrow_mut()
            .extend(named.map(|(_, value)| value.to_vec()));
        false
    })?;
    Ok(values.into_inner())
}

/// Asks every process that is `wanted` and not among `asked` to end, and adds it there; says how many are left.
///
/// # Errors
/// As [`process::carrying`].
pub(crate) fn ask(
    wanted: impl Fn(&Environment) -> bool,
    asked: &mut BTreeSet<i32>,
) -> io::Result<usize> {
    let found = process::carrying(&wanted)?;
    for &pid in &found {
        if asked.insert(pid) {
            // One that may not be asked is still counted, and its end awaited.
            drop(process::signal(pid, &wanted, Signal::TERM));
        }
    }
    Ok(found.len())
}

/// Ends every process that is `wanted`, and says how many there were.
///
/// # Errors
/// As [`process::end_carrying`]; what was ended stays ended.
pub(crate) fn end(wanted: impl Fn(&Environment) -> bool) -> io::Result<usize> {
    process::end_carrying(wanted, END_MAX)
}

/// Ends every process that carries the mark, and says how many there were.
///
/// # Errors
/// As [`process::end_carrying`]; what was ended stays ended.
pub fn end_marked(name: &str, value: &str) -> io::Result<usize> {
    end(|environment| environment.holds(name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_names_the_rnode_and_the_beginning_of_its_owner() {
        assert_eq!(
            rnode_mark("app/1", "n1", "0123456789ab"),
            "app/1/n1@01234567"
        );
        assert_eq!(rnode_mark("app", "n1", "0123"), "app/n1@0123");
    }
}
