//! What a rnode knows of another's incarnation and record never falls while it lives.
//!
//! Source: anchors/membership.md §5.5.

use std::collections::BTreeMap;

use crux_core::names::RnodeId;

use super::Step;

#[derive(Debug)]
pub(super) struct Incarnation(Vec<BTreeMap<RnodeId, (u64, u64)>>);

impl Incarnation {
    pub(super) fn new(count: usize) -> Self {
        Self(vec![BTreeMap::new(); count])
    }

    pub(super) fn started(&mut self, index: usize) {
        self.0[index].clear();
    }

    pub(super) fn check(&mut self, step: &Step<'_>) -> Result<(), String> {
        for member in step.flock.members() {
            let seen = (member.incarnation, member.sequence);
            let before = self.0[step.index].insert(member.id, seen);
            if before.is_some_and(|before| before > seen) {
                return Err(format!("{member:?} fell from {before:?}"));
            }
        }
        Ok(())
    }
}
