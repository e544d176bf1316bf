//! Dictums: their values, and what they read and make.

use std::collections::BTreeMap;

use super::Checker;
use crate::adf::begat::{BuildRule, Command, OutputKind};
use crate::adf::diagnostic::Code;
use crate::adf::reader::shown;
use crate::adf::source::{At, Span};
use crate::adf::template::{Part, Template, Values, expand};

/// A path that a dictum makes.
struct Made {
    span: Span,
    rule: usize,
    dir: bool,
}

impl Checker<'_> {
    /// Everything about dictums.
    pub(super) fn builds(&mut self) {
        // What is wrong with the lets themselves is said where classes are checked.
        let lets: Vec<&str> = self
            .application
            .begat
            .lets
            .iter()
            .map(|binding| binding.name.value.as_str())
            .collect();
        let mut made = BTreeMap::new();
        for (index, rule) in self.application.begat.builds.iter().enumerate() {
            self.build_values(rule, &lets);
            let values = self
                .application
                .begat
                .values(Values::new(), &rule.parameters);
            for output in &rule.outputs {
                let dir = output.kind == OutputKind::Dir;
                let one = Made {
                    span: output.span,
                    rule: index,
                    dir,
                };
                self.output(&output.path, &values, one, &mut made);
            }
            self.inputs(index, rule, &values, &made);
        }
        self.overlaps(&made);
    }

    fn build_values(&mut self, rule: &BuildRule, lets: &[&str]) {
        let parameters = rule
            .parameters
            .iter()
            .map(|given| given.name.value.as_str());
        let each: &[&str] = if rule.each { &["it", "stem"] } else { &[] };
        let all = lets
            .iter()
            .copied()
            .chain(parameters)
            .chain(each.iter().copied())
            .collect();
        let base = lets.iter().copied().chain(each.iter().copied()).collect();
        for given in &rule.parameters {
            self.set_variables(&given.template, &base);
        }
        let mut words: Vec<&At<Template>> = vec![&rule.target];
        words.extend(rule.inputs.iter().map(|input| &input.pattern));
        words.extend(rule.outputs.iter().map(|output| &output.path));
        words.extend(
            rule.environment
                .iter()
                .chain(&rule.limits)
                .map(|setting| &setting.template),
        );
        for command in &rule.commands {
            match &command.value {
                Command::Argv(argv) => words.extend(argv),
                Command::Shell(text) => words.push(text),
            }
        }
        for word in &words {
            self.set_variables(word, &all);
            self.numbers(word, rule);
        }
        let used_by_us = |name: &str| rule.each && name == "for";
        let given: Vec<_> = rule
            .parameters
            .iter()
            .filter(|given| !used_by_us(&given.name.value))
            .cloned()
            .collect();
        self.unused(&given, &words, &["for"]);
    }

    /// `%>3` where there are two outputs, or `%<0`.
    fn numbers(&mut self, word: &At<Template>, rule: &BuildRule) {
        for part in &word.parts {
            let wrong = match &part.value {
                Part::Inputs(Some(which)) => *which == 0,
                Part::Outputs(Some(which)) => *which == 0 || *which as usize > rule.outputs.len(),
                Part::Text(_) | Part::Variable(_) | Part::Inputs(None) | Part::Outputs(None) => {
                    false
                }
            };
            if wrong {
                let message = format!("there is no `{}`", part.value);
                let expected = match part.value {
                    Part::Outputs(_) => format!("a number from 1 to {}", rule.outputs.len()),
                    _ => "a number from 1".to_owned(),
                };
                self.expected(Code::UnsetVariable, part.span, (&message, &expected));
            }
        }
    }

    fn output(
        &mut self,
        path: &At<Template>,
        values: &Values,
        one: Made,
        made: &mut BTreeMap<String, Made>,
    ) {
        // What varies with the file of an `each` is known only when the files are.
        let Ok(text) = path.expand(values) else {
            return;
        };
        if !self.inside(&text, one.span) {
            return;
        }
        if text.contains(['*', '?', '[']) {
            let message = format!("the output {} is a pattern", shown(&text));
            self.expected(
                Code::BadValue,
                one.span,
                (&message, "a path without *, ? or ["),
            );
            return;
        }
        if let Some(before) = made.get(&text) {
            let before = before.span;
            let message = format!("{} is made twice", shown(&text));
            self.push(|files| {
                let found = files.error(Code::DuplicateOutput, one.span, message);
                found.relating(files.related(before, "made here as well"))
            });
            return;
        }
        made.insert(text, one);
    }

    /// Reports a path that is not below the application's directory.
    fn inside(&mut self, path: &str, span: Span) -> bool {
        let good = |part: &str| !part.is_empty() && part != "." && part != "..";
        if path.split('/').all(good) {
            return true;
        }
        let message = format!("{} is not a plain path below this directory", shown(path));
        let expected = "a relative path without `.`, `..`, `//` or a final `/`";
        self.expected(Code::PathEscapes, span, (&message, expected));
        false
    }

    fn inputs(
        &mut self,
        index: usize,
        rule: &BuildRule,
        values: &Values,
        made: &BTreeMap<String, Made>,
    ) {
        for input in &rule.inputs {
            // A let with several words stands for several inputs.
            let Ok(texts) = expand(std::slice::from_ref(&input.pattern), values) else {
                continue;
            };
            for text in texts {
                self.input(index, (&text, input.span), made);
            }
        }
    }

    fn input(&mut self, index: usize, (text, span): (&str, Span), made: &BTreeMap<String, Made>) {
        // A workspace may be larger than the application in it, so an input may lead upwards.
        let below = text.trim_start_matches("../");
        if !self.inside(if below.is_empty() { text } else { below }, span) {
            return;
        }
        let own = made.get(text).filter(|one| one.rule == index);
        if let Some(own) = own {
            let own = own.span;
            self.push(|files| {
                let message = format!("a dictum needs {}, which it makes", shown(text));
                let found = files.error(Code::Cycle, span, message);
                found.relating(files.related(own, "made here"))
            });
        }
    }

    /// Reports outputs that lie within another's directory, or below a file.
    fn overlaps(&mut self, made: &BTreeMap<String, Made>) {
        for (path, one) in made {
            for (at, _) in path.match_indices('/') {
                let Some(outer) = made.get(&path[..at]) else {
                    continue;
                };
                let what = if outer.dir {
                    "the directory"
                } else {
                    "the file"
                };
                let message = format!("{} lies within {what} {}", shown(path), shown(&path[..at]));
                let (span, before) = (one.span, outer.span);
                self.push(|files| {
                    let found = files.error(Code::DuplicateOutput, span, message);
                    found.relating(files.related(before, "made here as a whole"))
                });
                break;
            }
        }
    }
}
