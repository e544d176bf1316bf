//! Numbers and sets.

use super::super::{Expression, Operator};
use super::{Cursor, Parsed, Wrong};
use crate::adf::diagnostic::Code;
use crate::adf::lexer::{Token, TokenKind};
use crate::adf::limits::{COUNT_MAX, NAME_BYTES_MAX};
use crate::adf::nearest::nearest;
use crate::adf::reader::shown;
use crate::adf::source::{At, Span};

impl Cursor<'_, '_, '_> {
    /// Terms joined by `+` and `-`.
    pub(super) fn expression(&mut self) -> Parsed<At<Expression>> {
        let mut left = self.term()?;
        while let Some(operator) = self.operator(&[Operator::Add, Operator::Subtract])? {
            let right = self.term()?;
            left = binary(operator, left, right);
        }
        Ok(left)
    }

    /// Factors joined by `*`, `/` and `&`.
    fn term(&mut self) -> Parsed<At<Expression>> {
        let mut left = self.factor()?;
        let tighter = [Operator::Multiply, Operator::Divide, Operator::And];
        while let Some(operator) = self.operator(&tighter)? {
            let right = self.factor()?;
            left = binary(operator, left, right);
        }
        Ok(left)
    }

    fn operator(&mut self, among: &[Operator]) -> Parsed<Option<Operator>> {
        let Some(token) = self.peek() else {
            return Ok(None);
        };
        let found = among
            .iter()
            .find(|operator| token.is(operator.sign()))
            .copied();
        if found.is_some() {
            self.count_operator(token.span)?;
            self.at += 1;
        }
        Ok(found)
    }

    fn factor(&mut self) -> Parsed<At<Expression>> {
        let Some(token) = self.peek() else {
            return Err(self.ended("a number or a set"));
        };
        let TokenKind::Symbol(sign @ ('~' | '!' | '-')) = token.kind else {
            return self.primary(token);
        };
        self.enter(token.span)?;
        self.at += 1;
        let inner = self.factor()?;
        self.leave();
        let span = token.span.to(inner.span);
        let boxed = Box::new(inner);
        let expression = if sign == '-' {
            Expression::Minus(boxed)
        } else {
            Expression::Not(boxed)
        };
        Ok(At::new(expression, span))
    }

    fn primary(&mut self, token: Token) -> Parsed<At<Expression>> {
        match token.kind {
            TokenKind::Number => self.number(),
            TokenKind::Name => self.named(token),
            TokenKind::Symbol('(') => {
                self.enter(token.span)?;
                self.at += 1;
                let inner = self.expression()?;
                let close = self.need(')', "`)` or an operator")?;
                self.leave();
                Ok(At::new(inner.value, token.span.to(close)))
            }
            _ => Err(self.unexpected(token, "a number or a set")),
        }
    }

    /// A number within the limit.
    fn number(&mut self) -> Parsed<At<Expression>> {
        let value = self.digits("a number")?;
        let number = i64::try_from(value.value).unwrap_or(i64::MAX);
        if number > COUNT_MAX {
            let message = "the number is too large";
            let expected = format!("at most {COUNT_MAX}");
            self.reader
                .expected(Code::OutOfRange, value.span, (message, &expected));
            return Err(Wrong);
        }
        Ok(At::new(Expression::Number(number), value.span))
    }

    /// Digits; a number beyond 64 bits counts as the largest.
    pub(super) fn digits(&mut self, expected: &str) -> Parsed<At<u64>> {
        let Some(token) = self.peek() else {
            return Err(self.ended(expected));
        };
        if token.kind != TokenKind::Number {
            return Err(self.unexpected(token, expected));
        }
        self.at += 1;
        let value = self.reader.text(token.span).parse().unwrap_or(u64::MAX);
        Ok(At::new(value, token.span))
    }

    fn named(&mut self, token: Token) -> Parsed<At<Expression>> {
        let text = self.reader.text(token.span);
        if self
            .tokens
            .get(self.at + 1)
            .is_some_and(|next| next.is('('))
        {
            return self.call(token, text);
        }
        match text {
            "ALL" => {
                self.at += 1;
                Ok(At::new(Expression::All, token.span))
            }
            _ if super::KEYWORDS.contains(&text) => {
                Err(self.unexpected(token, "a number or a set"))
            }
            _ => {
                let name = self.need_name("a name")?;
                Ok(At::new(Expression::Name(name.value), name.span))
            }
        }
    }

    fn call(&mut self, token: Token, text: &str) -> Parsed<At<Expression>> {
        self.enter(token.span)?;
        self.at += 2;
        let expression = match text {
            "size" => {
                let set = self.expression()?;
                Expression::Size(Box::new(set))
            }
            "tag" => Expression::Tag(self.quoted("a tag in quotes, as in tag(\"GPU\")")?),
            "in" => Expression::In(self.quoted("a compartment in quotes, as in in(\"rack1\")")?),
            _ => return Err(self.unknown_function(token.span, text)),
        };
        let close = self.need(')', "`)`")?;
        self.leave();
        Ok(At::new(expression, token.span.to(close)))
    }

    fn unknown_function(&mut self, span: Span, text: &str) -> Wrong {
        if text == "pick" || text == "ready" {
            let (message, expected) = if text == "pick" {
                (
                    "`pick` cannot stand within an expression",
                    "pick at the start, or name := pick(…)",
                )
            } else {
                (
                    "`ready` cannot stand within an expression",
                    "after ready(class) >= 50%",
                )
            };
            self.reader
                .expected(Code::Syntax, span, (message, expected));
            return Wrong;
        }
        let near = nearest(text, ["size", "tag", "in", "pick"]);
        self.reader.push(|files| {
            let message = format!("khan has no function {}", shown(text));
            let found = files.error(Code::UnknownFunction, span, message);
            found
                .expecting("size(set), tag(\"…\") or in(\"…\")")
                .suggesting(near)
        });
        Wrong
    }

    /// A quoted label without escapes.
    pub(super) fn quoted(&mut self, expected: &str) -> Parsed<String> {
        let Some(token) = self.peek() else {
            return Err(self.ended(expected));
        };
        if token.kind != TokenKind::Quoted {
            return Err(self.unexpected(token, expected));
        }
        self.at += 1;
        let text = self.reader.text(token.span);
        let inner = text.get(1..text.len().saturating_sub(1)).unwrap_or("");
        let good = |next: char| !next.is_control() && !matches!(next, '"' | '\'' | '\\' | '%');
        if inner.is_empty() || inner.len() > NAME_BYTES_MAX || !inner.chars().all(good) {
            let message = format!("{} is not a label", shown(text));
            let expected = format!("1 to {NAME_BYTES_MAX} characters without quotes, \\ or %");
            self.reader
                .expected(Code::BadValue, token.span, (&message, &expected));
            return Err(Wrong);
        }
        Ok(inner.to_owned())
    }
}

fn binary(operator: Operator, left: At<Expression>, right: At<Expression>) -> At<Expression> {
    let span = left.span.to(right.span);
    At::new(
        Expression::Binary(operator, Box::new(left), Box::new(right)),
        span,
    )
}
