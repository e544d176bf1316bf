//! One step of a build, with every `%name` resolved and every place remembered.

use std::collections::BTreeMap;

use crux_core::adf::Span;

/// A piece of a [`Word`] that stands until inputs and outputs have paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text as it is.
    Text(String),
    /// `%<`: all inputs; `%<2`: the second.
    Inputs(Option<u32>),
    /// `%>`: all outputs; `%>2`: the second.
    Outputs(Option<u32>),
}

/// One word of a command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Word(pub Vec<Piece>);

/// What a dictum executes, one step after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A program and its arguments, without a shell; not empty.
    Argv(Vec<Word>),
    /// A text for `/bin/sh -c`.
    Shell(Word),
}

/// One path or glob that a dictum reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Relative to the tree's root, normalised; may begin with `..`.
    pub pattern: String,
    /// True if nothing need match.
    pub optional: bool,
    /// Where it was declared.
    pub span: Span,
}

/// What an output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// A file that must be there afterwards.
    File,
    /// A directory with all in it.
    Dir,
    /// A file for people, whose content is not compared.
    Log,
    /// A file that may be absent.
    Optional,
}

impl Form {
    /// The word for it in manifests and records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Dir => "dir",
            Self::Log => "log",
            Self::Optional => "optional",
        }
    }
}

/// One path that a dictum writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// Relative to the tree's root, normalised, never leaving it.
    pub path: String,
    /// What it is.
    pub form: Form,
    /// Where it was declared.
    pub span: Span,
}

/// One step of a build: what it needs, what it makes, what it executes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dictum {
    /// For people; no part of its identity.
    pub name: String,
    /// Where its head stands.
    pub span: Span,
    /// `host`, or `name@digest`.
    pub container: String,
    /// What it reads, as declared.
    pub needs: Vec<Need>,
    /// What it writes, as declared; not empty.
    pub products: Vec<Product>,
    /// What it executes.
    pub steps: Vec<Step>,
    /// Environment it sets.
    pub environment: BTreeMap<String, String>,
    /// Limits, by name.
    pub limits: BTreeMap<String, String>,
    /// Programs whose version is part of its identity, sorted, each with its place.
    pub tools: BTreeMap<String, Span>,
    /// `none` or `fixed DIGEST`; empty: not said.
    pub net: String,
}

/// A number after `%<` or `%>` that has no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("substitute {sigil}{number}: there are only {count}")]
pub struct NoSuchPath {
    sigil: &'static str,
    number: u32,
    count: usize,
}

/// The paths that stand for `%<` and `%>`.
#[derive(Debug, Clone, Copy)]
pub struct Paths<'a> {
    /// Inputs, in the order of their declaration.
    pub inputs: &'a [String],
    /// Outputs, in the order of their declaration.
    pub outputs: &'a [String],
}

impl Word {
    /// A word without substitution.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self(vec![Piece::Text(text.into())])
    }

    /// The words it becomes: several if it is nothing but `%<` or `%>`, else one.
    ///
    /// # Errors
    /// A number without a path.
    pub fn expand(&self, paths: Paths<'_>) -> Result<Vec<String>, NoSuchPath> {
        if let [only] = self.0.as_slice() {
            return only.words(paths);
        }
        let mut whole = String::new();
        for piece in &self.0 {
            whole.push_str(&piece.words(paths)?.join(" "));
        }
        Ok(vec![whole])
    }
}

impl Word {
    /// The text for a shell; paths put in are quoted where the shell would take them apart.
    fn shell_text(&self, paths: Paths<'_>) -> Result<String, NoSuchPath> {
        let mut whole = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => whole.push_str(text),
                Piece::Inputs(_) | Piece::Outputs(_) => {
                    let words = piece.words(paths)?;
                    let quoted: Vec<String> = words.iter().map(|word| shell_quoted(word)).collect();
                    whole.push_str(&quoted.join(" "));
                }
            }
        }
        Ok(whole)
    }
}

/// A word as a shell reads it back: quoted unless it is plain.
#[must_use]
pub fn shell_quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-+=./:,@%".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

impl Piece {
    fn words(&self, paths: Paths<'_>) -> Result<Vec<String>, NoSuchPath> {
        match self {
            Self::Text(text) => Ok(vec![text.clone()]),
            Self::Inputs(which) => pick("%<", paths.inputs, *which),
            Self::Outputs(which) => pick("%>", paths.outputs, *which),
        }
    }
}

fn pick(
    sigil: &'static str,
    all: &[String],
    which: Option<u32>,
) -> Result<Vec<String>, NoSuchPath> {
    let Some(number) = which else {
        return Ok(all.to_vec());
    };
    let found = (number as usize)
        .checked_sub(1)
        .and_then(|index| all.get(index));
    let missing = NoSuchPath {
        sigil,
        number,
        count: all.len(),
    };
    found.map(|path| vec![path.clone()]).ok_or(missing)
}

impl Step {
    /// The argument vector to execute, program first; a shell text becomes `/bin/sh -c TEXT`.
    ///
    /// # Errors
    /// A number without a path.
    pub fn argv(&self, paths: Paths<'_>) -> Result<Vec<String>, NoSuchPath> {
        match self {
            Self::Argv(words) => {
                let expanded: Result<Vec<_>, _> =
                    words.iter().map(|word| word.expand(paths)).collect();
                Ok(expanded?.concat())
            }
            Self::Shell(text) => {
                let text = text.shell_text(paths)?;
                Ok(vec!["/bin/sh".to_owned(), "-c".to_owned(), text])
            }
        }
    }
}

impl Dictum {
    /// The first path it writes: unique in a graph, so it orders dictums whatever their names.
    #[must_use]
    pub fn first_product(&self) -> &str {
        self.products
            .first()
            .map_or("", |product| product.path.as_str())
    }
}
