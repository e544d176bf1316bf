//! Words with `%` in them, and what they become once the values are known.

use std::collections::BTreeMap;
use std::fmt;

use super::diagnostic::Code;
use super::lexer::is_name;
use super::limits::EXPANDED_BYTES_MAX;
use super::reader::Reader;
use super::source::{At, Span, clamp};

/// A piece of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text as it stands, quotes and escapes resolved.
    Text(String),
    /// `%name` or `%{name}`.
    Variable(String),
    /// `%<`: all inputs; `%<2`: the second.
    Inputs(Option<u32>),
    /// `%>`: all outputs; `%>2`: the second.
    Outputs(Option<u32>),
}

/// One word of a line, or one shell text, before substitution.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template {
    /// Its pieces in order, each with its place; no two texts stand beside each other.
    pub parts: Vec<At<Part>>,
}

/// A value that substitution needs and does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// No value of this name is set.
    #[error("substitute %{0}: it has no value")]
    Unset(String),
    /// There is no input or output of this number.
    #[error("substitute {0}: there are only {1}")]
    NoSuch(String, usize),
    /// The result is longer than [`EXPANDED_BYTES_MAX`].
    #[error("substitute: the result is longer than {EXPANDED_BYTES_MAX} bytes")]
    TooLong,
}

/// The values that templates are expanded with.
///
/// Most hold one word. One that holds several stands for several words where it is a whole word,
/// and for the words joined by spaces within one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Values {
    named: BTreeMap<String, Vec<String>>,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

impl Values {
    /// No values.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `%name` to one word.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.named.insert(name.into(), vec![value.into()]);
        self
    }

    /// Sets `%name` to several words.
    pub fn set_words(&mut self, name: impl Into<String>, words: Vec<String>) -> &mut Self {
        self.named.insert(name.into(), words);
        self
    }

    /// Sets what `%<` stands for.
    pub fn set_inputs(&mut self, inputs: Vec<String>) -> &mut Self {
        self.inputs = inputs;
        self
    }

    /// Sets what `%>` stands for.
    pub fn set_outputs(&mut self, outputs: Vec<String>) -> &mut Self {
        self.outputs = outputs;
        self
    }

    /// The words of `%name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[String]> {
        self.named.get(name).map(Vec::as_slice)
    }

    fn words(&self, part: &Part) -> Result<Vec<String>, ExpandError> {
        match part {
            Part::Text(text) => Ok(vec![text.clone()]),
            Part::Variable(name) => self
                .named
                .get(name)
                .cloned()
                .ok_or_else(|| ExpandError::Unset(name.clone())),
            Part::Inputs(which) => numbered('<', &self.inputs, *which),
            Part::Outputs(which) => numbered('>', &self.outputs, *which),
        }
    }
}

fn numbered(sigil: char, all: &[String], which: Option<u32>) -> Result<Vec<String>, ExpandError> {
    let Some(which) = which else {
        return Ok(all.to_vec());
    };
    let found = (which as usize)
        .checked_sub(1)
        .and_then(|index| all.get(index));
    let missing = || ExpandError::NoSuch(format!("%{sigil}{which}"), all.len());
    found.map(|word| vec![word.clone()]).ok_or_else(missing)
}

/// Expands an argument vector; a word that is one variable with several words becomes several.
///
/// # Errors
///
/// The first value that is missing.
pub fn expand(argv: &[At<Template>], values: &Values) -> Result<Vec<String>, ExpandError> {
    let mut words = Vec::new();
    let mut bytes = 0;
    for template in argv {
        let before = words.len();
        match template.parts.as_slice() {
            [only] => words.extend(values.words(only)?),
            _ => words.push(template.expand(values)?),
        }
        bytes += words[before..]
            .iter()
            .map(|word| word.len() + 1)
            .sum::<usize>();
        if bytes > EXPANDED_BYTES_MAX {
            return Err(ExpandError::TooLong);
        }
    }
    Ok(words)
}

const fn within_limit(text: &str) -> Result<(), ExpandError> {
    if text.len() > EXPANDED_BYTES_MAX {
        Err(ExpandError::TooLong)
    } else {
        Ok(())
    }
}

impl Template {
    /// A template without variables.
    #[must_use]
    pub fn text(text: &str, span: Span) -> Self {
        Self {
            parts: vec![At::new(Part::Text(text.to_owned()), span)],
        }
    }

    /// Expands to one word.
    ///
    /// # Errors
    ///
    /// The first value that is missing.
    pub fn expand(&self, values: &Values) -> Result<String, ExpandError> {
        let mut text = String::new();
        for part in &self.parts {
            text.push_str(&values.words(part)?.join(" "));
            within_limit(&text)?;
        }
        Ok(text)
    }

    /// Expands a shell text; words put in are quoted where the shell would take them apart.
    ///
    /// # Errors
    ///
    /// The first value that is missing.
    pub fn expand_shell(&self, values: &Values) -> Result<String, ExpandError> {
        let mut text = String::new();
        for part in &self.parts {
            match &part.value {
                Part::Text(literal) => text.push_str(literal),
                other => {
                    let words = values.words(other)?;
                    let quoted: Vec<String> = words.iter().map(|word| shell_quoted(word)).collect();
                    text.push_str(&quoted.join(" "));
                }
            }
            within_limit(&text)?;
        }
        Ok(text)
    }

    /// The text, if there is nothing to substitute.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [part] => match &part.value {
                Part::Text(text) => Some(text),
                Part::Variable(_) | Part::Inputs(_) | Part::Outputs(_) => None,
            },
            _ => None,
        }
    }

    /// The names it needs, each with its place.
    pub fn variables(&self) -> impl Iterator<Item = At<&str>> {
        self.parts.iter().filter_map(|part| match &part.value {
            Part::Variable(name) => Some(At::new(name.as_str(), part.span)),
            Part::Text(_) | Part::Inputs(_) | Part::Outputs(_) => None,
        })
    }

    fn push(&mut self, part: Part, span: Span) {
        if let (Part::Text(more), Some(last)) = (&part, self.parts.last_mut())
            && let Part::Text(text) = &mut last.value
        {
            text.push_str(more);
            last.span = last.span.to(span);
            return;
        }
        self.parts.push(At::new(part, span));
    }

    /// The text form with all of it in quotes.
    #[must_use]
    pub fn quoted(&self) -> String {
        let parts = self.parts.iter().map(|part| match &part.value {
            Part::Text(text) => escaped(text),
            other => other.to_string(),
        });
        format!("\"{}\"", parts.collect::<String>())
    }

    /// The text form, in quotes if it holds `character`.
    #[must_use]
    pub fn quoted_for(&self, character: char) -> String {
        let holds =
            |part: &At<Part>| matches!(&part.value, Part::Text(text) if text.contains(character));
        if self.parts.iter().any(holds) {
            self.quoted()
        } else {
            self.to_string()
        }
    }

    /// The text form as a shell line: only `%` is doubled.
    #[must_use]
    pub fn to_shell_text(&self) -> String {
        let shell = |part: &At<Part>| match &part.value {
            Part::Text(text) => text.replace('%', "%%"),
            other => other.to_string(),
        };
        self.parts.iter().map(shell).collect()
    }
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |which: &Option<u32>| which.map(|which| which.to_string()).unwrap_or_default();
        match self {
            Self::Text(text) => formatter.write_str(text),
            Self::Variable(name) => write!(formatter, "%{{{name}}}"),
            Self::Inputs(which) => write!(formatter, "%<{}", number(which)),
            Self::Outputs(which) => write!(formatter, "%>{}", number(which)),
        }
    }
}

/// Prints a word that reads back as this template.
impl fmt::Display for Template {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.parts.is_empty() {
            return formatter.write_str("''");
        }
        for (index, part) in self.parts.iter().enumerate() {
            match &part.value {
                Part::Text(text) => formatter.write_str(&word_quoted(text, index == 0))?,
                other => write!(formatter, "{other}")?,
            }
        }
        Ok(())
    }
}

/// The text as part of a word, quoted where it must be.
fn word_quoted(text: &str, first: bool) -> String {
    let plain = |next: char| {
        is_name(next)
            || matches!(
                next,
                '/' | '.' | '-' | '+' | ':' | '=' | '*' | ',' | '@' | '^' | '~'
            )
            || (!next.is_ascii() && !next.is_whitespace() && !next.is_control())
    };
    // A number right behind `%<` would be taken as its index, and a clause mark as a clause.
    let risky = text.is_empty()
        || text.starts_with(|next: char| next.is_ascii_digit() && !first)
        || (first && is_clause_word(text));
    if !risky && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("\"{}\"", escaped(text))
}

/// The text as it stands within double quotes.
fn escaped(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('%', "%%");
    escaped.replace('\t', "\\t").replace('\n', "\\n")
}

/// Words that begin a clause of a rule's body, and so are quoted where they are meant as text.
fn is_clause_word(text: &str) -> bool {
    matches!(text, "env" | "tool" | "net" | "limit") || text.starts_with("sh:")
}

fn shell_quoted(word: &str) -> String {
    let plain =
        |next: char| is_name(next) || matches!(next, '/' | '.' | '-' | '+' | ':' | '=' | ',' | '@');
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// How quotes and backslashes in a template's source are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Bare,
    Double,
    Single,
}

impl Reader<'_> {
    /// Reads a word as a template.
    pub(super) fn template(&mut self, span: Span) -> At<Template> {
        let mut scan = Scan {
            text: self.text(span),
            at: 0,
            span,
        };
        let mut template = Template::default();
        let mut mode = Mode::Bare;
        while let Some(next) = scan.peek() {
            let start = scan.at;
            match (mode, next) {
                (Mode::Bare, '"') => mode = scan.step(Mode::Double),
                (Mode::Bare, '\'') => mode = scan.step(Mode::Single),
                (Mode::Double, '"') | (Mode::Single, '\'') => mode = scan.step(Mode::Bare),
                (Mode::Double, '\\') => {
                    let text = self.escape(&mut scan);
                    template.push(Part::Text(text), scan.since(start));
                }
                (Mode::Bare | Mode::Double, '%') => self.variable(&mut scan, &mut template),
                _ => {
                    scan.at += next.len_utf8();
                    template.push(Part::Text(next.to_string()), scan.since(start));
                }
            }
        }
        At::new(template, span)
    }

    /// Reads a shell text as a template, in which only `%` means something to us.
    pub(super) fn shell(&mut self, span: Span) -> At<Template> {
        let mut scan = Scan {
            text: self.text(span),
            at: 0,
            span,
        };
        let mut template = Template::default();
        while let Some(next) = scan.peek() {
            let start = scan.at;
            if next == '%' {
                self.variable(&mut scan, &mut template);
            } else {
                let length = scan.rest().find('%').unwrap_or_else(|| scan.rest().len());
                scan.at += length;
                let text = scan.text[start..scan.at].replace("\\\r\n", "\\\n");
                template.push(Part::Text(text), scan.since(start));
            }
        }
        At::new(template, span)
    }

    fn escape(&mut self, scan: &mut Scan<'_>) -> String {
        let start = scan.at;
        scan.at += 1;
        let Some(next) = scan.peek() else {
            return String::new();
        };
        scan.at += next.len_utf8();
        match next {
            'n' => "\n".to_owned(),
            't' => "\t".to_owned(),
            '"' | '\\' => next.to_string(),
            _ => {
                let message = format!("`\\{next}` is not an escape");
                let span = scan.since(start);
                self.expected(Code::Syntax, span, (&message, "\\\" \\\\ \\n or \\t"));
                String::new()
            }
        }
    }

    fn variable(&mut self, scan: &mut Scan<'_>, template: &mut Template) {
        let start = scan.at;
        scan.at += 1;
        let rest = scan.rest();
        let name = rest.find(|next| !is_name(next)).unwrap_or(rest.len());
        let braced = braced(rest);
        let part = match rest.chars().next() {
            Some('%') => scan.take(1, Part::Text("%".to_owned())),
            Some('<') => Part::Inputs(scan.number()),
            Some('>') => Part::Outputs(scan.number()),
            Some('{') if braced.is_some() => {
                let length = braced.unwrap_or_default();
                scan.take(length + 2, Part::Variable(rest[1..=length].to_owned()))
            }
            Some(first) if first.is_ascii_alphabetic() || first == '_' => {
                scan.take(name, Part::Variable(rest[..name].to_owned()))
            }
            _ => {
                let span = scan.since(start);
                let expected = "%name, %{name}, %<, %> or %% for the sign itself";
                self.expected(Code::Syntax, span, ("a lone % stands here", expected));
                return;
            }
        };
        template.push(part, scan.since(start));
    }
}

/// Length of the name in `{name}`, if the name is not empty.
fn braced(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('{')?;
    let length = inner.find(|next| !is_name(next))?;
    (length > 0 && inner[length..].starts_with('}')).then_some(length)
}

struct Scan<'s> {
    text: &'s str,
    at: usize,
    span: Span,
}

impl<'s> Scan<'s> {
    fn rest(&self) -> &'s str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    const fn step(&mut self, mode: Mode) -> Mode {
        self.at += 1;
        mode
    }

    fn take(&mut self, length: usize, part: Part) -> Part {
        self.at += length;
        part
    }

    fn number(&mut self) -> Option<u32> {
        self.at += 1;
        let rest = self.rest();
        let length = rest
            .find(|next: char| !next.is_ascii_digit())
            .unwrap_or(rest.len());
        self.at += length;
        match &rest[..length] {
            "" => None,
            digits => Some(digits.parse().unwrap_or(u32::MAX)),
        }
    }

    fn since(&self, start: usize) -> Span {
        let base = self.span.start;
        Span {
            file: self.span.file,
            start: base + clamp(start),
            end: base + clamp(self.at),
        }
    }
}
