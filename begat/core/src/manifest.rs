//! What a dictum and its execution are known by: canonical text, hashed.
//!
//! ```text
//! begat-dictum/1                      begat-execution/1
//! command 0000 argv WORD WORD…        dictum DIGEST
//! container host                      input PATH r|x DIGEST
//! env NAME=VALUE                      tool NAME DIGEST
//! limit NAME=VALUE
//! net none
//! output file PATH
//! tool NAME
//! ```
//!
//! After the version line, lines are sorted bytewise, so that neither order of declaration nor
//! names of dictums matter. Values are percent-escaped (space, `%`, controls, all beyond ASCII).
//! The digest is BLAKE3 of the whole text: `b3sum` over a saved copy gives the same.
//! The format is written down in docs/formats/begat-record.md.

use std::fmt::Write;

use crux_core::digest::Digest;

use crate::dictum::{Dictum, NoSuchPath, Paths, Piece, Step, Word};

/// First line of a dictum's text.
pub const DICTUM_VERSION: &str = "begat-dictum/1";
/// First line of an execution's text.
pub const EXECUTION_VERSION: &str = "begat-execution/1";

/// A canonical text and its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The text, each line ended by a line feed.
    pub text: String,
    /// BLAKE3 of it.
    pub digest: Digest,
}

impl Manifest {
    fn new(version: &str, mut lines: Vec<String>) -> Self {
        lines.sort_unstable();
        lines.dedup();
        let mut text = format!("{version}\n");
        for line in lines {
            text.push_str(&line);
            text.push('\n');
        }
        let digest = Digest::of(text.as_bytes());
        Self { text, digest }
    }
}

/// A file that an execution read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Input {
    /// Relative to the tree's root.
    pub path: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Whether it may be executed.
    pub executable: bool,
}

/// A program of the host that an execution used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Digest of what it says its version is.
    pub digest: Digest,
}

/// The identity of a dictum, without what it reads.
///
/// `%<` and `%>` stand as written: where inputs and outputs lie at execution is no part of it.
#[must_use]
pub fn dictum(dictum: &Dictum) -> Manifest {
    let mut lines = vec![format!("container {}", escape(&dictum.container))];
    for (number, step) in dictum.steps.iter().enumerate() {
        lines.push(command(number, step));
    }
    let settings = |kind: &'static str, name: &str, value: &str| {
        format!("{kind} {}={}", escape(name), escape(value))
    };
    lines.extend(
        dictum
            .environment
            .iter()
            .map(|(name, value)| settings("env", name, value)),
    );
    lines.extend(
        dictum
            .limits
            .iter()
            .map(|(name, value)| settings("limit", name, value)),
    );
    lines.extend(
        dictum
            .tools
            .keys()
            .map(|name| format!("tool {}", escape(name))),
    );
    for product in &dictum.products {
        lines.push(format!(
            "output {} {}",
            product.form.as_str(),
            escape(&product.path)
        ));
    }
    if !dictum.net.is_empty() {
        lines.push(format!("net {}", escape(&dictum.net)));
    }
    if numbers_inputs_or_outputs(dictum) {
        // `%<2` means the second as declared, so the order matters once a number is used.
        let declared = dictum.needs.iter().map(|need| need.pattern.as_str());
        let made = dictum.products.iter().map(|product| product.path.as_str());
        lines.push(format!(
            "order {}",
            joined(declared.chain(["%"]).chain(made))
        ));
    }
    Manifest::new(DICTUM_VERSION, lines)
}

/// The identity of one execution: of what, from what, with what.
#[must_use]
pub fn execution(dictum: Digest, inputs: &[Input], tools: &[Tool]) -> Manifest {
    let mut lines = vec![format!("dictum {dictum}")];
    for input in inputs {
        let mode = if input.executable { 'x' } else { 'r' };
        lines.push(format!(
            "input {} {mode} {}",
            escape(&input.path),
            input.digest
        ));
    }
    lines.extend(
        tools
            .iter()
            .map(|tool| format!("tool {} {}", escape(&tool.name), tool.digest)),
    );
    Manifest::new(EXECUTION_VERSION, lines)
}

fn command(number: usize, step: &Step) -> String {
    match step {
        Step::Argv(words) => {
            let words: Vec<String> = words.iter().map(word).collect();
            format!("command {number:04} argv {}", words.join(" "))
        }
        Step::Shell(text) => format!("command {number:04} shell {}", word(text)),
    }
}

/// A word with its substitutions left standing; a real `%` is escaped, so the two never meet.
fn word(word: &Word) -> String {
    let mut text = String::new();
    for piece in &word.0 {
        match piece {
            Piece::Text(part) => text.push_str(&escape(part)),
            Piece::Inputs(which) => push_number(&mut text, "%<", *which),
            Piece::Outputs(which) => push_number(&mut text, "%>", *which),
        }
    }
    // An empty word must not vanish between two spaces.
    if text.is_empty() {
        "%".to_owned()
    } else {
        text
    }
}

fn push_number(text: &mut String, sigil: &str, which: Option<u32>) {
    text.push_str(sigil);
    if let Some(number) = which {
        let _ = write!(text, "{{{number}}}");
    }
}

fn numbers_inputs_or_outputs(dictum: &Dictum) -> bool {
    let uses = |word: &Word| word.0.iter().any(|piece| !matches!(piece, Piece::Text(_)));
    dictum.steps.iter().any(|step| match step {
        Step::Argv(words) => words.iter().any(uses),
        Step::Shell(text) => uses(text),
    })
}

fn joined<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(escape).collect::<Vec<_>>().join(" ")
}

/// Escapes a value: space, `%`, controls and every byte beyond ASCII become `%XX`.
#[must_use]
pub fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// Checks that every `%<N` and `%>N` has a path before anything is executed.
///
/// # Errors
/// The first that has none.
pub fn check_numbers(dictum: &Dictum, paths: Paths<'_>) -> Result<(), NoSuchPath> {
    dictum
        .steps
        .iter()
        .try_for_each(|step| step.argv(paths).map(drop))
}
