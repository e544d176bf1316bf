//! `exec`: a command on a rnode, beside ssh over a shared connection and a bare fsync (F1).
//!
//! Both sides are what a person types: a process that starts, speaks to the other end, and ends.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::measure::{cost, median, p99};
use crate::peer::ssh::Ssh;
use crate::radix::Radix;
use crate::row::{Row, show};

const ROUNDS: usize = 100;

/// Six rnodes whose one allowed command does nothing.
const FOLDER: &str = "dev/bench/idle";

pub(super) fn run() -> Result<Vec<Row>, String> {
    let radix = Radix::fresh()?;
    radix.up(FOLDER)?;
    let ssh = Ssh::start();
    let (mut ours, mut theirs, mut synced) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(wall(|| {
            radix.run(&["exec", "n1", "idle/nothing"]).map(drop)
        })?);
        if let Ok(ssh) = &ssh {
            theirs.push(wall(|| ssh.run(&["/bin/true"]))?);
        }
        synced.push(wall(|| append_and_sync(&radix.home().join("bench-fsync")))?);
    }
    let (p50, p99) = (median(ours.clone()), p99(ours));
    let what = format!("radix exec of /bin/true, synced, p50 (p99 {})", show(p99));
    Ok(vec![
        match ssh {
            Ok(_) => Row::times(&what, p50, "ssh, shared connection", median(theirs)),
            Err(reason) => Row::missing(&what, show(p50), "ssh, shared connection", &reason),
        },
        Row::times(&what, p50, "append of 200 B with fsync", median(synced)),
    ])
}

fn wall(work: impl FnOnce() -> Result<(), String>) -> Result<Duration, String> {
    cost(work).map(|(_, cost)| cost.wall)
}

/// What a synced record costs by itself on this disk.
fn append_and_sync(path: &Path) -> Result<(), String> {
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)?;
        file.write_all(&[b'x'; 200])?;
        file.sync_data()
    };
    write().map_err(|error| format!("{}: {error}", path.display()))
}
