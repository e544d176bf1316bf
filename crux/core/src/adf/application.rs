//! The four files joined: what `radix check` checks and all else works from.

use super::begat::{BegatFile, RunRule};
use super::check;
use super::diagnostic::Diagnostic;
use super::include::{Library, Loader};
use super::khan::KhanFile;
use super::rexec::{AllowedCommand, RexecFile};
use super::rnodes::{Block, RnodesFile};
use super::source::{At, Source, SourceMap};

/// An application as its description files say it is.
///
/// Without errors among its diagnostics it holds what its parts assume: every class that is placed
/// or exposed has a rule, every recipe a command, and the `.rnodes` file has exactly one block
/// with a count and a command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Application {
    /// Its name, that of its files.
    pub name: String,
    /// All files read, for messages and for the signed document.
    pub files: SourceMap,
    /// What to build and to run.
    pub begat: BegatFile,
    /// What may be executed.
    pub rexec: RexecFile,
    /// How many and where.
    pub khan: KhanFile,
    /// Where the rnodes come from.
    pub rnodes: RnodesFile,
}

/// Reads and checks the application `name` from the files of its directory.
///
/// `sources` are the directory's description files, included ones among them; `library` is asked
/// for includes that are not. All findings of all files are returned, those of one file in the
/// order of their places, at most [`super::limits::DIAGNOSTICS_MAX`].
#[must_use]
pub fn parse(
    name: &str,
    sources: &[Source],
    library: Library<'_>,
) -> (Application, Vec<Diagnostic>) {
    let mut loader = Loader::new(sources, library);
    let begat = loader.load(name);
    let rexec = loader.load(name);
    let khan = loader.load(name);
    let rnodes = loader.load(name);
    let Loader {
        files,
        mut findings,
        ..
    } = loader;
    let name = name.to_owned();
    let application = Application {
        name,
        files,
        begat,
        rexec,
        khan,
        rnodes,
    };
    check::application(&application, &mut findings);
    let diagnostics = findings.finish(&application.files);
    (application, diagnostics)
}

/// Reads and checks the `.begat` file alone, for builds without an application.
///
/// Commands and classes are not looked for in the other files; those trees stay empty.
#[must_use]
pub fn parse_begat(
    name: &str,
    sources: &[Source],
    library: Library<'_>,
) -> (Application, Vec<Diagnostic>) {
    let mut loader = Loader::new(sources, library);
    let begat = loader.load(name);
    let Loader {
        files,
        mut findings,
        ..
    } = loader;
    let name = name.to_owned();
    let application = Application {
        name,
        files,
        begat,
        ..Application::default()
    };
    check::begat_alone(&application, &mut findings);
    let diagnostics = findings.finish(&application.files);
    (application, diagnostics)
}

impl Application {
    /// The rule of a class.
    #[must_use]
    pub fn class(&self, name: &str) -> Option<&At<RunRule>> {
        self.begat.run(name)
    }

    /// What a class executes.
    #[must_use]
    pub fn program(&self, rule: &RunRule) -> Option<&At<AllowedCommand>> {
        self.rexec.command(&rule.command.value)
    }

    /// The block that its rnodes come from.
    #[must_use]
    pub fn block(&self) -> Option<&At<Block>> {
        self.rnodes.blocks.first()
    }
}
