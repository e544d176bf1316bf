//! From a [`RexecFile`] back to text.

use std::fmt;

use super::{ArgumentPattern, ArgumentWord, Program, RexecFile};
use crate::adf::source::Span;
use crate::adf::template::Template;

impl fmt::Display for RexecFile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for include in &self.includes {
            writeln!(out, "include({})", include.value)?;
        }
        for command in &self.commands {
            write!(out, "{} = {}", command.name.value, command.program.value)?;
            match &command.pattern {
                Some(pattern) => writeln!(out, " {}", pattern.value)?,
                None => writeln!(out)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Program {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => Template::text(path, Span::default()).fmt(out),
            Self::Digest(digest) => write!(out, "blake3:{digest}"),
            Self::Builtin(word) => write!(out, "builtin:{word}"),
        }
    }
}

impl fmt::Display for ArgumentPattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.words.iter().map(|word| match &word.value {
            ArgumentWord::Rest => "...".to_owned(),
            ArgumentWord::Glob(glob) if glob == "..." => "\"...\"".to_owned(),
            ArgumentWord::Glob(glob) => Template::text(glob, Span::default()).to_string(),
        });
        write!(out, "[{}]", words.collect::<Vec<_>>().join(" "))
    }
}
