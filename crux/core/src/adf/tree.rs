//! One file by itself, of whichever kind.

use std::fmt;

use super::begat::BegatFile;
use super::diagnostic::{Diagnostic, Findings};
use super::include::Tree;
use super::khan::KhanFile;
use super::lexer::tokens;
use super::reader::Reader;
use super::rexec::RexecFile;
use super::rnodes::RnodesFile;
use super::source::{FileId, FileKind, SourceMap};

/// The tree of one file, its includes not read. Displays as a file that reads back as this tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileTree {
    /// What to build and what to run.
    Begat(BegatFile),
    /// What may be executed.
    Rexec(RexecFile),
    /// How many and where.
    Khan(KhanFile),
    /// Where the rnodes come from.
    Rnodes(RnodesFile),
}

impl FileTree {
    /// Parses one file without its includes and without looking at the other three.
    #[must_use]
    pub fn parse(kind: FileKind, name: &str, text: &str) -> (Self, Vec<Diagnostic>) {
        let mut files = SourceMap::default();
        let id = files.add(name, text.to_owned(), false);
        let mut findings = Findings::default();
        let tree = match kind {
            FileKind::Begat => Self::Begat(parsed(&files, id, &mut findings)),
            FileKind::Rexec => Self::Rexec(parsed(&files, id, &mut findings)),
            FileKind::Khan => Self::Khan(parsed(&files, id, &mut findings)),
            FileKind::Rnodes => Self::Rnodes(parsed(&files, id, &mut findings)),
        };
        let diagnostics = findings.finish(&files);
        (tree, diagnostics)
    }
}

fn parsed<T: Tree>(files: &SourceMap, id: FileId, findings: &mut Findings) -> T {
    let tokens = tokens(files, id, findings);
    T::parse(&mut Reader { files, findings }, &tokens)
}

impl fmt::Display for FileTree {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begat(file) => file.fmt(formatter),
            Self::Rexec(file) => file.fmt(formatter),
            Self::Khan(file) => file.fmt(formatter),
            Self::Rnodes(file) => file.fmt(formatter),
        }
    }
}
