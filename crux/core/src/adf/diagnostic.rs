//! What is wrong with a description, where, and how it may be mended.

use std::fmt;
use std::ops::Range;

use super::limits::{DIAGNOSTICS_MAX, EXCERPT_CHARS_MAX};
use super::source::SourceMap;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The description cannot be used.
    Error,
    /// It can be used, but is probably not what was meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// The kind of a finding; its text form is stable and documented in docs/formats.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The stable text form.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

codes! {
    /// One of the four files is not there.
    MissingFile = "missing-file",
    /// A file is larger than the limit.
    FileTooLarge = "file-too-large",
    /// A file is not UTF-8, has a byte order mark or a control character.
    Encoding = "encoding",
    /// The text does not follow the grammar.
    Syntax = "syntax",
    /// Brackets are nested, or a statement grows, beyond a limit.
    TooDeep = "too-deep",
    /// More items than the limit.
    TooMany = "too-many",
    /// A quote is not closed on its line.
    UnclosedQuote = "unclosed-quote",
    /// A bracket is not closed.
    UnclosedBracket = "unclosed-bracket",
    /// A name has characters it may not have, or is too long.
    BadName = "bad-name",
    /// A value is not of the form its key needs.
    BadValue = "bad-value",
    /// A number is outside its range.
    OutOfRange = "out-of-range",
    /// An included file is not found.
    MissingInclude = "missing-include",
    /// Includes form a cycle.
    IncludeCycle = "include-cycle",
    /// A name is defined twice.
    Redefined = "redefined",
    /// A `%name` has no value.
    UnsetVariable = "unset-variable",
    /// A key or attribute is not known, or not used.
    UnknownKey = "unknown-key",
    /// A parameter is given and never used.
    UnusedKey = "unused-key",
    /// A provider of rnodes is not known.
    UnknownProvider = "unknown-provider",
    /// A class is named that no begat file defines.
    UnknownClass = "unknown-class",
    /// A command is named that no rexec file defines.
    UnknownCommand = "unknown-command",
    /// A variable is named that no khan statement binds.
    UnknownVariable = "unknown-variable",
    /// A function is called that khan does not have.
    UnknownFunction = "unknown-function",
    /// A set stands where a number is needed, or the reverse.
    WrongType = "wrong-type",
    /// A call has too few or too many arguments.
    WrongArguments = "wrong-arguments",
    /// Definitions need each other in a circle.
    Cycle = "cycle",
    /// A key that must be there is not.
    MissingKey = "missing-key",
    /// A rule has no recipe, or more than one.
    Recipe = "recipe",
    /// A recipe's arguments do not fit the pattern its command allows.
    ArgumentsRefused = "arguments-refused",
    /// Two dictums make the same file, or one inside the other's directory.
    DuplicateOutput = "duplicate-output",
    /// A path leaves the tree it must stay in.
    PathEscapes = "path-escapes",
    /// A class is defined and never placed.
    NeverPlaced = "never-placed",
    /// A class runs as a user that no block describes.
    UnknownUser = "unknown-user",
    /// A condition that always or never holds.
    IdleCondition = "idle-condition",
    /// Known and meant, but not available yet.
    Unsupported = "unsupported",
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Where in a file; lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// Line.
    pub line: u32,
    /// First column.
    pub column: u32,
    /// Characters to underline, at least 1.
    pub width: u32,
    /// The same as bytes of the file.
    pub bytes: Range<usize>,
}

/// A second place that belongs to a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Related {
    /// File name.
    pub file: String,
    /// Where in it.
    pub place: Place,
    /// The line there.
    pub excerpt: String,
    /// What it has to do with the finding.
    pub message: String,
}

/// One finding, complete enough to be shown without the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its kind.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// File name.
    pub file: String,
    /// Where in it.
    pub place: Place,
    /// The line there, cut after [`EXCERPT_CHARS_MAX`] characters.
    pub excerpt: String,
    /// What is wrong, a lower-case sentence without full stop.
    pub message: String,
    /// What should have stood there.
    pub expected: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
    /// Other places that matter.
    pub related: Vec<Related>,
}

impl Diagnostic {
    /// Says what should have stood there.
    #[must_use]
    pub fn expecting(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn helping(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds "did you mean" if there is a near match.
    #[must_use]
    pub fn suggesting(self, near: Option<&str>) -> Self {
        match near {
            Some(near) => self.helping(format!("did you mean `{near}`?")),
            None => self,
        }
    }

    /// Adds another place.
    #[must_use]
    pub fn relating(mut self, related: Related) -> Self {
        self.related.push(related);
        self
    }

    /// Makes it a warning.
    #[must_use]
    pub const fn as_warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// True if the description cannot be used.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        matches!(self.severity, Severity::Error)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{}[{}]: {}",
            self.severity,
            self.code,
            plain(&self.message)
        )?;
        let note = self
            .expected
            .as_ref()
            .map(|expected| format!("expected {expected}"));
        excerpt(
            formatter,
            (&self.file, &self.place, &self.excerpt),
            note.as_deref(),
        )?;
        for related in &self.related {
            let at = (
                related.file.as_str(),
                &related.place,
                related.excerpt.as_str(),
            );
            excerpt(formatter, at, Some(&related.message))?;
        }
        match &self.help {
            Some(help) => writeln!(formatter, "  = help: {}", plain(help)),
            None => Ok(()),
        }
    }
}

fn excerpt(
    formatter: &mut fmt::Formatter<'_>,
    (file, place, line): (&str, &Place, &str),
    note: Option<&str>,
) -> fmt::Result {
    let number = place.line.to_string();
    let margin = " ".repeat(number.len());
    writeln!(
        formatter,
        "{margin}--> {}:{}:{}",
        plain(file),
        place.line,
        place.column
    )?;
    writeln!(formatter, "{margin} |")?;
    writeln!(formatter, "{number} | {}", plain(line).trim_end())?;
    let before = (place.column as usize)
        .saturating_sub(1)
        .min(EXCERPT_CHARS_MAX);
    let width = (place.width as usize)
        .min(EXCERPT_CHARS_MAX.saturating_sub(before))
        .max(1);
    let note = note
        .map(|note| format!(" {}", plain(note)))
        .unwrap_or_default();
    writeln!(
        formatter,
        "{margin} | {}{}{note}",
        " ".repeat(before),
        "^".repeat(width)
    )
}

/// The text with one visible character for each one, so that carets stand right and no escape
/// sequence in a hostile file reaches a terminal.
fn plain(text: &str) -> String {
    let visible = |character: char| match character {
        '\t' => ' ',
        _ if character.is_control() || is_invisible(character) => '\u{fffd}',
        _ => character,
    };
    text.chars().map(visible).collect()
}

/// Marks that reorder or hide text without being control characters.
const fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Collects findings up to [`DIAGNOSTICS_MAX`] and counts the rest.
#[derive(Debug, Clone, Default)]
pub(super) struct Findings {
    kept: Vec<Diagnostic>,
    dropped: usize,
}

impl Findings {
    /// Takes a finding, or counts it if there are enough.
    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        if self.is_full() {
            self.dropped += 1;
        } else {
            self.kept.push(diagnostic);
        }
    }

    /// True if further findings are only counted; callers then save themselves the work.
    #[must_use]
    pub(super) const fn is_full(&self) -> bool {
        self.kept.len() >= DIAGNOSTICS_MAX
    }

    /// Counts a finding that was not made.
    pub(super) const fn skip(&mut self) {
        self.dropped += 1;
    }

    /// All of them in the order of files and places; the last one says how many more there were.
    #[must_use]
    pub(super) fn finish(mut self, files: &SourceMap) -> Vec<Diagnostic> {
        let position = |name: &str| files.files().iter().position(|file| file.name == name);
        self.kept
            .sort_by_key(|found| (position(&found.file), found.place.bytes.start));
        if let (Some(last), true) = (self.kept.last_mut(), self.dropped > 0) {
            last.help = Some(format!(
                "{} more are not shown; mend these first",
                self.dropped
            ));
        }
        self.kept
    }
}
