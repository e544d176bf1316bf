//! What an instance runs, as one digest: the same while nothing that matters to it has changed.
//!
//! Values that differ between rnodes (`%rnode`, `%ip`, `%index`, `%count` …) stay unexpanded, so a
//! class has one spec on all rnodes, and a change of counts or addresses restarts nothing.

use std::collections::BTreeMap;

use crux_core::adf::begat::{RECIPE_VARIABLES, RunRule};
use crux_core::adf::rexec::Program;
use crux_core::adf::{Application, ExpandError, Values};
use crux_core::digest::Digest;

/// Why a class has no spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The application has no such class, or its command is not allowed; checking reports that.
    #[error("describe the class {0}: it has no rule or no command")]
    UnknownClass(String),
    /// A file that it runs or reads is not pinned to a digest.
    #[error("describe the class {class}: {path} is not pinned")]
    NotPinned {
        /// The class.
        class: String,
        /// The file, as the rnode sees it.
        path: String,
    },
    /// A value of its recipe is missing; checking reports that.
    #[error("describe the class {0}")]
    Recipe(String, #[source] ExpandError),
}

/// What a class runs, part by part.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spec {
    /// (part, value), in a fixed order; values hold no line end.
    lines: Vec<(&'static str, String)>,
}

/// The parts in the order in which a difference names them.
const PARTS: [(&str, &str); 6] = [
    ("program", "its executable changed"),
    ("data", "its data changed"),
    ("argument", "its arguments changed"),
    ("env", "its environment changed"),
    ("attribute", "its attributes changed"),
    ("user", "its user changed"),
];

impl Spec {
    /// Describes a class.
    ///
    /// `user` is whom it runs as; `pins` maps paths as the rnode sees them to digests, and
    /// `builtin:WORD` too where a change of radix itself shall replace the instances.
    ///
    /// # Errors
    ///
    /// See [`SpecError`].
    pub fn of(
        application: &Application,
        class: &str,
        user: Option<&str>,
        pins: &BTreeMap<String, Digest>,
    ) -> Result<Self, SpecError> {
        let unknown = || SpecError::UnknownClass(class.to_owned());
        let rule = application.class(class).ok_or_else(unknown)?;
        let command = application.program(rule).ok_or_else(unknown)?;
        let mut spec = Self::default();
        spec.push("program", &program(class, &command.program, pins)?);
        for file in rule.files() {
            spec.push(
                "data",
                &format!("{} {}", file.value, pinned(class, file.value, pins)?),
            );
        }
        spec.words(application, rule)
            .map_err(|source| SpecError::Recipe(class.to_owned(), source))?;
        let mut attributes: Vec<String> = rule
            .attributes
            .iter()
            .map(|attribute| attribute.value.to_string())
            .collect();
        attributes.sort();
        for attribute in attributes {
            spec.push("attribute", &attribute);
        }
        spec.push("user", user.unwrap_or(""));
        Ok(spec)
    }

    fn words(&mut self, application: &Application, rule: &RunRule) -> Result<(), ExpandError> {
        let mut values = Values::new();
        for name in RECIPE_VARIABLES {
            // A control character cannot come from a file, so no literal text looks like this.
            values.set(name, format!("\u{1}{name}\u{1}"));
        }
        for argument in application.begat.arguments(rule, values.clone())? {
            self.push("argument", &argument);
        }
        for (name, value) in application.begat.environment(rule, values)? {
            self.push("env", &format!("{name}={value}"));
        }
        Ok(())
    }

    fn push(&mut self, part: &'static str, value: &str) {
        self.lines
            .push((part, value.replace('\\', "\\\\").replace('\n', "\\n")));
    }

    /// Its identity.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let lines = self
            .lines
            .iter()
            .map(|(part, value)| format!("{part} {value}\n"));
        Digest::of(format!("radix-spec/1\n{}", lines.collect::<String>()).as_bytes())
    }

    /// What differs between this spec and a later one, for people; `None` if nothing does.
    #[must_use]
    pub fn difference(&self, later: &Self) -> Option<String> {
        let of = |spec: &Self, part: &str| -> Vec<String> {
            let lines = spec.lines.iter().filter(|(name, _)| *name == part);
            lines.map(|(_, value)| value.clone()).collect()
        };
        let changed = PARTS
            .iter()
            .filter(|(part, _)| of(self, part) != of(later, part));
        let texts: Vec<&str> = changed.map(|(_, text)| *text).collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }
}

fn program(
    class: &str,
    program: &Program,
    pins: &BTreeMap<String, Digest>,
) -> Result<String, SpecError> {
    match program {
        Program::Path(path) => pinned(class, path, pins).map(|digest| digest.to_string()),
        Program::Digest(digest) => Ok(digest.to_string()),
        Program::Builtin(word) => {
            let name = format!("builtin:{word}");
            Ok(pins
                .get(&name)
                .map_or(name, |digest| format!("builtin:{word} {digest}")))
        }
    }
}

fn pinned(class: &str, path: &str, pins: &BTreeMap<String, Digest>) -> Result<Digest, SpecError> {
    let named = path
        .strip_prefix("blake3:")
        .and_then(|hex| hex.parse().ok());
    named
        .or_else(|| pins.get(path).copied())
        .ok_or_else(|| SpecError::NotPinned {
            class: class.to_owned(),
            path: path.to_owned(),
        })
}

/// The identity of what an instance of `class` runs; see [`Spec::of`].
///
/// # Errors
///
/// See [`SpecError`].
pub fn digest(
    application: &Application,
    class: &str,
    user: Option<&str>,
    pins: &BTreeMap<String, Digest>,
) -> Result<Digest, SpecError> {
    Spec::of(application, class, user, pins).map(|spec| spec.digest())
}
