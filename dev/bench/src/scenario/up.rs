//! `up`: warm binaries to all ready, beside the same number of plain processes (U4).

use crate::measure::{Cost, cost, middle};
use crate::peer::{self, Supervisor};
use crate::process::count_marked;
use crate::radix::Radix;
use crate::row::{Row, show};

const ROUNDS: usize = 5;
const FOLDER: &str = "examples/stix";

pub(super) fn run() -> Result<Vec<Row>, String> {
    let radix = Radix::fresh()?;
    eprintln!("building once, not measured");
    radix.up(FOLDER)?;
    let count = count_marked("RADIX_RNODE");
    radix.down(FOLDER)?;
    eprintln!("{count} processes carry a rnode's mark");
    let supervisor = Supervisor::get();
    let (mut ours, mut shell, mut supervised) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        ours.push(cost(|| radix.up(FOLDER))?.1);
        radix.down(FOLDER)?;
        shell.push(shell_round(count)?);
        if let Ok(supervisor) = &supervisor {
            supervised.push(supervisor_round(supervisor, count)?);
        }
        eprintln!(
            "round {round} of {ROUNDS}: {}",
            ours.last().map_or(String::new(), describe)
        );
    }
    let ours = middle(&ours);
    let what = format!("up of stix, warm, {count} processes");
    let mut rows = vec![Row::times(
        &what,
        ours.wall,
        "shell loop",
        middle(&shell).wall,
    )];
    rows.push(match supervisor {
        Ok(_) => Row::times(&what, ours.wall, "supervisord", middle(&supervised).wall),
        Err(reason) => Row::missing(&what, show(ours.wall), "supervisord", &reason),
    });
    rows.push(Row::alone(
        "up of stix, warm: processor time of `radix` itself",
        show(ours.cpu),
    ));
    Ok(rows)
}

fn describe(cost: &Cost) -> String {
    show(cost.wall)
}

fn shell_round(count: usize) -> Result<Cost, String> {
    let marks = peer::folder("shell")?;
    let (running, cost) = cost(|| peer::shell_loop(&marks, count))?;
    drop(running);
    Ok(cost)
}

fn supervisor_round(supervisor: &Supervisor, count: usize) -> Result<Cost, String> {
    let folder = peer::folder("supervisor")?;
    let (running, cost) = cost(|| supervisor.start(&folder, count))?;
    drop(running);
    Ok(cost)
}
