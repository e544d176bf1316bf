//! No rnode sends without end: answers to answers, or repairs that never repair, would show here.
//!
//! Source: anchors/membership.md §6, "acceleration storms".

use std::collections::BTreeMap;
use std::time::Duration;

use crux_core::flock::Inspection;

/// Most messages one rnode may send within one second, whatever happens; a member of a chaotic flock of 12 sends some
/// hundreds, and one of 64 that all meet at once some thousands.
const MESSAGES_MAX: u64 = 6000;

#[derive(Debug)]
pub(super) struct Storm(Vec<(u64, BTreeMap<&'static str, u64>)>);

impl Storm {
    pub(super) fn new(count: usize) -> Self {
        Self(vec![(0, BTreeMap::new()); count])
    }

    pub(super) fn sent(
        &mut self,
        index: usize,
        now: Duration,
        inspection: &Inspection,
    ) -> Result<(), String> {
        let (second, kinds) = &mut self.0[index];
        if *second != now.as_secs() {
            *second = now.as_secs();
            kinds.clear();
        }
        *kinds.entry(inspection.kind).or_insert(0) += 1;
        if kinds.values().sum::<u64>() > MESSAGES_MAX {
            Err(format!("sends without end: {kinds:?}"))
        } else {
            Ok(())
        }
    }
}
