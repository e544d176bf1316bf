//! From the tree of a `.begat` file to dictums: variables resolved, `each` unfolded.

use crux_core::adf::begat::{BegatFile, BuildRule, Command, Net, OutputKind, Setting};
use crux_core::adf::{At, Part, Span, Template, Values};

use crate::dictum::{Dictum, Form, Need, Piece, Product, Step, Word, shell_quoted};
use crate::glob;

/// Why a rule gives no dictum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub span: Span,
    /// What is wrong: reads after "failed to".
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// The dictums of `file`, in its order, with every problem that stands in the way of others.
///
/// `matches` lists the files of the tree that a pattern matches, bytewise sorted, or says why it
/// cannot; it is asked only for `each` rules.
pub fn dictums(
    file: &BegatFile,
    matches: &mut dyn FnMut(&str) -> Result<Vec<String>, String>,
) -> (Vec<Dictum>, Vec<Problem>) {
    let mut dictums = Vec::new();
    let mut problems = Vec::new();
    for rule in &file.builds {
        match unfold(file, rule, matches) {
            Ok(made) => dictums.extend(made),
            Err(problem) => problems.push(problem),
        }
    }
    (dictums, problems)
}

fn unfold(
    file: &BegatFile,
    rule: &At<BuildRule>,
    matches: &mut dyn FnMut(&str) -> Result<Vec<String>, String>,
) -> Result<Vec<Dictum>, Problem> {
    let values = file.values(Values::new(), &rule.parameters);
    if !rule.each {
        return Ok(vec![dictum(rule, &values)?]);
    }
    let given = rule
        .parameters
        .iter()
        .find(|given| given.name.value == "for");
    let Some(given) = given else {
        return Err(problem(
            rule.target.span,
            "unfold `each`: it has no `for=PATTERN`",
        ));
    };
    let span = given.template.span;
    let pattern = path(&one(&given.template, &values)?, span)?;
    let found = matches(&pattern).map_err(|reason| problem(span, reason))?;
    if found.is_empty() {
        return Err(problem(
            span,
            format!("unfold `each`: nothing matches `{pattern}`"),
        ));
    }
    found
        .iter()
        .map(|it| {
            let mut base = Values::new();
            base.set("it", it.clone()).set("stem", stem(it));
            dictum(rule, &file.values(base, &rule.parameters))
        })
        .collect()
}

fn dictum(rule: &At<BuildRule>, values: &Values) -> Result<Dictum, Problem> {
    let mut dictum = Dictum {
        name: one(&rule.target, values)?,
        span: rule.target.span,
        container: container(rule),
        net: net(rule),
        ..Dictum::default()
    };
    for input in &rule.inputs {
        for pattern in several(&input.pattern, values)? {
            let span = input.pattern.span;
            let pattern = path(&pattern, span)?;
            dictum.needs.push(Need {
                pattern,
                optional: input.optional,
                span,
            });
        }
    }
    for output in &rule.outputs {
        for made in several(&output.path, values)? {
            let span = output.path.span;
            let path = path(&made, span)?;
            if glob::escapes(&path) || path.is_empty() || glob::is_glob(&path) {
                let message = format!("make `{made}`: an output is a path inside the tree");
                return Err(problem(span, message));
            }
            dictum.products.push(Product {
                path,
                form: form(output.kind),
                span,
            });
        }
    }
    if dictum.products.is_empty() {
        return Err(problem(
            dictum.span,
            format!("build `{}`: it makes nothing", dictum.name),
        ));
    }
    dictum.environment = settings(&rule.environment, values)?;
    dictum.limits = settings(&rule.limits, values)?;
    dictum.tools = rule
        .tools
        .iter()
        .map(|tool| (tool.value.clone(), tool.span))
        .collect();
    dictum.steps = rule
        .commands
        .iter()
        .map(|command| step(&command.value, values))
        .collect::<Result<_, _>>()?;
    Ok(dictum)
}

fn step(command: &Command, values: &Values) -> Result<Step, Problem> {
    match command {
        Command::Shell(text) => Ok(Step::Shell(word(text, values, shell_quoted)?)),
        Command::Argv(templates) => {
            let mut words = Vec::new();
            for template in templates {
                match variable(template, values) {
                    Some(several) => words.extend(several.iter().map(Word::text)),
                    None => words.push(word(template, values, str::to_owned)?),
                }
            }
            Ok(Step::Argv(words))
        }
    }
}

/// The words of a template that is nothing but one variable.
fn variable<'a>(template: &Template, values: &'a Values) -> Option<&'a [String]> {
    match template.parts.as_slice() {
        [
            At {
                value: Part::Variable(name),
                ..
            },
        ] => values.get(name),
        _ => None,
    }
}

/// A word with its variables resolved; `written` says how one of their words stands in it.
fn word(
    template: &At<Template>,
    values: &Values,
    written: fn(&str) -> String,
) -> Result<Word, Problem> {
    let pieces = template.parts.iter().map(|part| match &part.value {
        Part::Text(text) => Ok(Piece::Text(text.clone())),
        Part::Inputs(which) => Ok(Piece::Inputs(*which)),
        Part::Outputs(which) => Ok(Piece::Outputs(*which)),
        Part::Variable(name) => match values.get(name) {
            Some(words) => {
                let words: Vec<String> = words.iter().map(|word| written(word)).collect();
                Ok(Piece::Text(words.join(" ")))
            }
            None => Err(problem(
                part.span,
                format!("substitute %{name}: it has no value"),
            )),
        },
    });
    pieces.collect::<Result<Vec<_>, _>>().map(Word)
}

fn one(template: &At<Template>, values: &Values) -> Result<String, Problem> {
    template
        .expand(values)
        .map_err(|error| problem(template.span, error.to_string()))
}

fn several(template: &At<Template>, values: &Values) -> Result<Vec<String>, Problem> {
    match variable(template, values) {
        Some(words) => Ok(words.to_vec()),
        None => one(template, values).map(|word| vec![word]),
    }
}

fn settings(
    settings: &[At<Setting>],
    values: &Values,
) -> Result<std::collections::BTreeMap<String, String>, Problem> {
    let pair =
        |setting: &At<Setting>| Ok((setting.name.value.clone(), one(&setting.template, values)?));
    settings.iter().map(pair).collect()
}

fn container(rule: &BuildRule) -> String {
    let Some(container) = &rule.container else {
        return "host".to_owned();
    };
    match &container.digest {
        Some(digest) => format!("{}@{digest}", container.name),
        None => container.name.clone(),
    }
}

fn net(rule: &BuildRule) -> String {
    match rule.net.as_ref().map(|net| &net.value) {
        None => String::new(),
        Some(Net::None) => "none".to_owned(),
        Some(Net::Fixed(digest)) => format!("fixed {digest}"),
    }
}

fn form(kind: OutputKind) -> Form {
    match kind {
        OutputKind::File => Form::File,
        OutputKind::Dir => Form::Dir,
        OutputKind::Log => Form::Log,
        OutputKind::Optional => Form::Optional,
    }
}

fn path(text: &str, span: Span) -> Result<String, Problem> {
    glob::normalise(text).ok_or_else(|| Problem {
        span,
        message: format!("use `{text}`: paths are relative to the application's directory"),
        help: Some("programs of the host are declared by `tool NAME`".to_owned()),
    })
}

/// The file's name without its folders and its last ending.
fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.')
        .map_or(name, |(stem, _)| if stem.is_empty() { name } else { stem })
}

fn problem(span: Span, message: impl Into<String>) -> Problem {
    Problem {
        span,
        message: message.into(),
        help: None,
    }
}
