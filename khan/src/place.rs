//! Which rnode runs which instance.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crux_core::adf::khan::{Condition, Share};
use crux_core::digest::Digest;

use crate::compile::{Act, PickStep, Program};
use crate::evaluate::{Scope, Value};
use crate::view::{Rnode, Standing, View};

/// Where everything runs, and what does not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placement {
    /// For every member, by permanent name, what it runs, sorted; empty if nothing.
    pub rnodes: BTreeMap<String, Vec<Assigned>>,
    /// Every class of the program, in the order of evaluation.
    pub classes: Vec<ClassReport>,
    /// What was odd but did not stop the placement, in the order of evaluation.
    pub warnings: Vec<Warning>,
}

/// An instance on its rnode.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Assigned {
    /// Class.
    pub class: String,
    /// Its number within the class: unique, and kept as long as it is held.
    ///
    /// A new instance takes the lowest free number, so that numbers are below the count unless
    /// an instance with a lower one was lost while the count fell.
    pub index: u32,
    /// Instances of the class that are wanted.
    pub count: u32,
    /// Why it must not be started yet; `None`: it may.
    pub held: Option<String>,
}

/// An instance and its rnode.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placed {
    /// Class.
    pub class: String,
    /// Its number within the class.
    pub index: u32,
    /// Permanent name of its rnode.
    pub rnode: String,
    /// Label of its rnode.
    pub label: String,
}

/// What became of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassReport {
    /// Class.
    pub class: String,
    /// Instances asked for.
    pub wanted: u32,
    /// Instances placed, ascending by number.
    pub placed: Vec<Placed>,
    /// What is missing.
    pub short: Option<Short>,
    /// Why its instances must not be started yet.
    pub held: Option<String>,
}

/// Instances that found no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Short {
    /// How many.
    pub by: u32,
    /// The constraints that leave no room for them.
    pub reason: String,
}

/// Something odd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Class or name of the statement.
    pub subject: String,
    /// What.
    pub message: String,
}

impl Placement {
    /// All instances, sorted by class, then number.
    #[must_use]
    pub fn instances(&self) -> Vec<Placed> {
        let mut all: Vec<Placed> = self
            .classes
            .iter()
            .flat_map(|class| class.placed.iter().cloned())
            .collect();
        all.sort();
        all
    }

    /// What became of the class `name`.
    #[must_use]
    pub fn class(&self, name: &str) -> Option<&ClassReport> {
        self.classes.iter().find(|class| class.class == name)
    }

    /// True if every instance that is wanted has a place.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.classes.iter().all(|class| class.short.is_none())
    }
}

/// Places a program's instances on the members of a view.
///
/// - At most one instance of a class runs on a rnode.
/// - Instances keep their rnode and number while their set still holds the rnode and their count
///   has room; beyond the count those on silent rnodes go first, then the highest numbers.
/// - New instances go to the rnodes of the set with the highest weight, a hash of class and label:
///   so nothing else moves when a member comes or goes, a plan names the rnodes before they exist,
///   and who replaces a machine under its label gets what it had.
/// - What does not fit is left out and reported with the constraint.
///
/// Source: requirements KHN-01, 05, 07, 08; rendezvous hashing (Thaler and Ravishankar, 1998).
#[must_use]
pub fn place(program: &Program, view: &View) -> Placement {
    let mut rnodes = view.rnodes.clone();
    rnodes.sort();
    rnodes.dedup_by(|right, left| right.id == left.id);
    let mut placer = Placer {
        view,
        placement: Placement::default(),
        holders: holders(view, &rnodes),
    };
    let mut scope = Scope {
        rnodes: &rnodes,
        names: BTreeMap::new(),
        divided_by_zero: false,
    };
    for step in &program.steps {
        let (value, subject) = match &step.act {
            Act::Value(expression) => (scope.value(expression), step.name.clone()),
            Act::Pick(pick) => (placer.pick(pick, &mut scope), Some(pick.class.clone())),
        };
        if std::mem::take(&mut scope.divided_by_zero) {
            placer.warn(
                subject.as_deref().unwrap_or(""),
                "a division by zero is taken as 0",
            );
        }
        if let Some(name) = &step.name {
            scope.names.insert(name, value);
        }
    }
    placer.hold(program);
    placer.group(&rnodes);
    placer.placement
}

/// For each class the held numbers and the position of their rnode: one a number, one a rnode.
type Holders<'a> = BTreeMap<&'a str, BTreeMap<u32, usize>>;

fn holders<'a>(view: &'a View, rnodes: &[Rnode]) -> Holders<'a> {
    let position = |id: &str| {
        rnodes
            .binary_search_by(|rnode| rnode.id.as_str().cmp(id))
            .ok()
    };
    let mut sorted: Vec<_> = view
        .holders
        .iter()
        .filter_map(|holder| Some((holder, position(&holder.rnode)?)))
        .collect();
    // Where a number is held twice, after a split, the heavier rnode keeps it.
    sorted.sort_by_cached_key(|(holder, at)| {
        let weight = std::cmp::Reverse(weight(&holder.class, &rnodes[*at]));
        (holder.class.clone(), holder.index, weight, *at)
    });
    let mut holders: Holders<'a> = BTreeMap::new();
    for (holder, at) in sorted {
        let class = holders.entry(holder.class.as_str()).or_default();
        if !class.values().any(|held| *held == at) {
            class.entry(holder.index).or_insert(at);
        }
    }
    holders
}

/// How much a class prefers a rnode; equal for two that both claim a label, until one gives way.
fn weight(class: &str, rnode: &Rnode) -> [u8; 32] {
    let text = format!("khan-weight/1\n{class}\n{}\n", rnode.label);
    *Digest::of(text.as_bytes()).as_bytes()
}

struct Placer<'a> {
    view: &'a View,
    placement: Placement,
    holders: Holders<'a>,
}

impl Placer<'_> {
    fn warn(&mut self, subject: &str, message: &str) {
        let (subject, message) = (subject.to_owned(), message.to_owned());
        self.placement.warnings.push(Warning { subject, message });
    }

    /// Places a class; the value is the set of rnodes that have an instance.
    fn pick(&mut self, pick: &PickStep, scope: &mut Scope<'_>) -> Value {
        let count = scope.number(&pick.count);
        let wanted = u32::try_from(count.max(0)).unwrap_or(u32::MAX);
        if count < 0 {
            self.warn(
                &pick.class,
                &format!("its count comes to {count}; none is placed"),
            );
        }
        let set = scope.set(&pick.set);
        let barred = |at: &usize| {
            let key = (pick.class.clone(), scope.rnodes[*at].id.clone());
            self.view.barred.contains(&key)
        };
        let candidates: BTreeSet<usize> = set.iter().copied().filter(|at| !barred(at)).collect();
        let chosen = self.choose(&pick.class, wanted, &candidates, scope.rnodes);
        let placed: Vec<Placed> = chosen
            .iter()
            .map(|(index, at)| Placed {
                class: pick.class.clone(),
                index: *index,
                rnode: scope.rnodes[*at].id.clone(),
                label: scope.rnodes[*at].label.clone(),
            })
            .collect();
        let got = u32::try_from(placed.len()).unwrap_or(u32::MAX);
        let short = (got < wanted).then(|| Short {
            by: wanted - got,
            reason: reason(pick, &set, &candidates, scope.rnodes),
        });
        let class = pick.class.clone();
        let report = ClassReport {
            class,
            wanted,
            placed,
            short,
            held: None,
        };
        self.placement.classes.push(report);
        Value::Set(chosen.into_values().collect())
    }

    /// Numbers and rnodes: first those held, then new ones by weight.
    fn choose(
        &self,
        class: &str,
        wanted: u32,
        candidates: &BTreeSet<usize>,
        rnodes: &[Rnode],
    ) -> BTreeMap<u32, usize> {
        let wanted = wanted as usize;
        let mut kept: Vec<(u32, usize)> = self
            .holders
            .get(class)
            .into_iter()
            .flatten()
            .map(|(index, at)| (*index, *at))
            .filter(|(_, at)| candidates.contains(at))
            .collect();
        kept.sort_by_key(|(index, at)| (rnodes[*at].standing, *index));
        kept.truncate(wanted);
        let mut chosen: BTreeMap<u32, usize> = kept.into_iter().collect();
        if chosen.len() == wanted {
            return chosen;
        }
        let taken: BTreeSet<usize> = chosen.values().copied().collect();
        let mut free: Vec<usize> = candidates
            .iter()
            .copied()
            .filter(|at| rnodes[*at].standing == Standing::Live && !taken.contains(at))
            .collect();
        free.sort_by_cached_key(|at| std::cmp::Reverse(weight(class, &rnodes[*at])));
        let mut next = 0;
        for at in free.into_iter().take(wanted - chosen.len()) {
            while chosen.contains_key(&next) {
                next += 1;
            }
            chosen.insert(next, at);
        }
        chosen
    }

    /// Says which classes wait for others.
    fn hold(&mut self, program: &Program) {
        for step in &program.steps {
            let Act::Pick(pick) = &step.act else {
                continue;
            };
            if self.view.released.contains(&pick.class) {
                continue;
            }
            let waits: Vec<String> = pick
                .after
                .iter()
                .filter_map(|condition| self.waits(condition))
                .collect();
            let report = self
                .placement
                .classes
                .iter_mut()
                .find(|report| report.class == pick.class);
            if let (Some(report), false) = (report, waits.is_empty()) {
                report.held = Some(waits.join("; "));
            }
        }
    }

    /// What is missing for a condition to hold; `None` if it holds. An empty class always does.
    fn waits(&self, condition: &Condition) -> Option<String> {
        let class = &condition.class.value;
        let wanted = self
            .placement
            .class(class)
            .map_or(0, |report| report.wanted);
        let least = match condition.least.value {
            Share::Percent(percent) => {
                let hundredths = u64::from(percent) * u64::from(wanted);
                u32::try_from(hundredths.div_ceil(100)).unwrap_or(u32::MAX)
            }
            Share::Count(count) => count,
        };
        let ready = self.view.ready.get(class).copied().unwrap_or(0);
        let waits = wanted > 0 && ready < least;
        waits.then(|| format!("waits for {least} of {wanted} {class} to be ready; {ready} so far"))
    }

    fn group(&mut self, rnodes: &[Rnode]) {
        let mut grouped: BTreeMap<String, Vec<Assigned>> = rnodes
            .iter()
            .map(|rnode| (rnode.id.clone(), Vec::new()))
            .collect();
        for report in &self.placement.classes {
            for placed in &report.placed {
                grouped
                    .entry(placed.rnode.clone())
                    .or_default()
                    .push(Assigned {
                        class: placed.class.clone(),
                        index: placed.index,
                        count: report.wanted,
                        held: report.held.clone(),
                    });
            }
        }
        grouped.values_mut().for_each(|assigned| assigned.sort());
        self.placement.rnodes = grouped;
    }
}

/// Names the constraints that leave too few rnodes.
fn reason(
    pick: &PickStep,
    set: &BTreeSet<usize>,
    candidates: &BTreeSet<usize>,
    rnodes: &[Rnode],
) -> String {
    let all = rnodes.len();
    let mut reason = if set.len() == all {
        format!("at most one runs on a rnode, and there are {all}")
    } else {
        let (size, text) = (set.len(), &pick.set);
        format!("at most one runs on a rnode, and `{text}` holds {size} of {all}")
    };
    let labels = |positions: Vec<usize>| {
        let labels: Vec<&str> = positions
            .iter()
            .map(|at| rnodes[*at].label.as_str())
            .collect();
        labels.join(", ")
    };
    let barred: Vec<usize> = set.difference(candidates).copied().collect();
    if !barred.is_empty() {
        reason.push_str(&format!("; it gave up on {}", labels(barred)));
    }
    let silent = |at: &usize| rnodes[*at].standing == Standing::Silent;
    let silent: Vec<usize> = candidates.iter().copied().filter(silent).collect();
    if !silent.is_empty() {
        reason.push_str(&format!("; silent: {}", labels(silent)));
    }
    reason
}

/// A line a class: `prog1 2 of 2: 0 on n3, 1 on n5`.
impl fmt::Display for Placement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for report in &self.classes {
            let placed: Vec<String> = report
                .placed
                .iter()
                .map(|placed| format!("{} on {}", placed.index, placed.label))
                .collect();
            write!(
                out,
                "{} {} of {}",
                report.class,
                report.placed.len(),
                report.wanted
            )?;
            if !placed.is_empty() {
                write!(out, ": {}", placed.join(", "))?;
            }
            writeln!(out)?;
            if let Some(short) = &report.short {
                writeln!(out, "  short by {}: {}", short.by, short.reason)?;
            }
            if let Some(held) = &report.held {
                writeln!(out, "  {held}")?;
            }
        }
        self.warnings.iter().try_for_each(|warning| {
            writeln!(out, "warning: {}: {}", warning.subject, warning.message)
        })
    }
}
