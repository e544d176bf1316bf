//! `verify`: the check of a file's digest before it is executed, by the code of the agent that does it (F12).

use std::fs::File;
use std::time::SystemTime;

use crux_net::store;
use fulcrum::agent::Verifier;

use crate::measure::{cost, median};
use crate::peer::folder;
use crate::row::{Row, show};

const ROUNDS: usize = 5;
const CACHED_ROUNDS: usize = 10_000;
const BYTES: usize = 256 << 20;

pub(super) fn run() -> Result<Vec<Row>, String> {
    let at = folder("verify")?.join("executable");
    let failed = |error: std::io::Error| format!("{}: {error}", at.display());
    std::fs::write(&at, vec![7; BYTES]).map_err(failed)?;
    let wanted = store::hash(&mut File::open(&at).map_err(failed)?).map_err(failed)?;
    let verifier = Verifier::default();
    let check = || {
        let opened = verifier.open(&at, &wanted);
        opened.map(drop).map_err(|error| error.to_string())
    };
    let mut first = Vec::new();
    for _ in 0..ROUNDS {
        // Its status is another now, so nothing is remembered of it.
        let touched = File::options().write(true).open(&at);
        touched
            .and_then(|file| file.set_modified(SystemTime::now()))
            .map_err(failed)?;
        first.push(cost(check)?.1.wall);
    }
    let ((), again) = cost(|| (0..CACHED_ROUNDS).try_for_each(|_| check()))?;
    let first = median(first);
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = BYTES as f64 / f64::from(1 << 30) / first.as_secs_f64();
    let cached = again.wall / u32::try_from(CACHED_ROUNDS).unwrap_or(u32::MAX);
    std::fs::remove_file(&at).map_err(failed)?;
    Ok(vec![
        Row::alone(
            "check of an executable's digest before a start, 256 MiB for the first time (F12)",
            format!("{} ({rate:.1} GiB/s)", show(first)),
        ),
        Row::alone(
            "the same again, remembered by its status (F12)",
            show(cached),
        ),
    ])
}
