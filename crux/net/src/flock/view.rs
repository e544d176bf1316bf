//! What a flock machine shows, copied out after each step so that readers never wait for it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crux_core::flock::State;
use crux_core::names::RnodeId;

/// The flock as this rnode sees it.
#[derive(Debug, Clone, Default)]
pub struct FlockView {
    /// Name of the flock; an outcome, it changes when flocks merge.
    pub name: String,
    /// The leader this rnode acknowledges.
    pub leader: Option<RnodeId>,
    /// Its term.
    pub term: u64,
    /// How long it has been in office.
    pub tenure: Duration,
    /// Everyone known, by permanent name.
    pub members: Vec<MemberView>,
    /// Rnodes that are missed at the moment.
    pub suspects: Vec<RnodeId>,
    /// Equal on two rnodes when they know the same.
    pub fingerprint: u64,
    /// What was counted since the start.
    pub counters: BTreeMap<&'static str, u64>,
}

/// One rnode that is known.
#[derive(Debug, Clone)]
pub struct MemberView {
    /// Permanent name.
    pub id: RnodeId,
    /// Up, down or left.
    pub state: State,
    /// Rises at each start.
    pub incarnation: u64,
    /// Where it said it can be reached.
    pub addresses: Vec<SocketAddr>,
    /// Time since something was heard from it directly; `None`: never. Zero for ourselves.
    pub silence: Option<Duration>,
}

/// An entry of the shared map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedEntry {
    /// Whose.
    pub owner: RnodeId,
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// The owner's incarnation when it was published.
    pub generation: u64,
    /// Rises with each change by its owner.
    pub sequence: u64,
}

impl FlockView {
    /// Members that are up.
    pub fn up(&self) -> impl Iterator<Item = &MemberView> {
        self.members.iter().filter(|member| member.state == State::Up)
    }
}
