//! The gate: everything that must hold before a change is kept.
//!
//! `check` runs its steps in order, goes on after a failure, edits nothing, and ends with one
//! plain line that counts them. The steps stand in [`steps`]; `.ci/run` calls this and nothing else.

mod deny;
mod steps;

use std::time::{Duration, Instant};

/// How much of the gate to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// All of it: what CI runs.
    Full,
    /// What every commit should pass: no release build, no end-to-end tests, no documentation.
    Quick,
}

/// What became of one step.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It holds; with a remark worth printing, or an empty one.
    Passed(String),
    /// It does not hold.
    Failed(String),
    /// It could not be run here; the text says what would bring it.
    Skipped(String),
}

impl From<Result<(), String>> for Outcome {
    fn from(result: Result<(), String>) -> Self {
        match result {
            Ok(()) => Self::Passed(String::new()),
            Err(message) => Self::Failed(message),
        }
    }
}

/// One step of the gate.
#[derive(Debug)]
pub(crate) struct Step {
    name: &'static str,
    least: Depth,
    run: fn(Depth) -> Outcome,
}

struct Row {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

/// Runs the gate.
///
/// # Errors
///
/// Says how many steps failed; each has been printed with its reason by then.
pub(crate) fn run(depth: Depth) -> Result<(), String> {
    let began = Instant::now();
    let mut rows = Vec::new();
    for step in steps::STEPS
        .iter()
        .filter(|step| depth == Depth::Full || step.least == depth)
    {
        println!("== {}", step.name);
        let began = Instant::now();
        let outcome = (step.run)(depth);
        rows.push(Row {
            name: step.name,
            outcome,
            took: began.elapsed(),
        });
    }
    report(&rows, began.elapsed())
}

fn report(rows: &[Row], took: Duration) -> Result<(), String> {
    println!("\n== the gate");
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for row in rows {
        let (word, text) = match &row.outcome {
            Outcome::Passed(text) => (count(&mut passed, "ok"), text),
            Outcome::Failed(text) => (count(&mut failed, "FAILED"), text),
            Outcome::Skipped(text) => (count(&mut skipped, "skipped"), text),
        };
        println!(
            "{word:<8} {:>6.1} s  {:<10} {text}",
            row.took.as_secs_f64(),
            row.name
        );
    }
    println!("in {:.0} s", took.as_secs_f64());
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 {
        Ok(())
    } else {
        Err(format!("{failed} of {} steps failed", rows.len()))
    }
}

fn count<'a>(counter: &mut u32, word: &'a str) -> &'a str {
    *counter += 1;
    word
}
