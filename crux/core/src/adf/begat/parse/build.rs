//! Build rules: the dictums.

use super::{RawRule, is_clause};
use crate::adf::begat::{BuildRule, Command, Container, Input, Net, Output, OutputKind};
use crate::adf::diagnostic::Code;
use crate::adf::lexer::TokenKind;
use crate::adf::nearest::nearest;
use crate::adf::reader::{Line, Reader, Word, shown, span_of};
use crate::adf::source::{At, Span};
use crate::digest::Digest;

/// Reads a rule with outputs.
pub(super) fn rule<'s>(reader: &mut Reader<'s>, raw: &RawRule<'_, 's>) -> Option<At<BuildRule>> {
    let head = reader.head(&raw.head);
    let container = container(reader, &head.bare);
    let given = head.given.into_iter();
    let mut rule = BuildRule {
        each: raw.each,
        target: reader.template(raw.target),
        container,
        parameters: given
            .map(|(name, value)| reader.parameter(name, value))
            .collect(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        environment: Vec::new(),
        limits: Vec::new(),
        tools: Vec::new(),
        net: None,
        commands: Vec::new(),
    };
    for line in &raw.body {
        clause(reader, *line, &mut rule);
    }
    if rule.commands.is_empty() {
        let name = shown(reader.text(raw.target));
        let message = format!("{name} has outputs but no command that makes them");
        reader.expected(
            Code::Recipe,
            raw.target,
            (&message, "an indented command line, or `sh: …`"),
        );
        return None;
    }
    if raw.each {
        check_each(reader, raw, &rule);
    }
    Some(At::new(rule, raw.target))
}

fn check_each(reader: &mut Reader<'_>, raw: &RawRule<'_, '_>, rule: &BuildRule) {
    if !rule
        .parameters
        .iter()
        .any(|given| given.name.value == "for")
    {
        let message = "`each` does not say over which files";
        reader.expected(
            Code::MissingKey,
            raw.target,
            (message, "for=PATTERN in the head"),
        );
    }
    let mut varying = rule.outputs.iter().map(|output| &output.path);
    let varies = |name: &str| matches!(name, "stem" | "it");
    if !varying.any(|path| path.variables().any(|used| varies(used.value))) {
        let message = "every dictum of this `each` would make the same file";
        reader.expected(
            Code::DuplicateOutput,
            raw.target,
            (message, "%stem in an output"),
        );
    }
}

fn container(reader: &mut Reader<'_>, bare: &[Word<'_, '_>]) -> Option<At<Container>> {
    let [first, rest @ ..] = bare else {
        return None;
    };
    for word in rest {
        let message = format!("{} means nothing here", shown(word.text));
        reader.expected(Code::UnknownKey, word.span, (&message, "name=value"));
    }
    let at = first
        .tokens
        .iter()
        .position(|token| token.is('@'))
        .unwrap_or(first.tokens.len());
    let name = reader.wide_name(span_of(&first.tokens[..at]), "the name of a container")?;
    let digest = match first.tokens.get(at + 1..) {
        Some(rest) if !rest.is_empty() => Some(digest(reader, span_of(rest))?),
        _ => None,
    };
    Some(At::new(
        Container {
            name: name.value,
            digest,
        },
        first.span,
    ))
}

fn digest(reader: &mut Reader<'_>, span: Span) -> Option<String> {
    let text = reader.text(span);
    let hex = text.strip_prefix("blake3:").unwrap_or(text);
    match hex.parse::<Digest>() {
        Ok(digest) => Some(digest.to_string()),
        Err(_) => {
            let message = format!("{} is not a digest", shown(text));
            reader.expected(Code::BadValue, span, (&message, "64 hex digits"));
            None
        }
    }
}

fn clause(reader: &mut Reader<'_>, line: Line<'_>, rule: &mut BuildRule) {
    let first = line.tokens[0];
    if first.is('<') {
        inputs(reader, line, rule);
        return;
    }
    if first.is('>') {
        outputs(reader, line, rule);
        return;
    }
    if is_shell(reader, line) {
        rule.commands.extend(shell(reader, line));
        return;
    }
    let words = reader.words(line.tokens);
    if is_clause(line, &words, "env") {
        rule.environment.extend(reader.settings(&words[1..]));
    } else if is_clause(line, &words, "limit") {
        rule.limits.extend(reader.settings(&words[1..]));
    } else if is_clause(line, &words, "tool") {
        let name = |word: &Word<'_, '_>| reader.wide_name(word.span, "the name of a tool");
        rule.tools.extend(words[1..].iter().filter_map(name));
    } else if is_clause(line, &words, "net") {
        net(reader, line, &words, rule);
    } else {
        let argv = words
            .iter()
            .map(|word| reader.template(word.span))
            .collect();
        rule.commands
            .push(At::new(Command::Argv(argv), line.span()));
    }
}

fn inputs(reader: &mut Reader<'_>, line: Line<'_>, rule: &mut BuildRule) {
    let optional = line
        .tokens
        .get(1)
        .is_some_and(|token| token.is('?') && !token.spaced);
    let words = reader.words(&line.tokens[1 + usize::from(optional)..]);
    if words.is_empty() {
        reader.expected(
            Code::Syntax,
            line.span(),
            ("a `<` line names no input", "paths or globs"),
        );
    }
    for word in words {
        let pattern = reader.template(word.span);
        rule.inputs
            .push(At::new(Input { optional, pattern }, word.span));
    }
}

fn outputs(reader: &mut Reader<'_>, line: Line<'_>, rule: &mut BuildRule) {
    let words = reader.words(&line.tokens[1..]);
    let kind = match words.first().map(|word| word.text) {
        Some("dir") => Some(OutputKind::Dir),
        Some("log") => Some(OutputKind::Log),
        Some("opt") => Some(OutputKind::Optional),
        _ => None,
    };
    let paths = &words[usize::from(kind.is_some())..];
    if paths.is_empty() {
        let message = "a `>` line names no output";
        reader.expected(
            Code::Syntax,
            line.span(),
            (message, "paths; `dir`, `log` or `opt` may stand first"),
        );
    }
    for word in paths {
        let path = reader.template(word.span);
        let output = Output {
            kind: kind.unwrap_or_default(),
            path,
        };
        rule.outputs.push(At::new(output, word.span));
    }
}

fn is_shell(reader: &Reader<'_>, line: Line<'_>) -> bool {
    matches!(line.tokens, [name, colon, ..]
        if colon.is(':') && !colon.spaced && reader.text(name.span) == "sh")
}

fn shell(reader: &mut Reader<'_>, line: Line<'_>) -> Option<At<Command>> {
    match line.tokens.get(2) {
        Some(text) if text.kind == TokenKind::Shell => {
            let text = reader.shell(text.span);
            Some(At::new(Command::Shell(text), line.span()))
        }
        _ => {
            reader.expected(
                Code::Syntax,
                line.span(),
                ("`sh:` without a command", "a shell command"),
            );
            None
        }
    }
}

fn net(reader: &mut Reader<'_>, line: Line<'_>, words: &[Word<'_, '_>], rule: &mut BuildRule) {
    let net = match words {
        [_, choice] if choice.text == "none" => Some(Net::None),
        [_, choice, fixed] if choice.text == "fixed" => digest(reader, fixed.span).map(Net::Fixed),
        _ => {
            let near = words
                .get(1)
                .and_then(|word| nearest(word.text, ["none", "fixed"]));
            reader.push(|files| {
                let found =
                    files.error(Code::BadValue, line.span(), "a `net` line is not complete");
                found
                    .expecting("net none, or net fixed DIGEST")
                    .suggesting(near)
            });
            None
        }
    };
    if rule.net.is_some() {
        reader.error(Code::Redefined, line.span(), "a dictum has one `net` line");
    }
    rule.net = net.map(|net| At::new(net, line.span()));
}
