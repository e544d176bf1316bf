//! Golden cases: files that hold an input in named sections and the output expected of it.
//!
//! ```text
//! a comment
//! == stix.khan
//! pick(prog1, 2, ALL)
//! == stix.begat escaped
//! \xff is a byte, \r \t \\ are as in Rust, a line's end is left out after a final \
//! == expect
//! what the test printed for these sections
//! ```
//!
//! `UPDATE_GOLDEN=1 cargo test …` rewrites the `expect` sections; read the difference before
//! committing it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Line that begins a section.
const MARK: &str = "== ";
/// Name of the section that holds the output.
const EXPECT: &str = "expect";
/// Most differing lines shown of one case.
const SHOWN_LINES_MAX: usize = 40;

/// A section of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its name: what stands behind `== `, without `escaped`.
    pub name: String,
    /// Its content, escapes resolved.
    pub bytes: Vec<u8>,
}

/// A case file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Name of the file without its ending.
    pub name: String,
    /// Sections in order, `expect` not among them.
    pub sections: Vec<Section>,
    /// The text before `expect`, as it stands.
    input: String,
    expected: Option<String>,
}

impl Case {
    /// Reads the text of a case file called `name`.
    #[must_use]
    pub fn parse(name: &str, text: &str) -> Self {
        let mut sections = Vec::new();
        let mut input = String::new();
        let mut expected = None;
        let mut lines = text.split_inclusive('\n').peekable();
        while let Some(line) = lines.next() {
            let title = line.strip_prefix(MARK).map(str::trim_end);
            if title == Some(EXPECT) {
                expected = Some(lines.collect());
                break;
            }
            input.push_str(line);
            let Some(title) = title else {
                continue;
            };
            let mut body = String::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with(MARK)) {
                body.push_str(line);
            }
            input.push_str(&body);
            let section = match title.strip_suffix(" escaped") {
                Some(name) => Section {
                    name: name.to_owned(),
                    bytes: unescaped(&body),
                },
                None => Section {
                    name: title.to_owned(),
                    bytes: body.into_bytes(),
                },
            };
            sections.push(section);
        }
        Self {
            name: name.to_owned(),
            sections,
            input,
            expected,
        }
    }

    /// The text of the section `name`, if there is one.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        let section = self.sections.iter().find(|section| section.name == name)?;
        Some(String::from_utf8_lossy(&section.bytes).into_owned())
    }
}

/// Runs every file of `directory` that ends in `.case` and compares what `run` returns.
///
/// Returns how many there were.
///
/// # Panics
///
/// If one differs, listing all that do, or if the directory holds none.
pub fn check(directory: impl AsRef<Path>, run: impl Fn(&Case) -> String) -> usize {
    let directory = directory.as_ref();
    let files = case_files(directory);
    assert!(
        !files.is_empty(),
        "no .case files in {}",
        directory.display()
    );
    let update = std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1");
    let mut report = String::new();
    for path in &files {
        let text = fs::read_to_string(path).expect("a case file is readable UTF-8");
        let stem = path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        let case = Case::parse(&stem.unwrap_or_default(), &text);
        let found = ended(run(&case));
        if case.expected.as_deref() == Some(found.as_str()) {
            continue;
        }
        if update {
            let text = format!("{}{MARK}{EXPECT}\n{found}", ended(case.input));
            fs::write(path, text).expect("a case file can be rewritten");
        } else {
            let expected = case.expected.as_deref().unwrap_or("");
            let _ = write!(
                report,
                "\n{}:\n{}",
                path.display(),
                difference(expected, &found)
            );
        }
    }
    assert!(
        report.is_empty(),
        "golden cases differ (UPDATE_GOLDEN=1 rewrites them):\n{report}"
    );
    files.len()
}

fn case_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the directory of cases is readable");
    let paths = entries.map(|entry| entry.expect("its entries are readable").path());
    let mut files: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "case"))
        .collect();
    files.sort();
    files
}

/// The text with a line end at its end, unless it is empty.
fn ended(mut text: String) -> String {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// The lines between what both have at their beginning and end.
fn difference(expected: &str, found: &str) -> String {
    let (expected, found): (Vec<&str>, Vec<&str>) =
        (expected.lines().collect(), found.lines().collect());
    let same = expected
        .iter()
        .zip(&found)
        .take_while(|(left, right)| left == right)
        .count();
    let tail = expected[same..]
        .iter()
        .rev()
        .zip(found[same..].iter().rev());
    let tail = tail.take_while(|(left, right)| left == right).count();
    let mut text = String::new();
    let parts = [
        ('-', &expected[same..expected.len() - tail]),
        ('+', &found[same..found.len() - tail]),
    ];
    for (sign, lines) in parts {
        for line in lines.iter().take(SHOWN_LINES_MAX) {
            let _ = writeln!(text, "{sign} {line}");
        }
    }
    text
}

fn unescaped(body: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = body.chars();
    while let Some(next) = rest.next() {
        if next != '\\' {
            bytes.extend(next.encode_utf8(&mut [0; 4]).bytes());
            continue;
        }
        match rest.next() {
            Some('n') => bytes.push(b'\n'),
            Some('r') => bytes.push(b'\r'),
            Some('t') => bytes.push(b'\t'),
            Some('x') => {
                let digits: String = rest.by_ref().take(2).collect();
                bytes.push(u8::from_str_radix(&digits, 16).expect("two hex digits follow \\x"));
            }
            Some('\n') | None => {}
            Some(other) => bytes.extend(other.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::Case;

    #[test]
    fn a_case_has_sections_and_an_expectation() {
        let text = "why\n== a.khan\nx\ny\n== b escaped\n\\xff\\r\n== expect\nout\n== more\n";
        let case = Case::parse("one", text);
        assert_eq!(case.text("a.khan").as_deref(), Some("x\ny\n"));
        assert_eq!(case.sections[1].bytes, b"\xff\r\n");
        assert_eq!(case.expected.as_deref(), Some("out\n== more\n"));
        assert_eq!(case.input, "why\n== a.khan\nx\ny\n== b escaped\n\\xff\\r\n");
    }
}
