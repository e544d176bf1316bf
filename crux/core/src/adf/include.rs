//! Reading files and what they include, each once, into one tree a kind.

use std::collections::{BTreeMap, BTreeSet};

use super::begat::BegatFile;
use super::diagnostic::{Code, Findings};
use super::khan::KhanFile;
use super::lexer::{Token, tokens};
use super::limits::{FILE_BYTES_MAX, FILES_MAX, NAME_BYTES_MAX};
use super::nearest::nearest;
use super::reader::{Reader, shown};
use super::rexec::RexecFile;
use super::rnodes::RnodesFile;
use super::source::{At, FileId, FileKind, Source, SourceMap, Span, clamp};

/// Finds a library file by its name (`consul.begat`); `None` if the library has none.
pub type Library<'a> = &'a dyn Fn(&str) -> Option<Vec<u8>>;

/// Names that could not be read, so that their absence is not reported as well.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Lost {
    names: BTreeSet<String>,
    everything: bool,
}

impl Lost {
    /// Notes a name whose definition is broken.
    pub(super) fn name(&mut self, name: &str) {
        self.names([name]);
    }

    /// Notes several names.
    pub(super) fn names<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        let short = names
            .into_iter()
            .filter(|name| name.len() <= NAME_BYTES_MAX);
        self.names.extend(short.map(str::to_owned));
    }

    /// True if `name` may have been defined in what could not be read.
    pub(super) fn may_hold(&self, name: &str) -> bool {
        self.everything || self.names.contains(name)
    }

    /// True if anything could not be read.
    pub(super) fn is_any(&self) -> bool {
        self.everything || !self.names.is_empty()
    }

    fn absorb(&mut self, other: Self) {
        self.everything |= other.everything;
        self.names.extend(other.names);
    }
}

/// What the four trees have in common.
pub(super) trait Tree: Default {
    /// Which of the four files it is of.
    const KIND: FileKind;

    /// Parses one file.
    fn parse(reader: &mut Reader<'_>, tokens: &[Token]) -> Self;

    /// Names of included files.
    fn includes(&self) -> &[At<String>];

    /// What could not be read.
    fn lost(&mut self) -> &mut Lost;

    /// Takes in the items of a tree that stands after this one.
    fn absorb(&mut self, other: Self);
}

macro_rules! tree {
    ($type:ident, $kind:ident, $module:ident, $($items:ident),+) => {
        impl Tree for $type {
            const KIND: FileKind = FileKind::$kind;

            fn parse(reader: &mut Reader<'_>, tokens: &[Token]) -> Self {
                super::$module::parse::parse(reader, tokens)
            }

            fn includes(&self) -> &[At<String>] {
                &self.includes
            }

            fn lost(&mut self) -> &mut Lost {
                &mut self.lost
            }

            fn absorb(&mut self, other: Self) {
                self.includes.extend(other.includes);
                $(self.$items.extend(other.$items);)+
                self.lost.absorb(other.lost);
            }
        }
    };
}

tree!(BegatFile, Begat, begat, lets, runs, builds);
tree!(RexecFile, Rexec, rexec, commands);
tree!(KhanFile, Khan, khan, statements);
tree!(RnodesFile, Rnodes, rnodes, blocks);

/// Reads files and what they include.
pub(super) struct Loader<'a> {
    sources: &'a [Source],
    library: Library<'a>,
    pub(super) files: SourceMap,
    pub(super) findings: Findings,
    /// Where each file of the current kind was asked for; the outermost first.
    open: Vec<(String, Span)>,
    seen: BTreeMap<String, FileId>,
}

impl<'a> Loader<'a> {
    /// A loader that has read nothing.
    pub(super) fn new(sources: &'a [Source], library: Library<'a>) -> Self {
        Self {
            sources,
            library,
            files: SourceMap::default(),
            findings: Findings::default(),
            open: Vec::new(),
            seen: BTreeMap::new(),
        }
    }

    /// Reads `application.EXT` and all it includes.
    pub(super) fn load<T: Tree>(&mut self, application: &str) -> T {
        let name = format!("{application}.{}", T::KIND.extension());
        match self.sources.iter().find(|source| source.name == name) {
            Some(source) => self.read(&name, &source.bytes, false),
            None => {
                self.missing(&name, T::KIND);
                lost_tree()
            }
        }
    }

    fn missing(&mut self, name: &str, kind: FileKind) {
        let names = self.sources.iter().map(|source| source.name.as_str());
        let of_kind: Vec<&str> = names
            .filter(|name| FileKind::of_name(name) == Some(kind))
            .collect();
        let near = nearest(name, of_kind.iter().copied()).or_else(|| of_kind.first().copied());
        let id = self.files.add(name, String::new(), false);
        let span = Span {
            file: id,
            start: 0,
            end: 0,
        };
        let found = self
            .files
            .error(Code::MissingFile, span, format!("{name} is not there"));
        let found = found.expecting(what_for(kind));
        self.findings.push(match near {
            Some(near) => found.helping(format!("there is {near}; the names must agree")),
            None => found,
        });
    }

    fn read<T: Tree>(&mut self, name: &str, bytes: &[u8], library: bool) -> T {
        let Some(id) = self.admit(name, bytes, library) else {
            return lost_tree();
        };
        let tokens = tokens(&self.files, id, &mut self.findings);
        let mut reader = Reader {
            files: &self.files,
            findings: &mut self.findings,
        };
        let own = T::parse(&mut reader, &tokens);
        let mut whole = T::default();
        self.open.push((
            name.to_owned(),
            Span {
                file: id,
                start: 0,
                end: 0,
            },
        ));
        for include in own.includes().to_vec() {
            if let Some(last) = self.open.last_mut() {
                last.1 = include.span;
            }
            if let Some(tree) = self.include::<T>(&include) {
                whole.absorb(tree);
            }
        }
        self.open.pop();
        whole.absorb(own);
        whole
    }

    fn include<T: Tree>(&mut self, include: &At<String>) -> Option<T> {
        let name = format!("{}.{}", include.value, T::KIND.extension());
        if self.open.iter().any(|(open, _)| *open == name) {
            self.cycle(&name, include.span);
            return None;
        }
        if self.seen.contains_key(&name) {
            return None;
        }
        if self.files.files().len() >= FILES_MAX {
            let message = format!("an application has more than {FILES_MAX} files");
            self.findings
                .push(self.files.error(Code::TooMany, include.span, message));
            return Some(lost_tree());
        }
        let beside = self.sources.iter().find(|source| source.name == name);
        if let Some(source) = beside {
            return Some(self.read(&name, &source.bytes, false));
        }
        match (self.library)(&name) {
            Some(bytes) => Some(self.read(&name, &bytes, true)),
            None => {
                self.not_found(&name, include.span, T::KIND);
                Some(lost_tree())
            }
        }
    }

    fn not_found(&mut self, name: &str, span: Span, kind: FileKind) {
        let names = self.sources.iter().map(|source| source.name.as_str());
        let own = self.open.last().map(|(name, _)| name.as_str());
        let others =
            names.filter(|other| FileKind::of_name(other) == Some(kind) && Some(*other) != own);
        let near = nearest(name, others)
            .and_then(|near| near.rsplit_once('.'))
            .map(|(stem, _)| stem);
        let message = format!("there is no {}", shown(name));
        let found = self.files.error(Code::MissingInclude, span, message);
        let found = found.expecting("a file beside this one, or in the library");
        self.findings.push(found.suggesting(near));
    }

    fn cycle(&mut self, name: &str, span: Span) {
        let start = self
            .open
            .iter()
            .position(|(open, _)| open == name)
            .unwrap_or(0);
        let way: Vec<&str> = self.open[start..]
            .iter()
            .map(|(open, _)| open.as_str())
            .collect();
        let message = format!("includes go in a circle: {} → {name}", way.join(" → "));
        let mut found = self.files.error(Code::IncludeCycle, span, message);
        for (_, asked) in self.open[start..].iter().take(way.len().saturating_sub(1)) {
            found = found.relating(self.files.related(*asked, "on the way there"));
        }
        self.findings.push(found);
    }

    /// Takes a file in, unless it is too large or not plain UTF-8.
    fn admit(&mut self, name: &str, bytes: &[u8], library: bool) -> Option<FileId> {
        let refused = |loader: &mut Self, at: usize, (code, message): (Code, String)| {
            let shown = &bytes[..bytes.len().min(at + REFUSED_BYTES_SHOWN)];
            let text = String::from_utf8_lossy(shown).into_owned();
            let id = loader.files.add(name, text, library);
            let span = Span {
                file: id,
                start: clamp(at),
                end: clamp(at + 1),
            };
            loader
                .findings
                .push(loader.files.error(code, span, message));
            loader.seen.insert(name.to_owned(), id);
        };
        if bytes.len() > FILE_BYTES_MAX {
            // Whoever read it may have stopped there.
            let message = format!("{name} has more than {FILE_BYTES_MAX} bytes");
            refused(self, 0, (Code::FileTooLarge, message));
            return None;
        }
        match std::str::from_utf8(bytes) {
            Err(error) => {
                let message = "this is not UTF-8 text".to_owned();
                refused(self, error.valid_up_to(), (Code::Encoding, message));
                None
            }
            Ok(text) if text.starts_with('\u{feff}') => {
                let message = "a byte order mark stands before the text".to_owned();
                refused(self, 0, (Code::Encoding, message));
                None
            }
            Ok(text) => {
                let id = self.files.add(name, text.to_owned(), library);
                self.seen.insert(name.to_owned(), id);
                Some(id)
            }
        }
    }
}

/// How much is kept of a refused file behind the place of the error, to show its line.
const REFUSED_BYTES_SHOWN: usize = 256;

fn lost_tree<T: Tree>() -> T {
    let mut tree = T::default();
    tree.lost().everything = true;
    tree
}

const fn what_for(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Begat => "the file that says what to build and run",
        FileKind::Rexec => "the file that says what may be executed",
        FileKind::Khan => "the file that says how many run, and where",
        FileKind::Rnodes => "the file that says where rnodes come from",
    }
}
