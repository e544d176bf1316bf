//! Where text stands: files, spans, and values that know their place.

use std::fmt;
use std::ops::Deref;

use super::diagnostic::{Code, Diagnostic, Place, Related, Severity};
use super::limits::EXCERPT_CHARS_MAX;

/// Which of the four description files a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// What to build and what to run.
    Begat,
    /// What may be executed.
    Rexec,
    /// How many and where.
    Khan,
    /// Where the rnodes come from.
    Rnodes,
}

impl FileKind {
    /// All four, in the order they are read and reported.
    pub const ALL: [Self; 4] = [Self::Begat, Self::Rexec, Self::Khan, Self::Rnodes];

    /// The file name's ending, without the dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Begat => "begat",
            Self::Rexec => "rexec",
            Self::Khan => "khan",
            Self::Rnodes => "rnodes",
        }
    }

    /// The kind of the file named `name`, if its ending is one of the four.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        Self::ALL
            .into_iter()
            .find(|kind| kind.extension() == extension)
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.extension())
    }
}

/// A file as handed in, not yet checked for its encoding or size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Name within the application's directory: `stix.begat`.
    pub name: String,
    /// The bytes as they lie on disk.
    pub bytes: Vec<u8>,
}

impl Source {
    /// A file `name` with this content.
    pub fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            bytes: bytes.into(),
        }
    }
}

/// Index of a file in its [`SourceMap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileId(pub u16);

/// A range of bytes in one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    /// The file.
    pub file: FileId,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// From the start of this span to the end of `other`, in the same file.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self {
            file: self.file,
            start: self.start,
            end: other.end.max(self.start),
        }
    }

    /// The place just behind this span.
    #[must_use]
    pub const fn after(self) -> Self {
        Self {
            file: self.file,
            start: self.end,
            end: self.end,
        }
    }
}

/// A value and the place it was read from.
///
/// Equality is of the value alone: two trees are equal if they mean the same, wherever they stand.
#[derive(Debug, Clone, Copy, Default)]
pub struct At<T> {
    /// What was read.
    pub value: T,
    /// Where.
    pub span: Span,
}

impl<T> At<T> {
    /// A value read at `span`.
    pub const fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for At<T> {}

impl<T> Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// A file that was read as part of an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceText {
    /// Name within the directory or the library: `consul.begat`.
    pub name: String,
    /// The text; empty if it was refused as a whole.
    pub text: String,
    /// True for a file that came from the library.
    pub library: bool,
    /// Byte at which each line starts, ascending, first 0.
    lines: Vec<u32>,
}

impl SourceText {
    fn new(name: &str, text: String, library: bool) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0)
            .chain(breaks.map(|(at, _)| clamp(at + 1)))
            .collect();
        Self {
            name: name.to_owned(),
            text,
            library,
            lines,
        }
    }

    fn line_of(&self, byte: u32) -> usize {
        self.lines
            .partition_point(|start| *start <= byte)
            .saturating_sub(1)
    }

    fn line_text(&self, line: usize) -> &str {
        let start = self.lines.get(line).copied().unwrap_or(0) as usize;
        let rest = self.text.get(start..).unwrap_or("");
        rest.split('\n').next().unwrap_or("").trim_end_matches('\r')
    }
}

/// All files of one application, so that spans can be turned into places.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceMap {
    files: Vec<SourceText>,
}

impl SourceMap {
    /// Takes in a file and returns its index.
    pub fn add(&mut self, name: &str, text: String, library: bool) -> FileId {
        self.files.push(SourceText::new(name, text, library));
        FileId(u16::try_from(self.files.len() - 1).unwrap_or(u16::MAX))
    }

    /// The files in the order they were read.
    #[must_use]
    pub fn files(&self) -> &[SourceText] {
        &self.files
    }

    /// The file `id`, if it is one of this map.
    #[must_use]
    pub fn get(&self, id: FileId) -> Option<&SourceText> {
        self.files.get(usize::from(id.0))
    }

    /// The text that `span` covers; empty if it lies outside.
    #[must_use]
    pub fn text(&self, span: Span) -> &str {
        let range = span.start as usize..span.end as usize;
        self.get(span.file)
            .and_then(|file| file.text.get(range))
            .unwrap_or("")
    }

    /// Name, line and column of a span, for messages: `stix.khan:1:7`.
    #[must_use]
    pub fn locate(&self, span: Span) -> String {
        let (file, place, _) = self.place(span);
        format!("{file}:{}:{}", place.line, place.column)
    }

    /// An error at `span`; add `expected`, `help` and `related` to it as they are known.
    #[must_use]
    pub fn error(&self, code: Code, span: Span, message: impl Into<String>) -> Diagnostic {
        let (file, place, excerpt) = self.place(span);
        Diagnostic {
            code,
            severity: Severity::Error,
            file,
            place,
            excerpt,
            message: message.into(),
            expected: None,
            help: None,
            related: Vec::new(),
        }
    }

    /// A second place that belongs to a diagnostic.
    #[must_use]
    pub fn related(&self, span: Span, message: impl Into<String>) -> Related {
        let (file, place, excerpt) = self.place(span);
        Related {
            file,
            place,
            excerpt,
            message: message.into(),
        }
    }

    fn place(&self, span: Span) -> (String, Place, String) {
        let Some(file) = self.get(span.file) else {
            return (String::new(), Place::default(), String::new());
        };
        let line = file.line_of(span.start);
        let start = file.lines.get(line).copied().unwrap_or(0) as usize;
        let before = file.text.get(start..span.start as usize).unwrap_or("");
        let text = file.line_text(line);
        let covered = self.text(span).split('\n').next().unwrap_or("");
        let place = Place {
            line: clamp(line + 1),
            column: clamp(before.chars().count() + 1),
            width: clamp(covered.trim_end_matches('\r').chars().count().max(1)),
            bytes: span.start as usize..span.end as usize,
        };
        (
            file.name.clone(),
            place,
            text.chars().take(EXCERPT_CHARS_MAX).collect(),
        )
    }
}

/// A length as `u32`; files are far smaller, so nothing is ever cut.
pub(super) fn clamp(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
