//! The network between simulated rnodes, and everything that can go wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::random::Random;

/// Kinds of faults; a run that never met one has not tested it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum FaultKind {
    Loss,
    BurstLoss,
    Delay,
    Duplicate,
    Reorder,
    Corrupt,
    OneWay,
    Split,
    Stall,
    Crash,
    LostDisk,
    NewIdentity,
    DeadHint,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::Loss,
        Self::BurstLoss,
        Self::Delay,
        Self::Duplicate,
        Self::Reorder,
        Self::Corrupt,
        Self::OneWay,
        Self::Split,
        Self::Stall,
        Self::Crash,
        Self::LostDisk,
        Self::NewIdentity,
        Self::DeadHint,
    ];
}

/// How often each kind of fault did something.
pub type Fired = BTreeMap<FaultKind, u64>;

/// The network; chances are of a thousand.
#[derive(Debug, Clone)]
pub struct Network {
    /// Shortest way.
    pub delay_min: Duration,
    /// Longest way, but for faults.
    pub delay_max: Duration,
    /// Chance that a datagram is lost.
    pub loss: u32,
    /// Chance that a burst of losses begins between two rnodes; it takes every datagram for a while.
    pub burst: u32,
    /// Chance that a datagram comes twice.
    pub duplicate: u32,
    /// Chance that a datagram is overtaken by many others.
    pub reorder: u32,
    /// Chance that a datagram's bytes change; the link drops it then.
    pub corrupt: u32,
    /// Ways on which nothing passes.
    pub one_way: BTreeSet<(usize, usize)>,
    /// Which side of a split each rnode is on; all 0 when there is none.
    pub side: Vec<u8>,
    bursts: BTreeMap<(usize, usize), Duration>,
}

/// What becomes of one datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    Lost,
    /// It arrives after each of these.
    Arrives(Vec<Duration>),
}

impl Network {
    /// A quick network without faults.
    #[must_use]
    pub fn calm(count: usize) -> Self {
        Self {
            delay_min: Duration::from_micros(300),
            delay_max: Duration::from_micros(1200),
            loss: 0,
            burst: 0,
            duplicate: 0,
            reorder: 0,
            corrupt: 0,
            one_way: BTreeSet::new(),
            side: vec![0; count],
            bursts: BTreeMap::new(),
        }
    }

    /// Ends all faults.
    pub fn heal(&mut self) {
        *self = Self::calm(self.side.len());
    }

    /// Whether anything can pass from one rnode to the other.
    #[must_use]
    pub fn passes(&self, from: usize, to: usize) -> bool {
        self.side[from] == self.side[to] && !self.one_way.contains(&(from, to))
    }

    /// Decides what becomes of one datagram and notes which faults had a hand in it.
    pub(crate) fn fate(
        &mut self,
        now: Duration,
        (from, to): (usize, usize),
        random: &mut Random,
        fired: &mut Fired,
    ) -> Fate {
        let mut fire = |kind| *fired.entry(kind).or_insert(0) += 1;
        if self.side[from] != self.side[to] {
            fire(FaultKind::Split);
            return Fate::Lost;
        }
        if self.one_way.contains(&(from, to)) {
            fire(FaultKind::OneWay);
            return Fate::Lost;
        }
        if self.bursts.get(&(from, to)).is_some_and(|end| now < *end) {
            fire(FaultKind::BurstLoss);
            return Fate::Lost;
        }
        if random.chance(self.burst) {
            let length = random.between(Duration::from_millis(50), Duration::from_millis(800));
            self.bursts.insert((from, to), now + length);
        }
        if random.chance(self.loss) {
            fire(FaultKind::Loss);
            return Fate::Lost;
        }
        if random.chance(self.corrupt) {
            fire(FaultKind::Corrupt);
            return Fate::Lost;
        }
        let mut delay = random.between(self.delay_min, self.delay_max);
        if self.delay_max > Duration::from_millis(10) {
            fire(FaultKind::Delay);
        }
        if random.chance(self.reorder) {
            fire(FaultKind::Reorder);
            delay += random.between(Duration::from_millis(5), Duration::from_millis(300));
        }
        let mut arrivals = vec![delay];
        if random.chance(self.duplicate) {
            fire(FaultKind::Duplicate);
            arrivals.push(delay + random.between(Duration::ZERO, Duration::from_millis(500)));
        }
        Fate::Arrives(arrivals)
    }
}
