//! The comments of a proto file, by the path of what they stand beside.

use std::collections::BTreeMap;

use prost_types::FileDescriptorProto;

/// Path of the `syntax` line, above which a file says what it is.
const SYNTAX: i32 = 12;

/// Comments by path; a path is what `SourceCodeInfo.Location.path` says it is.
pub(super) struct Comments(BTreeMap<Vec<i32>, String>);

impl Comments {
    pub(super) fn of(file: &FileDescriptorProto) -> Self {
        let locations = file.source_code_info.iter().flat_map(|info| &info.location);
        let comment = |text: &Option<String>| text.as_deref().map(tidy).filter(|it| !it.is_empty());
        Self(
            locations
                .filter_map(|location| {
                    let before = comment(&location.leading_comments);
                    let text = before.or_else(|| comment(&location.trailing_comments))?;
                    Some((location.path.clone(), text))
                })
                .collect(),
        )
    }

    /// What stands above or behind the thing at `path`.
    pub(super) fn at(&self, path: &[i32]) -> Option<String> {
        self.0.get(path).cloned()
    }

    /// What stands at the head of the file.
    pub(super) fn of_file(&self) -> Option<String> {
        self.at(&[SYNTAX])
    }
}

fn tidy(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    lines.join("\n").trim().to_owned()
}
