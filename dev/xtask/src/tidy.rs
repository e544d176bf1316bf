//! The house rules that no lint can see.
//!
//! Each rule is one function over the files of the tree. An *error* fails the gate; a *note* is
//! printed and fails nothing, for what a person has to weigh.

mod files;
pub(crate) mod imports;
mod links;
pub(crate) mod numbers;
mod places;
mod words;

use crate::cargo::root;
use crate::requirements;
use crate::tree::{self, File};

/// What the rules found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    errors: Vec<String>,
    notes: Vec<String>,
}

impl Findings {
    /// Records what must be mended.
    pub(crate) fn error(&mut self, message: impl Into<String>) {
        self.errors.push(message.into());
    }

    /// Records what a person should look at.
    pub(crate) fn note(&mut self, message: impl Into<String>) {
        self.notes.push(message.into());
    }
}

const RULES: &[fn(&[File], &mut Findings)] = &[
    files::module_docs,
    files::no_mod_rs,
    files::sizes,
    files::no_ignored_tests,
    files::todos_name_an_issue,
    files::behaviour_lines,
    words::house_words,
    words::glossary,
    links::relative_links,
    links::named_paths,
    places::no_machine_paths,
    places::lock_sources,
    numbers::limits_are_listed,
    imports::purity,
    requirements::tidy,
];

/// Runs every rule and prints what it found.
///
/// # Errors
///
/// Says how many errors were printed.
pub(crate) fn run() -> Result<(), String> {
    let files = tree::read(&root())?;
    let mut findings = Findings::default();
    for rule in RULES {
        rule(&files, &mut findings);
    }
    imports::table(&files, &mut findings)?;
    for note in &findings.notes {
        println!("note: {note}");
    }
    for error in &findings.errors {
        println!("error: {error}");
    }
    match findings.errors.len() {
        0 => Ok(()),
        count => Err(format!("{count} house rules broken, listed above")),
    }
}
