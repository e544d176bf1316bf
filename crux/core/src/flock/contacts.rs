//! Whom to try when company is missing: hints, and rnodes that were lost.
//!
//! Each is tried at pauses that double; all together at a bounded rate. Hints are only likely to be right (FLK-11).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::config::Config;
use super::io::Time;
use super::limits::HINTS_MAX;
use crate::names::RnodeId;

/// Least time between two tries of any kind, even of fresh hints.
const BURST_GAP: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy)]
struct Try {
    next: Time,
    /// The pause before the try after that; zero before the first.
    pause: Duration,
    /// Who was found there.
    peer: Option<RnodeId>,
}

impl Try {
    const fn fresh(now: Time) -> Self {
        Self {
            next: now,
            pause: Duration::ZERO,
            peer: None,
        }
    }

    fn tried(&mut self, now: Time, config: &Config) {
        self.pause = (self.pause * 2).clamp(config.retry_min, config.retry_max);
        self.next = now + self.pause;
    }
}

/// Someone to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contact {
    /// Whoever is there.
    Address(SocketAddr),
    /// A rnode that was lost.
    Lost(RnodeId),
}

/// Hints and lost rnodes, and when each is tried next.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contacts {
    hints: BTreeMap<SocketAddr, Try>,
    lost: BTreeMap<RnodeId, Try>,
    last: Option<Time>,
}

/// What a try depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation<'a> {
    pub(crate) now: Time,
    /// Whether this rnode has no company.
    pub(crate) alone: bool,
    pub(crate) config: &'a Config,
}

impl Contacts {
    /// Takes a hint; it is tried soon.
    pub(crate) fn hint(&mut self, now: Time, address: SocketAddr) {
        if self.hints.len() >= HINTS_MAX && !self.hints.contains_key(&address) {
            let worst = self
                .hints
                .iter()
                .max_by_key(|(_, hint)| (hint.peer.is_none(), hint.pause));
            if let Some(worst) = worst.map(|(address, _)| *address) {
                self.hints.remove(&worst);
            }
        }
        let hint = self.hints.entry(address).or_insert_with(|| Try::fresh(now));
        hint.pause = Duration::ZERO;
        hint.next = now;
    }

    /// `peer` was found at `address`.
    pub(crate) fn found(&mut self, address: SocketAddr, peer: RnodeId) {
        if let Some(hint) = self.hints.get_mut(&address) {
            hint.peer = Some(peer);
        }
    }

    /// `rnode` was lost: ask after it.
    pub(crate) fn lost(&mut self, now: Time, rnode: RnodeId, config: &Config) {
        let soon = || Try {
            next: now + config.retry_min,
            ..Try::fresh(now)
        };
        self.lost.entry(rnode).or_insert_with(soon);
    }

    /// `rnode` is here again, or gone for good.
    pub(crate) fn settled(&mut self, rnode: &RnodeId) {
        self.lost.remove(rnode);
    }

    /// Starts all pauses anew, as after everything was lost.
    pub(crate) fn hurry(&mut self, now: Time) {
        for tried in self.hints.values_mut().chain(self.lost.values_mut()) {
            tried.pause = Duration::ZERO;
            tried.next = tried.next.min(now + BURST_GAP);
        }
    }

    /// The next to try, if any is due; `is_up` tells whose company there is already.
    pub(crate) fn due(
        &mut self,
        situation: Situation<'_>,
        is_up: impl Fn(&RnodeId) -> bool,
    ) -> Option<Contact> {
        let Situation { now, config, .. } = situation;
        let (at, contact) = self.earliest(situation, is_up)?;
        if at > now {
            return None;
        }
        self.last = Some(now);
        let tried = match &contact {
            Contact::Address(address) => self.hints.get_mut(address),
            Contact::Lost(rnode) => self.lost.get_mut(rnode),
        };
        tried?.tried(now, config);
        Some(contact)
    }

    /// When the next is due.
    pub(crate) fn next(
        &self,
        situation: Situation<'_>,
        is_up: impl Fn(&RnodeId) -> bool,
    ) -> Option<Time> {
        self.earliest(situation, is_up).map(|(at, _)| at)
    }

    fn earliest(
        &self,
        situation: Situation<'_>,
        is_up: impl Fn(&RnodeId) -> bool,
    ) -> Option<(Time, Contact)> {
        let open = self
            .hints
            .iter()
            .filter(|(_, hint)| hint.peer.is_none_or(|peer| !is_up(&peer)));
        let hints = open.map(|(address, hint)| (*hint, Contact::Address(*address)));
        let lost = self
            .lost
            .iter()
            .map(|(rnode, lost)| (*lost, Contact::Lost(*rnode)));
        let gap = if situation.alone {
            situation.config.retry_gap / 5
        } else {
            situation.config.retry_gap
        };
        let paced = |(tried, contact): (Try, Contact)| {
            let gap = if tried.pause.is_zero() {
                BURST_GAP
            } else {
                gap
            };
            let free = self.last.map_or(Duration::ZERO, |last| last + gap);
            (tried.next.max(free), contact)
        };
        hints.chain(lost).map(paced).min_by_key(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tries(contacts: &mut Contacts, alone: bool, end: Duration) -> Vec<Time> {
        let config = Config::default();
        let mut times = Vec::new();
        let mut now = Duration::ZERO;
        while now < end {
            while contacts
                .due(
                    Situation {
                        now,
                        alone,
                        config: &config,
                    },
                    |_| false,
                )
                .is_some()
            {
                times.push(now);
            }
            now += Duration::from_millis(10);
        }
        times
    }

    #[test]
    fn dead_hints_are_tried_ever_more_seldom_and_never_given_up() {
        let mut contacts = Contacts::default();
        contacts.hint(Duration::ZERO, "127.0.0.1:1".parse().expect("an address"));
        let times = tries(&mut contacts, true, Duration::from_secs(600));
        assert!(times[1] < Duration::from_secs(1), "{times:?}");
        assert!((20..40).contains(&times.len()), "{}", times.len());
        assert!(*times.last().expect("some") > Duration::from_secs(560));
    }

    #[test]
    fn many_dead_hints_together_keep_to_the_rate() {
        let mut contacts = Contacts::default();
        for port in 1..=200 {
            contacts.hint(Duration::ZERO, SocketAddr::from(([127, 0, 0, 1], port)));
        }
        let times = tries(&mut contacts, false, Duration::from_secs(100));
        assert!((200..=250).contains(&times.len()), "{}", times.len());
    }

    #[test]
    fn a_hint_whose_rnode_is_here_is_left_alone() {
        let (config, address) = (
            Config::default(),
            "127.0.0.1:1".parse().expect("an address"),
        );
        let mut contacts = Contacts::default();
        contacts.hint(Duration::ZERO, address);
        contacts.found(address, RnodeId::from_bytes([1; 32]));
        let situation = Situation {
            now: Duration::ZERO,
            alone: true,
            config: &config,
        };
        assert_eq!(contacts.due(situation, |_| true), None);
        assert_eq!(
            contacts.due(situation, |_| false),
            Some(Contact::Address(address))
        );
    }
}
