//! Paths and globs of a tree: `*` and `?` within one name, `**` over any number of folders.

/// Whether `pattern` is more than a path.
#[must_use]
pub fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

/// The folder below which everything that `pattern` matches lies, and the rest of the pattern.
///
/// The rest is empty if the pattern is a path.
#[must_use]
pub fn split(pattern: &str) -> (String, String) {
    let parts: Vec<&str> = pattern.split('/').collect();
    let literal = parts.iter().take_while(|part| !is_glob(part)).count();
    let (folder, rest) = parts.split_at(literal);
    (folder.join("/"), rest.join("/"))
}

/// Removes `.` and empty parts and resolves inner `..`; what leads out of the tree stays in front.
///
/// `None` for an absolute path.
#[must_use]
pub fn normalise(path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts
                .last()
                .is_some_and(|last| *last != ".." && *last != "**") =>
            {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    Some(parts.join("/"))
}

/// Whether a normalised path leaves the tree it is relative to.
#[must_use]
pub fn escapes(path: &str) -> bool {
    path == ".." || path.starts_with("../")
}

/// Whether `path` is matched. Names that begin with a dot are matched only by such a pattern.
///
/// ```
/// use begat_core::glob::matches;
/// assert!(matches("src/**/*.rs", "src/a/b.rs") && matches("src/**/*.rs", "src/b.rs"));
/// assert!(!matches("src/*.rs", "src/a/b.rs") && !matches("**", "a/.git"));
/// ```
#[must_use]
pub fn matches(pattern: &str, path: &str) -> bool {
    let patterns: Vec<&str> = pattern.split('/').collect();
    let names: Vec<&str> = path.split('/').collect();
    parts_match(&patterns, &names)
}

/// Matches from the left, remembering only the last `**`: linear in practice, never exponential.
fn parts_match(patterns: &[&str], names: &[&str]) -> bool {
    let (mut at_pattern, mut at_name) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match (patterns.get(at_pattern), names.get(at_name)) {
            (None, None) => return true,
            (Some(&"**"), _) => {
                retry = Some((at_pattern + 1, at_name));
                at_pattern += 1;
            }
            (Some(pattern), Some(name)) if name_matches(pattern, name) => {
                at_pattern += 1;
                at_name += 1;
            }
            _ => match retry {
                // The folder given to `**` must exist, not be hidden and not be `..`.
                Some((after, from)) if names.get(from).is_some_and(|name| !hidden(name)) => {
                    retry = Some((after, from + 1));
                    (at_pattern, at_name) = (after, from + 1);
                }
                _ => return false,
            },
        }
    }
}

fn hidden(name: &str) -> bool {
    name.starts_with('.')
}

/// Whether one name is matched by `*` and `?`.
#[must_use]
pub fn name_matches(pattern: &str, name: &str) -> bool {
    if pattern == "**" {
        return !hidden(name);
    }
    if hidden(name) && !hidden(pattern) {
        return false;
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut at_pattern, mut at_name) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(at_pattern), name.get(at_name)) {
            (None, None) => return true,
            (Some('*'), _) => {
                retry = Some((at_pattern + 1, at_name));
                at_pattern += 1;
            }
            (Some(wanted), Some(letter)) if *wanted == '?' || wanted == letter => {
                at_pattern += 1;
                at_name += 1;
            }
            _ => match retry {
                Some((after, from)) if from < name.len() => {
                    retry = Some((after, from + 1));
                    (at_pattern, at_name) = (after, from + 1);
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_people_expect() {
        for (pattern, path, expected) in [
            ("a", "a", true),
            ("a", "b", false),
            ("*", "a", true),
            ("*", ".a", false),
            (".*", ".a", true),
            ("*", "a/b", false),
            ("a/*", "a/", true),
            ("*.rs", "x.rs", true),
            ("*.rs", "x.rss", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a*b*c", "aXbYbZc", true),
            ("**", "a/b/c", true),
            ("**", "a/.b/c", false),
            ("**/c", "a/b/c", true),
            ("**/c", "c", true),
            ("a/**/c", "a/c", true),
            ("a/**/c", "a/b/d", false),
            ("a/**/b/**/c", "a/x/b/y/z/c", true),
            ("a/**/b/**/c", "a/x/y/z/c", false),
            ("../x/**/*.rs", "../x/y.rs", true),
            ("../**/*.rs", "../../y.rs", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn hostile_globs_end_soon() {
        let pattern = "*a".repeat(200) + "b";
        assert!(!name_matches(&pattern, &"a".repeat(5000)));
        let deep = vec!["a"; 5000].join("/");
        assert!(!matches(&("**/a/".repeat(100) + "b"), &deep));
    }

    #[test]
    fn paths_are_normalised_without_losing_their_way_out() {
        for (path, expected) in [
            ("./a//b/../c", Some("a/c")),
            ("../../a/../b", Some("../../b")),
            ("a/..", Some("")),
            ("/a", None),
            ("a/**/..", Some("a/**/..")),
        ] {
            assert_eq!(normalise(path).as_deref(), expected, "{path}");
        }
        assert!(escapes("..") && escapes("../a") && !escapes("..a"));
        assert_eq!(split("../x/**/*.rs"), ("../x".into(), "**/*.rs".into()));
        assert_eq!(split("a/b"), ("a/b".into(), String::new()));
        assert_eq!(split("*.c"), (String::new(), "*.c".into()));
    }
}
