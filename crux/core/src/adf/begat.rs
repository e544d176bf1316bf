//! The tree of a `.begat` file: what to build, and what to run.
//!
//! Grammar: docs/formats/begat.md. Next to read: [`Template`] for what words become.

use std::fmt;

use super::include::Lost;
use super::source::{At, Span};
use super::template::{ExpandError, Template, Values, expand};

pub(super) mod parse;
mod print;

/// A `.begat` file, or several joined by includes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BegatFile {
    /// Names of included files, in order.
    pub includes: Vec<At<String>>,
    /// `let name = words`, in order; a later one may use an earlier one.
    pub lets: Vec<At<Let>>,
    /// Rules without outputs: the classes of the application.
    pub runs: Vec<At<RunRule>>,
    /// Rules with outputs: the dictums.
    pub builds: Vec<At<BuildRule>>,
    /// What could not be read, so that it is not reported a second time as missing.
    pub(in crate::adf) lost: Lost,
}

/// `let name = words`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Let {
    /// The name that `%name` refers to.
    pub name: At<String>,
    /// Its words.
    pub words: Vec<At<Template>>,
}

/// A class: what one instance of it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRule {
    /// Name of the class.
    pub class: At<String>,
    /// Commands of the rexec configuration it needs, as written without `rexec/`; not empty.
    pub needs: Vec<At<String>>,
    /// Reserved attributes, in order.
    pub attributes: Vec<At<Attribute>>,
    /// Other attributes: values for `%name`, in order.
    pub parameters: Vec<At<Parameter>>,
    /// Environment of the process.
    pub environment: Vec<At<Setting>>,
    /// The command that the recipe starts, one of `needs`.
    pub command: At<String>,
    /// Its arguments, the command itself not among them.
    pub arguments: Vec<At<Template>>,
}

/// An attribute whose meaning is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// `serves=NAME:PORT`: the process answers for this service on this port of its rnode.
    Serves {
        /// Service.
        name: String,
        /// Port, never 0.
        port: u16,
    },
    /// `ready=…`: when an instance counts as ready.
    Ready(Ready),
    /// `state=…`: what must outlive an instance.
    State(State),
    /// `on_isolation=…`: what to do on the losing side of a split.
    OnIsolation(OnIsolation),
    /// `userid=…`: the user to run as.
    UserId(String),
    /// `single`: never two at once, by lease.
    Single,
    /// `restart=…`: what follows an instance's end.
    Restart(Restart),
}

/// When an instance counts as ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ready {
    /// `tcp:PORT`: it accepts a connection.
    Tcp(u16),
    /// `http:PORT/PATH`: it answers 2xx.
    Http {
        /// Port, never 0.
        port: u16,
        /// Path, beginning with `/`.
        path: String,
    },
    /// `register`: it says so over its process socket.
    Register,
}

/// What must outlive an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Nothing.
    #[default]
    None,
    /// Files on its rnode; a successor belongs there.
    Rnode,
    /// A volume that may follow it.
    Volume,
}

/// What an instance does that is cut off from the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnIsolation {
    /// Goes on.
    #[default]
    Run,
    /// Stops.
    Stop,
}

/// What follows an instance's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Restart {
    /// It is started again, with back-off.
    #[default]
    Always,
    /// It is started again unless it ended with 0.
    OnFailure,
    /// It stays ended.
    Never,
}

/// `name=value` of a rule's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// The name that `%name` refers to.
    pub name: At<String>,
    /// Its value, `str:` removed.
    pub template: At<Template>,
    /// True if written with `str:`, so that a path is text and no file that must be present.
    pub literal: bool,
}

impl Parameter {
    /// The file that must be present on the rnode: an absolute path or `blake3:…`, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        let text = self.template.as_text()?;
        let is_file = !self.literal && (text.starts_with('/') || text.starts_with("blake3:"));
        is_file.then_some(text)
    }
}

/// `NAME=value` of an `env` or `limit` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Name.
    pub name: At<String>,
    /// Value.
    pub template: At<Template>,
}

/// A dictum: from inputs to outputs by commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRule {
    /// True for `each`: one dictum for every file that its `for=` pattern matches.
    pub each: bool,
    /// Name of the dictum; with `each` it holds `%stem`.
    pub target: At<Template>,
    /// Where it runs; `None` is the same as `host`.
    pub container: Option<At<Container>>,
    /// Values for `%name`, in order, `for=` of an `each` among them.
    pub parameters: Vec<At<Parameter>>,
    /// `<` lines, word by word.
    pub inputs: Vec<At<Input>>,
    /// `>` lines, word by word; not empty.
    pub outputs: Vec<At<Output>>,
    /// `env` lines.
    pub environment: Vec<At<Setting>>,
    /// `limit` lines.
    pub limits: Vec<At<Setting>>,
    /// `tool` lines: programs of the host that it needs, by name.
    pub tools: Vec<At<String>>,
    /// `net` line.
    pub net: Option<At<Net>>,
    /// What to execute, in order; not empty.
    pub commands: Vec<At<Command>>,
}

/// `name@digest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Name; `host` is the machine itself.
    pub name: String,
    /// Digest it is pinned to.
    pub digest: Option<String>,
}

/// One word of a `<` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// True after `<?`: no error if nothing matches.
    pub optional: bool,
    /// A path or a glob (`*`, `**`, `?`), relative to the application's directory.
    pub pattern: At<Template>,
}

/// What an output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutputKind {
    /// A file that must be there afterwards.
    #[default]
    File,
    /// A directory with all in it.
    Dir,
    /// A file for people, whose content is not compared.
    Log,
    /// A file that may be absent.
    Optional,
}

/// One word of a `>` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What it is.
    pub kind: OutputKind,
    /// Its path, relative to the application's directory.
    pub path: At<Template>,
}

/// What a dictum may reach over the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Net {
    /// Nothing.
    None,
    /// Anything, because its output is fixed to this digest.
    Fixed(String),
}

/// One step of a dictum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A program and its arguments, without a shell.
    Argv(Vec<At<Template>>),
    /// A text for `/bin/sh -c`.
    Shell(At<Template>),
}

impl RunRule {
    /// The services it registers besides its class name, with their ports.
    pub fn serves(&self) -> impl Iterator<Item = (&str, u16)> {
        self.attributes
            .iter()
            .filter_map(|attribute| match &attribute.value {
                Attribute::Serves { name, port } => Some((name.as_str(), *port)),
                _ => None,
            })
    }

    /// When an instance counts as ready; `None`: when it registers, or runs for a moment.
    #[must_use]
    pub fn ready(&self) -> Option<&Ready> {
        self.attributes
            .iter()
            .find_map(|attribute| match &attribute.value {
                Attribute::Ready(ready) => Some(ready),
                _ => None,
            })
    }

    /// The user it asks for.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        self.attributes
            .iter()
            .find_map(|attribute| match &attribute.value {
                Attribute::UserId(user) => Some(user.as_str()),
                _ => None,
            })
    }

    /// What must outlive an instance.
    #[must_use]
    pub fn state(&self) -> State {
        let find = |attribute: &At<Attribute>| match &attribute.value {
            Attribute::State(state) => Some(*state),
            _ => None,
        };
        self.attributes.iter().find_map(find).unwrap_or_default()
    }

    /// What an isolated instance does.
    #[must_use]
    pub fn on_isolation(&self) -> OnIsolation {
        let find = |attribute: &At<Attribute>| match &attribute.value {
            Attribute::OnIsolation(choice) => Some(*choice),
            _ => None,
        };
        self.attributes.iter().find_map(find).unwrap_or_default()
    }

    /// What follows its end.
    #[must_use]
    pub fn restart(&self) -> Restart {
        let find = |attribute: &At<Attribute>| match &attribute.value {
            Attribute::Restart(restart) => Some(*restart),
            _ => None,
        };
        self.attributes.iter().find_map(find).unwrap_or_default()
    }

    /// The place of `single`, if it is marked so.
    #[must_use]
    pub fn single(&self) -> Option<Span> {
        let single = |attribute: &&At<Attribute>| attribute.value == Attribute::Single;
        self.attributes
            .iter()
            .find(single)
            .map(|attribute| attribute.span)
    }

    /// The files its parameters name, each with its place: absolute paths and `blake3:…`.
    pub fn files(&self) -> impl Iterator<Item = At<&str>> {
        self.parameters.iter().filter_map(|given| {
            let span = given.template.span;
            given.value.file().map(|file| At::new(file, span))
        })
    }
}

impl BegatFile {
    /// The class `name`.
    #[must_use]
    pub fn run(&self, name: &str) -> Option<&At<RunRule>> {
        self.runs.iter().find(|rule| rule.class.value == name)
    }

    /// The values that a rule's words see: `base`, hidden by the lets, hidden by the parameters.
    ///
    /// A let sees `base` and the lets before it, a parameter all lets. One that cannot be
    /// expanded is left out; checking has reported it.
    #[must_use]
    pub fn values(&self, base: Values, parameters: &[At<Parameter>]) -> Values {
        let mut values = base;
        for binding in &self.lets {
            if let Ok(words) = expand(&binding.words, &values) {
                values.set_words(binding.name.value.clone(), words);
            }
        }
        let seen = values.clone();
        for parameter in parameters {
            if let Ok(value) = parameter.template.expand(&seen) {
                values.set(parameter.name.value.clone(), value);
            }
        }
        values
    }

    /// What the recipe of a class becomes, the command itself left out.
    ///
    /// `builtins` holds the values of [`RECIPE_VARIABLES`].
    ///
    /// # Errors
    ///
    /// The first value that is missing, or a result beyond the limit.
    pub fn arguments(&self, rule: &RunRule, builtins: Values) -> Result<Vec<String>, ExpandError> {
        expand(&rule.arguments, &self.values(builtins, &rule.parameters))
    }

    /// The environment that a class asks for, in order.
    ///
    /// # Errors
    ///
    /// As [`Self::arguments`].
    pub fn environment(
        &self,
        rule: &RunRule,
        builtins: Values,
    ) -> Result<Vec<(String, String)>, ExpandError> {
        let values = self.values(builtins, &rule.parameters);
        let setting =
            |set: &At<Setting>| Ok((set.name.value.clone(), set.template.expand(&values)?));
        rule.environment.iter().map(setting).collect()
    }
}

/// Values that the platform supplies to a recipe.
///
/// `index` is unique within the class and kept while it is held, the lowest free one at first; `ip`
/// is the rnode's address, `rnode` its label.
pub const RECIPE_VARIABLES: [&str; 7] = [
    "rnode",
    "ip",
    "index",
    "count",
    "class",
    "application",
    "namespace",
];

impl fmt::Display for Ready {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(formatter, "tcp:{port}"),
            Self::Http { port, path } => write!(formatter, "http:{port}{path}"),
            Self::Register => formatter.write_str("register"),
        }
    }
}
