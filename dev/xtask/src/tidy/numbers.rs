//! Every limit and every time has a line in docs/numbers.md, taken from the constant itself.
//!
//! The table stands between two marker comments; `cargo xtask fix` writes it, tidy compares it.

use super::Findings;
use crate::cargo::root;
use crate::tree::{self, File};

const PATH: &str = "docs/numbers.md";
const BEGIN: &str = "<!-- limits: begin -->\n";
const END: &str = "<!-- limits: end -->";

/// One limit or time, as its constant declares it.
#[derive(Debug, PartialEq, Eq)]
struct Limit<'a> {
    name: &'a str,
    value: &'a str,
    about: String,
}

/// The table in docs/numbers.md is what the constants say, and each constant says what it bounds.
pub(super) fn limits_are_listed(files: &[File], findings: &mut Findings) {
    let Some(numbers) = files.iter().find(|file| file.path == PATH) else {
        findings.error(format!("{PATH} is missing"));
        return;
    };
    let written = parts(&numbers.text).map(|(_, table, _)| table);
    if written != Some(render(files).as_str()) {
        findings.error(format!("{PATH}: its limits are old, run `cargo xtask fix`"));
    }
    for file in files.iter().filter(|file| is_ours(file)) {
        for limit in limits(&file.text)
            .iter()
            .filter(|limit| limit.about.is_empty())
        {
            findings.note(format!(
                "{}: {} does not say what it bounds",
                file.path, limit.name
            ));
        }
    }
}

/// Writes the table anew.
///
/// # Errors
///
/// When the file or its markers are missing.
pub(crate) fn write() -> Result<(), String> {
    let files = tree::read(&root())?;
    let numbers = files.iter().find(|file| file.path == PATH);
    let parts = numbers.and_then(|file| parts(&file.text));
    let (before, _, after) = parts.ok_or_else(|| format!("{PATH}: no markers of the limits"))?;
    let fresh = format!("{before}{BEGIN}{}{END}{after}", render(&files));
    std::fs::write(root().join(PATH), fresh).map_err(|error| format!("{PATH}: {error}"))
}

fn is_ours(file: &File) -> bool {
    let tests = file.path.contains("/tests/") || file.path.ends_with("/tests.rs");
    file.is("rs") && !file.path.starts_with("dev/") && !file.is_generated() && !tests
}

fn render(files: &[File]) -> String {
    let mut text =
        String::from("| constant | value | what it bounds | file |\n|---|---|---|---|\n");
    for file in files.iter().filter(|file| is_ours(file)) {
        for Limit { name, value, about } in limits(&file.text) {
            let about = about.replace('|', "\\|");
            text.push_str(&format!(
                "| `{name}` | `{value}` | {about} | {} |\n",
                file.path
            ));
        }
    }
    text
}

/// The limits that a source file declares before its tests.
fn limits(text: &str) -> Vec<Limit<'_>> {
    let mut found = Vec::new();
    let mut about = String::new();
    for line in text
        .lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
    {
        let line = line.trim_start();
        if let Some(doc) = line.strip_prefix("///") {
            if !about.is_empty() {
                about.push(' ');
            }
            about.push_str(doc.trim());
            continue;
        }
        if line.starts_with("#[") {
            continue;
        }
        if let Some((name, value)) = declaration(line) {
            found.push(Limit {
                name,
                value,
                about: first_paragraph(&about),
            });
        }
        about.clear();
    }
    found
}

/// An empty doc line has become two spaces.
fn first_paragraph(about: &str) -> String {
    about.split("  ").next().unwrap_or_default().to_owned()
}

/// Name and value, if the line declares a limit (`…_MAX`) or a time.
fn declaration(line: &str) -> Option<(&str, &str)> {
    let (visibility, rest) = line.split_once("const ")?;
    if !(visibility.is_empty() || visibility.starts_with("pub")) {
        return None;
    }
    let (name, rest) = rest.split_once(": ")?;
    let (kind, value) = rest.split_once(" = ")?;
    let counts = name.ends_with("_MAX") || kind == "Duration" || kind == "std::time::Duration";
    counts.then(|| (name, value.trim_end_matches(';')))
}

/// What stands before, between and after the markers.
fn parts(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (table, after) = rest.split_once(END)?;
    Some((before, table, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_times_are_told_from_other_constants() {
        let check = |line, expected| assert_eq!(declaration(line), expected, "{line}");
        check("pub const KEY_MAX: usize = 320;", Some(("KEY_MAX", "320")));
        check(
            "const TICK: Duration = Duration::ZERO;",
            Some(("TICK", "Duration::ZERO")),
        );
        check(
            "pub(crate) const A_MAX: u64 = 2 * 3;",
            Some(("A_MAX", "2 * 3")),
        );
        check("pub const NAME: &str = \"x\";", None);
        check("pub const fn a_max(x: u32) -> u32 {", None);
    }

    #[test]
    fn a_limit_carries_the_first_paragraph_of_its_doc() {
        let text = "/// Bytes of a key;\n/// longer ones are refused.\n///\n/// More.\n\
                    pub const KEY_MAX: usize = 320;\n";
        let about = "Bytes of a key; longer ones are refused.".to_owned();
        assert_eq!(
            limits(text),
            [Limit {
                name: "KEY_MAX",
                value: "320",
                about
            }]
        );
    }
}
