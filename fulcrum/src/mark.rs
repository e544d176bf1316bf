//! The mark that every process of a rnode carries in its environment, and ending all that carry it.
//!
//! Only for rnodes without a process namespace of their own; [`crux_net::process`] says why it is the weaker way.

use std::io;
use std::time::Duration;

use crux_net::process;

/// The environment variable that holds a rnode's mark, `<namespace>/<label>@<owner id8>`.
pub const RNODE_MARK: &str = "RADIX_RNODE";

/// The environment variable that holds the name of the execution a process belongs to.
pub const EXECUTION_MARK: &str = "RADIX_EXECUTION";

/// The pids of processes whose environment holds `RADIX_RNODE=mark`, ourselves left out.
///
/// # Errors
/// As [`process::carrying`].
pub fn marked(mark: &str) -> io::Result<Vec<i32>> {
    process::carrying(|environment| environment.holds(RNODE_MARK, mark))
}

/// Ends every process that carries the mark, ourselves left out, and returns how many there were. Blocks.
///
/// # Errors
/// As [`process::end_carrying`].
pub fn end_marked(mark: &str, limit: Duration) -> io::Result<usize> {
    process::end_carrying(|environment| environment.holds(RNODE_MARK, mark), limit)
}
