//! What others may see of a flock.

use std::net::SocketAddr;
use std::time::Duration;

use crux_core::flock::{Flock, FlockId, State};
use crux_core::names::RnodeId;
use tokio::time::Instant;

use crate::link::LinkCounters;

/// One rnode as this one knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// Its permanent name.
    pub id: RnodeId,
    /// What it is to the flock.
    pub state: State,
    /// Its incarnation.
    pub incarnation: u64,
    /// Its vote.
    pub vote: u32,
    /// Where it says it can be reached.
    pub addresses: Vec<SocketAddr>,
    /// When it last said something to us itself; none if never. Only neighbours speak often.
    pub heard: Option<Instant>,
    /// Since when its state holds.
    pub since: Instant,
    /// Whether we miss it at the moment.
    pub suspected: bool,
}

impl MemberView {
    /// How long it has said nothing to us itself; none if it never did.
    #[must_use]
    pub fn silence(&self) -> Option<Duration> {
        self.heard.map(|heard| heard.elapsed())
    }
}

/// A flock as one of its rnodes sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlockView {
    /// This rnode.
    pub own: RnodeId,
    /// This rnode's incarnation.
    pub incarnation: u64,
    /// The flock; its name is how it displays.
    pub flock: FlockId,
    /// The leader this rnode acknowledges.
    pub leader: Option<RnodeId>,
    /// The leader's term, or the last one.
    pub term: u64,
    /// Since when the leader leads.
    pub leader_since: Instant,
    /// Whether the leader is long enough in office to be above newcomers.
    pub latched: bool,
    /// Everyone known, this rnode and lost ones too, by name.
    pub members: Vec<MemberView>,
    /// A hash of all that is shared; equal on two rnodes that know the same.
    pub fingerprint: u64,
    /// Everything counted since the start.
    pub counters: Vec<(&'static str, u64)>,
}

impl FlockView {
    /// How long the leader has led; zero when there is none.
    #[must_use]
    pub fn tenure(&self) -> Duration {
        if self.leader.is_some() {
            self.leader_since.elapsed()
        } else {
            Duration::ZERO
        }
    }

    /// Whether this rnode leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leader == Some(self.own)
    }

    /// Members, without those lost or left.
    pub fn up(&self) -> impl Iterator<Item = &MemberView> {
        self.members
            .iter()
            .filter(|member| member.state == State::Up)
    }

    pub(super) fn of(flock: &Flock, start: Instant, link: LinkCounters) -> Self {
        let suspects: Vec<RnodeId> = flock.suspects().collect();
        let members = flock.members().map(|member| MemberView {
            id: member.id,
            state: member.state,
            incarnation: member.incarnation,
            vote: member.vote,
            addresses: member.addresses.clone(),
            heard: member.heard.map(|heard| start + heard),
            since: start + member.since,
            suspected: suspects.contains(&member.id),
        });
        let leader = flock.leader();
        let mut counters = flock.counters().list();
        counters.extend([
            ("link_refused", link.refused),
            ("link_foreign", link.foreign),
            ("link_dropped", link.dropped),
            ("link_unanswered", link.unanswered),
        ]);
        Self {
            own: flock.id(),
            incarnation: flock.incarnation(),
            flock: flock.flock(),
            leader: leader.who,
            term: leader.term,
            leader_since: start + leader.since,
            latched: leader.latched,
            members: members.collect(),
            fingerprint: flock.fingerprint(),
            counters,
        }
    }
}
