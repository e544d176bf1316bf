//! The application description files: `.begat`, `.rexec`, `.khan`, `.rnodes`.
//!
//! One lexer, one scope. [`parse`] reads all four with what they include and returns an
//! [`Application`] and every finding of all files, each of which can show itself with its line
//! underlined. [`format()`] rewrites one file in the house form. Nothing here reads a file: contents
//! come in as [`Source`]s, library files through a function.
//!
//! What the trees mean is not decided here: placement is crate `khan`'s, dictums are begat's,
//! blocks of rnodes `underverse`'s. Grammars: docs/formats. Read [`Application`] next.

mod application;
pub mod begat;
mod check;
mod diagnostic;
mod format;
mod include;
pub mod khan;
mod lexer;
pub mod limits;
mod nearest;
mod reader;
pub mod rexec;
pub mod rnodes;
mod source;
mod template;
mod tree;

pub use application::{Application, parse, parse_begat};
pub use diagnostic::{Code, Diagnostic, Place, Related, Severity};
pub use format::format;
pub use include::Library;
pub use nearest::nearest;
pub use source::{At, FileId, FileKind, Source, SourceMap, SourceText, Span};
pub use template::{ExpandError, Part, Template, Values, expand};
pub use tree::FileTree;
