//! What the four parsers share: lines, words, names, and saying what is wrong.

use super::diagnostic::{Code, Diagnostic, Findings};
use super::lexer::{Token, TokenKind, is_name};
use super::limits::{NAME_BYTES_MAX, WORDS_MAX};
use super::source::{At, SourceMap, Span};

/// A file being parsed, and the findings so far.
pub(super) struct Reader<'a> {
    pub(super) files: &'a SourceMap,
    pub(super) findings: &'a mut Findings,
}

/// A line without its comment; continuations belong to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'t> {
    pub(super) tokens: &'t [Token],
}

/// A run of pieces without white space between them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word<'t, 's> {
    pub(super) text: &'s str,
    pub(super) span: Span,
    pub(super) tokens: &'t [Token],
}

impl Line<'_> {
    /// True if white space stands before the first word.
    pub(super) fn is_indented(&self) -> bool {
        self.tokens.first().is_some_and(|token| token.spaced)
    }

    /// From the first to the last piece.
    pub(super) fn span(&self) -> Span {
        span_of(self.tokens)
    }
}

/// The span of a run of tokens; must not be empty to mean something.
pub(super) fn span_of(tokens: &[Token]) -> Span {
    match (tokens.first(), tokens.last()) {
        (Some(first), Some(last)) => first.span.to(last.span),
        _ => Span::default(),
    }
}

/// Splits tokens into lines, leaving out empty ones and comments.
pub(super) fn lines(tokens: &[Token]) -> Vec<Line<'_>> {
    tokens
        .split(Token::ends_line)
        .map(|line| {
            let comment = line
                .iter()
                .position(|token| token.kind == TokenKind::Comment);
            Line {
                tokens: &line[..comment.unwrap_or(line.len())],
            }
        })
        .filter(|line| !line.tokens.is_empty())
        .collect()
}

impl<'a> Reader<'a> {
    /// Records an error and hands it out for more detail.
    pub(super) fn error(&mut self, code: Code, span: Span, message: impl Into<String>) {
        self.push(|files| files.error(code, span, message));
    }

    /// Records an error that says what was expected.
    pub(super) fn expected(&mut self, code: Code, span: Span, texts: (&str, &str)) {
        let (message, expected) = texts;
        self.push(|files| files.error(code, span, message).expecting(expected));
    }

    /// Records a finding, which is made only while there is room for it.
    pub(super) fn push(&mut self, make: impl FnOnce(&SourceMap) -> Diagnostic) {
        if self.findings.is_full() {
            self.findings.skip();
        } else {
            self.findings.push(make(self.files));
        }
    }

    /// The text of a span.
    pub(super) fn text(&self, span: Span) -> &'a str {
        self.files.text(span)
    }

    /// Groups tokens of a line into words.
    pub(super) fn words<'t>(&mut self, tokens: &'t [Token]) -> Vec<Word<'t, 'a>> {
        let mut words = Vec::new();
        let mut start = 0;
        for end in 1..=tokens.len() {
            if tokens.get(end).is_none_or(|token| token.spaced) {
                words.push(self.word(&tokens[start..end]));
                start = end;
            }
        }
        if words.len() > WORDS_MAX {
            let span = words[WORDS_MAX].span;
            let message = format!("a line has more than {WORDS_MAX} words");
            self.error(Code::TooMany, span, message);
            words.truncate(WORDS_MAX);
        }
        words
    }

    /// One word of these tokens.
    pub(super) fn word<'t>(&self, tokens: &'t [Token]) -> Word<'t, 'a> {
        let span = span_of(tokens);
        Word {
            text: self.text(span),
            span,
            tokens,
        }
    }

    /// The name that `span` covers, for use in khan: letters, digits and `_`.
    pub(super) fn name(&mut self, span: Span, what: &str) -> Option<At<String>> {
        let text = self.text(span);
        let good = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && text.chars().all(is_name);
        self.named(
            span,
            (
                good,
                what,
                "letters, digits and `_`, not beginning with a digit",
            ),
        )
    }

    /// The name that `span` covers, where `-` and `.` are allowed too.
    pub(super) fn wide_name(&mut self, span: Span, what: &str) -> Option<At<String>> {
        let text = self.text(span);
        let wide = |next: char| is_name(next) || next == '-' || next == '.';
        let good = text.starts_with(is_name) && text.chars().all(wide);
        self.named(span, (good, what, "letters, digits, `_`, `-` and `.`"))
    }

    fn named(&mut self, span: Span, (good, what, form): (bool, &str, &str)) -> Option<At<String>> {
        let text = self.text(span);
        if !good {
            let message = format!("{} is not {what}", shown(text));
            self.expected(Code::BadName, span, (&message, form));
            return None;
        }
        if text.len() > NAME_BYTES_MAX {
            let message = format!("a name of {} characters is too long", text.len());
            let expected = format!("at most {NAME_BYTES_MAX}");
            self.expected(Code::BadName, span, (&message, &expected));
            return None;
        }
        Some(At::new(text.to_owned(), span))
    }

    /// The name in `include(name)`, if the tokens form one; reports what is wrong with it.
    pub(super) fn include(&mut self, tokens: &[Token]) -> Option<At<String>> {
        let [_, open, inner @ ..] = tokens else {
            self.expected(
                Code::Syntax,
                span_of(tokens),
                ("an include without a name", "include(name)"),
            );
            return None;
        };
        let Some(close) = inner.iter().position(|token| token.is(')')) else {
            let span = span_of(tokens).after();
            self.expected(
                Code::UnclosedBracket,
                span,
                ("an include is not closed", "`)`"),
            );
            return None;
        };
        if let Some(extra) = inner.get(close + 1) {
            self.error(
                Code::Syntax,
                extra.span,
                "more than an include stands on this line",
            );
            return None;
        }
        if !open.is('(') || close == 0 {
            self.expected(
                Code::Syntax,
                span_of(tokens),
                ("an include without a name", "include(name)"),
            );
            return None;
        }
        self.include_name(span_of(&inner[..close]))
    }

    fn include_name(&mut self, span: Span) -> Option<At<String>> {
        let text = self.text(span);
        let parts_good = |part: &str| !part.is_empty() && part != "." && part != "..";
        let wide = |next: char| is_name(next) || matches!(next, '-' | '.' | '/');
        if !text.chars().all(wide) || text.len() > 4 * NAME_BYTES_MAX {
            let message = format!("{} is not the name of an include", shown(text));
            self.expected(
                Code::BadName,
                span,
                (&message, "a name without quotes and without ending"),
            );
            return None;
        }
        if !text.split('/').all(parts_good) {
            let message = format!("the include {} leaves the directory", shown(text));
            self.expected(
                Code::PathEscapes,
                span,
                (&message, "a name beside this file or in the library"),
            );
            return None;
        }
        Some(At::new(text.to_owned(), span))
    }
}

/// The text in backquotes, cut where it is long.
pub(super) fn shown(text: &str) -> String {
    let short: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("`{short}{dots}`")
}

/// Longest part of a wrong word that a message repeats, in characters.
const SHOWN_CHARS_MAX: usize = 48;

/// True if these tokens begin an include.
pub(super) fn is_include(reader: &Reader<'_>, tokens: &[Token]) -> bool {
    tokens
        .first()
        .is_some_and(|token| reader.text(token.span) == "include")
        && tokens.get(1).is_none_or(|token| token.is('('))
}
