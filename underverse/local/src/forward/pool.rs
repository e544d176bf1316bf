//! Which member is tried next. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Time a member that could not be reached is tried last. 1 s: a restart takes about that long.
const SUSPECT_FOR: Duration = Duration::from_secs(1);

/// The members of a forwarder and whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    members: Vec<SocketAddr>,
    turn: usize,
    suspects: BTreeMap<SocketAddr, Instant>,
}

impl Pool {
    /// Replaces the members; repeats are dropped, and the round goes on.
    pub(crate) fn set(&mut self, mut members: Vec<SocketAddr>) {
        members.sort_unstable();
        members.dedup();
        self.suspects.retain(|member, _| members.contains(member));
        self.members = members;
    }

    /// The members in the order in which the next connection tries them: suspects last.
    pub(crate) fn order(&mut self, now: Instant) -> Vec<SocketAddr> {
        self.suspects.retain(|_, until| *until > now);
        let count = self.members.len();
        if count == 0 {
            return Vec::new();
        }
        // The turn goes round the healthy ones, so that a suspect's share is spread over all.
        let (healthy, suspect): (Vec<_>, Vec<_>) = self
            .members
            .iter()
            .partition(|member| !self.suspects.contains_key(*member));
        let mut order = healthy;
        if !order.is_empty() {
            let first = self.turn % order.len();
            order.rotate_left(first);
        }
        self.turn = self.turn.wrapping_add(1);
        order.extend(suspect);
        order
    }

    /// Notes that a member could not be reached.
    pub(crate) fn suspect(&mut self, member: SocketAddr, now: Instant) {
        if self.members.contains(&member) {
            self.suspects.insert(member, now + SUSPECT_FOR);
        }
    }

    /// Notes that a member was reached.
    pub(crate) fn trust(&mut self, member: SocketAddr) {
        self.suspects.remove(&member);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(ports: &[u16]) -> Vec<SocketAddr> {
        ports
            .iter()
            .map(|&port| SocketAddr::from(([127, 0, 0, 1], port)))
            .collect()
    }

    #[test]
    fn every_member_has_its_turn_and_a_suspect_comes_last_until_its_time_is_over() {
        let now = Instant::now();
        let mut pool = Pool::default();
        assert!(pool.order(now).is_empty());
        pool.set(members(&[3, 1, 2, 2]));
        let firsts: Vec<u16> = (0..6).map(|_| pool.order(now)[0].port()).collect();
        assert_eq!(firsts, [1, 2, 3, 1, 2, 3]);
        pool.suspect(members(&[2])[0], now);
        for _ in 0..4 {
            assert_eq!(pool.order(now)[2].port(), 2);
        }
        let later = now + SUSPECT_FOR;
        let firsts: Vec<u16> = (0..3).map(|_| pool.order(later)[0].port()).collect();
        assert!(firsts.contains(&2), "{firsts:?}");
    }

    #[test]
    fn a_member_that_left_is_no_suspect_when_it_comes_back() {
        let now = Instant::now();
        let mut pool = Pool::default();
        pool.set(members(&[1, 2]));
        pool.suspect(members(&[1])[0], now);
        pool.set(members(&[2]));
        pool.set(members(&[1, 2]));
        assert_eq!(pool.suspects.len(), 0);
    }
}
