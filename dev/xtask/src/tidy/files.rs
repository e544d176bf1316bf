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

/// Counts the behaviours that traits promise; the suite will name each (issue 4).
pub(super) fn behaviour_lines(files: &[File], findings: &mut Findings) {
    let count: usize = sources(files).map(behaviours).sum();
    if count > 0 {
        findings.note(format!(
            "{count} behaviour lines are promised; the suite names none yet"
        ));
    }
}

/// The list items below each `**Behaviour**` heading of a doc comment.
fn behaviours(file: &File) -> usize {
    let mut inside = false;
    let mut count = 0;
    for line in file.text.lines().map(str::trim_start) {
        let Some(doc) = line.strip_prefix("///") else {
            inside = false;
            continue;
        };
        let doc = doc.trim_start();
        if doc.starts_with("**Behaviour**") {
            inside = true;
        } else if inside && (doc.starts_with("- ") || doc.starts_with("* ")) {
            count += 1;
        }
    }
    count
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
    fn behaviours_are_counted_below_their_heading() {
        let text =
            "/// Makes.\n///\n/// **Behaviour**\n/// - one\n/// - two\nfn a();\n/// - not one\n";
        let file = File {
            path: "a.rs".to_owned(),
            text: text.to_owned(),
        };
        assert_eq!(behaviours(&file), 2);
    }
}
