//! The tree of a `.rexec` file: what may be executed.
//!
//! Grammar: docs/formats/rexec.md.

use super::include::Lost;
use super::source::{At, Span};
use crate::digest::Digest;

pub(super) mod parse;
mod print;

/// A `.rexec` file, or several joined by includes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RexecFile {
    /// Names of included files, in order.
    pub includes: Vec<At<String>>,
    /// What may be executed, in order.
    pub commands: Vec<At<AllowedCommand>>,
    /// What could not be read, so that it is not reported a second time as missing.
    pub(in crate::adf) lost: Lost,
}

/// `name = program [pattern]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedCommand {
    /// Name by which recipes and callers ask for it, without `rexec/`.
    pub name: At<String>,
    /// What is executed.
    pub program: At<Program>,
    /// Arguments it may be given; `None`: any.
    pub pattern: Option<At<ArgumentPattern>>,
}

/// What a command executes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// A file of the rnode, by absolute path; pinned to its digest when it is loaded.
    Path(String),
    /// A file by its content.
    Digest(Digest),
    /// `builtin:WORD`: the radix executable itself, with WORD as its first argument.
    Builtin(String),
}

/// Words of `radix` that `builtin:` may name.
pub const BUILTINS: [&str; 1] = ["kv"];

/// The arguments that a command allows, word by word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArgumentPattern {
    /// Its words in order.
    pub words: Vec<At<ArgumentWord>>,
}

/// A word of an [`ArgumentPattern`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArgumentWord {
    /// A text in which each `*` stands for any characters, none among them.
    Glob(String),
    /// `...`: any number of further arguments; only at the end.
    Rest,
}

impl RexecFile {
    /// The command `name`.
    #[must_use]
    pub fn command(&self, name: &str) -> Option<&At<AllowedCommand>> {
        self.commands
            .iter()
            .find(|command| command.name.value == name)
    }
}

impl ArgumentPattern {
    /// True if these arguments are allowed.
    #[must_use]
    pub fn allows<S: AsRef<str>>(&self, arguments: &[S]) -> bool {
        for (index, word) in self.words.iter().enumerate() {
            match (&word.value, arguments.get(index)) {
                (ArgumentWord::Rest, _) => return true,
                (ArgumentWord::Glob(glob), Some(argument)) if fits(glob, argument.as_ref()) => {}
                (ArgumentWord::Glob(_), _) => return false,
            }
        }
        arguments.len() == self.words.len()
    }

    /// Where the pattern begins.
    #[must_use]
    pub fn span(&self) -> Option<Span> {
        self.words.first().map(|word| word.span)
    }
}

/// True if `text` fits `glob`, in time proportional to both lengths' product at worst.
fn fits(glob: &str, text: &str) -> bool {
    let (glob, text) = (glob.as_bytes(), text.as_bytes());
    let (mut at, mut read) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while read < text.len() {
        if glob.get(at) == Some(&b'*') {
            star = Some((at, read));
            at += 1;
        } else if glob.get(at) == Some(&text[read]) {
            at += 1;
            read += 1;
        } else if let Some((star_at, star_read)) = star {
            star = Some((star_at, star_read + 1));
            at = star_at + 1;
            read = star_read + 1;
        } else {
            return false;
        }
    }
    glob[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (glob, text, expected) in [
            ("*", "", true),
            ("*", "anything", true),
            ("-rnode", "-rnode", true),
            ("-rnode", "-rnodes", false),
            ("/var/*/x", "/var/a/b/x", true),
            ("/var/*/x", "/var/a/b/y", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXcYb", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(fits(glob, text), expected, "{glob} {text}");
        }
    }
}
