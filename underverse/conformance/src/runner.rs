//! Puts a backend to the cases.

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::time::Instant;

use crate::bed::Bed;
use crate::case::{Case, Judged, Stop, Verdict};
use crate::fixture::Fixture;
use crate::refusal;
use crate::report::{Report, Row};

/// Time after which a case counts as failed: two minutes, of which killing at every call takes seconds.
pub const CASE_TIME_MAX: Duration = Duration::from_secs(120);

/// Which cases are run, and how many at once.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Only cases whose name contains this; empty: all.
    pub only: String,
    /// How many run at once; each has a ground of its own.
    pub at_once: usize,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            only: String::new(),
            at_once: 4,
        }
    }
}

/// Runs the cases that are chosen, and tells `watch` each as it ends.
///
/// # Cancel safety
/// Dropping the future drops the grounds, which remove what is left on them.
pub async fn run(
    fixture: &dyn Fixture,
    choice: &Choice,
    watch: &mut (dyn FnMut(&Row) + Send),
) -> Report {
    let chosen = crate::cases::all()
        .into_iter()
        .filter(|case| case.name.contains(&choice.only));
    let rows = stream::iter(chosen.enumerate())
        .map(|(at, case)| async move { (at, row(fixture, case).await) })
        .buffer_unordered(choice.at_once.max(1));
    let mut rows = std::pin::pin!(rows);
    let mut ended = Vec::new();
    while let Some((at, row)) = rows.next().await {
        watch(&row);
        ended.push((at, row));
    }
    ended.sort_by_key(|(at, _)| *at);
    Report {
        backend: fixture.name(),
        rows: ended.into_iter().map(|(_, row)| row).collect(),
    }
}

async fn row(fixture: &dyn Fixture, case: Case) -> Row {
    let began = Instant::now();
    let verdict = match tokio::time::timeout(CASE_TIME_MAX, verdict(fixture, case)).await {
        Ok(verdict) => verdict,
        Err(_) => Verdict::Failed(format!("not ended after {} s", CASE_TIME_MAX.as_secs())),
    };
    Row {
        name: case.name,
        verdict,
        took: began.elapsed(),
    }
}

async fn verdict(fixture: &dyn Fixture, case: Case) -> Verdict {
    let bed = match Bed::new(fixture, case.name).await {
        Ok(bed) => bed,
        Err(cannot) => return Verdict::Failed(format!("no ground could be made: {cannot}")),
    };
    let absent = case.needs.iter().find(|&&capability| !bed.has(capability));
    match absent {
        None => judged(Verdict::Passed, (case.run)(&bed).await),
        Some(&capability) => judged(
            Verdict::Refused(capability),
            refusal::shown(&bed, capability).await,
        ),
    }
}

fn judged(good: Verdict, judged: Judged) -> Verdict {
    match judged {
        Ok(()) => good,
        Err(Stop::Failed(reason)) => Verdict::Failed(reason),
        Err(Stop::Skipped(reason)) => Verdict::Skipped(reason),
    }
}
