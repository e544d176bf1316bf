//! Watching: probes, what their loss says, and when it says enough.
//!
//! Each rnode has four watchers. A first miss makes a suspicion; then all four probe fast and pool what they gather,
//! each miss being worth −ln(chance of a miss by accident). Any sign of life wipes it out everywhere.
//!
//! Source: anchors/membership.md §3.1 (pooled evidence), Lifeguard (2017) for doubting oneself first.

use std::collections::BTreeMap;
use std::time::Duration;

use super::config::Config;
use super::io::Time;
use super::limits::SUSPECT_PROBES_PER_SECOND;
use super::random::Random;
use super::wire::Subject;
use crate::names::RnodeId;

/// Contributors, thousandths of a nat, and silence in units of [`DECLARE_UNIT`] that together declare a loss.
const LADDER: [(usize, u32, u32); 3] = [(3, 20_700, 1), (2, 31_000, 2), (1, 52_000, 4)];
/// Least silence before any declaration. 1.2 s: six fast probes; longer pauses of a machine are its own fault.
const DECLARE_UNIT: Duration = Duration::from_millis(1200);
/// Own evidence needed beside someone else's word that the subject is lost: two misses on a good network.
const ACCUSED_MILLINATS: u32 = 4_000;
/// Shortest time-out of a probe: a busy peer may need as long to answer.
const TIMEOUT_MIN: Duration = Duration::from_millis(50);
/// Time-out before the first answer: far above any local round trip, so that a cold start suspects nobody.
const TIMEOUT_COLD: Duration = Duration::from_millis(400);
/// Longest time-out of a probe, whatever was measured.
const TIMEOUT_MAX: Duration = Duration::from_secs(2);
/// Most probes of one rnode that wait for an answer; the oldest is forgotten.
const OPEN_MAX: usize = 16;
/// Chance of a miss before anything is known, of 1024: pessimistic, since estimates start cold.
const MISS_COLD: u32 = 307;
/// Least chance of a miss that is believed, of 1024: no network is perfect, and one miss is never proof.
const MISS_MIN: u32 = 20;
/// Highest chance of a miss that is believed, of 1024: beyond it a miss would say nothing at all.
const MISS_MAX: u32 = 920;

/// What watching wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Probe {
        to: RnodeId,
        nonce: u32,
    },
    /// Tell fellow watchers and the subject that it was missed for the first time.
    Suspect(Subject),
    /// Tell fellow watchers what was gathered so far.
    Evidence(Subject, u32),
    /// Tell fellow watchers that the subject lives.
    Clear(Subject),
    Declare(Subject),
}

#[derive(Debug, Clone)]
struct Open {
    nonce: u32,
    sent: Time,
    missed: bool,
}

#[derive(Debug, Clone)]
struct Suspicion {
    since: Time,
    own: u32,
    others: BTreeMap<RnodeId, u32>,
    /// Someone who knows says that it was lost earlier.
    accused: bool,
}

#[derive(Debug, Clone)]
struct Watched {
    subject: Subject,
    /// Watched only until a suspicion is settled.
    passing: bool,
    /// Which of how many watchers we are.
    turn: (u32, u32),
    next_probe: Time,
    open: Vec<Open>,
    smoothed: Option<(Duration, Duration)>,
    suspicion: Option<Suspicion>,
}

impl Watched {
    fn new(subject: Subject, next_probe: Time) -> Self {
        Self {
            subject,
            passing: false,
            turn: (0, 1),
            next_probe,
            open: Vec::new(),
            smoothed: None,
            suspicion: None,
        }
    }

    fn timeout(&self) -> Duration {
        let (mean, deviation) = self.smoothed.unwrap_or((TIMEOUT_COLD / 3, Duration::ZERO));
        (mean * 3)
            .max(mean + deviation * 4)
            .clamp(TIMEOUT_MIN, TIMEOUT_MAX)
    }

    /// When to probe next, so that all watchers take turns by the subject's clock and none of them need agree.
    ///
    /// One in five of the intervals is the least pause: who has just probed out of turn waits for the next one.
    fn turn_after(&self, clock: Duration, interval: Duration) -> Duration {
        let (index, count) = self.turn;
        let position = duration_modulo(clock, interval);
        let own = interval * index / count.max(1);
        let wait = duration_modulo(own + interval - position, interval);
        if wait < interval / 5 {
            wait + interval
        } else {
            wait
        }
    }

    /// Source: RFC 6298, section 2, for the smoothing.
    fn sample(&mut self, round_trip: Duration) {
        self.smoothed = Some(match self.smoothed {
            None => (round_trip, round_trip / 2),
            Some((mean, deviation)) => (
                (mean * 7 + round_trip) / 8,
                (deviation * 3 + mean.abs_diff(round_trip)) / 4,
            ),
        });
    }

    fn suspicion(&mut self, now: Time) -> &mut Suspicion {
        let fresh = || Suspicion {
            since: now,
            own: 0,
            others: BTreeMap::new(),
            accused: false,
        };
        self.suspicion.get_or_insert_with(fresh)
    }

    fn is_declared(&self, now: Time) -> bool {
        let Some(suspicion) = &self.suspicion else {
            return false;
        };
        let silence = now.saturating_sub(suspicion.since);
        if suspicion.accused && suspicion.own >= ACCUSED_MILLINATS && silence >= DECLARE_UNIT {
            return true;
        }
        let contributors = usize::from(suspicion.own > 0) + suspicion.others.len();
        let pooled = suspicion
            .others
            .values()
            .fold(suspicion.own, |sum, nats| sum.saturating_add(*nats));
        let enough = |&(who, nats, units): &(usize, u32, u32)| {
            contributors >= who && pooled >= nats && silence >= DECLARE_UNIT * units
        };
        suspicion.own > 0 && LADDER.iter().any(enough)
    }
}

/// One rnode's watching of its subjects.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    watched: BTreeMap<RnodeId, Watched>,
    /// Chance that a probe of a healthy rnode goes unanswered, of 1024.
    miss: u32,
    nonce: u32,
    /// Fast probes that may be sent, and since when this is so.
    budget: (u32, Time),
    no_declaration_before: Time,
}

impl Watch {
    pub(crate) fn new(now: Time, config: &Config) -> Self {
        Self {
            watched: BTreeMap::new(),
            miss: MISS_COLD,
            nonce: 0,
            budget: (SUSPECT_PROBES_PER_SECOND, now),
            no_declaration_before: now + config.declare_grace,
        }
    }

    /// Watches exactly `subjects`, and whom it is in the middle of suspecting; `within` spreads first probes.
    ///
    /// With each subject stands which of how many watchers this rnode is.
    pub(crate) fn set_subjects(
        &mut self,
        now: Time,
        subjects: &[(Subject, (u32, u32))],
        within: Duration,
        random: &mut Random,
    ) {
        for watched in self.watched.values_mut() {
            watched.passing = true;
        }
        for (subject, turn) in subjects {
            let watched = self.watched.entry(subject.rnode);
            let watched =
                watched.or_insert_with(|| Watched::new(*subject, now + random.within(within)));
            watched.passing = false;
            watched.turn = *turn;
            if watched.subject != *subject {
                watched.subject = *subject;
                watched.suspicion = None;
            }
        }
        self.watched
            .retain(|_, watched| !watched.passing || watched.suspicion.is_some());
    }

    /// Stops watching `rnode`, which is lost or gone.
    pub(crate) fn remove(&mut self, rnode: &RnodeId) {
        self.watched.remove(rnode);
    }

    /// Doubts itself: this rnode was late, so its open probes say nothing.
    pub(crate) fn forget_open(&mut self, now: Time) {
        for watched in self.watched.values_mut() {
            watched.open.clear();
            if let Some(suspicion) = &mut watched.suspicion {
                suspicion.own = 0;
                suspicion.since = now;
            }
        }
    }

    /// A fellow watcher missed `subject`: probe it at once if it is ours to probe.
    pub(crate) fn suspected(&mut self, now: Time, subject: &Subject) {
        if let Some(watched) = self
            .watched
            .get_mut(&subject.rnode)
            .filter(|watched| watched.subject == *subject)
        {
            watched.suspicion(now);
            watched.next_probe = watched.next_probe.min(now);
        }
    }

    /// Someone holds `subject` for lost from earlier: probe it, and need less evidence of our own.
    pub(crate) fn accused(&mut self, now: Time, subject: &Subject) {
        let watched = self.watched.entry(subject.rnode);
        let watched = watched.or_insert_with(|| Watched {
            passing: true,
            ..Watched::new(*subject, now)
        });
        if watched.subject == *subject {
            watched.suspicion(now).accused = true;
            watched.next_probe = watched.next_probe.min(now);
        }
    }

    /// Takes in what the fellow watcher `from` has gathered.
    pub(crate) fn evidence(
        &mut self,
        now: Time,
        (from, subject): (RnodeId, &Subject),
        millinats: u32,
    ) {
        if let Some(watched) = self
            .watched
            .get_mut(&subject.rnode)
            .filter(|watched| watched.subject == *subject)
        {
            watched.suspicion(now).others.insert(from, millinats);
            watched.next_probe = watched.next_probe.min(now);
        }
    }

    /// The subject lives, says someone: drop what was gathered.
    pub(crate) fn clear(&mut self, subject: &RnodeId) {
        if let Some(watched) = self.watched.get_mut(subject) {
            watched.suspicion = None;
            watched.open.clear();
        }
    }

    /// An answer came, with its sender's clock; the next probe is sent at our turn by it.
    pub(crate) fn answered(
        &mut self,
        now: Time,
        (from, nonce): (&RnodeId, u32),
        clock: u32,
        interval: Duration,
    ) {
        let Some(watched) = self.watched.get_mut(from) else {
            return;
        };
        let Some(at) = watched.open.iter().position(|open| open.nonce == nonce) else {
            return;
        };
        let open = watched.open.remove(at);
        watched.sample(now.saturating_sub(open.sent));
        watched.next_probe =
            now + watched.turn_after(Duration::from_millis(clock.into()), interval);
        if watched.suspicion.is_none() && !open.missed {
            self.miss -= self.miss / 32;
        }
    }

    /// Any message of `from` came over its own link: it lives.
    pub(crate) fn heard(&mut self, from: &RnodeId) -> Option<Act> {
        let watched = self.watched.get_mut(from)?;
        let suspicion = watched.suspicion.take()?;
        watched.open.clear();
        (suspicion.own > 0 || !suspicion.others.is_empty()).then_some(Act::Clear(watched.subject))
    }

    /// Probes `rnode` now, as when its link broke.
    pub(crate) fn hurry(&mut self, now: Time, rnode: &RnodeId) {
        if let Some(watched) = self.watched.get_mut(rnode) {
            watched.next_probe = watched.next_probe.min(now);
        }
    }

    /// What is due.
    pub(crate) fn due(&mut self, now: Time, config: &Config) -> Vec<Act> {
        let mut acts = Vec::new();
        self.refill(now);
        let nats = millinats(self.miss);
        let mut missed_unsuspected = 0;
        for watched in self.watched.values_mut() {
            let timeout = watched.timeout();
            let suspected = watched.suspicion.is_some();
            let late = watched
                .open
                .iter_mut()
                .filter(|open| !open.missed && open.sent + timeout <= now);
            let misses = late.map(|open| open.missed = true).count();
            if misses > 0 {
                let suspicion = watched.suspicion(now);
                let count = u32::try_from(misses).unwrap_or(1);
                suspicion.own = suspicion.own.saturating_add(nats.saturating_mul(count));
                let own = suspicion.own;
                acts.push(if suspected {
                    Act::Evidence(watched.subject, own)
                } else {
                    Act::Suspect(watched.subject)
                });
                if !suspected {
                    missed_unsuspected += 1;
                    acts.push(Act::Evidence(watched.subject, own));
                    watched.next_probe = now;
                }
            }
            if now >= self.no_declaration_before && watched.is_declared(now) {
                acts.push(Act::Declare(watched.subject));
                continue;
            }
            if watched.next_probe <= now {
                let interval = if watched.suspicion.is_some() {
                    config.suspect_interval
                } else {
                    config.probe_interval
                };
                watched.next_probe = now + interval;
                if watched.suspicion.is_some() {
                    if self.budget.0 == 0 {
                        continue;
                    }
                    self.budget.0 -= 1;
                }
                self.nonce = self.nonce.wrapping_add(1);
                if watched.open.len() == OPEN_MAX {
                    watched.open.remove(0);
                }
                watched.open.push(Open {
                    nonce: self.nonce,
                    sent: now,
                    missed: false,
                });
                acts.push(Act::Probe {
                    to: watched.subject.rnode,
                    nonce: self.nonce,
                });
            }
        }
        self.watched
            .retain(|_, watched| !watched.passing || watched.suspicion.is_some());
        for _ in 0..missed_unsuspected {
            self.miss = (self.miss + (1024 - self.miss) / 32).min(MISS_MAX);
        }
        acts
    }

    fn refill(&mut self, now: Time) {
        let (tokens, since) = self.budget;
        let each = Duration::from_secs(1) / SUSPECT_PROBES_PER_SECOND;
        let earned = u32::try_from(now.saturating_sub(since).as_micros() / each.as_micros())
            .unwrap_or(u32::MAX);
        if tokens.saturating_add(earned) >= SUSPECT_PROBES_PER_SECOND {
            self.budget = (SUSPECT_PROBES_PER_SECOND, now);
        } else if earned > 0 {
            self.budget = (tokens + earned, since + each * earned);
        }
    }

    /// When something is due next.
    pub(crate) fn next(&self) -> Option<Time> {
        let times = self.watched.values().flat_map(|watched| {
            let timeout = watched.timeout();
            let late = watched
                .open
                .iter()
                .filter(|open| !open.missed)
                .map(move |open| open.sent + timeout);
            late.chain([watched.next_probe])
        });
        times.min()
    }

    /// Whom this rnode suspects.
    pub(crate) fn suspects(&self) -> impl Iterator<Item = RnodeId> {
        self.watched
            .values()
            .filter(|watched| watched.suspicion.is_some())
            .map(|watched| watched.subject.rnode)
    }
}

fn duration_modulo(duration: Duration, interval: Duration) -> Duration {
    let micros = duration.as_micros() % interval.as_micros().max(1);
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// −ln(miss / 1024) in thousandths, by a straight line between powers of two, so that all machines agree.
fn millinats(miss: u32) -> u32 {
    let miss = miss.clamp(MISS_MIN, MISS_MAX);
    let power = miss.ilog2();
    let base = 1_u32 << power;
    let log2_in_1000 = power * 1000 + (miss - base) * 1000 / base;
    (10_000 - log2_in_1000) * 693 / 1000
}

#[cfg(test)]
mod tests;
