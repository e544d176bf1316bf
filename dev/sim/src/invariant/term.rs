//! The term a rnode accepts never falls, not even across a crash, while its disk lives; and it has one leader a time.
//!
//! Source: anchors/membership.md §3.4; requirement CLU-02.

use crux_core::flock::Output;

use super::Step;

#[derive(Debug)]
pub(super) struct Term(Vec<u64>);

impl Term {
    pub(super) fn new(count: usize) -> Self {
        Self(vec![0; count])
    }

    pub(super) fn disk_lost(&mut self, index: usize) {
        self.0[index] = 0;
    }

    pub(super) fn check(&mut self, step: &Step<'_>) -> Result<(), String> {
        let highest = &mut self.0[step.index];
        for output in step.outputs {
            let Output::Leader { who, term, .. } = output else {
                continue;
            };
            if who.is_some() && term < highest {
                return Err(format!(
                    "acknowledged a leader in term {term} after term {highest}"
                ));
            }
            *highest = (*highest).max(*term);
        }
        let view = step.flock.leader();
        if view.who.is_some() && view.term != step.flock.floor().term {
            return Err(format!(
                "follows a leader in term {} with {} accepted",
                view.term,
                step.flock.floor().term
            ));
        }
        Ok(())
    }
}
