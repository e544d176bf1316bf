//! What expressions come to, given the members.

use std::collections::{BTreeMap, BTreeSet};

use crux_core::adf::khan::{Expression, Operator};

use crate::view::Rnode;

/// A number, or a set of positions in the sorted members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Number(i64),
    Set(BTreeSet<usize>),
}

/// Names bound so far, over sorted members.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) rnodes: &'a [Rnode],
    pub(crate) names: BTreeMap<&'a str, Value>,
    /// Set when a division by zero was taken as 0.
    pub(crate) divided_by_zero: bool,
}

impl Scope<'_> {
    /// All members.
    pub(crate) fn all(&self) -> BTreeSet<usize> {
        (0..self.rnodes.len()).collect()
    }

    /// A number; checked programs have no other type where one is asked for.
    pub(crate) fn number(&mut self, expression: &Expression) -> i64 {
        match self.value(expression) {
            Value::Number(number) => number,
            Value::Set(_) => 0,
        }
    }

    /// A set; checked programs have no other type where one is asked for.
    pub(crate) fn set(&mut self, expression: &Expression) -> BTreeSet<usize> {
        match self.value(expression) {
            Value::Set(set) => set,
            Value::Number(_) => BTreeSet::new(),
        }
    }

    /// The value of any expression. Numbers stay within 64 bits instead of overflowing.
    pub(crate) fn value(&mut self, expression: &Expression) -> Value {
        match expression {
            Expression::Number(number) => Value::Number(*number),
            Expression::All => Value::Set(self.all()),
            Expression::Name(name) => self
                .names
                .get(name.as_str())
                .cloned()
                .unwrap_or(Value::Set(BTreeSet::new())),
            Expression::Size(set) => {
                Value::Number(i64::try_from(self.set(set).len()).unwrap_or(i64::MAX))
            }
            Expression::Tag(tag) => {
                let tagged = |index: &usize| self.rnodes[*index].tags.contains(tag);
                Value::Set((0..self.rnodes.len()).filter(tagged).collect())
            }
            // Compiling refuses it.
            Expression::In(_) => Value::Set(BTreeSet::new()),
            Expression::Not(set) => {
                let inner = self.set(set);
                Value::Set(self.all().difference(&inner).copied().collect())
            }
            Expression::Minus(number) => Value::Number(self.number(number).saturating_neg()),
            Expression::Binary(operator, left, right) => {
                let (left, right) = (self.value(left), self.value(right));
                self.binary(*operator, left, right)
            }
        }
    }

    fn binary(&mut self, operator: Operator, left: Value, right: Value) -> Value {
        match (left, right) {
            (Value::Number(left), Value::Number(right)) => {
                Value::Number(self.arithmetic(operator, left, right))
            }
            (Value::Set(left), Value::Set(right)) => Value::Set(match operator {
                Operator::Add => left.union(&right).copied().collect(),
                Operator::Subtract => left.difference(&right).copied().collect(),
                Operator::And => left.intersection(&right).copied().collect(),
                Operator::Multiply | Operator::Divide => BTreeSet::new(),
            }),
            (Value::Number(_), Value::Set(_)) | (Value::Set(_), Value::Number(_)) => {
                Value::Set(BTreeSet::new())
            }
        }
    }

    fn arithmetic(&mut self, operator: Operator, left: i64, right: i64) -> i64 {
        match operator {
            Operator::Add => left.saturating_add(right),
            Operator::Subtract => left.saturating_sub(right),
            Operator::Multiply => left.saturating_mul(right),
            Operator::Divide if right == 0 => {
                self.divided_by_zero = true;
                0
            }
            // Rounded down also below zero.
            Operator::Divide => {
                let quotient = left.saturating_div(right);
                let inexact = left % right != 0 && (left < 0) != (right < 0);
                quotient - i64::from(inexact)
            }
            Operator::And => 0,
        }
    }
}
