//! From the tree to a program that can be placed.

use std::collections::BTreeSet;

use crux_core::adf::begat::State;
use crux_core::adf::khan::{Body, Condition, Expression, Pick};
use crux_core::adf::{Application, At, Code, Diagnostic, Span};

/// What is to run, in the order in which it can be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Program {
    pub(crate) steps: Vec<Step>,
}

/// A statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// Name that its value is bound to.
    pub(crate) name: Option<String>,
    /// What it asks for.
    pub(crate) act: Act,
}

/// What a statement asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    /// Evaluate.
    Value(Expression),
    /// Place.
    Pick(PickStep),
}

/// `pick(class, count, set) after …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PickStep {
    pub(crate) class: String,
    pub(crate) count: Expression,
    pub(crate) set: Expression,
    pub(crate) after: Vec<Condition>,
}

impl Program {
    /// The classes it places, in the order of evaluation.
    pub fn classes(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(|step| match &step.act {
            Act::Pick(pick) => Some(pick.class.as_str()),
            Act::Value(_) => None,
        })
    }
}

/// Compiles the picks of an application that was checked without errors.
///
/// # Errors
///
/// What its files ask for that is not available yet, each with its place; all at once.
pub fn compile(application: &Application) -> Result<Program, Vec<Diagnostic>> {
    let mut refused = Vec::new();
    let mut placed: BTreeSet<&str> = BTreeSet::new();
    for (_, pick) in application.khan.picks() {
        clauses(application, pick, &mut refused);
        if placed.insert(&pick.class.value) {
            attributes(application, pick, &mut refused);
        }
    }
    for statement in &application.khan.statements {
        for part in expressions(&statement.body) {
            compartments(application, part, &mut refused);
        }
    }
    if !refused.is_empty() {
        refused.sort_by_key(|found| (found.file.clone(), found.place.bytes.start));
        return Err(refused);
    }
    let step = |index: usize| {
        let statement = &application.khan.statements[index];
        let act = match &statement.body {
            Body::Value(value) => Act::Value(value.value.clone()),
            Body::Pick(pick) => Act::Pick(pick_step(pick)),
        };
        let name = statement.name.as_ref().map(|name| name.value.clone());
        Step { name, act }
    };
    let steps = application.khan.order().into_iter().map(step).collect();
    Ok(Program { steps })
}

fn pick_step(pick: &Pick) -> PickStep {
    PickStep {
        class: pick.class.value.clone(),
        count: pick.count.value.clone(),
        set: pick.set.value.clone(),
        after: pick.after.iter().map(|one| one.value.clone()).collect(),
    }
}

fn expressions(body: &Body) -> Vec<&At<Expression>> {
    match body {
        Body::Value(value) => vec![value],
        Body::Pick(pick) => vec![&pick.count, &pick.set],
    }
}

fn refuse(application: &Application, refused: &mut Vec<Diagnostic>, span: Span, what: &str) {
    let message = format!("{what} is not available yet");
    let found = application.files.error(Code::Unsupported, span, message);
    refused.push(found);
}

fn clauses(application: &Application, pick: &Pick, refused: &mut Vec<Diagnostic>) {
    let lists = [
        ("requests(…)", pick.requests.first().map(|one| one.span)),
        ("limits(…)", pick.limits.first().map(|one| one.span)),
        ("spread(…)", pick.spread.as_ref().map(|one| one.span)),
        ("near(…)", pick.near.first().map(|one| one.span)),
        ("apart(…)", pick.apart.first().map(|one| one.span)),
    ];
    for (what, span) in lists {
        if let Some(span) = span {
            refuse(application, refused, span, what);
        }
    }
}

fn attributes(application: &Application, pick: &Pick, refused: &mut Vec<Diagnostic>) {
    let Some(rule) = application.class(&pick.class.value) else {
        return;
    };
    if let Some(span) = rule.single() {
        // Needs a lease from a seated leader, and there are no seats yet.
        refuse(application, refused, span, "`single`");
    }
    if rule.state() == State::Volume {
        refuse(application, refused, rule.class.span, "`state=volume`");
    }
}

fn compartments(
    application: &Application,
    expression: &At<Expression>,
    refused: &mut Vec<Diagnostic>,
) {
    Expression::walk(expression, &mut |part| {
        if matches!(part.value, Expression::In(_)) {
            refuse(application, refused, part.span, "in(…)");
        }
    });
}
