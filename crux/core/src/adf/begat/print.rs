//! From a [`BegatFile`] back to text.

use std::fmt;

use super::{
    Attribute, BegatFile, BuildRule, Command, Net, OnIsolation, OutputKind, Parameter, Restart,
    RunRule, State,
};
use crate::adf::source::At;
use crate::adf::template::Template;

impl fmt::Display for BegatFile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for include in &self.includes {
            writeln!(out, "include({})", include.value)?;
        }
        for binding in &self.lets {
            writeln!(out, "let {} ={}", binding.name.value, words(&binding.words))?;
        }
        for rule in &self.runs {
            rule.fmt(out)?;
        }
        for rule in &self.builds {
            rule.fmt(out)?;
        }
        Ok(())
    }
}

/// The words, each with a space before it.
fn words(words: &[At<Template>]) -> String {
    words
        .iter()
        .map(|word| format!(" {}", word.value))
        .collect()
}

impl fmt::Display for RunRule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:", self.class.value)?;
        for need in &self.needs {
            write!(out, " rexec/{}", need.value)?;
        }
        for attribute in &self.attributes {
            write!(out, " {}", attribute.value)?;
        }
        for parameter in &self.parameters {
            write!(out, " {}", parameter.value)?;
        }
        writeln!(out)?;
        for setting in &self.environment {
            writeln!(
                out,
                "      env {}={}",
                setting.name.value, setting.template.value
            )?;
        }
        writeln!(
            out,
            "      rexec/{}{}",
            self.command.value,
            words(&self.arguments)
        )
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serves { name, port } => write!(out, "serves={name}:{port}"),
            Self::Ready(ready) => write!(out, "ready={ready}"),
            Self::State(state) => write!(out, "state={}", state.word()),
            Self::OnIsolation(choice) => write!(out, "on_isolation={}", choice.word()),
            Self::UserId(user) => write!(out, "userid={user}"),
            Self::Single => out.write_str("single"),
            Self::Restart(restart) => write!(out, "restart={}", restart.word()),
        }
    }
}

impl State {
    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Rnode => "rnode",
            Self::Volume => "volume",
        }
    }
}

impl OnIsolation {
    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Stop => "stop",
        }
    }
}

impl Restart {
    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::OnFailure => "on_failure",
            Self::Never => "never",
        }
    }
}

impl fmt::Display for Parameter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = &self.template.value;
        let mistaken = value.as_text().is_some_and(|text| text.starts_with("str:"));
        match (self.literal, mistaken) {
            (true, _) => write!(out, "{}=str:{value}", self.name.value),
            (false, true) => write!(out, "{}={}", self.name.value, value.quoted()),
            (false, false) => write!(out, "{}={value}", self.name.value),
        }
    }
}

impl fmt::Display for BuildRule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = if self.each { "each " } else { "" };
        write!(out, "{each}{}:", self.target.quoted_for(':'))?;
        if let Some(container) = &self.container {
            write!(out, " {}", container.name)?;
            if let Some(digest) = &container.digest {
                write!(out, "@{digest}")?;
            }
        }
        for parameter in &self.parameters {
            write!(out, " {}", parameter.value)?;
        }
        writeln!(out)?;
        for input in &self.inputs {
            let mark = if input.optional { "<?" } else { "<" };
            writeln!(out, "      {mark} {}", input.pattern.value)?;
        }
        for output in &self.outputs {
            let mark = match output.kind {
                OutputKind::File => ">",
                OutputKind::Dir => "> dir",
                OutputKind::Log => "> log",
                OutputKind::Optional => "> opt",
            };
            writeln!(out, "      {mark} {}", path(output.kind, &output.path))?;
        }
        self.settings(out)?;
        for command in &self.commands {
            match &command.value {
                Command::Argv(argv) => writeln!(out, "     {}", words(argv))?,
                Command::Shell(text) => writeln!(out, "      sh: {}", text.to_shell_text())?,
            }
        }
        Ok(())
    }
}

/// A path that is called as one of the marks is quoted.
fn path(kind: OutputKind, path: &Template) -> String {
    let mistaken = matches!(path.as_text(), Some("dir" | "log" | "opt"));
    if kind == OutputKind::File && mistaken {
        path.quoted()
    } else {
        path.to_string()
    }
}

impl BuildRule {
    fn settings(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for setting in &self.environment {
            writeln!(
                out,
                "      env {}={}",
                setting.name.value, setting.template.value
            )?;
        }
        for setting in &self.limits {
            writeln!(
                out,
                "      limit {}={}",
                setting.name.value, setting.template.value
            )?;
        }
        for tool in &self.tools {
            writeln!(out, "      tool {}", tool.value)?;
        }
        match self.net.as_ref().map(|net| &net.value) {
            Some(Net::None) => writeln!(out, "      net none"),
            Some(Net::Fixed(digest)) => writeln!(out, "      net fixed {digest}"),
            None => Ok(()),
        }
    }
}
