//! Placement: names, types, circles.

use std::collections::{BTreeMap, BTreeSet};

use super::Checker;
use crate::adf::application::Application;
use crate::adf::diagnostic::Code;
use crate::adf::khan::{Body, Expression, KhanFile, Operator, Pick, Share, Statement};
use crate::adf::nearest::nearest;
use crate::adf::reader::shown;
use crate::adf::source::{At, Span};

/// What an expression yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Number,
    Set,
}

impl Type {
    const fn said(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Set => "a set of rnodes",
        }
    }
}

impl<'a> Checker<'a> {
    /// Everything about the khan files.
    pub(super) fn khan(&mut self) {
        self.bound_names();
        self.types();
        self.picked_classes();
        self.conditions();
        self.never_placed();
    }

    fn bound_names(&mut self) {
        let khan = &self.application.khan;
        let index = khan.bound();
        for statement in &khan.statements {
            for used in statement.names() {
                if index.contains_key(used.value) || khan.lost.may_hold(used.value) {
                    continue;
                }
                self.unknown_name(used, &index);
            }
        }
        let named = khan
            .statements
            .iter()
            .map(|one| match (&one.name, &one.body) {
                (Some(name), _) => (name.value.as_str(), name.span),
                (None, Body::Pick(pick)) => (pick.class.value.as_str(), pick.class.span),
                (None, Body::Value(value)) => ("", value.span),
            });
        let named: Vec<(&str, Span)> = named.collect();
        self.circles(&named, &khan.needs(), "values need each other in a circle");
    }

    fn unknown_name(&mut self, used: At<&str>, index: &BTreeMap<&str, usize>) {
        let class = self.application.begat.run(used.value).is_some();
        let near = nearest(used.value, index.keys().copied().chain(["ALL"]));
        self.push(|files| {
            let message = format!("nothing is named {}", shown(used.value));
            let found = files.error(Code::UnknownVariable, used.span, message);
            let found = found.expecting("ALL, or a name bound with `:=`");
            if class && near.is_none() {
                let name = used.value;
                return found.helping(format!(
                    "{name} is a class; bind its set: {name}_set := pick({name}, …)"
                ));
            }
            found.suggesting(near)
        });
    }

    fn types(&mut self) {
        let khan = &self.application.khan;
        let mut known: BTreeMap<&'a str, Type> = BTreeMap::new();
        for index in khan.order() {
            let statement = &khan.statements[index];
            let found = match &statement.body {
                Body::Pick(pick) => {
                    self.want(&pick.count, Type::Number, &known);
                    self.want(&pick.set, Type::Set, &known);
                    Some(Type::Set)
                }
                Body::Value(value) => self.type_of(value, &known),
            };
            if let (Some(name), Some(found)) = (&statement.name, found) {
                known.insert(&name.value, found);
            }
        }
    }

    /// Reports another type than `want`; true if it is right or unknown.
    fn want(&mut self, at: &At<Expression>, want: Type, known: &BTreeMap<&str, Type>) -> bool {
        let found = self.type_of(at, known);
        let wrong = found.filter(|found| *found != want);
        if let Some(found) = wrong {
            self.push(|files| {
                let message = format!("this is {}", found.said());
                let wrong = files
                    .error(Code::WrongType, at.span, message)
                    .expecting(want.said());
                match want {
                    Type::Number => wrong.helping("size(…) turns a set into its number"),
                    Type::Set => wrong,
                }
            });
        }
        wrong.is_none()
    }

    /// The type, or `None` where it is unknown or wrong within, which has then been reported.
    fn type_of(&mut self, at: &At<Expression>, known: &BTreeMap<&str, Type>) -> Option<Type> {
        match &at.value {
            Expression::Number(_) => Some(Type::Number),
            Expression::All | Expression::Tag(_) | Expression::In(_) => Some(Type::Set),
            Expression::Name(name) => known.get(name.as_str()).copied(),
            Expression::Size(inner) => {
                self.want(inner, Type::Set, known);
                Some(Type::Number)
            }
            Expression::Not(inner) => {
                self.want(inner, Type::Set, known);
                Some(Type::Set)
            }
            Expression::Minus(inner) => {
                self.want(inner, Type::Number, known);
                Some(Type::Number)
            }
            Expression::Binary(operator, left, right) => {
                self.binary(*operator, (left, right), known)
            }
        }
    }

    fn binary(
        &mut self,
        operator: Operator,
        (left, right): (&At<Expression>, &At<Expression>),
        known: &BTreeMap<&str, Type>,
    ) -> Option<Type> {
        let fixed = match operator {
            Operator::And => Some(Type::Set),
            Operator::Multiply | Operator::Divide => Some(Type::Number),
            Operator::Add | Operator::Subtract => None,
        };
        if let Some(want) = fixed {
            let good = self.want(left, want, known) & self.want(right, want, known);
            if operator == Operator::Divide && right.value == Expression::Number(0) {
                self.error(Code::OutOfRange, right.span, "a division by zero");
            }
            return fixed.filter(|_| good);
        }
        let want = self.type_of(left, known)?;
        self.want(right, want, known).then_some(want)
    }

    fn picked_classes(&mut self) {
        let khan = &self.application.khan;
        for (_, pick) in khan.picks() {
            self.known_class(&pick.class.value, pick.class.span);
            for other in pick.near.iter().chain(&pick.apart) {
                self.known_class(&other.value, other.span);
            }
            for condition in &pick.after {
                self.known_class(&condition.class.value, condition.class.span);
            }
            if let Some(at) = negative(pick) {
                let message = "a count below zero places nothing";
                self.push(|files| {
                    files
                        .error(Code::OutOfRange, at, message)
                        .expecting("0 or more")
                });
            }
        }
        let classes: Vec<(&str, Span)> = khan
            .picks()
            .map(|(_, pick)| (pick.class.value.as_str(), pick.class.span))
            .collect();
        self.distinct(classes, "is picked twice");
    }

    fn conditions(&mut self) {
        let picks: Vec<&'a Pick> = self
            .application
            .khan
            .picks()
            .map(|(_, pick)| pick)
            .collect();
        let mut index: BTreeMap<&str, usize> = BTreeMap::new();
        for (at, pick) in picks.iter().enumerate() {
            index.entry(pick.class.value.as_str()).or_insert(at);
        }
        let mut needs = vec![Vec::new(); picks.len()];
        for (at, pick) in picks.iter().enumerate() {
            for condition in &pick.after {
                let class = condition.class.value.as_str();
                match index.get(class) {
                    Some(other) => needs[at].push(*other),
                    // An unknown class is told as such.
                    None if self.application.begat.run(class).is_none() => {}
                    None => self.idle(condition.span, "holds always: the class is not placed"),
                }
                if matches!(condition.least.value, Share::Percent(0) | Share::Count(0)) {
                    self.idle(condition.least.span, "holds always: nothing need be ready");
                }
            }
            needs[at].sort_unstable();
            needs[at].dedup();
        }
        let names: Vec<(&str, Span)> = picks
            .iter()
            .map(|pick| (pick.class.value.as_str(), pick.class.span))
            .collect();
        self.circles(&names, &needs, "classes wait for each other in a circle");
    }

    fn idle(&mut self, span: Span, how: &str) {
        if !self.application.khan.lost.is_any() {
            let message = format!("this condition {how}");
            self.push(|files| files.error(Code::IdleCondition, span, message).as_warning());
        }
    }

    /// A class of the application's own files that nothing places, and nothing else mentions.
    fn never_placed(&mut self) {
        let Application {
            files, khan, begat, ..
        } = self.application;
        // One that is unknown may be meant to be one that is never placed.
        let unknown = khan
            .picks()
            .any(|(_, pick)| begat.run(&pick.class.value).is_none());
        if khan.lost.is_any() || unknown {
            return;
        }
        let placed: BTreeSet<&str> = khan
            .picks()
            .map(|(_, pick)| pick.class.value.as_str())
            .collect();
        for rule in &begat.runs {
            let library = files
                .get(rule.class.span.file)
                .is_some_and(|file| file.library);
            if library || placed.contains(rule.class.value.as_str()) {
                continue;
            }
            self.push(|files| {
                let name = &rule.class.value;
                let message = format!("the class {} is never placed", shown(name));
                let found = files.error(Code::NeverPlaced, rule.class.span, message);
                found
                    .expecting(format!("pick({name}, …) in a khan file"))
                    .as_warning()
            });
        }
    }
}

/// The place of a count that is below zero whatever the membership.
fn negative(pick: &Pick) -> Option<Span> {
    match &pick.count.value {
        Expression::Minus(inner) => match inner.value {
            Expression::Number(number) if number > 0 => Some(pick.count.span),
            _ => None,
        },
        _ => None,
    }
}

impl KhanFile {
    /// Names bound, with the first statement that binds each.
    fn bound(&self) -> BTreeMap<&str, usize> {
        let mut index = BTreeMap::new();
        for (at, statement) in self.statements.iter().enumerate() {
            if let Some(name) = &statement.name {
                index.entry(name.value.as_str()).or_insert(at);
            }
        }
        index
    }

    /// For each statement the statements whose names it uses, ascending, each once.
    fn needs(&self) -> Vec<Vec<usize>> {
        let index = self.bound();
        let needs = |statement: &At<Statement>| {
            let mut needs: Vec<usize> = statement
                .names()
                .filter_map(|used| index.get(used.value).copied())
                .collect();
            needs.sort_unstable();
            needs.dedup();
            needs
        };
        self.statements.iter().map(needs).collect()
    }

    /// The statements in an order in which each stands behind those whose names it uses.
    ///
    /// Statements in a circle, and what needs them, are left out; checking has reported them.
    #[must_use]
    pub fn order(&self) -> Vec<usize> {
        super::sorted(&self.needs()).0
    }
}

impl Statement {
    /// The names it uses, with their places.
    fn names(&self) -> impl Iterator<Item = At<&str>> {
        let mut used = Vec::new();
        let parts = match &self.body {
            Body::Pick(pick) => vec![&pick.count, &pick.set],
            Body::Value(value) => vec![value],
        };
        for part in parts {
            Expression::walk(part, &mut |at| {
                if let Expression::Name(name) = &at.value {
                    used.push(At::new(name.as_str(), at.span));
                }
            });
        }
        used.into_iter()
    }
}
