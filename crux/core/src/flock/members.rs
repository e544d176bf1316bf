//! Who is in the flock, who was, and who watches whom.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::io::Time;
use super::limits::REMEMBERED_MAX;
use super::wire::Subject;
use crate::names::RnodeId;

/// What a rnode is to the flock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// A member.
    Up,
    /// Declared lost; a word of its own, under a higher sequence or incarnation, brings it back.
    Down,
    /// Gone by its own will; final for that incarnation.
    Left,
}

/// One rnode as this one knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its permanent name.
    pub id: RnodeId,
    /// What it is to the flock.
    pub state: State,
    /// Its incarnation.
    pub incarnation: u64,
    /// The sequence of its own record; a statement about its life holds only for this one.
    pub sequence: u64,
    /// Its vote.
    pub vote: u32,
    /// Where it says it can be reached.
    pub addresses: Vec<SocketAddr>,
    /// When a message of its own last came; none if never.
    pub heard: Option<Time>,
    /// Since when `state` holds.
    pub since: Time,
}

impl Member {
    pub(crate) const fn subject(&self) -> Subject {
        Subject {
            rnode: self.id,
            incarnation: self.incarnation,
            sequence: self.sequence,
        }
    }

    /// What decides who leads: the vote, then the permanent name.
    pub(crate) const fn rank(&self) -> (u32, RnodeId) {
        (self.vote, self.id)
    }
}

/// Everyone known, by permanent name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Members(BTreeMap<RnodeId, Member>);

impl Members {
    pub(crate) fn get(&self, id: &RnodeId) -> Option<&Member> {
        self.0.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: &RnodeId) -> Option<&mut Member> {
        self.0.get_mut(id)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Member> {
        self.0.values()
    }

    pub(crate) fn up(&self) -> impl Iterator<Item = &Member> {
        self.0.values().filter(|member| member.state == State::Up)
    }

    pub(crate) fn is_up(&self, id: &RnodeId) -> bool {
        self.get(id).is_some_and(|member| member.state == State::Up)
    }

    pub(crate) fn up_count(&self) -> usize {
        self.up().count()
    }

    /// Adds or replaces a member; the one lost longest makes room.
    pub(crate) fn insert(&mut self, member: Member) {
        if self.0.len() >= REMEMBERED_MAX && !self.0.contains_key(&member.id) {
            let lost = self.0.values().filter(|member| member.state != State::Up);
            if let Some(oldest) = lost
                .min_by_key(|member| member.since)
                .map(|member| member.id)
            {
                self.0.remove(&oldest);
            }
        }
        self.0.insert(member.id, member);
    }

    /// Whether there is room for one more name.
    pub(crate) fn has_room(&self) -> bool {
        self.0.len() < REMEMBERED_MAX || self.0.values().any(|member| member.state != State::Up)
    }

    /// Members in the order in which they would lead.
    pub(crate) fn candidates(&self) -> Vec<&Member> {
        let mut candidates: Vec<&Member> = self.up().collect();
        candidates.sort_by_key(|member| std::cmp::Reverse(member.rank()));
        candidates
    }
}

/// The watchers of every member, first those that probe, then those whose evidence also counts.
///
/// Each member has one predecessor on each of several rings, which are the members ordered by hash(ring, name);
/// one that was taken from an earlier ring is passed over for the next before it.
///
/// Source: anchors/membership.md §3.1.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rings {
    watchers: BTreeMap<RnodeId, Vec<RnodeId>>,
}

impl Rings {
    pub(crate) fn new(up: &[RnodeId], count: usize) -> Self {
        let mut watchers: BTreeMap<RnodeId, Vec<RnodeId>> =
            up.iter().map(|id| (*id, Vec::new())).collect();
        for ring in 0..count {
            let mut order: Vec<RnodeId> = up.to_vec();
            order.sort_by_cached_key(|id| (hash(ring, id), *id));
            for (at, subject) in order.iter().enumerate() {
                let chosen = watchers.entry(*subject).or_default();
                let before =
                    (1..order.len()).map(|back| order[(at + order.len() - back) % order.len()]);
                if let Some(watcher) = before.into_iter().find(|id| !chosen.contains(id)) {
                    chosen.push(watcher);
                }
            }
        }
        Self { watchers }
    }

    pub(crate) fn watchers(&self, subject: &RnodeId) -> &[RnodeId] {
        self.watchers
            .get(subject)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// Whom `watcher` probes, if each has `count` that do.
    pub(crate) fn subjects(
        &self,
        watcher: &RnodeId,
        count: usize,
    ) -> impl Iterator<Item = RnodeId> {
        let probes =
            move |watchers: &Vec<RnodeId>| watchers.iter().take(count).any(|id| id == watcher);
        self.watchers
            .iter()
            .filter(move |(_, watchers)| probes(watchers))
            .map(|(subject, _)| *subject)
    }
}

fn hash(ring: usize, id: &RnodeId) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(&u64::try_from(ring).unwrap_or(0).to_be_bytes())
        .update(id.as_bytes());
    u64::from_be_bytes(
        *hasher
            .finalize()
            .as_bytes()
            .first_chunk()
            .unwrap_or(&[0; 8]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: u8) -> Vec<RnodeId> {
        (0..count).map(|id| RnodeId::from_bytes([id; 32])).collect()
    }

    #[test]
    fn everyone_has_as_many_watchers_as_there_are_others_up_to_the_limit() {
        for count in [1_u8, 2, 3, 5, 20, 64] {
            let ids = ids(count);
            let rings = Rings::new(&ids, 8);
            for id in &ids {
                let mut watchers = rings.watchers(id).to_vec();
                assert!(!watchers.contains(id));
                watchers.sort();
                watchers.dedup();
                assert_eq!(watchers.len(), usize::from(count - 1).min(8));
            }
            let probes: usize = ids.iter().map(|id| rings.subjects(id, 4).count()).sum();
            assert_eq!(probes, usize::from(count) * usize::from(count - 1).min(4));
        }
    }
}
