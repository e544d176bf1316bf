//! No dead links between the files of the house.

use std::collections::BTreeSet;

use super::Findings;
use crate::tree::File;

/// Every relative link of every Markdown file leads to a file or folder of the tree.
pub(super) fn relative_links(files: &[File], findings: &mut Findings) {
    let places = places(files);
    for file in files.iter().filter(|file| file.is("md")) {
        let mut fenced = false;
        for (number, line) in file.lines() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            }
            if fenced {
                continue;
            }
            for target in targets(line) {
                let place = resolve(&file.path, target);
                if !place.is_some_and(|place| places.contains(&place)) {
                    findings.error(format!("{}:{number}: dead link `{target}`", file.path));
                }
            }
        }
    }
}

/// Top-level folders of the house, by which a path in backticks is told from other code.
const TOP: [&str; 11] = [
    "crux/",
    "underverse/",
    "khan/",
    "begat/",
    "envoy-sdk/",
    "fulcrum/",
    "threshold/",
    "examples/",
    "docs/",
    "dev/",
    ".ci/",
];

/// Papers that say where things are; design notes and changes may speak of what was.
fn says_where(path: &str) -> bool {
    !path.contains('/') || path == "docs/README.md" || path == "docs/formats/README.md"
}

/// Every path in backticks, in the papers that say where things are, leads to something.
pub(super) fn named_paths(files: &[File], findings: &mut Findings) {
    let places = places(files);
    for file in files
        .iter()
        .filter(|file| file.is("md") && says_where(&file.path))
    {
        for (number, line) in file.lines() {
            let quoted = line.split('`').skip(1).step_by(2);
            for path in quoted.filter(|text| TOP.iter().any(|top| text.starts_with(top))) {
                let plain = path
                    .chars()
                    .all(|letter| letter.is_alphanumeric() || "/_-.".contains(letter));
                if plain && !places.contains(path.trim_end_matches('/')) {
                    findings.error(format!("{}:{number}: `{path}` is not there", file.path));
                }
            }
        }
    }
}

/// Every file and every folder above one.
fn places(files: &[File]) -> BTreeSet<String> {
    let mut places = BTreeSet::from([String::new()]);
    for file in files {
        let mut path = file.path.as_str();
        while places.insert(path.to_owned()) {
            let Some((folder, _)) = path.rsplit_once('/') else {
                break;
            };
            path = folder;
        }
    }
    places
}

/// The relative link targets of one line, without their anchors.
fn targets(line: &str) -> Vec<&str> {
    let spoken = line.split('`').enumerate();
    // A link may have code in its text, never in its target.
    let closings = spoken
        .filter(|(index, _)| index % 2 == 0)
        .map(|(_, text)| text);
    let mut found = Vec::new();
    for text in closings {
        for after in text.split("](").skip(1) {
            let target = after.split([')', ' ']).next().unwrap_or_default();
            let target = target.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                found.push(target);
            }
        }
    }
    found
}

/// The place in the tree that `target` means when written in the file `from`; `None` if outside.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_and_foreign_ones_are_not() {
        let line = "see [a](b/c.md#d), [`code`](../e.md), [web](https://example.org/x)";
        assert_eq!(targets(line), ["b/c.md", "../e.md"]);
    }

    #[test]
    fn links_resolve_from_their_own_folder() {
        assert_eq!(
            resolve("docs/a.md", "../README.md").as_deref(),
            Some("README.md")
        );
        assert_eq!(
            resolve("docs/a.md", "formats/").as_deref(),
            Some("docs/formats")
        );
        assert_eq!(resolve("README.md", "../outside"), None);
    }

    #[test]
    fn a_path_that_is_named_must_be_there() {
        let text = "`khan/src/lib.rs`, `khan/src/gone.rs`, `khan(document, membership)`\n";
        let file = |path: &str, text: &str| File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let files = [file("ARCHITECTURE.md", text), file("khan/src/lib.rs", "")];
        let mut findings = Findings::default();
        named_paths(&files, &mut findings);
        assert_eq!(
            findings.errors,
            ["ARCHITECTURE.md:1: `khan/src/gone.rs` is not there"]
        );
    }

    #[test]
    fn a_dead_link_is_told_with_its_line() {
        let file = File {
            path: "a.md".to_owned(),
            text: "x\n[b](b.md)\n".to_owned(),
        };
        let mut findings = Findings::default();
        relative_links(&[file], &mut findings);
        assert_eq!(findings.errors, ["a.md:2: dead link `b.md`"]);
    }
}
