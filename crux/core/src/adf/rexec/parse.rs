//! From tokens to a [`RexecFile`].

use super::{AllowedCommand, ArgumentPattern, ArgumentWord, BUILTINS, Program, RexecFile};
use crate::adf::diagnostic::Code;
use crate::adf::lexer::Token;
use crate::adf::limits::ITEMS_MAX;
use crate::adf::nearest::nearest;
use crate::adf::reader::{Line, Reader, Word, is_include, lines, shown, span_of};
use crate::adf::source::{At, Span};
use crate::adf::template::Template;

/// Parses the file that `reader` stands at.
pub(in crate::adf) fn parse(reader: &mut Reader<'_>, tokens: &[Token]) -> RexecFile {
    let mut file = RexecFile::default();
    for line in lines(tokens) {
        if is_include(reader, line.tokens) {
            file.includes.extend(reader.include(line.tokens));
        } else if file.commands.len() < ITEMS_MAX {
            match command(reader, line) {
                Some(command) => file.commands.push(command),
                None => file.lost.name(first_word(reader, line)),
            }
        } else {
            let message = format!("there are more than {ITEMS_MAX} commands");
            reader.error(Code::TooMany, line.span(), message);
            break;
        }
    }
    file
}

fn first_word<'s>(reader: &Reader<'s>, line: Line<'_>) -> &'s str {
    let ends = |token: &Token| token.spaced || token.is('=');
    let end = line
        .tokens
        .iter()
        .skip(1)
        .position(ends)
        .map_or(line.tokens.len(), |at| at + 1);
    reader.text(span_of(&line.tokens[..end]))
}

fn command(reader: &mut Reader<'_>, line: Line<'_>) -> Option<At<AllowedCommand>> {
    let form = "name = /path, name = blake3:DIGEST or name = builtin:WORD";
    let Some(equals) = line.tokens.iter().position(|token| token.is('=')) else {
        let near = nearest(reader.text(line.tokens[0].span), ["include"]);
        reader.push(|files| {
            let found = files.error(
                Code::Syntax,
                line.span(),
                "this is neither an include nor a command",
            );
            found.expecting(form).suggesting(near)
        });
        return None;
    };
    if equals == 0 {
        reader.expected(
            Code::Syntax,
            line.tokens[0].span,
            ("a command without a name", form),
        );
        return None;
    }
    let name = reader.wide_name(span_of(&line.tokens[..equals]), "the name of a command")?;
    let rest = &line.tokens[equals + 1..];
    let bracket = rest.iter().position(|token| token.is('[') && token.spaced);
    let words = reader.words(&rest[..bracket.unwrap_or(rest.len())]);
    let program = match words.as_slice() {
        [] => {
            let span = line.tokens[equals].span;
            reader.expected(Code::BadValue, span, ("a command without a program", form));
            return None;
        }
        [only] => program(reader, only)?,
        [_, second, ..] => {
            let message = format!("{} stands after the program", shown(second.text));
            let expected = "arguments that are allowed in brackets, as in [-task *]";
            reader.expected(Code::Syntax, second.span, (&message, expected));
            return None;
        }
    };
    let pattern = bracket.and_then(|at| pattern(reader, &rest[at..]));
    Some(At::new(
        AllowedCommand {
            name,
            program,
            pattern,
        },
        line.span(),
    ))
}

fn program(reader: &mut Reader<'_>, word: &Word<'_, '_>) -> Option<At<Program>> {
    let template = reader.template(word.span).value;
    let Some(text) = template.as_text() else {
        let message = "nothing is substituted here";
        reader.expected(Code::BadValue, word.span, (message, "a path without %"));
        return None;
    };
    let text = text.to_owned();
    let program = if let Some(hex) = text.strip_prefix("blake3:") {
        hex.parse().ok().map(Program::Digest)
    } else if let Some(name) = text.strip_prefix("builtin:") {
        return builtin(reader, word.span, name);
    } else {
        return path(reader, word.span, &text);
    };
    if program.is_none() {
        let message = format!("{} is not a digest", shown(&text));
        reader.expected(
            Code::BadValue,
            word.span,
            (&message, "blake3: and 64 hex digits"),
        );
    }
    program.map(|program| At::new(program, word.span))
}

fn builtin(reader: &mut Reader<'_>, span: Span, name: &str) -> Option<At<Program>> {
    if BUILTINS.contains(&name) {
        return Some(At::new(Program::Builtin(name.to_owned()), span));
    }
    let near = nearest(name, BUILTINS).map(|near| format!("builtin:{near}"));
    reader.push(|files| {
        let message = format!("radix has no builtin {}", shown(name));
        let expected = format!("one of builtin:{}", BUILTINS.join(", builtin:"));
        let found = files
            .error(Code::BadValue, span, message)
            .expecting(expected);
        found.suggesting(near.as_deref())
    });
    None
}

fn path(reader: &mut Reader<'_>, span: Span, text: &str) -> Option<At<Program>> {
    if !text.starts_with('/') {
        let message = format!("{} is not a program", shown(text));
        let expected = "an absolute path as the rnode sees it, blake3:DIGEST or builtin:WORD";
        reader.expected(Code::BadValue, span, (&message, expected));
        return None;
    }
    if !is_clean(text) {
        let message = format!("{} is not a plain path", shown(text));
        reader.expected(
            Code::PathEscapes,
            span,
            (&message, "no `.`, `..`, `//` or final `/` in it"),
        );
        return None;
    }
    Some(At::new(Program::Path(text.to_owned()), span))
}

/// True for an absolute path that names a file in one way only.
pub(in crate::adf) fn is_clean(path: &str) -> bool {
    let good = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.strip_prefix('/')
        .is_some_and(|rest| rest.split('/').all(good))
}

fn pattern(reader: &mut Reader<'_>, tokens: &[Token]) -> Option<At<ArgumentPattern>> {
    let Some(close) = tokens.iter().position(|token| token.is(']')) else {
        let span = span_of(tokens);
        reader.expected(
            Code::UnclosedBracket,
            span,
            ("the allowed arguments are not closed", "`]`"),
        );
        return None;
    };
    if let Some(extra) = tokens.get(close + 1) {
        reader.error(
            Code::Syntax,
            extra.span,
            "something stands after the allowed arguments",
        );
        return None;
    }
    let words = reader.words(&tokens[1..close]);
    let mut pattern = ArgumentPattern::default();
    for (index, word) in words.iter().enumerate() {
        pattern
            .words
            .extend(argument(reader, word, index + 1 == words.len()));
    }
    // One with a word missing would refuse recipes that are right.
    let whole = pattern.words.len() == words.len();
    whole.then(|| At::new(pattern, span_of(&tokens[..=close])))
}

fn argument(reader: &mut Reader<'_>, word: &Word<'_, '_>, last: bool) -> Option<At<ArgumentWord>> {
    if word.text == "..." {
        if !last {
            let message = "`...` stands for all further arguments";
            reader.expected(Code::Syntax, word.span, (message, "nothing behind it"));
            return None;
        }
        return Some(At::new(ArgumentWord::Rest, word.span));
    }
    let template: At<Template> = reader.template(word.span);
    let Some(text) = template.as_text() else {
        let message = "nothing is substituted here";
        reader.expected(
            Code::BadValue,
            word.span,
            (message, "text, with * for what varies"),
        );
        return None;
    };
    Some(At::new(ArgumentWord::Glob(text.to_owned()), word.span))
}
