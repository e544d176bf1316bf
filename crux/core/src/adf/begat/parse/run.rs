//! Run rules: the classes of an application.

use std::str::FromStr;

use super::{RawRule, is_clause};
use crate::adf::begat::{Attribute, OnIsolation, Ready, Restart, RunRule, State};
use crate::adf::diagnostic::Code;
use crate::adf::limits::NAME_BYTES_MAX;
use crate::adf::nearest::nearest;
use crate::adf::reader::{Reader, Word, shown};
use crate::adf::source::{At, Span};

/// Attributes whose meaning is ours; all others are parameters.
pub(in crate::adf) const RESERVED: [&str; 7] = [
    "serves",
    "ready",
    "state",
    "on_isolation",
    "userid",
    "single",
    "restart",
];

/// Reads a rule without outputs.
pub(super) fn rule<'s>(reader: &mut Reader<'s>, raw: &RawRule<'_, 's>) -> Option<At<RunRule>> {
    if raw.each {
        let message = "`each` makes one dictum a file, but this rule makes none";
        reader.expected(Code::Syntax, raw.target, (message, "a `>` line"));
    }
    let class = reader.name(raw.target, "the name of a class")?;
    let head = reader.head(&raw.head);
    let mut needs = Vec::new();
    let mut attributes: Vec<At<Attribute>> = Vec::new();
    for word in &head.bare {
        if let Some(single) = bare(reader, word, &mut needs) {
            attributes.push(single);
        }
    }
    let mut parameters = Vec::new();
    for (name, value) in head.given {
        if RESERVED.contains(&name.value.as_str()) {
            attributes.extend(attribute(reader, &name, value));
        } else {
            parameters.push(reader.parameter(name, value));
        }
    }
    let span = class.span;
    let (command, rest, environment) = body(reader, raw, &needs)?;
    let arguments = rest.iter().map(|word| reader.template(word.span)).collect();
    let rule = RunRule {
        class,
        needs,
        attributes,
        parameters,
        environment,
        command,
        arguments,
    };
    Some(At::new(rule, span))
}

fn bare(
    reader: &mut Reader<'_>,
    word: &Word<'_, '_>,
    needs: &mut Vec<At<String>>,
) -> Option<At<Attribute>> {
    if word.text == "single" {
        return Some(At::new(Attribute::Single, word.span));
    }
    if word.text.starts_with("rexec/") {
        needs.extend(command(reader, word.span));
        return None;
    }
    let near = nearest(word.text, ["single"]);
    reader.push(|files| {
        let message = format!("{} means nothing here", shown(word.text));
        let found = files.error(Code::UnknownKey, word.span, message);
        found
            .expecting("rexec/COMMAND, name=value or single")
            .suggesting(near)
    });
    None
}

/// The name behind `rexec/`.
fn command(reader: &mut Reader<'_>, span: Span) -> Option<At<String>> {
    let inner = Span {
        start: span.start + "rexec/".len() as u32,
        ..span
    };
    if inner.start >= inner.end {
        reader.expected(
            Code::BadName,
            span,
            ("a command without a name", "rexec/COMMAND"),
        );
        return None;
    }
    reader.wide_name(inner, "the name of a command")
}

type Recipe<'t, 's> = (At<String>, Vec<Word<'t, 's>>, Vec<At<super::Setting>>);

fn body<'t, 's>(
    reader: &mut Reader<'s>,
    raw: &RawRule<'t, 's>,
    needs: &[At<String>],
) -> Option<Recipe<'t, 's>> {
    let mut environment = Vec::new();
    let mut recipe: Option<Vec<Word<'t, 's>>> = None;
    for line in &raw.body {
        let words = reader.words(line.tokens);
        if is_clause(*line, &words, "env") {
            environment.extend(reader.settings(&words[1..]));
        } else if let Some(foreign) = build_clause(&words) {
            let message = format!("`{foreign}` belongs to a rule with outputs");
            reader.expected(
                Code::Recipe,
                line.span(),
                (&message, "a recipe `rexec/COMMAND …`"),
            );
        } else if recipe.is_some() {
            let message = "a class has one recipe line";
            reader.expected(
                Code::Recipe,
                line.span(),
                (message, "an env line, or `\\` at the end of the line above"),
            );
        } else {
            recipe = Some(words);
        }
    }
    let Some(words) = recipe else {
        let text = shown(reader.text(raw.target));
        let message = format!("{text} has no recipe");
        reader.expected(
            Code::Recipe,
            raw.target,
            (&message, "an indented line `rexec/COMMAND …`"),
        );
        return None;
    };
    let command = recipe_command(reader, &words, needs)?;
    Some((command, words[1..].to_vec(), environment))
}

fn build_clause(words: &[Word<'_, '_>]) -> Option<&'static str> {
    let first = words.first()?.text;
    ["<", "<?", "sh:", "tool", "net", "limit"]
        .into_iter()
        .find(|clause| first == *clause || (*clause == "sh:" && first.starts_with("sh:")))
}

fn recipe_command(
    reader: &mut Reader<'_>,
    words: &[Word<'_, '_>],
    needs: &[At<String>],
) -> Option<At<String>> {
    let first = words.first()?;
    if !first.text.starts_with("rexec/") {
        let message = format!("a recipe cannot start {}", shown(first.text));
        let expected = needs.first().map_or_else(
            || "rexec/COMMAND".to_owned(),
            |need| format!("rexec/{}", need.value),
        );
        reader.expected(Code::Recipe, first.span, (&message, &expected));
        return None;
    }
    let command = command(reader, first.span)?;
    if !needs.is_empty() && !needs.iter().any(|need| need.value == command.value) {
        let near = nearest(&command.value, needs.iter().map(|need| need.value.as_str()));
        let name = shown(&command.value);
        reader.push(|files| {
            let message = format!("the recipe starts {name}, which the head does not name");
            let found = files
                .error(Code::UnknownCommand, command.span, message)
                .suggesting(near);
            match needs.first() {
                Some(need) => found.relating(files.related(need.span, "the head names this")),
                None => found,
            }
        });
        return None;
    }
    Some(command)
}

fn attribute(reader: &mut Reader<'_>, name: &At<String>, value: Span) -> Option<At<Attribute>> {
    let text = reader.text(value);
    let (read, form): (Option<Attribute>, &str) = match name.value.as_str() {
        "serves" => (serves(text), "NAME:PORT"),
        "ready" => (ready(text), "tcp:PORT, http:PORT/PATH or register"),
        "state" => (
            text.parse().ok().map(Attribute::State),
            "none, rnode or volume",
        ),
        "on_isolation" => (text.parse().ok().map(Attribute::OnIsolation), "run or stop"),
        "userid" => (user(text), "the name or number of a user"),
        "restart" => (
            text.parse().ok().map(Attribute::Restart),
            "always, on_failure or never",
        ),
        _ => (single(text), "single, without a value"),
    };
    let span = name.span.to(value);
    if read.is_none() {
        let message = match text {
            "" => format!("`{}` has no value", name.value),
            text => format!("{} is not a value of `{}`", shown(text), name.value),
        };
        let at = if text.is_empty() { name.span } else { value };
        reader.expected(Code::BadValue, at, (&message, form));
    }
    read.map(|attribute| At::new(attribute, span))
}

fn single(text: &str) -> Option<Attribute> {
    (text == "true").then_some(Attribute::Single)
}

fn port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

fn serves(text: &str) -> Option<Attribute> {
    let (name, number) = text.rsplit_once(':')?;
    let good = |next: char| next.is_ascii_alphanumeric() || matches!(next, '_' | '-' | '.');
    let named = !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(good);
    let port = port(number).filter(|_| named)?;
    Some(Attribute::Serves {
        name: name.to_owned(),
        port,
    })
}

fn ready(text: &str) -> Option<Attribute> {
    if text == "register" {
        return Some(Attribute::Ready(Ready::Register));
    }
    if let Some(number) = text.strip_prefix("tcp:") {
        return Some(Attribute::Ready(Ready::Tcp(port(number)?)));
    }
    let rest = text.strip_prefix("http:")?;
    let slash = rest.find('/').unwrap_or(rest.len());
    let path = if slash == rest.len() {
        "/"
    } else {
        &rest[slash..]
    };
    let clean = path
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\'');
    let port = port(&rest[..slash]).filter(|_| clean)?;
    Some(Attribute::Ready(Ready::Http {
        port,
        path: path.to_owned(),
    }))
}

fn user(text: &str) -> Option<Attribute> {
    let good = |next: char| next.is_ascii_alphanumeric() || matches!(next, '_' | '-' | '.');
    let named = !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.chars().all(good);
    named.then(|| Attribute::UserId(text.to_owned()))
}

/// A word is none of those an attribute takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownWord;

impl FromStr for State {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "none" => Ok(Self::None),
            "rnode" => Ok(Self::Rnode),
            "volume" => Ok(Self::Volume),
            _ => Err(UnknownWord),
        }
    }
}

impl FromStr for OnIsolation {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "run" => Ok(Self::Run),
            "stop" => Ok(Self::Stop),
            _ => Err(UnknownWord),
        }
    }
}

impl FromStr for Restart {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "always" => Ok(Self::Always),
            "on_failure" => Ok(Self::OnFailure),
            "never" => Ok(Self::Never),
            _ => Err(UnknownWord),
        }
    }
}
