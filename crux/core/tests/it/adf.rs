//! The four description files.

use crux_core::adf::{Application, Diagnostic, Source, parse};
use testkit::golden;

mod hostile;
mod quoted;
mod roundtrip;

/// Directory of the golden cases.
const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/adf");

/// Files that check, used for those of the four that a case does not give.
const GOOD: [(&str, &str); 4] = [
    (
        "app.begat",
        "web: rexec/web\n      rexec/web -rnode %rnode\njob: rexec/job\n      rexec/job\n",
    ),
    ("app.rexec", "web = /srv/web\njob = /srv/job\n"),
    ("app.khan", "pick(web, 2, ALL)\npick(job, 1, ALL)\n"),
    (
        "app.rnodes",
        "local {\n  n = 3\n  cmd = /srv/fulcrum\n  mount . = /srv\n}\n",
    ),
];

/// Parses an application without a library.
fn parsed(name: &str, files: &[(&str, &str)]) -> (Application, Vec<Diagnostic>) {
    let sources: Vec<Source> = files
        .iter()
        .map(|(name, text)| Source::new(*name, *text))
        .collect();
    parse(name, &sources, &|_| None)
}

/// What a case's files are told: every finding as a person sees it.
fn shown(case: &golden::Case) -> String {
    let (library, given): (Vec<_>, Vec<_>) = case
        .sections
        .iter()
        .partition(|section| section.name.starts_with("library/"));
    let absent = |name: &&str| case.text(&format!("{name} absent")).is_some();
    let mut sources: Vec<Source> = given
        .iter()
        .filter(|section| !section.name.ends_with(" absent"))
        .map(|section| Source::new(section.name.clone(), section.bytes.clone()))
        .collect();
    for (name, text) in GOOD {
        if !sources.iter().any(|source| source.name == name) && !absent(&name) {
            sources.push(Source::new(name, text));
        }
    }
    let find = |name: &str| {
        let name = format!("library/{name}");
        library
            .iter()
            .find(|section| section.name == name)
            .map(|section| section.bytes.clone())
    };
    let (_, diagnostics) = parse("app", &sources, &find);
    if diagnostics.is_empty() {
        return "nothing to report\n".to_owned();
    }
    diagnostics
        .iter()
        .map(Diagnostic::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

// Shows: ADF-02
#[test]
fn every_malformed_form_is_told_where_and_how() {
    let count = golden::check(CASES, shown);
    assert!(count >= 60, "only {count} cases");
}
