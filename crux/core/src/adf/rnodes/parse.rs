//! From tokens to a [`RnodesFile`].

use super::{
    Block, BlockSetting, Carries, Expose, Mount, Provider, RnodesFile, Server, User, UserSource,
};
use crate::adf::diagnostic::Code;
use crate::adf::lexer::{Token, TokenKind};
use crate::adf::limits::{ITEMS_MAX, NAME_BYTES_MAX, RNODES_MAX};
use crate::adf::nearest::nearest;
use crate::adf::reader::{Line, Reader, Word, is_include, lines, shown, span_of};
use crate::adf::rexec::parse::is_clean;
use crate::adf::source::{At, Span};

const COMMON: [&str; 7] = ["n", "cmd", "mount", "expose", "user", "tags", "server"];

/// Parses the file that `reader` stands at.
pub(in crate::adf) fn parse(reader: &mut Reader<'_>, tokens: &[Token]) -> RnodesFile {
    let mut file = RnodesFile::default();
    // `None` within a block whose provider is not known: its lines are read over.
    let mut open: Option<(Option<Block>, Span)> = None;
    for line in lines(tokens) {
        open = match open {
            Some((block, span)) => inside(reader, line, (block, span), &mut file),
            None => outside(reader, line, &mut file),
        };
    }
    if let Some((block, span)) = open {
        let texts = (
            "a block is not closed",
            "`}` on a line of its own at its end",
        );
        reader.expected(Code::UnclosedBracket, span, texts);
        file.blocks.extend(block.map(|block| At::new(block, span)));
    }
    file
}

type Open = Option<(Option<Block>, Span)>;

fn outside(reader: &mut Reader<'_>, line: Line<'_>, file: &mut RnodesFile) -> Open {
    if is_include(reader, line.tokens) {
        file.includes.extend(reader.include(line.tokens));
        return None;
    }
    let brace = line.tokens.iter().position(|token| token.is('{'));
    let Some(brace) = brace else {
        no_brace(reader, line);
        file.lost.name(reader.text(line.tokens[0].span));
        return None;
    };
    let block = provider(reader, &line.tokens[..brace], line);
    if block.is_none() {
        file.lost.name(reader.text(span_of(&line.tokens[..brace])));
    }
    let closed = line.tokens.last().is_some_and(|token| token.is('}'));
    let rest = &line.tokens[brace + 1..];
    let Some(extra) = rest.first() else {
        return Some((block, line.span()));
    };
    if closed && rest.len() == 1 {
        file.blocks
            .extend(block.map(|block| At::new(block, line.span())));
        return None;
    }
    let texts = (
        "a block's lines stand below its brace",
        "a line end after `{`",
    );
    reader.expected(Code::Syntax, extra.span, texts);
    file.lost.name(reader.text(span_of(&line.tokens[..brace])));
    (!closed).then_some((block, line.span()))
}

fn no_brace(reader: &mut Reader<'_>, line: Line<'_>) {
    let first = line.tokens[0];
    let near = nearest(reader.text(first.span), Provider::ALL.map(Provider::word));
    let (message, expected) = if first.is('}') {
        ("a brace closes nothing", "provider { … }")
    } else {
        (
            "this stands in no block",
            "provider { on one line, its keys below it, and } at the end",
        )
    };
    reader.push(|files| {
        let found = files.error(Code::Syntax, line.span(), message);
        found.expecting(expected).suggesting(near)
    });
}

fn provider(reader: &mut Reader<'_>, tokens: &[Token], line: Line<'_>) -> Option<Block> {
    if tokens.is_empty() {
        let texts = ("a block without a provider", "local { or another provider");
        reader.expected(Code::Syntax, line.span(), texts);
        return None;
    }
    let span = span_of(tokens);
    let text = reader.text(span);
    let Some(provider) = Provider::of_word(text) else {
        let near = nearest(text, Provider::ALL.map(Provider::word));
        reader.push(|files| {
            let message = format!("{} is not a provider of rnodes", shown(text));
            let words = Provider::ALL.map(Provider::word).join(", ");
            let found = files.error(Code::UnknownProvider, span, message);
            found.expecting(format!("one of {words}")).suggesting(near)
        });
        return None;
    };
    Some(Block {
        provider: At::new(provider, span),
        count: None,
        command: None,
        mounts: Vec::new(),
        exposes: Vec::new(),
        users: Vec::new(),
        tags: Vec::new(),
        servers: Vec::new(),
        settings: Vec::new(),
    })
}

fn inside(
    reader: &mut Reader<'_>,
    line: Line<'_>,
    (mut block, span): (Option<Block>, Span),
    file: &mut RnodesFile,
) -> Open {
    let closes = line.tokens[0].is('}');
    if closes {
        if let Some(extra) = line.tokens.get(1) {
            reader.error(
                Code::Syntax,
                extra.span,
                "something stands after the block's end",
            );
        }
        if file.blocks.len() < ITEMS_MAX {
            file.blocks.extend(block.map(|block| At::new(block, span)));
        }
        return None;
    }
    if let Some(block) = &mut block {
        key_line(reader, line, block);
    }
    Some((block, span))
}

/// The parts of `key = words` or `verb word = words`.
struct KeyLine<'t, 's> {
    key: Token,
    subject: Option<Word<'t, 's>>,
    words: Vec<Word<'t, 's>>,
    span: Span,
}

fn key_line(reader: &mut Reader<'_>, line: Line<'_>, block: &mut Block) {
    let key = line.tokens[0];
    let text = reader.text(key.span);
    let known = COMMON.contains(&text) || block.provider.keys().contains(&text);
    if key.kind != TokenKind::Name || !known {
        unknown_key(reader, line, block);
        return;
    }
    let Some(equals) = line.tokens.iter().position(|token| token.is('=')) else {
        let message = format!("`{text}` is not given a value");
        reader.expected(Code::Syntax, line.span(), (&message, form(text)));
        return;
    };
    let subject = &line.tokens[1..equals];
    let parted = subject.iter().skip(1).any(|token| token.spaced);
    let subject = if subject.is_empty() {
        None
    } else {
        Some(reader.word(subject))
    };
    let words = reader.words(&line.tokens[equals + 1..]);
    let parts = KeyLine {
        key,
        subject,
        words,
        span: line.span(),
    };
    let wants_subject = matches!(text, "mount" | "expose" | "user" | "server");
    if parts.words.is_empty() || parts.subject.is_some() != wants_subject || parted {
        let message = format!("this `{text}` line is not complete");
        reader.expected(Code::Syntax, line.span(), (&message, form(text)));
        return;
    }
    match text {
        "n" => count(reader, &parts, block),
        "cmd" => command(reader, &parts, block),
        "mount" => block.mounts.extend(mount(reader, &parts)),
        "expose" => block.exposes.extend(expose(reader, &parts)),
        "user" => block.users.extend(user(reader, &parts)),
        "tags" => block.tags.extend(tags(reader, &parts.words)),
        "server" => block.servers.extend(server(reader, &parts)),
        _ => setting(reader, &parts, block),
    }
}

/// How a line of this key is written.
fn form(key: &str) -> &'static str {
    match key {
        "n" => "n = 6",
        "cmd" => "cmd = /path/of/fulcrum",
        "mount" => "mount HOST = /PATH",
        "expose" => "expose PORT = class:PORT",
        "user" => "user NAME = self or user NAME = auto",
        "tags" => "tags = TAG TAG",
        "server" => "server NAME = TAG TAG",
        _ => "key = value",
    }
}

fn unknown_key(reader: &mut Reader<'_>, line: Line<'_>, block: &Block) {
    let span = line.tokens[0].span;
    let provider = block.provider.value;
    let keys = || COMMON.into_iter().chain(provider.keys().iter().copied());
    let near = nearest(reader.text(span), keys());
    reader.push(|files| {
        let message = format!(
            "`{}` has no key {}",
            provider.word(),
            shown(files.text(span))
        );
        let listed = keys().collect::<Vec<_>>().join(", ");
        let found = files.error(Code::UnknownKey, span, message);
        found.expecting(format!("one of {listed}")).suggesting(near)
    });
}

fn only<'w, 't, 's>(
    reader: &mut Reader<'_>,
    line: &'w KeyLine<'t, 's>,
) -> Option<&'w Word<'t, 's>> {
    match line.words.as_slice() {
        [word] => Some(word),
        words => {
            let key = reader.text(line.key.span);
            let span = words.get(1).map_or(line.span, |word| word.span);
            let message = format!("`{key}` takes one value");
            reader.expected(Code::Syntax, span, (&message, form(key)));
            None
        }
    }
}

fn twice(reader: &mut Reader<'_>, line: &KeyLine<'_, '_>, before: Option<Span>) {
    let Some(before) = before else {
        return;
    };
    let key = reader.text(line.key.span);
    reader.push(|files| {
        let found = files.error(
            Code::Redefined,
            line.span,
            format!("`{key}` is given twice"),
        );
        found.relating(files.related(before, "first given here"))
    });
}

fn count(reader: &mut Reader<'_>, line: &KeyLine<'_, '_>, block: &mut Block) {
    twice(reader, line, block.count.as_ref().map(|count| count.span));
    let Some(word) = only(reader, line) else {
        return;
    };
    let digits = word.text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits {
        let message = format!("{} is not a number of rnodes", shown(word.text));
        let expected = format!("a number from 1 to {RNODES_MAX}");
        reader.expected(Code::BadValue, word.span, (&message, &expected));
        // A count was given: that it is missing is not to be reported as well.
        block.count = Some(At::new(1, word.span));
        return;
    }
    match word.text.parse::<u32>() {
        Ok(count @ 1..=RNODES_MAX) => block.count = Some(At::new(count, word.span)),
        _ => {
            let message = format!("{} rnodes cannot be had", shown(word.text));
            let expected = format!("a number from 1 to {RNODES_MAX}");
            reader.expected(Code::OutOfRange, word.span, (&message, &expected));
            block.count = Some(At::new(1, word.span));
        }
    }
}

/// The text of a word in which nothing is substituted.
fn plain(reader: &mut Reader<'_>, word: &Word<'_, '_>) -> Option<At<String>> {
    let template = reader.template(word.span);
    match template.as_text() {
        Some("") => {
            reader.expected(
                Code::BadValue,
                word.span,
                ("an empty value", "something in the quotes"),
            );
            None
        }
        Some(text) => Some(At::new(text.to_owned(), word.span)),
        None => {
            let texts = ("nothing is substituted here", "text without %");
            reader.expected(Code::BadValue, word.span, texts);
            None
        }
    }
}

fn command(reader: &mut Reader<'_>, line: &KeyLine<'_, '_>, block: &mut Block) {
    twice(
        reader,
        line,
        block.command.as_ref().map(|command| command.span),
    );
    let words: Vec<String> = line
        .words
        .iter()
        .filter_map(|word| plain(reader, word))
        .map(|word| word.value)
        .collect();
    block.command = Some(At::new(words, line.span));
}

fn mount(reader: &mut Reader<'_>, line: &KeyLine<'_, '_>) -> Option<At<Mount>> {
    let host = plain(reader, line.subject.as_ref()?)?;
    let path = only(reader, line)?;
    let path = plain(reader, path)?;
    if !is_clean(&path) {
        let message = format!("{} is not where a rnode can see a mount", shown(&path));
        let expected = "an absolute path without `.`, `..`, `//` or a final `/`";
        reader.expected(Code::BadValue, path.span, (&message, expected));
        return None;
    }
    Some(At::new(Mount { host, path }, line.span))
}

fn port(reader: &mut Reader<'_>, span: Span) -> Option<At<u16>> {
    let text = reader.text(span);
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port != 0 => Some(At::new(port, span)),
        _ => {
            let message = format!("{} is not a port", shown(text));
            reader.expected(
                Code::OutOfRange,
                span,
                (&message, "a number from 1 to 65535"),
            );
            None
        }
    }
}

fn expose(reader: &mut Reader<'_>, line: &KeyLine<'_, '_>) -> Option<At<Expose>> {
    let written = line.subject.as_ref()?.span;
    let (outer, carries) = match reader.text(written).strip_suffix(Carries::Udp.suffix()) {
        Some(_) => (without(written, Carries::Udp.suffix()), Carries::Udp),
        None => (written, Carries::Tcp),
    };
    let external = port(reader, outer)?;
    let target = only(reader, line)?;
    let colon = target.tokens.iter().position(|token| token.is(':'));
    let (Some(colon), true) = (colon, target.tokens.len() > 2) else {
        let message = format!("{} is not a class and its port", shown(target.text));
        reader.expected(Code::Syntax, target.span, (&message, form("expose")));
        return None;
    };
    let class = reader.name(span_of(&target.tokens[..colon]), "the name of a class")?;
    let internal = port(reader, span_of(&target.tokens[colon + 1..]))?;
    Some(At::new(
        Expose {
            external,
            carries,
            class,
            internal,
        },
        line.span,
    ))
}

/// The span without so much at its end.
fn without(span: Span, suffix: &str) -> Span {
    let cut = u32::try_from(suffix.len()).unwrap_or(u32::MAX);
    let end = span.end.saturating_sub(cut).max(span.start);
    Span { end, ..span }
}

fn user(reader: &mut Reader<'_>, line: &KeyLine<'_, '_>) -> Option<At<User>> {
    let name = reader.wide_name(line.subject.as_ref()?.span, "the name of a user")?;
    let word = only(reader, line)?;
    let source = match word.text {
        "self" => UserSource::Oneself,
        "auto" => UserSource::Auto,
        other => {
            let near = nearest(other, ["self", "auto"]);
            reader.push(|files| {
                let message = format!("{} is not who a user can be", shown(other));
                let found = files.error(Code::BadValue, word.span, message);
                found.expecting("self or auto").suggesting(near)
            });
            return None;
        }
    };
    Some(At::new(
        User {
            name,
            source: At::new(source, word.span),
        },
        line.span,
    ))
}

fn tags(reader: &mut Reader<'_>, words: &[Word<'_, '_>]) -> Vec<At<String>> {
    let mut tags = Vec::new();
    for word in words {
        let Some(tag) = plain(reader, word) else {
            continue;
        };
        if tag.len() > NAME_BYTES_MAX || tag.starts_with('!') {
            let message = format!("{} is not a tag", shown(&tag));
            let expected = format!("at most {NAME_BYTES_MAX} characters, the first not `!`");
            reader.expected(Code::BadValue, tag.span, (&message, &expected));
        } else {
            tags.push(tag);
        }
    }
    tags
}

fn server(reader: &mut Reader<'_>, line: &KeyLine<'_, '_>) -> Option<At<Server>> {
    let name = reader.wide_name(line.subject.as_ref()?.span, "the name of a server")?;
    let tags = tags(reader, &line.words);
    Some(At::new(Server { name, tags }, line.span))
}

fn setting(reader: &mut Reader<'_>, line: &KeyLine<'_, '_>, block: &mut Block) {
    let key = At::new(reader.text(line.key.span).to_owned(), line.key.span);
    twice(reader, line, block.setting(&key).map(|before| before.span));
    let words = line
        .words
        .iter()
        .filter_map(|word| plain(reader, word))
        .collect();
    block
        .settings
        .push(At::new(BlockSetting { key, words }, line.span));
}
