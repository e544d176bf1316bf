//! What the suite found, for people and for programs.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::case::Verdict;

/// One case of a report.
#[derive(Debug, Clone)]
pub struct Row {
    /// The case.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
}

/// What the suite found on one backend.
#[derive(Debug, Clone)]
pub struct Report {
    /// The backend and how it was reached.
    pub backend: String,
    /// The cases, in the order of the contract.
    pub rows: Vec<Row>,
}

impl Report {
    /// How many cases ended with this word: `passed`, `refused`, `skipped`, `failed`.
    #[must_use]
    pub fn count(&self, word: &str) -> usize {
        self.rows
            .iter()
            .filter(|row| row.verdict.word() == word)
            .count()
    }

    /// Whether no promise was broken.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.count("failed") == 0
    }

    /// The counts on one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let count = |word| format!("{} {word}", self.count(word));
        let words = ["passed", "refused", "skipped", "failed"]
            .map(count)
            .join(", ");
        format!("{}: {} cases: {words}", self.backend, self.rows.len())
    }

    /// The report for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let case = |row: &Row| {
            json!({
                "case": row.name,
                "verdict": row.verdict.word(),
                "reason": reason(&row.verdict),
                "took_ms": u64::try_from(row.took.as_millis()).unwrap_or(u64::MAX),
            })
        };
        let counts = ["passed", "refused", "skipped", "failed"]
            .map(|word| (word.to_owned(), json!(self.count(word))));
        json!({
            "backend": self.backend,
            "counts": serde_json::Map::from_iter(counts),
            "cases": self.rows.iter().map(case).collect::<Vec<_>>(),
        })
    }
}

fn reason(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Passed => None,
        Verdict::Refused(capability) => Some(format!("no {capability}: the refusal was shown")),
        Verdict::Skipped(reason) | Verdict::Failed(reason) => Some(reason.clone()),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            write!(formatter, "{:8} {}", row.verdict.word(), row.name)?;
            match reason(&row.verdict) {
                Some(reason) => writeln!(formatter, ": {reason}")?,
                None => writeln!(formatter)?,
            }
        }
        writeln!(formatter, "{}", self.summary())
    }
}
