//! What the four files must agree on: names, values, places.

use std::collections::BTreeMap;

use super::application::Application;
use super::diagnostic::{Code, Diagnostic, Findings};
use super::nearest::nearest;
use super::reader::shown;
use super::source::{SourceMap, Span};

mod build;
mod khan;
mod rnodes;
mod run;
mod scope;

pub(super) use scope::sorted;

/// Checks a whole application.
pub(super) fn application(application: &Application, findings: &mut Findings) {
    let mut checker = Checker {
        application,
        findings,
    };
    checker.scope();
    checker.builds();
    checker.runs();
    checker.khan();
    checker.rnodes();
}

/// Checks a `.begat` file that stands alone.
pub(super) fn begat_alone(application: &Application, findings: &mut Findings) {
    let mut checker = Checker {
        application,
        findings,
    };
    checker.scope();
    checker.builds();
    checker.run_values();
}

struct Checker<'a> {
    application: &'a Application,
    findings: &'a mut Findings,
}

impl<'a> Checker<'a> {
    fn push(&mut self, make: impl FnOnce(&SourceMap) -> Diagnostic) {
        if self.findings.is_full() {
            self.findings.skip();
        } else {
            self.findings.push(make(&self.application.files));
        }
    }

    fn error(&mut self, code: Code, span: Span, message: &str) {
        self.push(|files| files.error(code, span, message));
    }

    fn expected(&mut self, code: Code, span: Span, (message, expected): (&str, &str)) {
        self.push(|files| files.error(code, span, message).expecting(expected));
    }

    /// Reports each name that stands more than once, beside the place it first stood.
    fn distinct<'n>(&mut self, names: impl IntoIterator<Item = (&'n str, Span)>, what: &str) {
        let mut first: BTreeMap<&str, Span> = BTreeMap::new();
        for (name, span) in names {
            match first.get(name) {
                None => {
                    first.insert(name, span);
                }
                Some(before) => self.redefined(span, *before, &format!("{} {what}", shown(name))),
            }
        }
    }

    fn redefined(&mut self, span: Span, before: Span, message: &str) {
        self.push(|files| {
            let found = files.error(Code::Redefined, span, message);
            found.relating(files.related(before, "first here"))
        });
    }

    /// Reports a class that no rule defines, unless its rule could not be read.
    fn known_class(&mut self, name: &str, span: Span) {
        let begat = &self.application.begat;
        if begat.run(name).is_some() || begat.lost.may_hold(name) {
            return;
        }
        let near = || {
            nearest(
                name,
                begat.runs.iter().map(|rule| rule.class.value.as_str()),
            )
        };
        let dictum = begat
            .builds
            .iter()
            .find(|rule| rule.target.as_text() == Some(name));
        self.push(|files| {
            let message = format!("no class is named {}", shown(name));
            let found = files.error(Code::UnknownClass, span, message);
            let found = found.expecting("a rule with a recipe in a begat file");
            match dictum {
                Some(rule) => found
                    .relating(files.related(rule.span, "this one makes files and runs nothing")),
                None => found.suggesting(near()),
            }
        });
    }
}
