//! Who leads: heartbeats, silence, succession, and the protection of a leader long in office.
//!
//! Nobody votes on anyone: the order of candidates is (vote, permanent name), all see the same table, and the first in
//! it claims the next term. Claims name the leads they end, and a member follows a higher term only if it names the lead
//! it follows, or its own leader gave way, or is silent. What happens between two flocks stands in `rival.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::beacon::{Ballot, Beacon, Claim};
use super::io::Time;
use super::limits::{MEMBERS_MAX, SUCCESSORS, SUPERSEDED_FOR, SUPERSEDED_MAX};
use super::members::{Member, State};
use super::name::FlockId;
use super::wire::{Message, Summary, short};
use super::{Flock, Leader, Output};
use crate::names::RnodeId;

/// Quiet time after which a leader corrects the size it tells others.
const SIZE_SETTLE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Without a leader; claims the lead `base` and a successor's delay per better candidate after `since`.
    Seeking {
        since: Time,
        base: Duration,
    },
    Following,
    Leading,
}

/// Everything about the lead that one rnode keeps.
#[derive(Debug, Clone)]
pub(super) struct Lead {
    pub(super) role: Role,
    pub(super) flock: FlockId,
    /// The lead that is followed or held, or was last.
    pub(super) ballot: Ballot,
    pub(super) leader: Option<RnodeId>,
    /// The leader that went silent; not waited for when we look for the next.
    avoided: Option<RnodeId>,
    /// The newest heartbeat of `ballot`, our own when we lead.
    beacon: Option<Beacon>,
    /// One that could not be judged yet, and who passed it on.
    pub(super) pending: Option<(RnodeId, Beacon)>,
    heard: Time,
    since: Time,
    followed: Time,
    next_ask: Time,
    sequence: u64,
    pub(super) size: u16,
    pub(super) superseded: Vec<Ballot>,
    claimed: Time,
    next_heartbeat: Time,
    /// Lowered its vote in office, and so lost the protection of tenure.
    barred: bool,
    /// Leads we win over, and the highest term anyone needs to hear to follow us.
    pub(super) beaten: Vec<Ballot>,
    pub(super) wanted_term: Option<u64>,
    pub(super) merge_after: Time,
    pub(super) rival_heard: Option<Time>,
    pub(super) introduced: BTreeMap<RnodeId, Time>,
}

impl Lead {
    pub(super) const fn new(flock: FlockId) -> Self {
        Self {
            role: Role::Seeking {
                since: Duration::ZERO,
                base: Duration::ZERO,
            },
            flock,
            ballot: (0, [0; 8]),
            leader: None,
            avoided: None,
            beacon: None,
            pending: None,
            heard: Duration::ZERO,
            since: Duration::ZERO,
            followed: Duration::ZERO,
            next_ask: Duration::ZERO,
            sequence: 0,
            size: 1,
            superseded: Vec::new(),
            claimed: Duration::ZERO,
            next_heartbeat: Duration::ZERO,
            barred: false,
            beaten: Vec::new(),
            wanted_term: None,
            merge_after: Duration::ZERO,
            rival_heard: None,
            introduced: BTreeMap::new(),
        }
    }

    pub(super) fn beacon(&self) -> Option<&Beacon> {
        self.beacon.as_ref().filter(|_| self.leader.is_some())
    }

    pub(super) const fn view(&self, term: u64, latched: bool) -> Leader {
        Leader {
            who: self.leader,
            term,
            since: self.since,
            latched,
        }
    }
}

impl Flock {
    /// Does what the lead finds due.
    pub(super) fn guide(&mut self) {
        match self.lead.role {
            Role::Seeking { .. } => {
                if self.claim_due().is_some_and(|at| at <= self.now) {
                    self.claim();
                } else {
                    self.ask_around();
                }
            }
            Role::Following => self.follow_on(),
            Role::Leading => self.lead_on(),
        }
    }

    pub(super) fn next_guide(&self) -> Time {
        let lead = &self.lead;
        match lead.role {
            Role::Seeking { .. } => {
                let ask = self
                    .config
                    .ask_after
                    .filter(|_| self.members.up_count() > 1)
                    .map(|_| lead.next_ask);
                let claim = self.claim_due();
                ask.into_iter()
                    .chain(claim)
                    .min()
                    .unwrap_or(self.now + self.config.heartbeat_window)
            }
            Role::Following => {
                let over = lead.heard + self.config.heartbeat_window;
                let ask = self
                    .config
                    .ask_after
                    .map(|after| (lead.heard + after).max(lead.next_ask));
                let challenge = self
                    .challenges()
                    .then(|| lead.followed + self.config.challenge_delay);
                [ask, challenge].into_iter().flatten().fold(over, Time::min)
            }
            Role::Leading => {
                let merges = !lead.beaten.is_empty() || lead.wanted_term.is_some();
                if merges {
                    lead.next_heartbeat.min(lead.merge_after)
                } else {
                    lead.next_heartbeat
                }
            }
        }
    }

    /// When this rnode, now without a leader, claims the lead itself.
    fn claim_due(&self) -> Option<Time> {
        let Role::Seeking { since, base } = self.lead.role else {
            return None;
        };
        let better = self
            .members
            .candidates()
            .into_iter()
            .filter(|member| Some(member.id) != self.lead.avoided);
        let rank = better.take_while(|member| member.id != self.me.id).count();
        let rank = u32::try_from(rank).unwrap_or(u32::MAX);
        Some(since + base + self.config.successor_delay.saturating_mul(rank))
    }

    /// Whether this rnode is a better candidate than the leader it follows, and may take the lead from it.
    fn challenges(&self) -> bool {
        let leader = self
            .lead
            .leader
            .and_then(|leader| self.members.get(&leader));
        let protected = self
            .lead
            .beacon
            .as_ref()
            .is_none_or(|beacon| beacon.claim().latched);
        let me = self.members.get(&self.me.id).map(Member::rank);
        !protected
            && leader.is_some_and(|leader| Some(leader.rank()) < me)
            && self
                .members
                .candidates()
                .first()
                .is_some_and(|best| best.id == self.me.id)
    }

    fn follow_on(&mut self) {
        let silence = self.now.saturating_sub(self.lead.heard);
        if silence >= self.config.heartbeat_window {
            self.flock_over();
            return;
        }
        if self.config.ask_after.is_some_and(|after| silence >= after) {
            self.ask_around();
        }
        if self.challenges() && self.now >= self.lead.followed + self.config.challenge_delay {
            self.claim();
        }
    }

    fn lead_on(&mut self) {
        let merges = !self.lead.beaten.is_empty() || self.lead.wanted_term.is_some();
        if merges && self.now >= self.lead.merge_after {
            self.claim();
        } else if self.now >= self.lead.next_heartbeat {
            let quiet = self
                .lead
                .rival_heard
                .is_none_or(|at| self.now >= at + SIZE_SETTLE);
            if quiet && self.now >= self.lead.claimed + SIZE_SETTLE {
                self.lead.size = self.size();
            }
            self.heartbeat();
        }
    }

    fn size(&self) -> u16 {
        u16::try_from(self.members.up_count()).unwrap_or(u16::MAX)
    }

    /// Asks one member, chosen by chance, for a newer heartbeat than ours.
    fn ask_around(&mut self) {
        if self.now < self.lead.next_ask || self.config.ask_after.is_none() {
            return;
        }
        self.lead.next_ask = self.now + self.config.ask_interval;
        let others: Vec<RnodeId> = self.others().collect();
        if let Some(peer) = others.get(self.random.below(others.len())) {
            self.counters.asks += 1;
            let ask = Message::Ask(self.summary());
            self.send(*peer, &ask);
        }
    }

    /// Forgets the leader and looks for another, or the same again.
    pub(super) fn flock_over(&mut self) {
        self.counters.flock_overs += 1;
        self.lead.avoided = self.lead.leader.filter(|leader| *leader != self.me.id);
        self.lose_lead();
        self.seek(self.config.successor_delay);
        self.contacts.hurry(self.now);
        let ask = Message::Ask(self.summary());
        self.broadcast(&ask);
    }

    /// Is without a leader from now on; claims the lead itself after `base` and its turn.
    pub(super) fn seek(&mut self, base: Duration) {
        self.lead.role = Role::Seeking {
            since: self.now,
            base,
        };
        self.lead.next_ask = self.now + self.config.ask_interval;
    }

    /// Waits for company before leading itself: there are hints to try.
    pub(super) fn expect_company(&mut self) {
        if let Role::Seeking { base, .. } = &mut self.lead.role {
            *base = (*base).max(self.config.found_after);
        }
    }

    pub(super) fn lose_lead(&mut self) {
        if self.lead.leader.take().is_some() {
            let term = self.floor.term;
            self.out.push(Output::Leader {
                who: None,
                term,
                since: self.now,
            });
        }
    }

    /// After members changed: if the leader is no longer the one that was followed, the next in order takes over.
    pub(super) fn leader_may_be_gone(&mut self) {
        let Some(leader) = self.lead.leader.filter(|leader| *leader != self.me.id) else {
            return;
        };
        let incarnation = self
            .lead
            .beacon
            .as_ref()
            .map(|beacon| beacon.claim().incarnation);
        let same =
            |member: &&Member| member.state == State::Up && Some(member.incarnation) == incarnation;
        if self.members.get(&leader).filter(same).is_none() {
            self.lead.avoided = None;
            self.lose_lead();
            self.seek(Duration::ZERO);
        }
    }

    /// Takes the lead, or raises the term of the one it has, over everything known.
    fn claim(&mut self) {
        let lead = &mut self.lead;
        let leading = lead.role == Role::Leading;
        let wanted = lead.wanted_term.take().unwrap_or(0);
        let highest = lead
            .beaten
            .iter()
            .map(|ballot| ballot.0)
            .fold(self.floor.term.max(wanted), u64::max);
        lead.superseded.push(lead.ballot);
        lead.superseded.append(&mut lead.beaten);
        let surplus = lead.superseded.len().saturating_sub(SUPERSEDED_MAX);
        lead.superseded.drain(..surplus);
        lead.ballot = (highest.saturating_add(1), short(self.me.id.as_bytes()));
        lead.role = Role::Leading;
        lead.leader = Some(self.me.id);
        lead.avoided = None;
        lead.sequence = 0;
        lead.claimed = self.now;
        lead.merge_after = self.now + self.config.merge_interval;
        if !leading {
            lead.since = self.now;
            lead.barred = false;
        }
        self.lead.size = self.size();
        self.counters.claims += 1;
        self.accept_term(self.lead.ballot.0);
        self.out.push(Output::Leader {
            who: Some(self.me.id),
            term: self.lead.ballot.0,
            since: self.lead.since,
        });
        self.heartbeat();
    }

    /// Makes a term durable before anything is said or done in it.
    fn accept_term(&mut self, term: u64) {
        if term > self.floor.term {
            self.floor.term = term;
            self.out.push(Output::Persist(self.floor));
        }
    }

    pub(super) fn is_latched(&self) -> bool {
        match self.lead.role {
            Role::Leading => {
                !self.lead.barred && self.now >= self.lead.since + self.config.tenure_latch
            }
            Role::Following => self
                .lead
                .beacon
                .as_ref()
                .is_some_and(|beacon| beacon.claim().latched),
            Role::Seeking { .. } => false,
        }
    }

    fn heartbeat(&mut self) {
        self.lead.sequence += 1;
        self.lead.next_heartbeat = self.now + self.config.heartbeat_interval;
        let successors = self
            .members
            .candidates()
            .into_iter()
            .filter(|member| member.id != self.me.id);
        // In a flock that sends directly to all, everyone knows everyone and needs no list of who would be next.
        let named = if self.members.up_count() > MEMBERS_MAX {
            SUCCESSORS
        } else {
            0
        };
        let fresh = self.now < self.lead.claimed + SUPERSEDED_FOR;
        let claim = Claim {
            flock: self.lead.flock,
            term: self.lead.ballot.0,
            sequence: self.lead.sequence,
            leader: self.me.id,
            incarnation: self.me.incarnation,
            tenure: self.now.saturating_sub(self.lead.since),
            latched: self.is_latched(),
            size: self.lead.size,
            fingerprint: self.fingerprint(),
            successors: successors
                .take(named)
                .map(|member| short(member.id.as_bytes()))
                .collect(),
            superseded: if fresh {
                self.lead.superseded.clone()
            } else {
                Vec::new()
            },
        };
        let authority = &mut self.authority;
        // A signature above its limit would be a fault of the driver; then there is no heartbeat, and others take over.
        if let Ok(beacon) = claim.sign(&self.me.namespace, |bytes| authority.sign(bytes)) {
            self.lead.beacon = Some(beacon.clone());
            self.broadcast(&Message::Heartbeat(beacon));
        }
    }

    /// Judges a heartbeat that `via` sent or passed on.
    pub(super) fn heartbeat_came(&mut self, via: RnodeId, beacon: Beacon) {
        let claim = beacon.claim();
        let known = self
            .lead
            .beacon
            .as_ref()
            .map_or(0, |beacon| beacon.claim().sequence);
        let repeated = claim.ballot() == self.lead.ballot && claim.sequence <= known;
        if claim.leader == self.me.id || repeated || !self.is_leader_known(via, &beacon) {
            return;
        }
        let message = beacon.signed_bytes(&self.me.namespace);
        if !self
            .authority
            .verify(&claim.leader, &message, beacon.signature())
        {
            self.counters.forged += 1;
            return;
        }
        let claim = claim.clone();
        let higher = claim.term > self.lead.ballot.0;
        let named = claim.superseded.contains(&self.lead.ballot);
        match self.lead.role {
            Role::Leading if higher && named => {
                self.follow(beacon.clone());
                self.broadcast(&Message::Heartbeat(beacon));
            }
            Role::Leading => self.meet_rival(&claim),
            Role::Following if claim.ballot() == self.lead.ballot => self.renew(beacon),
            Role::Following
                if higher
                    && (named || self.lead.leader == Some(via) || self.is_leader_silent()) =>
            {
                self.follow(beacon);
            }
            Role::Following => self.introduce(&beacon),
            Role::Seeking { .. } if claim.term >= self.floor.term => self.follow(beacon),
            Role::Seeking { .. } => self.greet(claim.leader, true),
        }
    }

    fn is_leader_silent(&self) -> bool {
        let after = self
            .config
            .ask_after
            .unwrap_or(self.config.heartbeat_window);
        self.now >= self.lead.heard + after
    }

    /// Whether the heartbeat's leader is a member under that incarnation; if not, finds out more.
    fn is_leader_known(&mut self, via: RnodeId, beacon: &Beacon) -> bool {
        let claim = beacon.claim();
        match self.members.get(&claim.leader) {
            Some(member) if member.incarnation > claim.incarnation => false,
            Some(member)
                if member.incarnation == claim.incarnation && member.state == State::Up =>
            {
                true
            }
            Some(member) if member.incarnation == claim.incarnation => {
                let subject = member.subject();
                if via == claim.leader && member.state == State::Down {
                    self.accuse(via, subject);
                }
                false
            }
            _ => {
                self.lead.pending = Some((via, beacon.clone()));
                self.compare_with(via);
                false
            }
        }
    }

    /// Tries again the heartbeat that could not be judged, now that more is known.
    pub(super) fn reconsider(&mut self) {
        if let Some((via, beacon)) = self.lead.pending.take() {
            let leader = beacon.claim().leader;
            if self.members.is_up(&leader) {
                self.heartbeat_came(via, beacon);
            } else {
                self.lead.pending = Some((via, beacon));
            }
        }
    }

    fn renew(&mut self, beacon: Beacon) {
        self.counters.heartbeats += 1;
        self.lead.heard = self.now;
        self.lead.beacon = Some(beacon);
    }

    fn follow(&mut self, beacon: Beacon) {
        let claim = beacon.claim();
        self.accept_term(claim.term);
        let lead = &mut self.lead;
        lead.role = Role::Following;
        lead.flock = claim.flock;
        lead.ballot = claim.ballot();
        lead.leader = Some(claim.leader);
        lead.avoided = None;
        lead.since = self.now.saturating_sub(claim.tenure);
        lead.followed = self.now;
        lead.superseded.clear();
        lead.beaten.clear();
        lead.wanted_term = None;
        self.out.push(Output::Leader {
            who: Some(claim.leader),
            term: claim.term,
            since: lead.since,
        });
        self.renew(beacon);
    }

    pub(super) fn set_vote(&mut self, vote: u32) {
        if vote < self.me.vote && self.lead.role == Role::Leading {
            self.lead.barred = true;
        }
        self.me.vote = vote;
        self.publish_record();
        if self.lead.role == Role::Leading {
            // Others act on the next heartbeat's word, so that a demotion does not wait for it.
            self.heartbeat();
        }
    }

    pub(super) fn summary(&self) -> Summary {
        let beacon = self.lead.beacon();
        Summary {
            fingerprint: self.fingerprint(),
            term: self.floor.term,
            leader: self
                .lead
                .leader
                .map_or([0; 8], |leader| short(leader.as_bytes())),
            heartbeat: beacon.map_or(0, |beacon| beacon.claim().sequence),
        }
    }
}
