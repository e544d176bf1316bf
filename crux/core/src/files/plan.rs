//! One thing to many rnodes: who copies from whom, and when.
//!
//! Every rnode that has the thing becomes a source, so the number of sources doubles with each
//! round. Not for deciding who should have it, and it moves nothing: [`Planner::begin`] says what
//! to begin, the caller tells what became of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Copies that one source gives at once, unless said otherwise. 2: the second fills the pauses of
/// the first, and with equal links the whole takes 1.15 times what doubling one by one would.
pub const PER_SOURCE: usize = 2;
/// Failures after which a sink is given up.
pub const FAILURES_MAX: u32 = 4;

/// A copy to begin.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Copy {
    /// Who has it.
    pub source: String,
    /// Who shall have it.
    pub sink: String,
}

/// Spreads one thing over rnodes, each named by its label.
#[derive(Debug, Clone)]
pub struct Planner {
    per_source: usize,
    /// Who has it, with the copies it is giving and those of its that failed.
    sources: BTreeMap<String, Source>,
    waiting: VecDeque<String>,
    running: BTreeSet<Copy>,
    failures: BTreeMap<String, u32>,
    given_up: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Source {
    giving: usize,
    failed: u32,
}

impl Planner {
    /// Plans from who has it to who shall have it; repeats and those that have it are passed over.
    ///
    /// `per_source` of zero counts as one.
    #[must_use]
    pub fn new(
        sources: impl IntoIterator<Item = String>,
        sinks: impl IntoIterator<Item = String>,
        per_source: usize,
    ) -> Self {
        let sources: BTreeMap<_, _> = sources
            .into_iter()
            .map(|source| (source, Source::default()))
            .collect();
        let mut seen = BTreeSet::new();
        let waiting = sinks
            .into_iter()
            .filter(|sink| !sources.contains_key(sink) && seen.insert(sink.clone()))
            .collect();
        Self {
            per_source: per_source.max(1),
            sources,
            waiting,
            running: BTreeSet::new(),
            failures: BTreeMap::new(),
            given_up: BTreeSet::new(),
        }
    }

    /// What to begin now: no source above its cap, the one that gives least and failed least first.
    ///
    /// Empty when nothing can begin until something ends.
    pub fn begin(&mut self) -> Vec<Copy> {
        let mut begun = Vec::new();
        while let Some(sink) = self.waiting.pop_front() {
            let Some(source) = self.idlest() else {
                self.waiting.push_front(sink);
                break;
            };
            let copy = Copy { source, sink };
            if let Some(source) = self.sources.get_mut(&copy.source) {
                source.giving += 1;
            }
            self.running.insert(copy.clone());
            begun.push(copy);
        }
        begun
    }

    /// A copy came to its end: the sink is a source now.
    pub fn finished(&mut self, copy: &Copy) {
        if self.end(copy) {
            self.sources.entry(copy.sink.clone()).or_default();
        }
    }

    /// A copy failed: its sink waits again, behind the others, or is given up.
    pub fn failed(&mut self, copy: &Copy) {
        if !self.end(copy) {
            return;
        }
        if let Some(source) = self.sources.get_mut(&copy.source) {
            source.failed += 1;
        }
        let failures = self.failures.entry(copy.sink.clone()).or_default();
        *failures += 1;
        if *failures >= FAILURES_MAX {
            self.given_up.insert(copy.sink.clone());
        } else {
            self.waiting.push_back(copy.sink.clone());
        }
    }

    /// A sink said that it will not take the thing from anybody.
    pub fn refused(&mut self, copy: &Copy) {
        if self.end(copy) {
            self.given_up.insert(copy.sink.clone());
        }
    }

    /// Whether nothing runs and nothing can begin.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.running.is_empty() && (self.waiting.is_empty() || self.sources.is_empty())
    }

    /// Sinks that do not have it: given up, or without any source.
    #[must_use]
    pub fn short(&self) -> Vec<&str> {
        let waiting = self.waiting.iter();
        waiting.chain(&self.given_up).map(String::as_str).collect()
    }

    fn idlest(&self) -> Option<String> {
        let free = self
            .sources
            .iter()
            .filter(|(_, source)| source.giving < self.per_source);
        free.min_by_key(|(name, source)| (source.failed, source.giving, name.as_str()))
            .map(|(name, _)| name.clone())
    }

    fn end(&mut self, copy: &Copy) -> bool {
        let ran = self.running.remove(copy);
        if ran && let Some(source) = self.sources.get_mut(&copy.source) {
            source.giving -= 1;
        }
        ran
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(prefix: &str, count: usize) -> Vec<String> {
        (0..count).map(|at| format!("{prefix}{at}")).collect()
    }

    /// Time until all have it, in units of one copy over one whole link; a source's link is shared
    /// by the copies it gives. Also the most copies that any source gave at once.
    fn simulate(sinks: usize, per_source: usize) -> (f64, usize) {
        let mut planner = Planner::new(names("source", 1), names("sink", sinks), per_source);
        let mut left: Vec<(Copy, f64)> = Vec::new();
        let (mut now, mut most) = (0.0, 0);
        loop {
            left.extend(planner.begin().into_iter().map(|copy| (copy, 1.0)));
            if left.is_empty() {
                assert!(planner.is_done() && planner.short().is_empty());
                return (now, most);
            }
            let mut giving: BTreeMap<String, usize> = BTreeMap::new();
            for (copy, _) in &left {
                *giving.entry(copy.source.clone()).or_default() += 1;
            }
            most = most.max(giving.values().copied().max().unwrap_or(0));
            let step = left
                .iter()
                .map(|(copy, rest)| rest * giving[&copy.source] as f64)
                .fold(f64::INFINITY, f64::min);
            now += step;
            for (copy, rest) in &mut left {
                *rest -= step / giving[&copy.source] as f64;
            }
            let (ended, going): (Vec<_>, Vec<_>) =
                left.into_iter().partition(|(_, rest)| *rest < 1e-9);
            ended.iter().for_each(|(copy, _)| planner.finished(copy));
            left = going;
        }
    }

    // Shows: FIO-07
    #[test]
    fn one_to_sixty_four_stays_within_half_of_the_doubling_bound() {
        for sinks in [1usize, 2, 3, 15, 16, 63, 64, 65, 500] {
            let bound = f64::from(usize::BITS - sinks.leading_zeros());
            for per_source in [1, PER_SOURCE] {
                let (makespan, most) = simulate(sinks, per_source);
                let ratio = makespan / bound;
                assert!(most <= per_source, "{sinks} sinks: {most} at once");
                assert!(
                    ratio <= 1.5 || sinks < 4,
                    "{sinks} by {per_source}: {ratio}"
                );
            }
        }
    }

    #[test]
    fn a_source_that_fails_is_asked_last_and_a_sink_is_given_up_in_the_end() {
        let mut planner = Planner::new(names("a", 2), names("b", 1), 1);
        let first = planner.begin();
        assert_eq!((first.len(), first[0].source.as_str()), (1, "a0"));
        planner.failed(&first[0]);
        planner.failed(&first[0]);
        let second = planner.begin();
        assert_eq!(second[0].source, "a1");
        planner.failed(&second[0]);
        for _ in 2..FAILURES_MAX {
            let next = planner.begin();
            planner.failed(&next[0]);
        }
        assert!(planner.begin().is_empty() && planner.is_done());
        assert_eq!(planner.short(), ["b0"]);
    }

    #[test]
    fn a_sink_that_refuses_is_asked_once() {
        let mut planner = Planner::new(names("a", 1), names("b", 2), 1);
        let first = planner.begin();
        planner.refused(&first[0]);
        let second = planner.begin();
        assert_eq!(second[0].sink, "b1");
        planner.finished(&second[0]);
        assert!(planner.begin().is_empty() && planner.is_done());
        assert_eq!(planner.short(), ["b0"]);
    }

    #[test]
    fn without_a_source_everyone_is_short() {
        let mut planner = Planner::new(Vec::new(), names("b", 2), 1);
        assert!(planner.begin().is_empty() && planner.is_done());
        assert_eq!(planner.short(), ["b0", "b1"]);
    }
}
