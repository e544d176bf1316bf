//! The tree of a `.khan` file: how many, and where.
//!
//! Grammar: docs/formats/khan.md. What it means is crate `khan`'s business.

use super::include::Lost;
use super::source::At;

pub(super) mod parse;
mod print;

/// A `.khan` file, or several joined by includes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KhanFile {
    /// Names of included files, in order.
    pub includes: Vec<At<String>>,
    /// Statements, in order; each stands for itself, whatever its order.
    pub statements: Vec<At<Statement>>,
    /// What could not be read, so that it is not reported a second time as missing.
    pub(in crate::adf) lost: Lost,
}

/// `pick(…)`, `name := pick(…)` or `name := expression`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Name that the result is bound to.
    pub name: Option<At<String>>,
    /// What is bound or asked for.
    pub body: Body,
}

/// What a statement says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Instances of a class; its value is the set of rnodes chosen.
    Pick(Box<Pick>),
    /// A number or a set that others use.
    Value(At<Expression>),
}

/// `pick(class, count, set)` and what stands behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    /// Class.
    pub class: At<String>,
    /// How many instances are wanted: a number.
    pub count: At<Expression>,
    /// The rnodes to choose from: a set.
    pub set: At<Expression>,
    /// `requests(cpu = …)`: what each instance needs to find free.
    pub requests: Vec<At<Amount>>,
    /// `limits(cpu = …)`: what each instance may use.
    pub limits: Vec<At<Amount>>,
    /// `spread(compartment)`: the kind of compartment to be even over.
    pub spread: Option<At<String>>,
    /// `near(class)`: rnodes with an instance of that class only.
    pub near: Vec<At<String>>,
    /// `apart(class)`: rnodes without an instance of that class only.
    pub apart: Vec<At<String>>,
    /// `after …`: all must have held once before an instance starts.
    pub after: Vec<At<Condition>>,
}

/// An amount of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amount {
    /// Which resource.
    pub resource: At<Resource>,
    /// Thousandths of a CPU, or bytes.
    pub quantity: u64,
}

/// A resource of a rnode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// CPU time, in thousandths: `cpu = 2` is 2000, `cpu = 500m` is 500.
    Cpu,
    /// Memory in bytes: `memory = 256Mi`.
    Memory,
    /// Storage in bytes: `storage = 10Gi`.
    Storage,
}

/// `ready(class) >= 50%` or `ready(class) >= 2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Class whose ready instances count.
    pub class: At<String>,
    /// How many must be ready.
    pub least: At<Share>,
}

/// A share of the wanted count, or a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Percent of the wanted count, 0 to 100, rounded up.
    Percent(u32),
    /// Instances.
    Count(u32),
}

/// A number or a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// A number.
    Number(i64),
    /// `ALL`: all members.
    All,
    /// A name bound by a statement.
    Name(String),
    /// `size(set)`.
    Size(Box<At<Self>>),
    /// `tag("…")`: members with that tag.
    Tag(String),
    /// `in("…")`: members in that compartment.
    In(String),
    /// `~set`, or `!set`: the members that are not in it.
    Not(Box<At<Self>>),
    /// `-number`.
    Minus(Box<At<Self>>),
    /// Two operands.
    Binary(Operator, Box<At<Self>>, Box<At<Self>>),
}

/// What joins two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `+`: sum, or union.
    Add,
    /// `-`: difference of either kind.
    Subtract,
    /// `*`: product.
    Multiply,
    /// `/`: quotient, rounded down.
    Divide,
    /// `&`: intersection.
    And,
}

impl Operator {
    /// Its sign.
    #[must_use]
    pub const fn sign(self) -> char {
        match self {
            Self::Add => '+',
            Self::Subtract => '-',
            Self::Multiply => '*',
            Self::Divide => '/',
            Self::And => '&',
        }
    }

    /// True for those that bind tighter than `+` and `-`.
    #[must_use]
    pub const fn binds_tighter(self) -> bool {
        matches!(self, Self::Multiply | Self::Divide | Self::And)
    }
}

impl Resource {
    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Storage => "storage",
        }
    }
}

impl KhanFile {
    /// All picks, in order, each with the name it is bound to.
    pub fn picks(&self) -> impl Iterator<Item = (Option<&At<String>>, &Pick)> {
        self.statements
            .iter()
            .filter_map(|statement| match &statement.body {
                Body::Pick(pick) => Some((statement.name.as_ref(), pick.as_ref())),
                Body::Value(_) => None,
            })
    }
}

impl Expression {
    /// Calls `visit` for this and every expression within, with its place.
    pub fn walk<'e>(at: &'e At<Self>, visit: &mut impl FnMut(&'e At<Self>)) {
        visit(at);
        match &at.value {
            Self::Size(inner) | Self::Not(inner) | Self::Minus(inner) => Self::walk(inner, visit),
            Self::Binary(_, left, right) => {
                Self::walk(left, visit);
                Self::walk(right, visit);
            }
            Self::Number(_) | Self::All | Self::Name(_) | Self::Tag(_) | Self::In(_) => {}
        }
    }
}
