//! `pick(…)` and the clauses behind it.

use super::super::{Amount, Condition, Pick, Resource, Share};
use super::{Cursor, Parsed, Wrong};
use crate::adf::diagnostic::Code;
use crate::adf::lexer::TokenKind;
use crate::adf::limits::{COUNT_MAX, WORDS_MAX};
use crate::adf::nearest::nearest;
use crate::adf::reader::shown;
use crate::adf::source::{At, Span};

const CLAUSES: [&str; 6] = ["after", "requests", "limits", "spread", "near", "apart"];

impl Cursor<'_, '_, '_> {
    /// A pick; the next token is the word.
    pub(super) fn pick(&mut self) -> Parsed<Pick> {
        self.at += 1;
        self.need('(', "pick(class, count, set)")?;
        let class = self.need_name("a class")?;
        self.argument(&class.value, "count")?;
        let count = self.expression()?;
        self.argument("count", "set")?;
        let set = self.expression()?;
        if let Some(token) = self.peek().filter(|token| token.is(',')) {
            let texts = ("pick takes three arguments", "`)`");
            self.reader
                .expected(Code::WrongArguments, token.span, texts);
            return Err(Wrong);
        }
        self.need(')', "`)` or an operator")?;
        let mut pick = Pick {
            class,
            count,
            set,
            requests: Vec::new(),
            limits: Vec::new(),
            spread: None,
            near: Vec::new(),
            apart: Vec::new(),
            after: Vec::new(),
        };
        while self.peek().is_some() {
            self.clause(&mut pick)?;
        }
        Ok(pick)
    }

    /// The comma before the argument `next`.
    fn argument(&mut self, before: &str, next: &str) -> Parsed<()> {
        if let Some(token) = self.peek().filter(|token| token.is(')')) {
            let message = format!("pick has no {next} after {}", shown(before));
            self.reader.expected(
                Code::WrongArguments,
                token.span,
                (&message, "pick(class, count, set)"),
            );
            return Err(Wrong);
        }
        self.need(',', "`,` or an operator").map(|_| ())
    }

    fn clause(&mut self, pick: &mut Pick) -> Parsed<()> {
        let Some(token) = self.peek() else {
            return Ok(());
        };
        if token.kind != TokenKind::Name {
            return Err(self.unexpected(token, "after, requests, limits, spread, near or apart"));
        }
        self.at += 1;
        match self.reader.text(token.span) {
            "after" => self.after(pick),
            "requests" => self.amounts(&mut pick.requests),
            "limits" => self.amounts(&mut pick.limits),
            "spread" => self.spread(token.span, pick),
            "near" => self.class_list(&mut pick.near),
            "apart" => self.class_list(&mut pick.apart),
            other => {
                let near = nearest(other, CLAUSES);
                self.reader.push(|files| {
                    let message = format!("{} does not belong here", shown(other));
                    let found = files.error(Code::Syntax, token.span, message);
                    found
                        .expecting("after, requests, limits, spread, near or apart")
                        .suggesting(near)
                });
                Err(Wrong)
            }
        }
    }

    fn after(&mut self, pick: &mut Pick) -> Parsed<()> {
        loop {
            let condition = self.condition()?;
            pick.after.push(condition);
            if self.word() != Some("and") || pick.after.len() >= WORDS_MAX {
                return Ok(());
            }
            self.at += 1;
        }
    }

    fn condition(&mut self) -> Parsed<At<Condition>> {
        let form = "ready(class) >= 50%";
        let Some(start) = self.peek() else {
            return Err(self.ended(form));
        };
        if self.word() != Some("ready") {
            return Err(self.unexpected(start, form));
        }
        self.at += 1;
        self.need('(', form)?;
        let class = self.need_name("a class")?;
        self.need(')', "`)`")?;
        self.need('>', "`>=`")?;
        self.need('=', "`>=`")?;
        let number = self.digits("a percentage or a number")?;
        let percent = self.peek().filter(|token| token.is('%'));
        let span = percent.map_or(number.span, |token| number.span.to(token.span));
        self.at += usize::from(percent.is_some());
        let least = if percent.is_some() {
            Share::Percent(self.within(number, 100, span)?)
        } else {
            Share::Count(self.within(number, COUNT_MAX.unsigned_abs(), span)?)
        };
        let span_all = start.span.to(span);
        Ok(At::new(
            Condition {
                class,
                least: At::new(least, span),
            },
            span_all,
        ))
    }

    fn within(&mut self, number: At<u64>, most: u64, span: Span) -> Parsed<u32> {
        match u32::try_from(number.value) {
            Ok(value) if number.value <= most => Ok(value),
            _ => {
                let expected = format!("at most {most}");
                self.reader.expected(
                    Code::OutOfRange,
                    span,
                    ("the number is too large", &expected),
                );
                Err(Wrong)
            }
        }
    }

    fn spread(&mut self, span: Span, pick: &mut Pick) -> Parsed<()> {
        self.need('(', "spread(\"compartment\")")?;
        let start = self.peek().map(|token| token.span).unwrap_or(span);
        let label = self.quoted("a kind of compartment in quotes")?;
        self.need(')', "`)`")?;
        if pick.spread.is_some() {
            self.reader
                .error(Code::Redefined, span, "a pick has one spread");
        }
        pick.spread = Some(At::new(label, start));
        Ok(())
    }

    fn class_list(&mut self, list: &mut Vec<At<String>>) -> Parsed<()> {
        self.need('(', "`(` and a class")?;
        loop {
            list.push(self.need_name("a class")?);
            if !self.take(',') {
                return self.need(')', "`,` or `)`").map(|_| ());
            }
        }
    }

    fn amounts(&mut self, list: &mut Vec<At<Amount>>) -> Parsed<()> {
        self.need('(', "(cpu = 2, memory = 256Mi)")?;
        loop {
            let amount = self.amount()?;
            if list.iter().any(|other| other.resource == amount.resource) {
                let message = format!("{} is given twice", amount.resource.word());
                self.reader.error(Code::Redefined, amount.span, message);
            }
            list.push(amount);
            if !self.take(',') {
                return self.need(')', "`,` or `)`").map(|_| ());
            }
        }
    }

    fn amount(&mut self) -> Parsed<At<Amount>> {
        let name = self.need_name("cpu, memory or storage")?;
        let known = [Resource::Cpu, Resource::Memory, Resource::Storage];
        let Some(resource) = known.into_iter().find(|known| known.word() == name.value) else {
            let near = nearest(&name.value, known.map(Resource::word));
            self.reader.push(|files| {
                let message = format!("{} is not a resource", shown(&name.value));
                let found = files.error(Code::UnknownKey, name.span, message);
                found.expecting("cpu, memory or storage").suggesting(near)
            });
            return Err(Wrong);
        };
        self.need('=', "`=`")?;
        let number = self.digits("an amount")?;
        let unit = self
            .peek()
            .filter(|token| token.kind == TokenKind::Name && !token.spaced);
        self.at += usize::from(unit.is_some());
        let unit_text = unit.map_or("", |token| self.reader.text(token.span));
        let span = unit.map_or(number.span, |token| number.span.to(token.span));
        let value = factor(resource, unit_text).and_then(|times| number.value.checked_mul(times));
        let Some(value) = value else {
            let message = format!(
                "{} is not an amount of {}",
                shown(self.reader.text(span)),
                resource.word()
            );
            let expected = match resource {
                Resource::Cpu => "CPUs, or thousandths with m",
                Resource::Memory | Resource::Storage => {
                    "bytes, or with k, M, G, T, Ki, Mi, Gi or Ti"
                }
            };
            self.reader
                .expected(Code::BadValue, span, (&message, expected));
            return Err(Wrong);
        };
        let resource = At::new(resource, name.span);
        Ok(At::new(
            Amount {
                resource,
                quantity: value,
            },
            name.span.to(span),
        ))
    }
}

/// What a unit multiplies by.
fn factor(resource: Resource, unit: &str) -> Option<u64> {
    match (resource, unit) {
        (Resource::Cpu, "") => Some(1000),
        (Resource::Cpu, "m") | (Resource::Memory | Resource::Storage, "") => Some(1),
        (Resource::Cpu, _) => None,
        (_, "k") => Some(1000),
        (_, "M") => Some(1_000_000),
        (_, "G") => Some(1_000_000_000),
        (_, "T") => Some(1_000_000_000_000),
        (_, "Ki") => Some(1 << 10),
        (_, "Mi") => Some(1 << 20),
        (_, "Gi") => Some(1 << 30),
        (_, "Ti") => Some(1 << 40),
        _ => None,
    }
}
