//! What must hold after each step, one in a file; a breach ends the run with its seed.

mod bounds;
mod durable;
mod incarnation;
mod ownership;
mod resurrection;
mod storm;
mod term;

use std::time::Duration;

use crux_core::flock::{Flock, Inspection, Output};

use crate::rnode::Rnode;

/// One step of one rnode.
#[derive(Debug)]
pub struct Step<'a> {
    /// When.
    pub now: Duration,
    /// Whose.
    pub index: usize,
    /// The rnode, its disk as after the step.
    pub rnode: &'a Rnode,
    /// Its machine after the step.
    pub flock: &'a Flock,
    /// What the step put out.
    pub outputs: &'a [Output],
}

/// All invariants and what they remember.
#[derive(Debug)]
pub struct Invariants {
    seed: u64,
    incarnation: incarnation::Incarnation,
    resurrection: resurrection::Resurrection,
    ownership: ownership::Ownership,
    term: term::Term,
    storm: storm::Storm,
}

impl Invariants {
    pub(crate) fn new(seed: u64, count: usize) -> Self {
        Self {
            seed,
            incarnation: incarnation::Incarnation::new(count),
            resurrection: resurrection::Resurrection::new(count),
            ownership: ownership::Ownership::default(),
            term: term::Term::new(count),
            storm: storm::Storm::new(count),
        }
    }

    pub(crate) fn started(&mut self, index: usize, _rnode: &Rnode) {
        self.incarnation.started(index);
        self.resurrection.started(index);
    }

    pub(crate) fn disk_lost(&mut self, index: usize, rnode: &Rnode) {
        self.term.disk_lost(index);
        self.ownership.disk_lost(rnode.id);
    }

    pub(crate) fn check(&mut self, step: &Step<'_>) {
        let results = [
            self.incarnation.check(step),
            self.resurrection.check(step),
            self.ownership.check(step),
            self.term.check(step),
            bounds::check(step),
            durable::check(step),
        ];
        self.report(step.index, step.now, results);
    }

    pub(crate) fn sent(
        &mut self,
        (index, rnode): (usize, &Rnode),
        sent: (&[u8], bool),
        inspection: &Inspection,
        now: Duration,
    ) {
        let results = [
            bounds::sent(sent),
            durable::sent(rnode, inspection),
            self.ownership.sent(rnode, inspection),
            self.storm.sent(index, now, inspection),
        ];
        self.report(index, now, results);
    }

    fn report<const N: usize>(
        &self,
        index: usize,
        now: Duration,
        results: [Result<(), String>; N],
    ) {
        if let Some(breach) = results.into_iter().find_map(Result::err) {
            panic!(
                "rnode {index} at {now:?}: {breach}; repeat with: cargo xtask sim --seed {}",
                self.seed
            );
        }
    }
}
