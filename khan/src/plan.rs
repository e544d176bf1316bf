//! What must be done to come from what runs to what shall run.

use std::collections::BTreeMap;
use std::fmt;

use crate::json;
use crate::place::{Placed, Placement};
use crate::spec::Spec;

/// What runs, or what shall run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Side {
    /// Instances, in any order; of two with the same class and number the first counts.
    pub instances: Vec<Placed>,
    /// What each class runs, also one without instances. A class that is absent on either side is taken as unchanged; one
    /// without instances and absent is told as new or gone.
    pub specs: BTreeMap<String, Spec>,
}

impl Side {
    /// The instances of a placement.
    #[must_use]
    pub fn of(placement: &Placement, specs: BTreeMap<String, Spec>) -> Self {
        let instances = placement.instances();
        Self { instances, specs }
    }
}

/// What is to be done, sorted by class, number and kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The actions; none: nothing changes.
    pub actions: Vec<Action>,
}

/// A single action.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Action {
    /// Class.
    pub class: String,
    /// Number within the class.
    pub index: u32,
    /// What is done.
    pub kind: ActionKind,
    /// Label of the rnode where it is done; of a move the one it goes to.
    pub rnode: String,
    /// Why.
    pub reason: String,
}

/// What is done with an instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ActionKind {
    /// It is stopped.
    Stop,
    /// It is started.
    Start,
    /// It is stopped, and started again as something else in the same place.
    Replace,
    /// It is started elsewhere, and stopped where it was.
    Move {
        /// Label of the rnode it leaves.
        from: String,
    },
}

/// How many actions of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Starts.
    pub start: usize,
    /// Stops.
    pub stop: usize,
    /// Replacements.
    pub replace: usize,
    /// Moves.
    pub moved: usize,
}

/// Compares what runs with what shall run.
#[must_use]
pub fn plan(before: &Side, after: &Side) -> Plan {
    let (old, new) = (indexed(before), indexed(after));
    let mut actions = Vec::new();
    for ((class, index), now) in &new {
        let act = match old.get(&(*class, *index)) {
            None => Some((ActionKind::Start, start_reason(class, before, (&old, &new)))),
            Some(was) => change(was, now, before, after),
        };
        if let Some((kind, reason)) = act {
            let (class, rnode) = ((*class).to_owned(), now.label.clone());
            actions.push(Action {
                class,
                index: *index,
                kind,
                rnode,
                reason,
            });
        }
    }
    for ((class, index), was) in &old {
        if !new.contains_key(&(*class, *index)) {
            let reason = stop_reason(class, after, (&old, &new));
            let (class, rnode) = ((*class).to_owned(), was.label.clone());
            actions.push(Action {
                class,
                index: *index,
                kind: ActionKind::Stop,
                rnode,
                reason,
            });
        }
    }
    actions.sort();
    Plan { actions }
}

type Indexed<'a> = BTreeMap<(&'a str, u32), &'a Placed>;

fn indexed(side: &Side) -> Indexed<'_> {
    let mut all = BTreeMap::new();
    for placed in &side.instances {
        all.entry((placed.class.as_str(), placed.index))
            .or_insert(placed);
    }
    all
}

fn count(class: &str, side: &Indexed<'_>) -> usize {
    side.keys().filter(|(other, _)| *other == class).count()
}

fn start_reason(class: &str, before: &Side, (old, new): (&Indexed<'_>, &Indexed<'_>)) -> String {
    match (count(class, old), count(class, new)) {
        // A class that was known and had no instance is not new.
        (0, _) if !before.specs.contains_key(class) => "its class is new".to_owned(),
        (was, now) if was < now => format!("from {was} to {now}"),
        _ => "in place of another".to_owned(),
    }
}

fn stop_reason(class: &str, after: &Side, (old, new): (&Indexed<'_>, &Indexed<'_>)) -> String {
    match (count(class, old), count(class, new)) {
        (_, 0) if !after.specs.contains_key(class) => "its class is gone".to_owned(),
        (was, now) if was > now => format!("from {was} to {now}"),
        _ => "another takes its place".to_owned(),
    }
}

fn change(was: &Placed, now: &Placed, before: &Side, after: &Side) -> Option<(ActionKind, String)> {
    let specs = before
        .specs
        .get(&was.class)
        .zip(after.specs.get(&now.class));
    let changed = specs.and_then(|(was, now)| was.difference(now));
    if was.rnode == now.rnode {
        return changed.map(|reason| (ActionKind::Replace, reason));
    }
    let moved = format!("{} is no longer in its set, or lost", was.label);
    let reason = match changed {
        Some(changed) => format!("{moved}; {changed}"),
        None => moved,
    };
    Some((
        ActionKind::Move {
            from: was.label.clone(),
        },
        reason,
    ))
}

impl Plan {
    /// True if nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// True if something that runs is stopped, even if only for a moment.
    #[must_use]
    pub fn stops_something(&self) -> bool {
        self.actions
            .iter()
            .any(|action| action.kind != ActionKind::Start)
    }

    /// How many actions of each kind.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for action in &self.actions {
            match action.kind {
                ActionKind::Start => counts.start += 1,
                ActionKind::Stop => counts.stop += 1,
                ActionKind::Replace => counts.replace += 1,
                ActionKind::Move { .. } => counts.moved += 1,
            }
        }
        counts
    }

    /// The plan as one JSON object: `{"actions": […], "counts": {…}}`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let actions = self.actions.iter().map(Action::to_json);
        let Counts {
            start,
            stop,
            replace,
            moved,
        } = self.counts();
        let counts = json::object(&[
            ("start", start.to_string()),
            ("stop", stop.to_string()),
            ("replace", replace.to_string()),
            ("move", moved.to_string()),
        ]);
        json::object(&[("actions", json::array(actions)), ("counts", counts)])
    }
}

impl ActionKind {
    /// Its word.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Replace => "replace",
            Self::Move { .. } => "move",
        }
    }
}

impl Action {
    fn to_json(&self) -> String {
        let mut fields = vec![
            ("action", json::string(self.kind.word())),
            ("class", json::string(&self.class)),
            ("index", self.index.to_string()),
            ("rnode", json::string(&self.rnode)),
        ];
        if let ActionKind::Move { from } = &self.kind {
            fields.push(("from", json::string(from)));
        }
        fields.push(("reason", json::string(&self.reason)));
        json::object(&fields)
    }
}

/// `start prog1/2 on n4 (from 2 to 3)`.
impl fmt::Display for Action {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            class,
            index,
            rnode,
            reason,
            ..
        } = self;
        match &self.kind {
            ActionKind::Move { from } => {
                write!(
                    out,
                    "move    {class}/{index} from {from} to {rnode} ({reason})"
                )
            }
            kind => write!(
                out,
                "{:<7} {class}/{index} on {rnode} ({reason})",
                kind.word()
            ),
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            start,
            stop,
            replace,
            moved,
        } = self;
        write!(
            out,
            "{start} to start, {stop} to stop, {replace} to replace, {moved} to move"
        )
    }
}

/// A line an action, then the counts; `no changes` if there is none.
impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(out, "no changes");
        }
        self.actions
            .iter()
            .try_for_each(|action| writeln!(out, "{action}"))?;
        writeln!(out, "{}", self.counts())
    }
}
