//! Every limit has a line in docs/numbers.md.

use super::Findings;
use crate::tree::File;

/// Notes public limits (`pub const …_MAX`) that docs/numbers.md does not name.
pub(super) fn limits_are_listed(files: &[File], findings: &mut Findings) {
    let Some(numbers) = files.iter().find(|file| file.path == "docs/numbers.md") else {
        findings.error("docs/numbers.md is missing");
        return;
    };
    for file in files
        .iter()
        .filter(|file| file.is("rs") && !file.path.starts_with("dev/"))
    {
        for (number, name) in file
            .lines()
            .filter_map(|(number, line)| Some((number, limit(line)?)))
        {
            if !numbers.text.contains(name) {
                findings.note(format!(
                    "{}:{number}: {name} has no line in numbers.md",
                    file.path
                ));
            }
        }
    }
}

/// The name of the public limit that a line declares.
fn limit(line: &str) -> Option<&str> {
    let (name, _) = line
        .trim_start()
        .strip_prefix("pub const ")?
        .split_once(':')?;
    name.ends_with("_MAX").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_told_from_other_constants() {
        assert_eq!(
            limit("    pub const KEY_BYTES_MAX: usize = 320;"),
            Some("KEY_BYTES_MAX")
        );
        assert_eq!(limit("pub const WINDOW: Duration = X;"), None);
        assert_eq!(limit("const INNER_MAX: usize = 1;"), None);
    }
}
