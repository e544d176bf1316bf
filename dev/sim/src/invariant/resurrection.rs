//! A lost or left rnode comes back only by its own word: a higher incarnation, or if it was lost a higher sequence.
//!
//! Source: anchors/membership.md §5.5; requirement FLK-10 (quit is final).

use std::collections::BTreeMap;

use crux_core::flock::State;
use crux_core::names::RnodeId;

use super::Step;

#[derive(Debug)]
pub(super) struct Resurrection(Vec<BTreeMap<RnodeId, (State, u64, u64)>>);

impl Resurrection {
    pub(super) fn new(count: usize) -> Self {
        Self(vec![BTreeMap::new(); count])
    }

    pub(super) fn started(&mut self, index: usize) {
        self.0[index].clear();
    }

    pub(super) fn check(&mut self, step: &Step<'_>) -> Result<(), String> {
        for member in step.flock.members() {
            let before = self.0[step.index].insert(
                member.id,
                (member.state, member.incarnation, member.sequence),
            );
            let back = match before {
                Some((State::Down, incarnation, sequence)) if member.state == State::Up => {
                    (member.incarnation, member.sequence) > (incarnation, sequence)
                }
                Some((State::Left, incarnation, _)) if member.state != State::Left => {
                    member.incarnation > incarnation
                }
                _ => true,
            };
            if !back {
                return Err(format!("{member:?} came back from {before:?}"));
            }
        }
        Ok(())
    }
}
