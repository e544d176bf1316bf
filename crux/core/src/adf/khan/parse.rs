//! From tokens to a [`KhanFile`].

use super::{Body, KhanFile, Statement};
use crate::adf::diagnostic::Code;
use crate::adf::lexer::{Token, TokenKind};
use crate::adf::limits::{ITEMS_MAX, NESTING_MAX, OPERATORS_MAX};
use crate::adf::reader::{Reader, is_include, shown, span_of};
use crate::adf::source::{At, Span};

mod expression;
mod pick;

/// A wrong statement; what is wrong with it has been reported.
struct Wrong;

type Parsed<T> = Result<T, Wrong>;

/// Words that cannot be bound.
pub(in crate::adf) const KEYWORDS: [&str; 14] = [
    "ALL", "pick", "size", "tag", "in", "ready", "after", "and", "include", "requests", "limits",
    "spread", "near", "apart",
];

/// Parses the file that `reader` stands at.
pub(in crate::adf) fn parse(reader: &mut Reader<'_>, tokens: &[Token]) -> KhanFile {
    let mut file = KhanFile::default();
    for statement in statements(tokens) {
        let tokens: Vec<Token> = statement;
        let Some(first) = tokens.first() else {
            continue;
        };
        if file.statements.len() >= ITEMS_MAX {
            let message = format!("there are more than {ITEMS_MAX} statements");
            reader.error(Code::TooMany, first.span, message);
            break;
        }
        if is_include(reader, &tokens) {
            file.includes.extend(reader.include(&tokens));
            continue;
        }
        let mut cursor = Cursor {
            reader,
            tokens: &tokens,
            at: 0,
            depth: 0,
            operators: 0,
        };
        match cursor.statement() {
            Ok(statement) => file.statements.push(statement),
            Err(Wrong) => file
                .lost
                .names(tokens.iter().map(|token| reader.text(token.span))),
        }
    }
    file
}

/// Splits at line ends outside brackets; comments are left out.
fn statements(tokens: &[Token]) -> Vec<Vec<Token>> {
    let mut all = vec![Vec::new()];
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate() {
        match token.kind {
            TokenKind::Comment => continue,
            TokenKind::Newline if depth > 0 && !begins_anew(&tokens[index + 1..]) => continue,
            TokenKind::Newline | TokenKind::End => {
                depth = 0;
                all.push(Vec::new());
                continue;
            }
            TokenKind::Symbol('(') => depth += 1,
            TokenKind::Symbol(')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if let Some(last) = all.last_mut() {
            last.push(*token);
        }
    }
    all
}

/// True if the next line starts a statement for sure, so that a forgotten bracket does not
/// swallow the rest of the file: `name :=` or `pick(` at the very start of a line.
fn begins_anew(rest: &[Token]) -> bool {
    let [first, second, ..] = rest else {
        return true;
    };
    let binding = second.is(':') && rest.get(2).is_some_and(|third| third.is('='));
    first.kind == TokenKind::Name && !first.spaced && (binding || second.is('('))
}

/// A place in the tokens of one statement.
struct Cursor<'c, 'r, 'a> {
    reader: &'c mut Reader<'r>,
    tokens: &'a [Token],
    at: usize,
    depth: usize,
    operators: usize,
}

impl Cursor<'_, '_, '_> {
    fn statement(&mut self) -> Parsed<At<Statement>> {
        let span = span_of(self.tokens);
        let name = self.binding()?;
        let body = if self.word() == Some("pick") {
            Body::Pick(Box::new(self.pick()?))
        } else {
            let value = self.expression()?;
            if name.is_none() {
                self.push_unbound(value.span);
                return Err(Wrong);
            }
            Body::Value(value)
        };
        match self.peek() {
            None => Ok(At::new(Statement { name, body }, span)),
            Some(token) => Err(self.unexpected(token, self.follow(&body))),
        }
    }

    const fn follow(&self, body: &Body) -> &'static str {
        match body {
            Body::Pick(_) => "after, requests, limits, spread, near, apart, or the line's end",
            Body::Value(_) => "an operator or the line's end",
        }
    }

    fn push_unbound(&mut self, span: Span) {
        let near = self.tokens.first().and_then(|first| {
            crate::adf::nearest::nearest(self.reader.text(first.span), ["pick", "include"])
        });
        self.reader.push(|files| {
            let found = files.error(Code::Syntax, span, "this value is used by nothing");
            found
                .expecting("pick(class, count, set) or name := …")
                .suggesting(near)
        });
    }

    /// `name :=`, if the statement begins so.
    fn binding(&mut self) -> Parsed<Option<At<String>>> {
        let [first, colon, rest @ ..] = self.tokens else {
            return Ok(None);
        };
        if colon.is('=') {
            let texts = ("a name is bound with `:=`", "name := …");
            self.reader.expected(Code::Syntax, colon.span, texts);
            return Err(Wrong);
        }
        if !colon.is(':') {
            return Ok(None);
        }
        if !rest
            .first()
            .is_some_and(|equals| equals.is('=') && !equals.spaced)
        {
            self.reader.expected(
                Code::Syntax,
                colon.span,
                ("a lone colon stands here", "`:=`"),
            );
            return Err(Wrong);
        }
        let text = self.reader.text(first.span);
        if KEYWORDS.contains(&text) {
            let message = format!("{} cannot be bound", shown(text));
            self.reader
                .expected(Code::BadName, first.span, (&message, "a name of your own"));
            return Err(Wrong);
        }
        self.at = 3;
        self.reader
            .name(first.span, "a name")
            .map(Some)
            .ok_or(Wrong)
    }

    fn peek(&self) -> Option<Token> {
        self.tokens.get(self.at).copied()
    }

    /// The next token's text, if it is a name.
    fn word(&self) -> Option<&str> {
        let token = self.peek().filter(|token| token.kind == TokenKind::Name)?;
        Some(self.reader.text(token.span))
    }

    fn is_next(&self, character: char) -> bool {
        self.peek().is_some_and(|token| token.is(character))
    }

    fn take(&mut self, character: char) -> bool {
        let taken = self.is_next(character);
        self.at += usize::from(taken);
        taken
    }

    /// Takes the next token, which must be `character`.
    fn need(&mut self, character: char, expected: &str) -> Parsed<Span> {
        match self.peek() {
            Some(token) if token.is(character) => {
                self.at += 1;
                Ok(token.span)
            }
            Some(token) => Err(self.unexpected(token, expected)),
            None => Err(self.ended(expected)),
        }
    }

    /// Takes the next token, which must be a name.
    fn need_name(&mut self, what: &str) -> Parsed<At<String>> {
        match self.peek() {
            Some(token) if token.kind == TokenKind::Name => {
                self.at += 1;
                self.reader.name(token.span, what).ok_or(Wrong)
            }
            Some(token) => Err(self.unexpected(token, what)),
            None => Err(self.ended(what)),
        }
    }

    fn unexpected(&mut self, token: Token, expected: &str) -> Wrong {
        let mut message = format!(
            "{} does not belong here",
            shown(self.reader.text(token.span))
        );
        if token.is('#') {
            message.push_str("; a comment needs a space before it");
        }
        self.reader
            .expected(Code::Syntax, token.span, (&message, expected));
        Wrong
    }

    fn ended(&mut self, expected: &str) -> Wrong {
        let open = self.unclosed();
        let span = span_of(self.tokens).after();
        self.reader.push(|files| match open {
            Some(open) => files
                .error(Code::UnclosedBracket, open, "a bracket is not closed")
                .expecting(expected),
            None => files
                .error(Code::Syntax, span, "the statement ends too soon")
                .expecting(expected),
        });
        Wrong
    }

    /// The innermost bracket that nothing closes.
    fn unclosed(&self) -> Option<Span> {
        let mut open = Vec::new();
        for token in self.tokens {
            if token.is('(') {
                open.push(token.span);
            } else if token.is(')') {
                open.pop();
            }
        }
        open.last().copied()
    }

    /// Goes one bracket deeper, if that is still allowed.
    fn enter(&mut self, span: Span) -> Parsed<()> {
        self.depth += 1;
        if self.depth <= NESTING_MAX {
            return Ok(());
        }
        let message = format!("brackets and signs are nested more than {NESTING_MAX} deep");
        self.reader.error(Code::TooDeep, span, message);
        Err(Wrong)
    }

    const fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Counts an operator, if that is still allowed.
    fn count_operator(&mut self, span: Span) -> Parsed<()> {
        self.operators += 1;
        if self.operators <= OPERATORS_MAX {
            return Ok(());
        }
        let message = format!("a statement has more than {OPERATORS_MAX} operators");
        self.reader.error(Code::TooDeep, span, message);
        Err(Wrong)
    }
}
