//! Nobody but its owner makes or changes an entry, and an owner never uses a sequence twice.
//!
//! Source: anchors/membership.md §5.5; requirement KEN-07.

use std::collections::{BTreeMap, BTreeSet};

use crux_core::flock::{Inspection, Output};
use crux_core::ken::Entry;
use crux_core::names::RnodeId;

use super::Step;
use crate::rnode::Rnode;

/// What each owner said, by its name, generation and sequence, as hashes of the encoded entry.
///
/// An owner whose disk was lost may say a second thing under one sequence, until others show it what it said before.
#[derive(Debug, Default)]
pub(super) struct Ownership {
    said: BTreeMap<(RnodeId, u64, u64), Vec<[u8; 32]>>,
    forgetful: BTreeSet<RnodeId>,
}

fn place(entry: &Entry) -> ((RnodeId, u64, u64), [u8; 32]) {
    (
        (entry.owner(), entry.generation(), entry.sequence()),
        *blake3::hash(entry.raw()).as_bytes(),
    )
}

impl Ownership {
    pub(super) fn disk_lost(&mut self, rnode: RnodeId) {
        self.forgetful.insert(rnode);
    }

    /// Notes what `entry`'s owner says itself; false if it said something else there before.
    fn say(&mut self, entry: &Entry) -> bool {
        let (at, hash) = place(entry);
        let forgetful = self.forgetful.contains(&entry.owner());
        let said = self.said.entry(at).or_default();
        if !said.contains(&hash) && (said.is_empty() || forgetful) {
            said.push(hash);
        }
        said.contains(&hash)
    }

    fn was_said(&self, entry: &Entry) -> bool {
        let (at, hash) = place(entry);
        self.said.get(&at).is_some_and(|said| said.contains(&hash))
    }

    pub(super) fn sent(&mut self, rnode: &Rnode, inspection: &Inspection) -> Result<(), String> {
        for entry in &inspection.entries {
            if entry.owner() == rnode.id {
                if !self.say(entry) && !self.was_said(entry) {
                    return Err(format!(
                        "said {entry:?} where it said something else before"
                    ));
                }
            } else if !self.was_said(entry) {
                return Err(format!("passed on {entry:?}, which its owner never said"));
            }
        }
        Ok(())
    }

    pub(super) fn check(&mut self, step: &Step<'_>) -> Result<(), String> {
        for output in step.outputs {
            let Output::EntryChanged { owner, key } = output else {
                continue;
            };
            let entries = step
                .flock
                .entries(key)
                .filter(|entry| entry.owner() == *owner && entry.key() == &**key);
            for entry in entries {
                let known = if *owner == step.rnode.id {
                    self.say(entry)
                } else {
                    self.was_said(entry)
                };
                if !known {
                    return Err(format!("shows {entry:?}, which its owner never said"));
                }
            }
        }
        Ok(())
    }
}
