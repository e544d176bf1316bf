//! Results on stdout, talk on stderr; tables and JSON; a broken pipe is success.

use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde::Serialize;

use crate::failure::{Failure, Outcome};

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs; the schemas stand in docs/formats/cli-json.md.
    Json,
}

/// Prints a result line. A closed pipe ends the program with success.
pub(crate) fn line(text: &str) {
    bytes(format!("{text}\n").as_bytes());
}

/// Prints raw result bytes. A closed pipe ends the program with success.
pub(crate) fn bytes(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        let code = i32::from(error.kind() != std::io::ErrorKind::BrokenPipe);
        std::process::exit(code);
    }
}

/// Says something to the person, not part of the result.
pub(crate) fn talk(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The line that tells of output which the rnode gave back before it was read.
pub(crate) fn missing(prefix: &str, bytes: u64, which: &str) -> String {
    format!("{prefix}{bytes} bytes of {which} are missing here: more was written than is kept")
}

/// Prints `value` as pretty JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> Outcome<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::failed(format!("failed to write JSON: {error}")))?;
    line(&text);
    Ok(())
}

/// Whether a person watches the talk.
pub(crate) fn watched() -> bool {
    std::io::stderr().is_terminal()
}

/// A table with left-aligned columns, two spaces apart.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let print = |cells: Vec<&str>| {
        let mut text = String::new();
        for (index, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            if index + 1 == cells.len() {
                text.push_str(cell);
            } else {
                text.push_str(&format!("{cell:<width$}  "));
            }
        }
        line(text.trim_end());
    };
    print(head.to_vec());
    for row in rows {
        print(row.iter().map(String::as_str).collect());
    }
}

/// A line of progress that replaces itself on a terminal and is silent elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    shown: bool,
}

impl Progress {
    /// Shows what is going on now.
    pub(crate) fn show(&mut self, text: &str) {
        if watched() {
            let short: String = text.chars().take(110).collect();
            let _ = write!(std::io::stderr().lock(), "\r\x1b[2K{short}");
            self.shown = true;
        }
    }

    /// Removes the line.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[2K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Asks a person, unless `yes` answers already.
///
/// # Errors
/// Without a terminal and without `yes`: a usage failure; "no": a refusal by the person.
pub(crate) fn ask(question: &str, yes: bool) -> Outcome<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() || !watched() {
        return Err(Failure::usage("there is no terminal to ask on")
            .hint("pass --yes to answer every question with yes"));
    }
    let _ = write!(std::io::stderr().lock(), "{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::new(
            crate::failure::Fault::Refused,
            "not confirmed; nothing was changed",
        ))
    }
}
