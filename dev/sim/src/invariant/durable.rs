//! Nothing is said before it is durable: neither a term, nor an incarnation, nor a sequence.
//!
//! Source: anchors/membership.md §3.3 and §3.4.

use crux_core::flock::Inspection;

use super::Step;
use crate::rnode::Rnode;

pub(super) fn check(step: &Step<'_>) -> Result<(), String> {
    let (disk, floor) = (step.rnode.disk, step.flock.floor());
    if disk == floor {
        Ok(())
    } else {
        Err(format!("holds {floor:?} with {disk:?} on disk"))
    }
}

pub(super) fn sent(rnode: &Rnode, inspection: &Inspection) -> Result<(), String> {
    let disk = rnode.disk;
    if let Some((leader, term, _)) = inspection.heartbeat
        && leader == rnode.id
        && term > disk.term
    {
        return Err(format!("leads in term {term} with {disk:?} on disk"));
    }
    let own = inspection
        .entries
        .iter()
        .filter(|entry| entry.owner() == rnode.id);
    for entry in own {
        let said = (entry.generation(), entry.sequence());
        if said > (disk.incarnation, disk.sequence) {
            return Err(format!("said {entry:?} with {disk:?} on disk"));
        }
    }
    Ok(())
}
