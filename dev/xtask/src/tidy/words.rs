//! The house's words: those it has are in the glossary, those it refuses are not used.

use super::Findings;
use crate::tree::File;

/// A word the house does not use, and what it says instead.
const REFUSED: [(&str, &str); 7] = [
    ("node", "rnode, or qualified: Kubernetes node"),
    ("nodes", "rnodes, or qualified: Kubernetes nodes"),
    ("realize", "realise"),
    ("realized", "realised"),
    ("realizes", "realises"),
    ("tomatom", "tomaton"),
    ("dicta", "dictums"),
];

/// Words before a refused one that make it somebody else's, lower case.
const QUALIFIERS: [&str; 5] = ["kubernetes", "tree", "syntax", "kwok", "graph"];

/// Files in which a refused word is the subject.
const EXEMPT: [(&str, &str); 2] = [
    ("dev/xtask/src/tidy/words.rs", "this list"),
    ("docs/glossary.md", "says which words are not used"),
];

/// Words of the house that docs/glossary.md must explain.
const HOUSE: [&str; 55] = [
    "acting leader",
    "agent",
    "assignment",
    "base rnode",
    "begat",
    "blackboard",
    "blob",
    "bundle",
    "cell",
    "charter",
    "claim",
    "class",
    "claviger",
    "crux",
    "dictum",
    "document",
    "envoy",
    "evidence",
    "execable",
    "execution",
    "flock",
    "fulcrum",
    "gear",
    "generation",
    "grant",
    "handle",
    "horde",
    "incarnation",
    "instance",
    "invitation",
    "keeper",
    "khan",
    "leaf",
    "ledger",
    "mark",
    "memoir",
    "myriad",
    "namespace",
    "outcome",
    "owner",
    "pen",
    "placement",
    "principal",
    "rnode",
    "scheduling",
    "settle",
    "spec digest",
    "split",
    "tenure",
    "term",
    "threshold",
    "tomaton",
    "troop",
    "underverse",
    "watcher",
];

/// Looks for refused words in prose and comments; code and quotations in backticks are free.
pub(super) fn house_words(files: &[File], findings: &mut Findings) {
    for file in files
        .iter()
        .filter(|file| !EXEMPT.iter().any(|(path, _)| file.path == *path))
    {
        let prose: fn(&str) -> Option<&str> = if file.is("md") {
            |line| Some(line)
        } else if (file.is("rs") || file.is("proto")) && !file.is_generated() {
            comment
        } else {
            continue;
        };
        let mut fenced = false;
        for (number, line) in file.lines() {
            let Some(text) = prose(line) else { continue };
            if text.trim_start_matches(['/', '!', ' ']).starts_with("```") {
                fenced = !fenced;
            } else if !fenced {
                for (word, instead) in refused(text) {
                    findings.error(format!("{}:{number}: \"{word}\": {instead}", file.path));
                }
            }
        }
    }
}

/// The comment on a line of code, if any.
fn comment(line: &str) -> Option<&str> {
    line.split_once("//").map(|(_, text)| text)
}

/// The refused words in a piece of prose, outside backticks and not qualified.
fn refused(text: &str) -> Vec<(&'static str, &'static str)> {
    let spoken: String = text
        .split('`')
        .step_by(2)
        .collect::<Vec<_>>()
        .join(" CODE ");
    let words: Vec<String> = spoken
        .split(|letter: char| {
            !(letter.is_alphanumeric() || matches!(letter, '-' | '_' | '/' | '.'))
        })
        .map(|word| word.trim_matches(['.', '/', '-']).to_lowercase())
        .filter(|word| !word.is_empty())
        .collect();
    let mut found = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|before| words.get(before));
        let qualified = before.is_some_and(|before| QUALIFIERS.contains(&before.as_str()));
        let entry = REFUSED.iter().find(|(refused, _)| word == refused);
        found.extend(entry.filter(|_| !qualified).copied());
    }
    found
}

/// Every house word stands in the glossary, as the bold first cell of a row.
pub(super) fn glossary(files: &[File], findings: &mut Findings) {
    let Some(glossary) = files.iter().find(|file| file.path == "docs/glossary.md") else {
        findings.error("docs/glossary.md is missing");
        return;
    };
    for word in HOUSE {
        if !glossary.text.contains(&format!("**{word}**")) {
            findings.error(format!("docs/glossary.md: does not explain **{word}**"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, count: usize) {
        assert_eq!(refused(text).len(), count, "{text}");
    }

    #[test]
    fn the_bare_word_is_refused_and_the_qualified_is_not() {
        check("each node has one", 1);
        check("Nodes come and go.", 1);
        check("each rnode has one", 0);
        check("a Kubernetes node is lost", 0);
        check("a syntax node", 0);
    }

    #[test]
    fn what_stands_in_backticks_is_code() {
        check("the alias `node` is accepted, as is `radix nodes`", 0);
    }

    #[test]
    fn parts_of_names_and_paths_are_not_words() {
        check("node_modules and multi-node, src/node/ring.rs", 0);
    }

    #[test]
    fn realise_has_one_spelling() {
        check("to realize a horde", 1);
        check("to realise a horde", 0);
    }
}
