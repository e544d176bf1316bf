//! Classes: their values and their commands.

use std::collections::{BTreeMap, BTreeSet};

use super::Checker;
use crate::adf::begat::parse::RESERVED;
use crate::adf::begat::{Attribute, Parameter, RECIPE_VARIABLES, RunRule};
use crate::adf::diagnostic::Code;
use crate::adf::nearest::nearest;
use crate::adf::reader::shown;
use crate::adf::rexec::{AllowedCommand, ArgumentWord};
use crate::adf::source::{At, Span};
use crate::adf::template::{ExpandError, Part, Template, Values, expand};

impl<'a> Checker<'a> {
    /// Everything about classes.
    pub(super) fn runs(&mut self) {
        self.run_values();
        let rexec = &self.application.rexec;
        for rule in &self.application.begat.runs {
            for need in &rule.needs {
                self.known_command(need);
            }
            if let Some(command) = rexec.command(&rule.command.value) {
                self.pattern(rule, command);
            }
        }
    }

    /// What can be said of classes without knowing the other files.
    pub(super) fn run_values(&mut self) {
        let lets = self.lets();
        for rule in &self.application.begat.runs {
            self.attributes(rule);
            let names = lets.iter().copied().chain(RECIPE_VARIABLES);
            let parameters: BTreeSet<&'a str> = rule
                .parameters
                .iter()
                .map(|given| given.name.value.as_str())
                .collect();
            let base: BTreeSet<&str> = names.collect();
            let all: BTreeSet<&str> = base.union(&parameters).copied().collect();
            for given in &rule.parameters {
                self.set_variables(&given.template, &base);
            }
            let settings = rule.environment.iter().map(|setting| &setting.template);
            let words: Vec<&At<Template>> = rule.arguments.iter().chain(settings).collect();
            for word in &words {
                self.set_variables(word, &all);
                self.no_lists(word);
            }
            self.unused(&rule.parameters, &words, &RESERVED);
            self.length(rule);
        }
    }

    /// Names of lets, each checked to use only those before it.
    pub(super) fn lets(&mut self) -> BTreeSet<&'a str> {
        let mut known: BTreeSet<&'a str> = BTreeSet::new();
        let mut values = Values::new();
        for binding in &self.application.begat.lets {
            for word in &binding.words {
                self.set_variables(word, &known);
                self.no_lists(word);
            }
            known.insert(binding.name.value.as_str());
            match expand(&binding.words, &values) {
                Ok(words) => {
                    values.set_words(binding.name.value.as_str(), words);
                }
                Err(ExpandError::TooLong) => {
                    let message = "the value grows too long once others are put in";
                    self.error(Code::TooMany, binding.name.span, message);
                }
                // Said above.
                Err(ExpandError::Unset(_) | ExpandError::NoSuch(..)) => {}
            }
        }
        known
    }

    /// Reports each `%name` of a word that is not among `known`.
    pub(super) fn set_variables(&mut self, word: &At<Template>, known: &BTreeSet<&str>) {
        for used in word.variables() {
            let lost = self.application.begat.lost.may_hold(used.value);
            if known.contains(used.value) || lost {
                continue;
            }
            let near = nearest(used.value, known.iter().copied()).map(|near| format!("%{near}"));
            self.push(|files| {
                let message = format!("%{} has no value here", used.value);
                let found = files.error(Code::UnsetVariable, used.span, message);
                let listed: Vec<String> =
                    known.iter().take(12).map(|one| format!("%{one}")).collect();
                let found = match listed.is_empty() {
                    true => found.expecting("%% for the sign itself"),
                    false => found.expecting(format!("one of {}", listed.join(", "))),
                };
                found.suggesting(near.as_deref())
            });
        }
    }

    fn no_lists(&mut self, word: &At<Template>) {
        for part in &word.parts {
            if matches!(part.value, Part::Inputs(_) | Part::Outputs(_)) {
                let message = format!(
                    "`{}` means something in a dictum's commands only",
                    part.value
                );
                self.expected(Code::UnsetVariable, part.span, (&message, "%name"));
            }
        }
    }

    /// Reports parameters given twice, or never used; `likely` are names that may be meant.
    pub(super) fn unused(
        &mut self,
        parameters: &[At<Parameter>],
        words: &[&At<Template>],
        likely: &[&'static str],
    ) {
        let named = parameters
            .iter()
            .map(|given| (given.name.value.as_str(), given.name.span));
        self.distinct(named, "is given twice");
        let used: BTreeSet<&str> = words
            .iter()
            .flat_map(|word| word.variables())
            .map(|used| used.value)
            .collect();
        for given in parameters {
            let name = given.name.value.as_str();
            if used.contains(name) || given.file().is_some() {
                continue;
            }
            let near = nearest(name, likely.iter().copied());
            self.push(|files| {
                let message = format!("{} is given and never used", shown(name));
                let found = files.error(Code::UnusedKey, given.name.span, message);
                found
                    .expecting(format!("%{name} in a line below"))
                    .suggesting(near)
            });
        }
    }

    fn attributes(&mut self, rule: &'a RunRule) {
        let mut first: BTreeMap<String, Span> = BTreeMap::new();
        for attribute in &rule.attributes {
            let name = match &attribute.value {
                Attribute::Serves { name, .. } => format!("serves={name}"),
                Attribute::Ready(_) => "ready".to_owned(),
                Attribute::State(_) => "state".to_owned(),
                Attribute::OnIsolation(_) => "on_isolation".to_owned(),
                Attribute::UserId(_) => "userid".to_owned(),
                Attribute::Single => "single".to_owned(),
                Attribute::Restart(_) => "restart".to_owned(),
            };
            match first.get(&name) {
                Some(before) => {
                    let message = format!("{} is given twice", shown(&name));
                    self.redefined(attribute.span, *before, &message);
                }
                None => {
                    first.insert(name, attribute.span);
                }
            }
        }
    }

    /// Reports a recipe that grows beyond what a process can be given.
    fn length(&mut self, rule: &RunRule) {
        let mut values = Values::new();
        for name in RECIPE_VARIABLES {
            values.set(name, "");
        }
        if self.application.begat.arguments(rule, values) == Err(ExpandError::TooLong) {
            let message = "the recipe grows too long once its values are put in";
            self.error(Code::TooMany, rule.command.span, message);
        }
    }

    fn known_command(&mut self, need: &At<String>) {
        let rexec = &self.application.rexec;
        if rexec.command(&need.value).is_some() || rexec.lost.may_hold(&need.value) {
            return;
        }
        let names = rexec
            .commands
            .iter()
            .map(|command| command.name.value.as_str());
        let near = nearest(&need.value, names);
        self.push(|files| {
            let message = format!("no rexec file allows the command {}", shown(&need.value));
            let found = files.error(Code::UnknownCommand, need.span, message);
            let expected = format!("`{} = /path/of/program` in a rexec file", need.value);
            found.expecting(expected).suggesting(near)
        });
    }

    /// Compares a recipe with what its command allows, as far as that is known beforehand.
    fn pattern(&mut self, rule: &RunRule, command: &At<AllowedCommand>) {
        let Some(pattern) = &command.pattern else {
            return;
        };
        let rest = pattern
            .words
            .last()
            .is_some_and(|word| word.value == ArgumentWord::Rest);
        let least = pattern.words.len() - usize::from(rest);
        let given = rule.arguments.len();
        let fits = if rest { given >= least } else { given == least };
        let wrong = rule
            .arguments
            .iter()
            .zip(&pattern.words)
            .find(|(argument, word)| {
                let single = crate::adf::rexec::ArgumentPattern {
                    words: vec![(*word).clone()],
                };
                argument
                    .as_text()
                    .is_some_and(|text| !single.allows(&[text]))
            });
        let (span, message) = match wrong {
            Some((argument, _)) => (
                argument.span,
                "this argument is not one that the command allows".to_owned(),
            ),
            None if !fits => {
                let message =
                    format!("the recipe gives {given} arguments, the command allows {least}");
                (rule.command.span, message)
            }
            None => return,
        };
        let allowed = pattern.span;
        self.push(|files| {
            let found = files.error(Code::ArgumentsRefused, span, message);
            found.relating(files.related(allowed, "allowed by this"))
        });
    }
}
