//! Tables and messages keep to their limits.
//!
//! Source: anchors/membership.md §5.5; STYLE.md, "everything has a limit".

use crux_core::flock::{DATAGRAM_BYTES_MAX, MESSAGE_BYTES_MAX, Output, REMEMBERED_MAX};

use super::Step;

/// Outputs of one step: a comparison may send a megabyte of entries, and a broadcast 64 messages.
const OUTPUTS_MAX: usize = 4096;

pub(super) fn check(step: &Step<'_>) -> Result<(), String> {
    let members = step.flock.members().count();
    if members > REMEMBERED_MAX {
        return Err(format!("remembers {members} rnodes"));
    }
    if step.outputs.len() > OUTPUTS_MAX {
        return Err(format!("put out {} things in one step", step.outputs.len()));
    }
    let wakes = step
        .outputs
        .iter()
        .filter(|output| matches!(output, Output::Wake(_)))
        .count();
    if wakes > 1 {
        Err(format!("asked to be woken {wakes} times in one step"))
    } else {
        Ok(())
    }
}

pub(super) fn sent((bytes, reliable): (&[u8], bool)) -> Result<(), String> {
    let max = if reliable {
        MESSAGE_BYTES_MAX
    } else {
        DATAGRAM_BYTES_MAX
    };
    if bytes.len() > max {
        Err(format!(
            "sent a message of {} bytes, limit {max}",
            bytes.len()
        ))
    } else {
        Ok(())
    }
}
