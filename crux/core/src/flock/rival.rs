//! When flocks meet: leaders compare their heartbeats, one wins by a pure function of the two, and raises its term.

use super::Flock;
use super::beacon::{Beacon, Claim};
use super::lead::Role;
use super::limits::{INTRODUCE_INTERVAL, SUPERSEDED_MAX};
use super::wire::{Message, Summary, short};
use crate::names::RnodeId;

impl Flock {
    /// Two leaders met, and we are one of them.
    pub(super) fn meet_rival(&mut self, rival: &Claim) {
        self.lead.rival_heard = Some(self.now);
        let Some(own) = self.lead.beacon().cloned() else {
            return;
        };
        if own.claim().wins_over(rival) {
            if !self.lead.beaten.contains(&rival.ballot())
                && self.lead.beaten.len() < SUPERSEDED_MAX
            {
                self.lead.beaten.push(rival.ballot());
            }
        } else if self.may_introduce(rival.leader) {
            self.send(rival.leader, &Message::Heartbeat(own));
        }
    }

    /// A member of one flock heard the leader of another: it makes the two known to each other.
    pub(super) fn introduce(&mut self, beacon: &Beacon) {
        let (Some(leader), Some(own)) = (self.lead.leader, self.lead.beacon().cloned()) else {
            return;
        };
        let rival = beacon.claim().leader;
        if rival != leader && self.may_introduce(rival) {
            self.send(leader, &Message::Heartbeat(beacon.clone()));
            self.send(rival, &Message::Heartbeat(own));
        }
    }

    fn may_introduce(&mut self, peer: RnodeId) -> bool {
        let now = self.now;
        self.lead
            .introduced
            .retain(|_, at| now < *at + INTRODUCE_INTERVAL);
        let may = !self.lead.introduced.contains_key(&peer);
        self.lead.introduced.entry(peer).or_insert(now);
        may
    }

    /// Compares what a peer says of itself with what we know: its table, its leader, its newest heartbeat.
    pub(super) fn compare_summary(&mut self, from: RnodeId, theirs: &Summary) {
        if theirs.fingerprint != self.fingerprint() {
            self.compare_with(from);
        }
        let ours = self.summary();
        if theirs.leader == [0; 8] {
            self.help_seeker(from, theirs);
        } else if theirs.leader == ours.leader && theirs.term == ours.term {
            let asks = self.config.ask_after.is_some() && self.lead.role == Role::Following;
            if asks && theirs.heartbeat > ours.heartbeat {
                self.send(from, &Message::Ask(ours));
            }
        } else if theirs.term < ours.term {
            self.tell_leader(from);
        } else if self.may_introduce(from) {
            self.send(from, &Message::Ask(ours));
        }
    }

    /// The peer has no leader: it is told ours, and if it has accepted a higher term, ours must rise above that.
    fn help_seeker(&mut self, from: RnodeId, theirs: &Summary) {
        if self.lead.role == Role::Leading && theirs.term > self.lead.ballot.0 {
            self.lead.wanted_term = self.lead.wanted_term.max(Some(theirs.term));
        } else {
            self.tell_leader(from);
        }
    }

    fn tell_leader(&mut self, to: RnodeId) {
        if let Some(beacon) = self.lead.beacon().cloned()
            && self.may_introduce(to)
        {
            self.send(to, &Message::Heartbeat(beacon));
        }
    }

    /// A peer asks for a newer heartbeat than the one it names.
    pub(super) fn asked(&mut self, from: RnodeId, theirs: &Summary) {
        let Some(beacon) = self.lead.beacon().cloned() else {
            return;
        };
        let claim = beacon.claim();
        let same = theirs.term == claim.term && theirs.leader == short(claim.leader.as_bytes());
        if self.lead.role == Role::Leading && theirs.leader == [0; 8] && theirs.term > claim.term {
            self.lead.wanted_term = self.lead.wanted_term.max(Some(theirs.term));
        } else if !same || claim.sequence > theirs.heartbeat {
            self.send(from, &Message::Heartbeat(beacon));
        }
    }
}
