//! One thing to many rnodes: who copies from whom.
//!
//! Each rnode gives on what it has verified while the rest still comes, so all copy at once, and what
//! is to be decided is the shape: a chain, whose links carry the thing once each, or a tree, which has fewer hops.
//! Not for deciding who should have it, and it moves nothing: the caller tells who answers and what became of each
//! copy, [`Planner::begin`] says what to begin. docs/design/fileio.md, "One source to many", says how a sink goes on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Copies that one rnode is planned to give at once in a tree. 2: more would each get less, fewer is a chain.
pub const PER_SOURCE: usize = 2;
/// Failures after which a sink is given up.
pub const FAILURES_MAX: u32 = 4;
/// Sources that a sink is told, in the order in which it asks them. 4: its relay, two that stand behind it, and the first source.
pub const SOURCES_MAX: usize = 4;
/// Copies that run at once; more wait for the first to end.
pub const RUNNING_MAX: usize = 256;
/// What a link brings in the time that one more hop costs (a session, a manifest, seals), in bytes: with less a sink, a
/// tree is faster than a chain. 512 KiB: 20 ms at 200 Mbit/s.
pub const HOP_BYTES: u64 = 512 << 10;

/// A copy to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Who shall have it.
    pub sink: String,
    /// Who has it, or will have it before the sink: never empty, asked in this order.
    pub sources: Vec<String>,
}

/// Spreads one thing over rnodes, each named by its label.
#[derive(Debug, Clone)]
pub struct Planner {
    origin: String,
    /// Copies that one rnode is planned to give at once.
    per_source: usize,
    rnodes: BTreeMap<String, Rnode>,
    waiting: VecDeque<String>,
    running: usize,
    failures: BTreeMap<String, u32>,
    given_up: BTreeSet<String>,
}

/// A rnode that gives it, or will.
#[derive(Debug, Clone, Default)]
struct Rnode {
    /// Whom it is planned to take it from; `None` at the origin.
    parent: Option<String>,
    hops: usize,
    /// Places that are taken from it.
    giving: usize,
    /// Whether it has one of its parent's places.
    placed: bool,
    /// Whether it said that it begins: others may take it from it.
    begun: bool,
    whole: bool,
}

impl Planner {
    /// Plans from who has it; nobody waits for it yet.
    ///
    /// `sinks`: how many shall have it, and `bytes`: of the thing; they decide the shape.
    #[must_use]
    pub fn new(origin: String, sinks: usize, bytes: u64) -> Self {
        let chain = bytes / HOP_BYTES >= sinks as u64;
        let first = Rnode {
            begun: true,
            whole: true,
            ..Rnode::default()
        };
        Self {
            per_source: if chain { 1 } else { PER_SOURCE },
            rnodes: BTreeMap::from([(origin.clone(), first)]),
            origin,
            waiting: VecDeque::new(),
            running: 0,
            failures: BTreeMap::new(),
            given_up: BTreeSet::new(),
        }
    }

    /// A sink answers: it waits for its copy from now on. Passed over are the origin, repeats, and who was given up.
    pub fn answers(&mut self, sink: &str) {
        let waits = self.waiting.iter().any(|waiting| waiting == sink);
        if !waits && !self.rnodes.contains_key(sink) && !self.given_up.contains(sink) {
            self.waiting.push_back(sink.to_owned());
        }
    }

    /// The next copy to begin; `None` when none can until one begins, is slow to, or ends.
    ///
    /// No rnode is planned to give to more than its cap, nor before it has begun itself; the one of fewest hops is taken
    /// first. Who failed before takes it from rnodes that have all of it, so that nobody waits for somebody who waits for
    /// it, and holds up nobody who has not failed.
    pub fn begin(&mut self) -> Option<Copy> {
        if self.running >= RUNNING_MAX {
            return None;
        }
        let again = |sink: &String| self.failures.contains_key(sink);
        let (any, whole) = (self.parent(false), self.parent(true));
        let parent_of = |sink: &String| if again(sink) { &whole } else { &any };
        let next = self
            .waiting
            .iter()
            .position(|sink| parent_of(sink).is_some())?;
        let sink = self.waiting.remove(next)?;
        let parent = parent_of(&sink).clone()?;
        let sources = self.sources(&parent, again(&sink));
        let hops = self.rnodes.get(&parent).map_or(0, |giver| giver.hops + 1);
        let rnode = Rnode {
            parent: Some(parent),
            hops,
            ..Rnode::default()
        };
        self.rnodes.insert(sink.clone(), rnode);
        self.place(&sink);
        self.running += 1;
        Some(Copy { sink, sources })
    }

    /// A sink said that it begins.
    pub fn begun(&mut self, sink: &str) {
        if let Some(rnode) = self.rnodes.get_mut(sink) {
            rnode.begun = true;
            // It takes from its parent, whoever else got its place meanwhile.
            self.place(sink);
        }
    }

    /// A sink has not said for long that it begins: its place is another's, and nobody waits for it.
    pub fn slow(&mut self, sink: &str) {
        if self.rnodes.get(sink).is_some_and(|rnode| !rnode.begun) {
            self.leave(sink);
        }
    }

    /// A sink has it.
    pub fn finished(&mut self, sink: &str) {
        let Some(rnode) = self.rnodes.get_mut(sink).filter(|rnode| !rnode.whole) else {
            return;
        };
        (rnode.begun, rnode.whole) = (true, true);
        self.running -= 1;
        self.leave(sink);
    }

    /// A sink failed once, before or after its copy began. Returns whether it is worth asking again whether it answers;
    /// else it is given up.
    pub fn failed(&mut self, sink: &str) -> bool {
        self.end(sink);
        let failures = self.failures.entry(sink.to_owned()).or_default();
        *failures += 1;
        let again = *failures < FAILURES_MAX;
        if !again {
            self.given_up.insert(sink.to_owned());
        }
        again
    }

    /// A sink will not take the thing from anybody, or does not answer.
    pub fn refused(&mut self, sink: &str) {
        self.end(sink);
        self.given_up.insert(sink.to_owned());
    }

    /// Whether nothing runs and nothing can begin.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.running == 0 && self.waiting.is_empty()
    }

    /// Sinks that were given up.
    #[must_use]
    pub fn short(&self) -> Vec<&str> {
        self.given_up.iter().map(String::as_str).collect()
    }

    /// Who may give to one more.
    fn parent(&self, whole: bool) -> Option<String> {
        let free = self
            .rnodes
            .iter()
            .filter(|(_, rnode)| rnode.begun && rnode.giving < self.per_source)
            .filter(|(_, rnode)| rnode.whole || !whole);
        free.min_by_key(|(name, rnode)| (rnode.hops, rnode.giving, name.as_str()))
            .map(|(name, _)| name.clone())
    }

    /// The parent, those behind it, and the origin.
    fn sources(&self, parent: &str, whole: bool) -> Vec<String> {
        let mut sources = Vec::new();
        let mut next = Some(parent);
        while let Some(name) = next.filter(|_| sources.len() < SOURCES_MAX - 1) {
            let rnode = self.rnodes.get(name);
            if name != self.origin && rnode.is_some_and(|rnode| rnode.whole || !whole) {
                sources.push(name.to_owned());
            }
            next = rnode.and_then(|rnode| rnode.parent.as_deref());
        }
        sources.push(self.origin.clone());
        sources
    }

    /// Takes a place of its parent for a sink that has none.
    fn place(&mut self, sink: &str) {
        let Some(rnode) = self.rnodes.get_mut(sink).filter(|rnode| !rnode.placed) else {
            return;
        };
        rnode.placed = true;
        let parent = rnode.parent.clone();
        if let Some(giver) = parent.and_then(|name| self.rnodes.get_mut(&name)) {
            giver.giving += 1;
        }
    }

    /// Gives the place back that a sink has of its parent.
    fn leave(&mut self, sink: &str) {
        let Some(rnode) = self.rnodes.get_mut(sink).filter(|rnode| rnode.placed) else {
            return;
        };
        rnode.placed = false;
        let parent = rnode.parent.clone();
        if let Some(giver) = parent.and_then(|name| self.rnodes.get_mut(&name)) {
            giver.giving -= 1;
        }
    }

    /// Takes a sink out that does not have it. Those that took it from it turn to its parent, as they were told.
    fn end(&mut self, sink: &str) {
        self.waiting.retain(|waiting| waiting != sink);
        if self.rnodes.get(sink).is_none_or(|rnode| rnode.whole) {
            return;
        }
        self.leave(sink);
        let Some(gone) = self.rnodes.remove(sink) else {
            return;
        };
        self.running -= 1;
        for rnode in self.rnodes.values_mut() {
            if rnode.parent.as_deref() == Some(sink) {
                rnode.parent.clone_from(&gone.parent);
                rnode.hops = gone.hops;
            }
        }
        let parent = gone.parent.and_then(|name| self.rnodes.get_mut(&name));
        if let Some(giver) = parent {
            giver.giving += gone.giving;
        }
    }
}

#[cfg(test)]
mod tests;
