//! docs/requirements.tsv: the project's own list of requirements and how far each is shown.
//!
//! Columns: id, priority, one line on what it is, state. The state is never written by hand: a test
//! that shows a row says `// Shows: ID`, one that shows some of it `// Shows in part: ID`, and
//! `cargo xtask fix` brings the column up to date.

use std::collections::{BTreeMap, BTreeSet};

use crate::cargo::root;
use crate::tidy::Findings;
use crate::tree::File;

const PATH: &str = "docs/requirements.tsv";

/// Characters after which a row's one line is cut.
const LINE_CHARS_MAX: usize = 110;

/// One row of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    id: String,
    priority: String,
    line: String,
    state: String,
}

/// Which rows the tests claim to show.
#[derive(Debug, Default)]
struct Marks<'a> {
    whole: BTreeSet<&'a str>,
    part: BTreeSet<&'a str>,
}

impl Marks<'_> {
    fn state(&self, id: &str) -> &'static str {
        match (self.whole.contains(id), self.part.contains(id)) {
            (true, _) => "shown",
            (false, true) => "partial",
            (false, false) => "open",
        }
    }
}

/// Checks ids, priorities and states; counts what is shown.
pub(crate) fn tidy(files: &[File], findings: &mut Findings) {
    let Some(own) = files.iter().find(|file| file.path == PATH) else {
        findings.error(format!("{PATH} is missing, run `cargo xtask fix`"));
        return;
    };
    let rows: Vec<Row> = own.text.lines().skip(1).filter_map(parse).collect();
    let marks = marks(files);
    let known: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    for id in marks
        .whole
        .union(&marks.part)
        .filter(|id| !known.contains(**id))
    {
        findings.error(format!("a test shows `{id}`, which is not in {PATH}"));
    }
    let stale = rows
        .iter()
        .filter(|row| row.state != marks.state(&row.id))
        .count();
    if stale > 0 {
        findings.error(format!(
            "{PATH}: {stale} states are old, run `cargo xtask fix`"
        ));
    }
    if let Some(source) = shared() {
        compare(&rows, &source, findings);
    }
    findings.note(counts(&rows, &marks));
}

/// Writes the list anew: rows from the shared document when it is present, states from the tests.
///
/// # Errors
///
/// When there is neither a list nor the document it comes from, or it cannot be written.
pub(crate) fn write(files: &[File]) -> Result<(), String> {
    let own = files.iter().find(|file| file.path == PATH);
    let mut rows = match (shared(), own) {
        (Some(source), _) => source,
        (None, Some(own)) => own.text.lines().skip(1).filter_map(parse).collect(),
        (None, None) => {
            return Err(format!(
                "neither {PATH} nor the shared requirements are here"
            ));
        }
    };
    let marks = marks(files);
    let mut text = String::from("id\tpriority\tline\tstate\n");
    for row in &mut rows {
        row.state = marks.state(&row.id).to_owned();
        text.push_str(&format!(
            "{}\t{}\t{}\t{}\n",
            row.id, row.priority, row.line, row.state
        ));
    }
    std::fs::write(root().join(PATH), text)
        .map_err(|error| format!("failed to write {PATH}: {error}"))
}

fn parse(line: &str) -> Option<Row> {
    let mut cells = line.split('\t').map(str::to_owned);
    Some(Row {
        id: cells.next()?,
        priority: cells.next()?,
        line: cells.next()?,
        state: cells.next()?,
    })
}

/// The rows of the document the list comes from, if it lies beside the clone.
fn shared() -> Option<Vec<Row>> {
    let text = std::fs::read_to_string(root().join("../shared/requirements.md")).ok()?;
    let rows: BTreeMap<String, Row> = text
        .lines()
        .filter_map(shared_row)
        .map(|row| (row.id.clone(), row))
        .collect();
    Some(rows.into_values().collect())
}

/// A table row that opens with an id and a priority: `| FLK-06 M | what | …`.
fn shared_row(line: &str) -> Option<Row> {
    let mut cells = line.strip_prefix("| ")?.split(" | ");
    let (id, priority) = cells.next()?.split_once(' ')?;
    let (letters, digits) = id.split_once('-')?;
    let named = letters.chars().all(|letter| letter.is_ascii_uppercase());
    if !named || digits.parse::<u32>().is_err() || !matches!(priority, "M" | "S" | "L") {
        return None;
    }
    let line = shorten(cells.next()?);
    Some(Row {
        id: id.to_owned(),
        priority: priority.to_owned(),
        line,
        state: String::new(),
    })
}

/// The first clause, cut at a word.
fn shorten(text: &str) -> String {
    let clause = text
        .split(['.', ';', ':', '('])
        .find(|clause| !clause.trim().is_empty());
    let clause = clause.unwrap_or(text).trim();
    let mut short = String::new();
    for word in clause.split_whitespace() {
        if short.chars().count() + word.chars().count() > LINE_CHARS_MAX {
            short.push_str(" …");
            break;
        }
        if !short.is_empty() {
            short.push(' ');
        }
        short.push_str(word);
    }
    short
}

fn compare(own: &[Row], source: &[Row], findings: &mut Findings) {
    let key = |row: &Row| (row.id.clone(), row.priority.clone());
    let own: BTreeSet<_> = own.iter().map(key).collect();
    let source: BTreeSet<_> = source.iter().map(key).collect();
    for (id, priority) in own.symmetric_difference(&source) {
        findings.error(format!(
            "{PATH}: {id} {priority} is not as in the shared requirements"
        ));
    }
}

/// Every mark in every source file.
fn marks(files: &[File]) -> Marks<'_> {
    let mut marks = Marks::default();
    for file in files
        .iter()
        .filter(|file| file.is("rs") && !file.path.starts_with("dev/xtask/"))
    {
        for line in file.text.lines() {
            let Some((_, comment)) = line.split_once("//") else {
                continue;
            };
            let comment = comment.trim_start_matches(['/', '!', ' ']);
            if let Some(ids) = comment.strip_prefix("Shows: ") {
                marks.whole.extend(ids_of(ids));
            } else if let Some(ids) = comment.strip_prefix("Shows in part: ") {
                marks.part.extend(ids_of(ids));
            }
        }
    }
    marks
}

/// The ids at the start of a mark; what follows the first word that is none is remark.
fn ids_of(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' '])
        .filter(|word| !word.is_empty())
        .map(|word| word.trim_end_matches('.'))
        .take_while(|word| {
            word.split_once('-').is_some_and(|(letters, digits)| {
                letters.chars().all(|letter| letter.is_ascii_uppercase())
                    && digits.parse::<u32>().is_ok()
            })
        })
}

fn counts(rows: &[Row], marks: &Marks<'_>) -> String {
    let mut table: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for row in rows {
        *table
            .entry((row.priority.as_str(), marks.state(&row.id)))
            .or_default() += 1;
    }
    let count = |priority, state| table.get(&(priority, state)).copied().unwrap_or_default();
    let all = |state| {
        ["M", "S", "L"]
            .map(|priority| count(priority, state))
            .iter()
            .sum::<usize>()
    };
    format!(
        "requirements: {} shown, {} in part, {} open (must: {} shown, {} in part, {} open)",
        all("shown"),
        all("partial"),
        all("open"),
        count("M", "shown"),
        count("M", "partial"),
        count("M", "open"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_told_from_other_tables() {
        let row = shared_row("| FLK-06 M | Window of 5 s; two beats | §4 | [sim] x | flock |");
        let row = row.expect("a row");
        assert_eq!(
            (row.id.as_str(), row.line.as_str()),
            ("FLK-06", "Window of 5 s")
        );
        assert_eq!(shared_row("| F-1 | Chronicles | a | b |"), None);
        assert_eq!(shared_row("| ID | capability | source |"), None);
    }

    #[test]
    fn marks_name_several_rows_and_may_remark() {
        assert_eq!(
            ids_of("FLK-01, FLK-02 (chaos)").collect::<Vec<_>>(),
            ["FLK-01", "FLK-02"]
        );
        assert_eq!(ids_of("KEN-01.").collect::<Vec<_>>(), ["KEN-01"]);
    }

    #[test]
    fn a_part_leaves_the_row_open_for_the_whole() {
        let text = "//! A.\n// Shows: FLK-01\n// Shows in part: FLK-01, FLK-02\n";
        let file = File {
            path: "crux/core/src/a.rs".to_owned(),
            text: text.to_owned(),
        };
        let files = [file];
        let marks = marks(&files);
        let states = ["FLK-01", "FLK-02", "FLK-03"].map(|id| marks.state(id));
        assert_eq!(states, ["shown", "partial", "open"]);
    }
}
