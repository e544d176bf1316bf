//! The shared map of one rnode: every owner's entries, newest each, with a fingerprint that is cheap to keep.

use std::collections::BTreeMap;
use std::time::Duration;

use super::entry::{Entry, RESERVED_PREFIX};
use super::{OWNER_BYTES_MAX, OWNER_ENTRIES_MAX};
use crate::names::RnodeId;

/// What an offered entry was to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Novelty {
    /// It was newer than what was there, and is there now.
    New,
    /// It, or a newer one, was there already.
    Old,
    /// Its owner has reached a limit; it was not taken.
    Full,
}

/// One owner in few words; two tables with the same words have the same entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct OwnerMark {
    pub(crate) generation: u64,
    pub(crate) sequence_max: u64,
    pub(crate) fingerprint: u64,
}

/// What an owner signs again so that its withdrawn keys can be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compaction {
    /// Entries to sign again, under new sequences.
    pub(crate) renew: Vec<Entry>,
    /// After that, nothing below this sequence counts.
    pub(crate) floor: u64,
}

/// Withdrawn entries from which on an owner sweeps.
const SWEEP_FROM: usize = 256;
/// Most entries signed again in one sweep.
const SWEEP_RENEW_MAX: usize = 64;

#[derive(Debug, Clone, Default)]
struct Owner {
    mark: OwnerMark,
    floor: u64,
    bytes: usize,
    current: BTreeMap<Box<str>, Entry>,
    /// Entries of earlier generations that were not yet published anew.
    lingering: BTreeMap<Box<str>, Entry>,
    lingering_until: Option<Duration>,
    /// When a lost owner's entries go.
    expires: Option<Duration>,
}

impl Owner {
    fn shown(&self) -> impl Iterator<Item = &Entry> {
        let lingering = self
            .lingering
            .values()
            .filter(|entry| !self.current.contains_key(entry.key()));
        self.current
            .values()
            .chain(lingering)
            .filter(|entry| !entry.is_withdrawn())
    }

    fn begin(&mut self, generation: u64, until: Duration) {
        self.lingering.append(&mut self.current);
        if !self.lingering.is_empty() {
            self.lingering_until = Some(until);
        }
        self.mark = OwnerMark {
            generation,
            ..OwnerMark::default()
        };
        self.floor = 0;
        self.bytes = 0;
    }

    fn remove(&mut self, key: &str) {
        if let Some(old) = self.current.remove(key) {
            self.mark.fingerprint = self.mark.fingerprint.wrapping_sub(old.mark());
            self.bytes -= old.raw().len();
        }
    }

    fn insert(&mut self, entry: Entry) {
        self.remove(entry.key());
        self.mark.fingerprint = self.mark.fingerprint.wrapping_add(entry.mark());
        self.mark.sequence_max = self.mark.sequence_max.max(entry.sequence());
        self.bytes += entry.raw().len();
        self.lingering.remove(entry.key());
        self.current.insert(entry.key().into(), entry);
    }

    fn has_room(&self, entry: &Entry) -> bool {
        let old = self
            .current
            .get(entry.key())
            .map_or(0, |old| old.raw().len());
        let count = self.current.len() + usize::from(old == 0);
        count <= OWNER_ENTRIES_MAX && self.bytes - old + entry.raw().len() <= OWNER_BYTES_MAX
    }
}

/// The shared map as one rnode knows it.
///
/// Per owner, the highest (generation, sequence) of a key wins. When an owner begins a new generation its earlier
/// entries linger, shown but no longer passed on, until they are published anew or their time is up.
///
/// Source: requirement KEN-07; state-based CRDTs (Shapiro et al., 2011), section 2.
#[derive(Debug, Clone, Default)]
pub struct Table {
    owners: BTreeMap<RnodeId, Owner>,
}

impl Table {
    /// Whether `entry` is newer than what is known of its key.
    #[must_use]
    pub fn is_news(&self, entry: &Entry) -> bool {
        let Some(owner) = self.owners.get(&entry.owner()) else {
            return true;
        };
        if entry.generation() != owner.mark.generation {
            return entry.generation() > owner.mark.generation;
        }
        let swept = entry.sequence() < owner.floor && !entry.key().starts_with(RESERVED_PREFIX);
        !swept
            && owner
                .current
                .get(entry.key())
                .is_none_or(|known| entry.sequence() > known.sequence())
    }

    /// What is known under the very place of `entry`, if it says something else there.
    pub(crate) fn conflicting(&self, entry: &Entry) -> Option<&Entry> {
        let owner = self.owners.get(&entry.owner())?;
        let known = owner.current.get(entry.key())?;
        let same_place =
            (known.generation(), known.sequence()) == (entry.generation(), entry.sequence());
        (same_place && known != entry).then_some(known)
    }

    /// Whether `entry`, of an owner all of whose entries are here, cannot be one of them: then the owner has said
    /// things that it does not know of.
    pub(crate) fn contradicts(&self, entry: &Entry) -> bool {
        self.is_news(entry) || self.conflicting(entry).is_some()
    }

    /// Takes `entry`, whose signature was checked; an earlier generation's entries linger until `until`.
    pub fn offer(&mut self, entry: Entry, until: Duration) -> Novelty {
        if !self.is_news(&entry) {
            return Novelty::Old;
        }
        let owner = self.owners.entry(entry.owner()).or_default();
        if entry.generation() > owner.mark.generation {
            owner.begin(entry.generation(), until);
        }
        if !owner.has_room(&entry) {
            return Novelty::Full;
        }
        owner.insert(entry);
        Novelty::New
    }

    /// Forgets what `owner` published below `floor`, but for the flock's own keys.
    pub(crate) fn sweep(&mut self, owner: &RnodeId, floor: u64) {
        let Some(owner) = self.owners.get_mut(owner) else {
            return;
        };
        owner.floor = owner.floor.max(floor);
        let old =
            |entry: &&Entry| entry.sequence() < floor && !entry.key().starts_with(RESERVED_PREFIX);
        let keys: Vec<Box<str>> = owner
            .current
            .values()
            .filter(old)
            .map(|entry| entry.key().into())
            .collect();
        for key in keys {
            owner.remove(&key);
        }
    }

    /// What `owner` should sign again, once enough of its keys are withdrawn.
    pub(crate) fn compaction(&self, owner: &RnodeId) -> Option<Compaction> {
        let owner = self.owners.get(owner)?;
        let withdrawn = owner
            .current
            .values()
            .filter(|entry| entry.is_withdrawn())
            .count();
        if withdrawn < SWEEP_FROM.max((owner.current.len() - withdrawn) / 2) {
            return None;
        }
        let mut entries: Vec<&Entry> = owner.current.values().collect();
        entries.retain(|entry| !entry.key().starts_with(RESERVED_PREFIX));
        entries.sort_by_key(|entry| entry.sequence());
        let mut renew = Vec::new();
        for entry in entries {
            if !entry.is_withdrawn() {
                if renew.len() == SWEEP_RENEW_MAX {
                    return Some(Compaction {
                        renew,
                        floor: entry.sequence(),
                    });
                }
                renew.push(entry.clone());
            }
        }
        Some(Compaction {
            renew,
            floor: owner.mark.sequence_max + 1,
        })
    }

    /// Lets everything of `owner` go at `at`, as for a lost rnode.
    pub(crate) fn expire_at(&mut self, owner: &RnodeId, at: Duration) {
        if let Some(owner) = self.owners.get_mut(owner) {
            owner.expires = Some(at);
        }
    }

    /// Keeps what [`expire_at`](Self::expire_at) would have let go.
    pub(crate) fn keep(&mut self, owner: &RnodeId) {
        if let Some(owner) = self.owners.get_mut(owner) {
            owner.expires = None;
        }
    }

    /// Drops what has run out; returns the keys no longer shown, and whose they were.
    pub(crate) fn expire(&mut self, now: Duration) -> Vec<(RnodeId, Box<str>)> {
        let mut gone = Vec::new();
        for (id, owner) in &mut self.owners {
            let due = |at: Option<Duration>| at.is_some_and(|at| at <= now);
            if due(owner.expires) {
                gone.extend(owner.shown().map(|entry| (*id, entry.key().into())));
            } else if due(owner.lingering_until) {
                owner.lingering_until = None;
                gone.extend(
                    std::mem::take(&mut owner.lingering)
                        .into_keys()
                        .map(|key| (*id, key)),
                );
            }
        }
        self.owners
            .retain(|_, owner| owner.expires.is_none_or(|at| at > now));
        gone
    }

    /// When something runs out next.
    pub(crate) fn next_expiry(&self) -> Option<Duration> {
        self.owners
            .values()
            .flat_map(|owner| [owner.expires, owner.lingering_until])
            .flatten()
            .min()
    }

    /// Drops `owner` at once; returns its keys that were shown.
    pub(crate) fn remove(&mut self, owner: &RnodeId) -> Vec<Box<str>> {
        let gone = self.owners.remove(owner);
        gone.iter()
            .flat_map(Owner::shown)
            .map(|entry| entry.key().into())
            .collect()
    }

    /// What is shown of `key` from `owner`.
    #[must_use]
    pub fn get(&self, owner: &RnodeId, key: &str) -> Option<&Entry> {
        let owner = self.owners.get(owner)?;
        let entry = owner
            .current
            .get(key)
            .or_else(|| owner.lingering.get(key))?;
        (!entry.is_withdrawn()).then_some(entry)
    }

    /// Everything shown whose key begins with `prefix`, by owner.
    pub fn entries(&self, prefix: &str) -> impl Iterator<Item = &Entry> {
        self.owners
            .values()
            .flat_map(Owner::shown)
            .filter(move |entry| entry.key().starts_with(prefix))
    }

    /// The entries of `owner`'s current generation above `after`, oldest first.
    pub(crate) fn since(&self, owner: &RnodeId, after: u64) -> Vec<Entry> {
        let entries = self
            .owners
            .get(owner)
            .into_iter()
            .flat_map(|owner| owner.current.values());
        let mut entries: Vec<Entry> = entries
            .filter(|entry| entry.sequence() > after)
            .cloned()
            .collect();
        entries.sort_by_key(Entry::sequence);
        entries
    }

    /// `owner` in few words; all zero when unknown.
    pub(crate) fn mark(&self, owner: &RnodeId) -> OwnerMark {
        self.owners
            .get(owner)
            .map(|owner| owner.mark)
            .unwrap_or_default()
    }

    /// How many owners have entries here.
    pub(crate) fn owner_count(&self) -> usize {
        self.owners.len()
    }
}

#[cfg(test)]
mod tests;
