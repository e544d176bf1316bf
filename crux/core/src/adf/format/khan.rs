//! The house form of `.khan`.

use super::{Physical, commented, glued};
use crate::adf::lexer::{Token, TokenKind};
use crate::adf::source::SourceMap;

/// Indentation of the further lines of a statement.
const FURTHER: &str = "     ";

/// Each line with its pieces spaced anew.
pub(super) fn lines(files: &SourceMap, lines: &[Physical<'_>]) -> Vec<String> {
    let mut text = Vec::new();
    let mut spacing = Spacing {
        depth: 0,
        before: None,
    };
    for line in lines {
        let first = line
            .tokens
            .first()
            .map_or("", |token| files.text(token.span));
        let fresh = spacing.depth == 0;
        let indent = if fresh { "" } else { FURTHER };
        let body = if fresh && first == "include" {
            glued(files, line.tokens)
        } else {
            spacing.line(files, line.tokens)
        };
        let body = if body.is_empty() {
            body
        } else {
            format!("{indent}{body}")
        };
        if spacing.depth == 0 {
            spacing.before = None;
        }
        text.push(commented(files, line, indent, body));
    }
    text
}

struct Spacing {
    depth: usize,
    /// The token before, and whether it was a sign before an operand.
    before: Option<(Token, bool)>,
}

impl Spacing {
    fn line(&mut self, files: &SourceMap, tokens: &[Token]) -> String {
        let mut text = String::new();
        for (index, token) in tokens.iter().enumerate() {
            let sign = self.is_sign(*token);
            if index > 0 && self.is_parted(*token) {
                text.push(' ');
            }
            text.push_str(files.text(token.span));
            match token.kind {
                TokenKind::Symbol('(') => self.depth += 1,
                TokenKind::Symbol(')') => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            self.before = Some((*token, sign));
        }
        text
    }

    /// True for `~ ! -` where an operand is due.
    fn is_sign(&self, token: Token) -> bool {
        let due = self.before.is_none_or(|(before, _)| match before.kind {
            TokenKind::Symbol(symbol) => symbol != ')' && symbol != '%',
            _ => false,
        });
        due && matches!(token.kind, TokenKind::Symbol('~' | '!' | '-'))
    }

    fn is_parted(&self, token: Token) -> bool {
        let Some((before, sign)) = self.before else {
            return false;
        };
        let glued_pair = (before.is(':') || before.is('>')) && token.is('=');
        let unit = before.kind == TokenKind::Number
            && !token.spaced
            && (token.kind == TokenKind::Name || token.is('%'));
        let tight_before = matches!(token.kind, TokenKind::Symbol(')' | ','))
            || (token.is('(') && before.kind == TokenKind::Name)
            || token.is('%');
        !(glued_pair || unit || tight_before || sign || before.is('('))
    }
}
