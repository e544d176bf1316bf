//! The one lexer of the four files.
//!
//! Tokens are small pieces; each knows whether white space stands before it. The expression
//! grammars of `.khan` read pieces, the line grammars of the other three read *words*: runs of
//! pieces without white space between them. A `#` at the start of a line or after white space
//! begins a comment. A backslash at the end of a line joins the next one to it. On an indented
//! line, `sh:` takes the rest of the line as it stands.

use super::diagnostic::{Code, Findings};
use super::source::{FileId, SourceMap, Span, clamp};

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// Letters, digits and `_`, not beginning with a digit.
    Name,
    /// Digits.
    Number,
    /// `"…"`, in which `%` and `\` mean something, or `'…'`, in which nothing does.
    Quoted,
    /// Text after `sh:` to the end of the line.
    Shell,
    /// Any other single character.
    Symbol(char),
    /// From `#` to the end of the line.
    Comment,
    /// The end of a line.
    Newline,
    /// The end of the file; always last.
    End,
}

/// A piece of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    /// What it is.
    pub(super) kind: TokenKind,
    /// Where it stands.
    pub(super) span: Span,
    /// True if white space, or a line's start with white space, stands before it.
    pub(super) spaced: bool,
    /// True if it is the first of its line, continuations not counted.
    pub(super) first: bool,
    /// True if a backslash joined its line to the one before, right before it.
    pub(super) joined: bool,
}

impl Token {
    /// True if it ends a line or the file.
    pub(super) const fn ends_line(&self) -> bool {
        matches!(self.kind, TokenKind::Newline | TokenKind::End)
    }

    /// True if it is the symbol `character`.
    pub(super) fn is(&self, character: char) -> bool {
        self.kind == TokenKind::Symbol(character)
    }
}

/// Splits the file `id` into tokens, the last of which is [`TokenKind::End`].
pub(super) fn tokens(files: &SourceMap, id: FileId, findings: &mut Findings) -> Vec<Token> {
    let text = files.get(id).map_or("", |file| file.text.as_str());
    let mut lexer = Lexer {
        text,
        at: 0,
        id,
        first: true,
        indented: false,
        tokens: Vec::new(),
    };
    while let Some(token) = lexer.next(files, findings) {
        lexer.tokens.push(token);
    }
    lexer.tokens
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    id: FileId,
    first: bool,
    indented: bool,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    fn next(&mut self, files: &SourceMap, findings: &mut Findings) -> Option<Token> {
        if self
            .tokens
            .last()
            .is_some_and(|token| token.kind == TokenKind::End)
        {
            return None;
        }
        let before = self.at;
        let joined = self.skip_blanks();
        let spaced = self.at > before;
        let start = self.at;
        let first = self.first;
        if first {
            self.indented = spaced;
        }
        let kind = self.kind(spaced || first);
        self.first = kind == TokenKind::Newline;
        let token = Token {
            kind,
            span: self.span(start, self.at),
            spaced,
            first,
            joined,
        };
        self.check(token, files, findings);
        Some(token)
    }

    /// Skips white space and joined line ends; true if there was one of the latter.
    fn skip_blanks(&mut self) -> bool {
        let mut joined = false;
        loop {
            let rest = &self.text[self.at..];
            let blank = if rest.starts_with([' ', '\t']) || rest == "\r" {
                1
            } else if rest.starts_with("\\\n") {
                2
            } else if rest.starts_with("\\\r\n") {
                3
            } else {
                return joined;
            };
            joined |= blank > 1;
            self.at += blank;
        }
    }

    fn kind(&mut self, parted: bool) -> TokenKind {
        let rest = &self.text[self.at..];
        let Some(character) = rest.chars().next() else {
            return TokenKind::End;
        };
        if rest.starts_with('\n') || rest.starts_with("\r\n") {
            self.at += rest.find('\n').unwrap_or(0) + 1;
            return TokenKind::Newline;
        }
        if character == '#' && parted {
            self.at += line_end(rest);
            return TokenKind::Comment;
        }
        if self.follows_shell_mark() {
            self.at += shell_end(rest);
            return TokenKind::Shell;
        }
        self.piece(rest, character)
    }

    fn piece(&mut self, rest: &str, character: char) -> TokenKind {
        let (kind, length) = match character {
            '0'..='9' => (TokenKind::Number, run(rest, |next| next.is_ascii_digit())),
            'a'..='z' | 'A'..='Z' | '_' => (TokenKind::Name, run(rest, is_name)),
            '"' | '\'' => (TokenKind::Quoted, quoted(rest, character)),
            _ => (TokenKind::Symbol(character), character.len_utf8()),
        };
        self.at += length;
        kind
    }

    /// True right after `sh:` at the start of an indented line.
    fn follows_shell_mark(&self) -> bool {
        let [.., before, name, colon] = self.tokens.as_slice() else {
            return false;
        };
        let text = &self.text[name.span.start as usize..name.span.end as usize];
        self.indented
            && name.first
            && before.kind == TokenKind::Newline
            && text == "sh"
            && colon.is(':')
            && !colon.spaced
    }

    fn check(&self, token: Token, files: &SourceMap, findings: &mut Findings) {
        let text = &self.text[token.span.start as usize..token.span.end as usize];
        let allowed = |next: char| match token.kind {
            TokenKind::Newline | TokenKind::Shell => matches!(next, '\t' | '\n' | '\r'),
            _ => next == '\t',
        };
        let bad = text
            .char_indices()
            .find(|(_, next)| next.is_control() && !allowed(*next));
        if let Some((offset, character)) = bad {
            let start = token.span.start as usize + offset;
            let span = self.span(start, start + character.len_utf8());
            if findings.is_full() {
                findings.skip();
                return;
            }
            let message = format!(
                "a control character (U+{:04X}) is in the file",
                character as u32
            );
            findings.push(
                files
                    .error(Code::Encoding, span, message)
                    .expecting("plain text"),
            );
        }
        if token.kind == TokenKind::Quoted && !is_closed(text) && !findings.is_full() {
            let found = files.error(Code::UnclosedQuote, token.span, "a quote is not closed");
            let quote = text.chars().next().unwrap_or('"');
            findings.push(found.expecting(format!("a closing {quote} on the same line")));
        }
    }

    fn span(&self, start: usize, end: usize) -> Span {
        Span {
            file: self.id,
            start: clamp(start),
            end: clamp(end),
        }
    }
}

/// True for what may be part of a name after its first character.
pub(super) const fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

fn run(rest: &str, belongs: impl Fn(char) -> bool) -> usize {
    rest.find(|next| !belongs(next)).unwrap_or(rest.len())
}

fn line_end(rest: &str) -> usize {
    let end = rest.find('\n').unwrap_or(rest.len());
    rest[..end].trim_end_matches('\r').len()
}

/// Length of a shell line, joined lines included.
fn shell_end(rest: &str) -> usize {
    let mut end = line_end(rest);
    while rest[..end].ends_with('\\') && end < rest.len() {
        let next = rest[end..].find('\n').map_or(rest.len(), |at| end + at + 1);
        end = next + line_end(&rest[next..]);
    }
    end
}

/// Length of a quoted piece; to the end of the line if it is not closed.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        match character {
            '\n' => return rest[..at].trim_end_matches('\r').len(),
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// True if a quoted piece ends with the quote it begins with.
fn is_closed(text: &str) -> bool {
    let quote = text.chars().next().unwrap_or('"');
    text.len() > 1 && quoted(text, quote) == text.len() && text.ends_with(quote) && {
        let inner = &text[1..text.len() - 1];
        let slashes = inner.len() - inner.trim_end_matches('\\').len();
        quote == '\'' || slashes.is_multiple_of(2)
    }
}
