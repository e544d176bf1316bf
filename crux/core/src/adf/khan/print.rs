//! From a [`KhanFile`] back to text.

use std::fmt;

use super::{Amount, Body, Condition, Expression, KhanFile, Pick, Resource, Share, Statement};
use crate::adf::source::At;

impl fmt::Display for KhanFile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for include in &self.includes {
            writeln!(out, "include({})", include.value)?;
        }
        self.statements
            .iter()
            .try_for_each(|statement| writeln!(out, "{}", statement.value))
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(out, "{} := ", name.value)?;
        }
        match &self.body {
            Body::Pick(pick) => pick.fmt(out),
            Body::Value(value) => value.value.fmt(out),
        }
    }
}

impl fmt::Display for Pick {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "pick({}, {}, {})",
            self.class.value, self.count.value, self.set.value
        )?;
        amounts(out, "requests", &self.requests)?;
        amounts(out, "limits", &self.limits)?;
        if let Some(spread) = &self.spread {
            write!(out, " spread(\"{}\")", spread.value)?;
        }
        for (word, classes) in [("near", &self.near), ("apart", &self.apart)] {
            if !classes.is_empty() {
                let classes: Vec<&str> = classes.iter().map(|class| class.value.as_str()).collect();
                write!(out, " {word}({})", classes.join(", "))?;
            }
        }
        for (index, condition) in self.after.iter().enumerate() {
            let word = if index == 0 { "after" } else { "and" };
            write!(out, " {word} {}", condition.value)?;
        }
        Ok(())
    }
}

fn amounts(out: &mut fmt::Formatter<'_>, word: &str, amounts: &[At<Amount>]) -> fmt::Result {
    if amounts.is_empty() {
        return Ok(());
    }
    let amounts: Vec<String> = amounts
        .iter()
        .map(|amount| amount.value.to_string())
        .collect();
    write!(out, " {word}({})", amounts.join(", "))
}

impl fmt::Display for Amount {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if self.resource.value == Resource::Cpu {
            "m"
        } else {
            ""
        };
        write!(out, "{} = {}{unit}", self.resource.word(), self.quantity)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.least.value {
            Share::Percent(percent) => write!(out, "ready({}) >= {percent}%", self.class.value),
            Share::Count(count) => write!(out, "ready({}) >= {count}", self.class.value),
        }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(out, "{number}"),
            Self::All => out.write_str("ALL"),
            Self::Name(name) => out.write_str(name),
            Self::Size(set) => write!(out, "size({})", set.value),
            Self::Tag(label) => write!(out, "tag(\"{label}\")"),
            Self::In(label) => write!(out, "in(\"{label}\")"),
            Self::Not(inner) => operand(out, "~", inner, matches!(inner.value, Self::Binary(..))),
            Self::Minus(inner) => operand(out, "-", inner, matches!(inner.value, Self::Binary(..))),
            Self::Binary(operator, left, right) => {
                let tight = operator.binds_tighter();
                let looser = |side: &Self, same: bool| match side {
                    Self::Binary(inner, ..) => {
                        (tight && !inner.binds_tighter())
                            || (same && tight == inner.binds_tighter())
                    }
                    _ => false,
                };
                operand(out, "", left, looser(left, false))?;
                write!(out, " {} ", operator.sign())?;
                operand(out, "", right, looser(right, true))
            }
        }
    }
}

fn operand(
    out: &mut fmt::Formatter<'_>,
    sign: &str,
    inner: &At<Expression>,
    bracketed: bool,
) -> fmt::Result {
    if bracketed {
        write!(out, "{sign}({})", inner.value)
    } else {
        write!(out, "{sign}{}", inner.value)
    }
}
