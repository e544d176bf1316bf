//! A look into an encoded message, for simulators, tests and packet dumps; no part of the protocol.

use super::wire::{self, Message};
use crate::ken::Entry;
use crate::names::RnodeId;

/// What an encoded message is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inspection {
    /// The name of its kind, in lower case; `unknown` for one of a later version.
    pub kind: &'static str,
    /// Of a heartbeat: its leader, term and sequence.
    pub heartbeat: Option<(RnodeId, u64, u64)>,
    /// The entries that it carries.
    pub entries: Vec<Entry>,
}

/// Looks into `bytes`; none when they are no message.
#[must_use]
pub fn inspect(bytes: &[u8]) -> Option<Inspection> {
    let (_, message) = wire::decode(bytes).ok()?;
    let Some(message) = message else {
        return Some(Inspection {
            kind: "unknown",
            ..Inspection::default()
        });
    };
    let kind = match &message {
        Message::Hello(_) => "hello",
        Message::Probe { .. } => "probe",
        Message::Ack { .. } => "ack",
        Message::Suspect(_) => "suspect",
        Message::Evidence { .. } => "evidence",
        Message::Clear(_) => "clear",
        Message::Declare(_) => "declare",
        Message::Accused(_) => "accused",
        Message::Heartbeat(_) => "heartbeat",
        Message::Ask(_) => "ask",
        Message::Entries(_) => "entries",
        Message::Compare { .. } => "compare",
        Message::Offer(_) => "offer",
        Message::Want { .. } => "want",
        Message::Part { .. } => "part",
    };
    let claim = match &message {
        Message::Heartbeat(beacon) => Some(beacon.claim()),
        _ => None,
    };
    let heartbeat = claim.map(|claim| (claim.leader, claim.term, claim.sequence));
    let entries = match message {
        Message::Hello(hello) => hello.entries,
        Message::Entries(entries) => entries,
        _ => Vec::new(),
    };
    Some(Inspection {
        kind,
        heartbeat,
        entries,
    })
}
