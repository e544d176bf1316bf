//! The house form of the four files: what `radix fmt` writes.
//!
//! It works on tokens, not on the tree, so that comments, blank lines and the order of things stay.

use super::diagnostic::{Diagnostic, Findings};
use super::lexer::{Token, TokenKind, tokens};
use super::source::{FileId, FileKind, SourceMap};
use super::tree::FileTree;

mod khan;

/// Indentation of a rule's body, as in the files that radix was conceived with.
const BODY: &str = "      ";
/// Indentation within a block of rnodes.
const INNER: &str = "  ";

/// Rewrites a file in the house form. Doing it again changes nothing, nor does it change the tree.
///
/// # Errors
///
/// What is wrong with a file that does not parse; such a file is not touched.
pub fn format(kind: FileKind, name: &str, text: &str) -> Result<String, Vec<Diagnostic>> {
    let (_, diagnostics) = FileTree::parse(kind, name, text);
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Err(diagnostics);
    }
    let mut files = SourceMap::default();
    let id = files.add(name, text.to_owned(), false);
    let tokens = tokens(&files, id, &mut Findings::default());
    let lines = physical(&files, id, &tokens);
    Ok(match kind {
        FileKind::Begat => assembled(lines.iter().map(|line| begat(&files, line))),
        FileKind::Rexec => assembled(aligned(&files, &lines)),
        FileKind::Khan => assembled(khan::lines(&files, &lines)),
        FileKind::Rnodes => assembled(rnodes(&files, &lines)),
    })
}

/// A line with its comment apart.
struct Physical<'t> {
    tokens: &'t [Token],
    comment: Option<Token>,
    indented: bool,
}

fn physical<'t>(files: &SourceMap, id: FileId, tokens: &'t [Token]) -> Vec<Physical<'t>> {
    debug_assert!(files.get(id).is_some(), "the file was added just now");
    let line = |tokens: &'t [Token]| {
        let comment = tokens
            .last()
            .copied()
            .filter(|last| last.kind == TokenKind::Comment);
        let indented = tokens.first().is_some_and(|token| token.spaced);
        let body = &tokens[..tokens.len() - usize::from(comment.is_some())];
        Physical {
            tokens: body,
            comment,
            indented,
        }
    };
    tokens.split(Token::ends_line).map(line).collect()
}

/// Joins lines, with no more than one blank one between any two and none at either end.
fn assembled(lines: impl IntoIterator<Item = String>) -> String {
    let mut text = String::new();
    let mut blank = false;
    for line in lines {
        let line = line.trim_end();
        if line.is_empty() {
            blank = !text.is_empty();
            continue;
        }
        if blank {
            text.push('\n');
        }
        blank = false;
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Adds the line's comment, two spaces behind what stands before it.
fn commented(files: &SourceMap, line: &Physical<'_>, indent: &str, text: String) -> String {
    let Some(comment) = line.comment else {
        return text;
    };
    let comment = files.text(comment.span).trim_end();
    if text.trim().is_empty() {
        format!("{indent}{comment}")
    } else {
        format!("{text}  {comment}")
    }
}

fn begat(files: &SourceMap, line: &Physical<'_>) -> String {
    if line.indented {
        let body = body(files, line.tokens);
        return commented(files, line, BODY, format!("{BODY}{body}"));
    }
    let text = |token: &Token| files.text(token.span);
    let first = line.tokens.first().map_or("", text);
    let second_is = |sign| line.tokens.get(1).is_some_and(|token| token.is(sign));
    let head = if first == "include" && second_is('(') {
        glued(files, line.tokens)
    } else if first == "let" && !second_is(':') {
        assignment(files, line.tokens)
    } else {
        head(files, line.tokens)
    };
    commented(files, line, "", head)
}

fn glued(files: &SourceMap, tokens: &[Token]) -> String {
    tokens.iter().map(|token| files.text(token.span)).collect()
}

/// Words with one space between them; a joined line stays joined, four columns deeper.
fn words(files: &SourceMap, tokens: &[Token], indent: &str) -> String {
    let mut text = String::new();
    for (index, token) in tokens.iter().enumerate() {
        if index > 0 && token.joined {
            text.push_str(" \\\n");
            text.push_str(indent);
            text.push_str("    ");
        } else if index > 0 && token.spaced {
            text.push(' ');
        }
        text.push_str(files.text(token.span));
    }
    text
}

fn head(files: &SourceMap, tokens: &[Token]) -> String {
    let Some(colon) = tokens.iter().position(|token| token.is(':')) else {
        return words(files, tokens, "");
    };
    let target = words(files, &tokens[..colon], "");
    let rest = words(files, &tokens[colon + 1..], "");
    format!("{target}: {rest}").trim_end().to_owned()
}

/// `before = after`, the sign with one space on either side.
fn assignment(files: &SourceMap, tokens: &[Token]) -> String {
    let Some(equals) = tokens.iter().position(|token| token.is('=')) else {
        return words(files, tokens, "");
    };
    let before = words(files, &tokens[..equals], "");
    format!("{before} = {}", words(files, &tokens[equals + 1..], ""))
}

fn body(files: &SourceMap, tokens: &[Token]) -> String {
    let [first, rest @ ..] = tokens else {
        return String::new();
    };
    if first.is('<') || first.is('>') {
        let optional = rest
            .first()
            .is_some_and(|token| token.is('?') && !token.spaced);
        let rest = &rest[usize::from(optional)..];
        let mark = format!(
            "{}{}",
            files.text(first.span),
            if optional { "?" } else { "" }
        );
        return format!("{mark} {}", words(files, rest, BODY));
    }
    if let [_, colon, shell] = tokens
        && shell.kind == TokenKind::Shell
    {
        let text = files.text(shell.span).replace("\\\r\n", "\\\n");
        return format!(
            "{}{} {}",
            files.text(first.span),
            files.text(colon.span),
            text
        );
    }
    words(files, tokens, BODY)
}

/// `name = program [pattern]`, the signs of neighbouring lines below each other.
fn aligned(files: &SourceMap, lines: &[Physical<'_>]) -> Vec<String> {
    let name = |line: &Physical<'_>| {
        let equals = line.tokens.iter().position(|token| token.is('='))?;
        Some((glued(files, &line.tokens[..equals]), equals))
    };
    let mut text = Vec::new();
    let mut start = 0;
    while start < lines.len() {
        let run = lines[start..]
            .iter()
            .take_while(|line| name(line).is_some())
            .count();
        let block = &lines[start..start + run];
        let names = block.iter().filter_map(name);
        let width = names
            .map(|(name, _)| name.chars().count())
            .max()
            .unwrap_or(0);
        for line in block {
            let (name, equals) = name(line).unwrap_or_default();
            let program = program(files, &line.tokens[equals + 1..]);
            text.push(commented(
                files,
                line,
                "",
                format!("{name:width$} = {program}"),
            ));
        }
        if let Some(line) = lines.get(start + run) {
            text.push(commented(files, line, "", glued(files, line.tokens)));
        }
        start += run + 1;
    }
    text
}

fn program(files: &SourceMap, tokens: &[Token]) -> String {
    let open = tokens
        .iter()
        .position(|token| token.is('[') && token.spaced);
    let Some(open) = open else {
        return spaced(files, tokens);
    };
    let inner = &tokens[open + 1..tokens.len().saturating_sub(1).max(open + 1)];
    format!(
        "{} [{}]",
        spaced(files, &tokens[..open]),
        spaced(files, inner)
    )
}

/// Words with one space between them, joined lines made one.
fn spaced(files: &SourceMap, tokens: &[Token]) -> String {
    let mut text = String::new();
    for (index, token) in tokens.iter().enumerate() {
        if index > 0 && token.spaced {
            text.push(' ');
        }
        text.push_str(files.text(token.span));
    }
    text
}

fn rnodes(files: &SourceMap, lines: &[Physical<'_>]) -> Vec<String> {
    let mut text = Vec::new();
    let mut inner = false;
    for line in lines {
        let first = line.tokens.first();
        let closes = first.is_some_and(|token| token.is('}'));
        inner &= !closes;
        let indent = if inner { INNER } else { "" };
        let last = line.tokens.last();
        let opens = last.is_some_and(|token| token.is('{'));
        let body = match last {
            Some(brace) if opens => {
                let before = &line.tokens[..line.tokens.len() - 1];
                format!("{} {}", glued(files, before), files.text(brace.span))
            }
            _ if line.tokens.iter().any(|token| token.is('{')) => {
                let end = line.tokens.len().saturating_sub(2);
                format!("{} {{}}", glued(files, &line.tokens[..end]))
            }
            _ if inner => format!("{indent}{}", key_line(files, line.tokens)),
            _ => glued(files, line.tokens),
        };
        inner |= opens;
        text.push(commented(files, line, indent, body));
    }
    text
}

fn key_line(files: &SourceMap, tokens: &[Token]) -> String {
    let Some(equals) = tokens.iter().position(|token| token.is('=')) else {
        return spaced(files, tokens);
    };
    format!(
        "{} = {}",
        spaced(files, &tokens[..equals]),
        spaced(files, &tokens[equals + 1..])
    )
}
