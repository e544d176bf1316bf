//! What `/proc` says of processes and of loopback.

use std::time::Duration;

/// Ticks a second in which Linux counts processor time; fixed for user space on all we run on.
const TICKS_PER_SECOND: u64 = 100;

/// What one process holds and has used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Resident memory.
    pub(crate) resident_kib: u64,
    /// Its share of memory, with shared pages split among their users.
    pub(crate) share_kib: u64,
    /// Processor time since it began.
    pub(crate) cpu: Duration,
}

/// What `pid` holds and has used; nothing when it is gone.
pub(crate) fn usage(pid: i64) -> Usage {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    Usage {
        resident_kib: field(&status, "VmRSS:"),
        share_kib: field(&rollup, "Pss:"),
        cpu: cpu(&format!("/proc/{pid}/stat"), [13, 14]),
    }
}

/// Processor time of this process and of its children that ended and were waited for.
pub(crate) fn cpu_of_children() -> Duration {
    cpu("/proc/self/stat", [15, 16])
}

/// The sum of two fields of a stat line, counted from zero.
fn cpu(path: &str, fields: [usize; 2]) -> Duration {
    let stat = std::fs::read_to_string(path).unwrap_or_default();
    // The second field is the command in brackets and may hold spaces.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let words: Vec<&str> = after.split_whitespace().collect();
    let ticks = |field: usize| {
        words
            .get(field - 2)
            .and_then(|word| word.parse::<u64>().ok())
    };
    let sum: u64 = fields.into_iter().filter_map(ticks).sum();
    Duration::from_millis(sum * 1000 / TICKS_PER_SECOND)
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next())
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}

/// Bytes sent over loopback since the machine began, headers included.
pub(crate) fn loopback_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("lo:"));
    line.and_then(|rest| rest.split_whitespace().nth(8)?.parse().ok())
        .unwrap_or(0)
}

/// How many processes have a variable of this name in their environment.
pub(crate) fn count_marked(name: &str) -> usize {
    let marked = crux_net::process::carrying(|environment| environment.value(name).is_some());
    marked.map_or(0, |pids| pids.len())
}

/// The process with exactly this command line.
pub(crate) fn with_command(words: &[&str]) -> Option<i64> {
    let mut wanted = words.join("\0").into_bytes();
    wanted.push(0);
    let listing = std::fs::read_dir("/proc").ok()?;
    let mut pids = listing
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i64>().ok());
    pids.find(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_by_their_names() {
        assert_eq!(field("Name:\tx\nVmRSS:\t  1234 kB\n", "VmRSS:"), 1234);
        assert_eq!(field("", "VmRSS:"), 0);
    }

    #[test]
    fn we_hold_some_memory_ourselves() {
        assert!(usage(i64::from(std::process::id())).resident_kib > 0);
    }
}
