//! From tokens to a [`BegatFile`].

use super::{BegatFile, Let, Parameter, Setting};
use crate::adf::diagnostic::Code;
use crate::adf::lexer::{Token, TokenKind};
use crate::adf::limits::ITEMS_MAX;
use crate::adf::reader::{Line, Reader, Word, is_include, lines, shown, span_of};
use crate::adf::source::{At, Span};

mod build;
mod run;

pub(in crate::adf) use run::RESERVED;

/// A rule's lines before it is known whether it runs or builds.
struct RawRule<'t, 's> {
    each: bool,
    target: Span,
    head: Vec<Word<'t, 's>>,
    body: Vec<Line<'t>>,
}

/// What the head of a rule holds besides its target.
#[derive(Default)]
struct Head<'t, 's> {
    /// Words without `=`.
    bare: Vec<Word<'t, 's>>,
    /// `name=value`: the name, and the place of the value.
    given: Vec<(At<String>, Span)>,
}

/// Parses the file that `reader` stands at.
pub(in crate::adf) fn parse(reader: &mut Reader<'_>, tokens: &[Token]) -> BegatFile {
    let mut file = BegatFile::default();
    let mut current: Option<RawRule<'_, '_>> = None;
    // After a head that could not be read, its body is not reported a second time.
    let mut broken = false;
    for line in lines(tokens) {
        if line.is_indented() {
            match &mut current {
                Some(rule) => rule.body.push(line),
                None if broken => {}
                None => reader.expected(
                    Code::Syntax,
                    line.span(),
                    (
                        "an indented line stands under no rule",
                        "a head `name: …` before it",
                    ),
                ),
            }
            continue;
        }
        if let Some(rule) = current.take() {
            finish(reader, &mut file, &rule);
        }
        broken = false;
        if is_include(reader, line.tokens) {
            file.includes.extend(reader.include(line.tokens));
        } else if is_let(reader, line) {
            match binding(reader, line) {
                Some(binding) => file.lets.push(binding),
                None => file
                    .lost
                    .name(line.tokens.get(1).map_or("", |name| reader.text(name.span))),
            }
        } else {
            current = head(reader, line);
            broken = current.is_none();
            if broken {
                file.lost.name(reader.text(line.tokens[0].span));
            }
        }
    }
    if let Some(rule) = current {
        finish(reader, &mut file, &rule);
    }
    file
}

fn is_let(reader: &Reader<'_>, line: Line<'_>) -> bool {
    let [first, second, ..] = line.tokens else {
        return false;
    };
    reader.text(first.span) == "let" && !second.is(':')
}

fn binding(reader: &mut Reader<'_>, line: Line<'_>) -> Option<At<Let>> {
    let form = "let name = words";
    let [_, name, equals, words @ ..] = line.tokens else {
        reader.expected(Code::Syntax, line.span(), ("a let is not complete", form));
        return None;
    };
    if !equals.is('=') {
        reader.expected(Code::Syntax, equals.span, ("a let without `=`", form));
        return None;
    }
    let name = reader.name(name.span, "the name of a value")?;
    let words = reader.words(words);
    let words = words
        .iter()
        .map(|word| reader.template(word.span))
        .collect();
    Some(At::new(Let { name, words }, line.span()))
}

fn head<'t, 's>(reader: &mut Reader<'s>, line: Line<'t>) -> Option<RawRule<'t, 's>> {
    let each = matches!(line.tokens, [first, second, ..]
        if reader.text(first.span) == "each" && second.spaced);
    let tokens = &line.tokens[usize::from(each)..];
    let colon = tokens.iter().position(|token| token.is(':'));
    let Some(colon) = colon else {
        return no_colon(reader, line);
    };
    let target = &tokens[..colon];
    if target.is_empty() || target.iter().skip(1).any(|token| token.spaced) {
        let span = if target.is_empty() {
            tokens[colon].span
        } else {
            span_of(target)
        };
        reader.expected(
            Code::Syntax,
            span,
            ("a rule needs one name before its colon", "name:"),
        );
        return None;
    }
    let head = reader.words(&tokens[colon + 1..]);
    Some(RawRule {
        each,
        target: span_of(target),
        head,
        body: Vec::new(),
    })
}

fn no_colon<'t, 's>(reader: &mut Reader<'s>, line: Line<'t>) -> Option<RawRule<'t, 's>> {
    let text = reader.text(line.tokens[0].span);
    let near = crate::adf::nearest::nearest(text, ["include", "let", "each"]);
    reader.push(|files| {
        let message = "this is neither an include, a let nor a rule";
        let found = files.error(Code::Syntax, line.span(), message);
        found
            .expecting("include(name), let name = words, or name: …")
            .suggesting(near)
    });
    None
}

fn finish<'s>(reader: &mut Reader<'s>, file: &mut BegatFile, rule: &RawRule<'_, 's>) {
    if file.runs.len() + file.builds.len() >= ITEMS_MAX {
        let message = format!("there are more than {ITEMS_MAX} rules");
        reader.error(Code::TooMany, rule.target, message);
        return;
    }
    let makes = rule.body.iter().any(|line| line.tokens[0].is('>'));
    let runs = rule
        .head
        .iter()
        .find(|word| word.text.starts_with("rexec/"))
        .copied();
    match (makes, runs) {
        (true, Some(word)) => {
            let expected = "a container such as host, or no `>` line";
            let texts = ("a rule with outputs cannot be run by rexec", expected);
            reader.expected(Code::Syntax, word.span, texts);
            file.lost.name(reader.text(rule.target));
        }
        (true, None) => match build::rule(reader, rule) {
            Some(build) => file.builds.push(build),
            None => file.lost.name(reader.text(rule.target)),
        },
        (false, Some(_)) => match run::rule(reader, rule) {
            Some(run) => file.runs.push(run),
            None => file.lost.name(reader.text(rule.target)),
        },
        (false, None) => {
            neither(reader, rule);
            file.lost.name(reader.text(rule.target));
        }
    }
}

fn neither(reader: &mut Reader<'_>, rule: &RawRule<'_, '_>) {
    let arrow = rule.head.iter().find(|word| word.text.starts_with("->"));
    let name = shown(reader.text(rule.target));
    let span = arrow.map_or(rule.target, |word| word.span);
    reader.push(|files| {
        let message = format!("{name} neither runs a command nor makes a file");
        let found = files.error(Code::Recipe, span, message);
        found
            .expecting("`rexec/COMMAND` in the head, or a `>` line below it")
            .helping("outputs stand on an indented line of their own: `> path`")
    });
}

impl<'s> Reader<'s> {
    /// Sorts the words of a head, or of an `env` line, into bare ones and `name=value`.
    fn head<'t>(&mut self, words: &[Word<'t, 's>]) -> Head<'t, 's> {
        let mut head = Head::default();
        for word in words {
            match word.tokens.iter().position(|token| token.is('=')) {
                None => head.bare.push(*word),
                Some(0) => self.expected(
                    Code::Syntax,
                    word.span,
                    (
                        "a value without a name",
                        "name=value, without white space around `=`",
                    ),
                ),
                Some(at) => {
                    let name = span_of(&word.tokens[..at]);
                    let value = value_span(word, at);
                    head.given.extend(
                        self.name(name, "an attribute's name")
                            .map(|name| (name, value)),
                    );
                }
            }
        }
        head
    }

    fn parameter(&mut self, name: At<String>, value: Span) -> At<Parameter> {
        let literal = self.text(value).starts_with("str:");
        let skipped = if literal { "str:".len() as u32 } else { 0 };
        let inner = Span {
            start: value.start + skipped,
            ..value
        };
        let span = name.span.to(value);
        At::new(
            Parameter {
                name,
                template: self.template(inner),
                literal,
            },
            span,
        )
    }

    /// The `NAME=value` words of an `env` or `limit` line, the first word left out.
    fn settings(&mut self, words: &[Word<'_, 's>]) -> Vec<At<Setting>> {
        let head = self.head(words);
        for word in &head.bare {
            let message = format!("{} sets nothing", shown(word.text));
            self.expected(Code::Syntax, word.span, (&message, "NAME=value"));
        }
        let setting = |(name, value): (At<String>, Span)| {
            let span = name.span.to(value);
            At::new(
                Setting {
                    name,
                    template: self.template(value),
                },
                span,
            )
        };
        head.given.into_iter().map(setting).collect()
    }
}

/// The place of what follows the `=` at token `at`; empty if nothing does.
fn value_span(word: &Word<'_, '_>, at: usize) -> Span {
    match &word.tokens[at + 1..] {
        [] => word.span.after(),
        value => span_of(value),
    }
}

/// True if the line is a clause beginning with the bare word `name`.
fn is_clause(line: Line<'_>, words: &[Word<'_, '_>], name: &str) -> bool {
    line.tokens[0].kind == TokenKind::Name && words.first().is_some_and(|word| word.text == name)
}
