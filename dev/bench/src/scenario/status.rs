//! `status`: how long it takes to be told how things are.

use std::time::Duration;

use crate::measure::{cost, median, p99};
use crate::peer::{self, Supervisor};
use crate::radix::Radix;
use crate::row::{Row, show};

const ROUNDS: usize = 50;
const FOLDER: &str = "examples/stix";

pub(super) fn run() -> Result<Vec<Row>, String> {
    let radix = Radix::fresh()?;
    radix.up(FOLDER)?;
    let folder = peer::folder("supervisor")?;
    let supervisor = Supervisor::get().and_then(|supervisor| {
        supervisor
            .start(&folder, 16)
            .map(|running| (supervisor, running))
    });
    let (mut ours, mut bare, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(wall(|| radix.run(&["status"]).map(drop))?);
        bare.push(wall(|| radix.run(&["--version"]).map(drop))?);
        if let Ok((supervisor, _)) = &supervisor {
            theirs.push(wall(|| supervisor.status(&folder))?);
        }
    }
    let (p50, p99) = (median(ours.clone()), p99(ours));
    let what = format!("radix status, p50 (p99 {})", show(p99));
    Ok(vec![
        Row::times(&what, p50, "radix --version", median(bare)),
        match supervisor {
            Ok(_) => Row::times(&what, p50, "supervisorctl status", median(theirs)),
            Err(reason) => Row::missing(&what, show(p50), "supervisorctl status", &reason),
        },
    ])
}

fn wall(work: impl FnOnce() -> Result<(), String>) -> Result<Duration, String> {
    cost(work).map(|(_, cost)| cost.wall)
}
