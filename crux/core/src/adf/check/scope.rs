//! One scope for the four files, and orders without circles.

use std::collections::BTreeMap;

use super::Checker;
use crate::adf::diagnostic::Code;
use crate::adf::reader::shown;
use crate::adf::source::{FileKind, Span};

impl Checker<'_> {
    /// Classes, dictums, lets and khan's names share one scope.
    pub(super) fn scope(&mut self) {
        let begat = &self.application.begat;
        let lets = begat.lets.iter().map(|binding| &binding.name);
        let classes = begat.runs.iter().map(|rule| &rule.class);
        let dictums = begat
            .builds
            .iter()
            .filter_map(|rule| rule.target.as_text().map(|text| (text, rule.target.span)));
        let bound = self
            .application
            .khan
            .statements
            .iter()
            .filter_map(|one| one.name.as_ref());
        let named = lets
            .chain(classes)
            .chain(bound)
            .map(|name| (name.value.as_str(), name.span));
        let mut all: Vec<(&str, Span)> = named.chain(dictums).collect();
        // Of two the one reported is the later, or that of the including file, or of a later kind.
        let files = &self.application.files;
        let kind = |span: &Span| {
            files
                .get(span.file)
                .and_then(|file| FileKind::of_name(&file.name))
        };
        all.sort_by_key(|(_, span)| (kind(span), std::cmp::Reverse(span.file), span.start));
        self.distinct(all, "is defined twice");
        let commands = &self.application.rexec.commands;
        let names = commands
            .iter()
            .map(|command| (command.name.value.as_str(), command.name.span));
        self.distinct(names.collect::<Vec<_>>(), "is defined twice");
    }

    /// Reports definitions that need each other in a circle.
    pub(super) fn circles(&mut self, names: &[(&str, Span)], needs: &[Vec<usize>], how: &str) {
        for circle in sorted(needs).1 {
            let listed: Vec<String> = circle
                .iter()
                .chain(circle.first())
                .map(|at| shown(names[*at].0))
                .collect();
            let message = format!("{how}: {}", listed.join(" → "));
            let rest = &circle[1..];
            let first = names[circle[0]].1;
            self.push(|files| {
                let found = files.error(Code::Cycle, first, message);
                rest.iter().fold(found, |found, at| {
                    found.relating(files.related(names[*at].1, "part of the circle"))
                })
            });
        }
    }
}

/// Orders `0..needs.len()` so that each stands behind all it needs; smaller numbers first.
///
/// The second part holds the circles found, each once, beginning with its smallest number; what is
/// in a circle or needs one is not in the order.
pub(in crate::adf) fn sorted(needs: &[Vec<usize>]) -> (Vec<usize>, Vec<Vec<usize>>) {
    let mut waiting: Vec<usize> = needs.iter().map(Vec::len).collect();
    let mut users: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (user, needed) in needs.iter().enumerate() {
        for one in needed {
            users.entry(*one).or_default().push(user);
        }
    }
    let free = (0..needs.len()).filter(|one| waiting[*one] == 0);
    let mut free: std::collections::BTreeSet<usize> = free.collect();
    let mut order = Vec::new();
    while let Some(one) = free.pop_first() {
        order.push(one);
        for user in users.get(&one).into_iter().flatten() {
            waiting[*user] -= 1;
            if waiting[*user] == 0 {
                free.insert(*user);
            }
        }
    }
    (order, circles(needs, &waiting))
}

/// The circles among those still waiting: each has at least one need that still waits.
fn circles(needs: &[Vec<usize>], waiting: &[usize]) -> Vec<Vec<usize>> {
    let mut seen = vec![false; needs.len()];
    let mut circles = Vec::new();
    for start in (0..needs.len()).filter(|one| waiting[*one] > 0) {
        let mut way: Vec<usize> = Vec::new();
        let mut at = start;
        while !seen[at] {
            seen[at] = true;
            way.push(at);
            let next = needs[at].iter().copied().find(|one| waiting[*one] > 0);
            at = next.unwrap_or(at);
        }
        if let Some(begin) = way.iter().position(|one| *one == at) {
            let mut circle = way.split_off(begin);
            let least = circle.iter().enumerate().min_by_key(|(_, one)| **one);
            let least = least.map_or(0, |(index, _)| index);
            circle.rotate_left(least);
            circles.push(circle);
        }
    }
    circles
}
