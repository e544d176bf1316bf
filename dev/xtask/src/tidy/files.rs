//! Rules on single source files.

use super::Findings;
use crate::tree::File;

/// Lines above which a source file is too long to hold in one's head.
const FILE_LINES_MAX: usize = 800;

fn sources(files: &[File]) -> impl Iterator<Item = &File> {
    files
        .iter()
        .filter(|file| file.is("rs") && !file.is_generated())
}

/// Every source file opens with what it is for.
pub(super) fn module_docs(files: &[File], findings: &mut Findings) {
    for file in sources(files) {
        if !file.text.starts_with("//!") {
            findings.error(format!("{}: does not open with a `//!` doc", file.path));
        }
    }
}

/// `foo.rs` with `foo/`, so that a file's tab names it.
pub(super) fn no_mod_rs(files: &[File], findings: &mut Findings) {
    for file in files.iter().filter(|file| file.path.ends_with("/mod.rs")) {
        findings.error(format!(
            "{}: name it after its module, beside its folder",
            file.path
        ));
    }
}

/// No source file outgrows its reader.
pub(super) fn sizes(files: &[File], findings: &mut Findings) {
    for file in sources(files) {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            findings.error(format!(
                "{}: {lines} lines, at most {FILE_LINES_MAX}",
                file.path
            ));
        }
    }
}

/// A test that does not run shows nothing.
pub(super) fn no_ignored_tests(files: &[File], findings: &mut Findings) {
    // Spelt in two parts, or this file would find itself.
    let attribute = concat!("#[", "ignore");
    let fence = concat!("```", "ignore");
    for file in sources(files) {
        for (number, line) in file.lines() {
            let text = line.trim_start();
            if text.starts_with(attribute) || text.contains(fence) {
                findings.error(format!("{}:{number}: no test is ignored here", file.path));
            }
        }
    }
}

/// Work put off has an issue that remembers it.
pub(super) fn todos_name_an_issue(files: &[File], findings: &mut Findings) {
    let word = concat!("TO", "DO");
    for file in sources(files) {
        for (number, line) in file.lines() {
            let Some((_, comment)) = line.split_once("//") else {
                continue;
            };
            let Some((_, rest)) = comment.split_once(word) else {
                continue;
            };
            let named = rest
                .strip_prefix("(#")
                .and_then(|rest| rest.split_once(')'));
            if named.is_none_or(|(issue, _)| issue.parse::<u32>().is_err()) {
                findings.error(format!("{}:{number}: write `{word}(#ISSUE): …`", file.path));
            }
        }
    }
}

/// Where the promises of backends stand, and where the cases that show them.
const CONTRACT: &str = "underverse/src/contract.rs";
const CASES: &str = "underverse/conformance/src/cases/";

/// Every behaviour line of the contract has a case of its name, every case a line, and no name stands twice.
pub(super) fn behaviour_lines(files: &[File], findings: &mut Findings) {
    let promised: Vec<String> = sources(files)
        .filter(|file| file.path == CONTRACT)
        .flat_map(behaviours)
        .collect();
    let shown: Vec<String> = sources(files)
        .filter(|file| file.path.starts_with(CASES))
        .flat_map(case_names)
        .collect();
    let report = |names: &[String], others: &[String], what: &str, findings: &mut Findings| {
        for (at, name) in names.iter().enumerate() {
            if names[..at].contains(name) {
                findings.error(format!("{name} stands twice among the {what}s"));
            } else if !others.contains(name) {
                findings.error(format!("{what} {name} has no counterpart: each line of {CONTRACT} is a case below {CASES}"));
            }
        }
    };
    report(&promised, &shown, "line", findings);
    report(&shown, &promised, "case", findings);
}

/// The names of the list items below each `**Behaviour**` heading of a doc comment; an item without one is its text.
fn behaviours(file: &File) -> Vec<String> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in file.text.lines().map(str::trim_start) {
        let Some(doc) = line.strip_prefix("///") else {
            inside = false;
            continue;
        };
        let doc = doc.trim_start();
        if doc.starts_with("**Behaviour**") {
            inside = true;
        } else if inside && let Some(item) = doc.strip_prefix("- ") {
            let name = item
                .strip_prefix('`')
                .and_then(|item| item.split('`').next());
            names.push(name.unwrap_or(item).to_owned());
        }
    }
    names
}

/// The first words of the calls of `case(`, however they are laid out.
fn case_names(file: &File) -> Vec<String> {
    let calls = file.text.split("case(").skip(1);
    let names = calls.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&[File], &mut Findings), path: &str, text: &str) -> usize {
        let file = File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let mut findings = Findings::default();
        rule(&[file], &mut findings);
        findings.errors.len()
    }

    #[test]
    fn a_file_without_a_doc_is_found() {
        assert_eq!(check(module_docs, "a.rs", "fn a() {}"), 1);
        assert_eq!(check(module_docs, "a.rs", "//! For a.\n"), 0);
        assert_eq!(check(module_docs, "x/generated/a.rs", "fn a() {}"), 0);
    }

    #[test]
    fn put_off_work_names_its_issue() {
        assert_eq!(
            check(todos_name_an_issue, "a.rs", concat!("// TO", "DO: later")),
            1
        );
        assert_eq!(
            check(
                todos_name_an_issue,
                "a.rs",
                concat!("// TO", "DO(#7): trees")
            ),
            0
        );
    }

    #[test]
    fn an_ignored_test_is_found() {
        assert_eq!(
            check(no_ignored_tests, "a.rs", concat!("    #[", "ignore]")),
            1
        );
        assert_eq!(check(no_ignored_tests, "a.rs", "    #[test]"), 0);
    }

    #[test]
    fn a_line_without_a_case_and_a_case_without_a_line_are_found() {
        let contract = "/// Makes.\n///\n/// **Behaviour**\n/// - `a.one`: x\n/// - `a.two`: y\nfn a();\n/// - not one\n";
        let cases = "case(\n    \"a.one\", &[])\ncase(\"a.three\", &[])";
        let file = |path: &str, text: &str| File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let files = [
            file(CONTRACT, contract),
            file("underverse/conformance/src/cases/a.rs", cases),
        ];
        let mut findings = Findings::default();
        behaviour_lines(&files, &mut findings);
        assert_eq!(findings.errors.len(), 2, "{:?}", findings.errors);
        assert!(findings.errors[0].contains("line a.two"));
        assert!(findings.errors[1].contains("case a.three"));
    }
}
