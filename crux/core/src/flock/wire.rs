//! The messages between rnodes of a flock, drawn in `docs/formats/flock-wire.md`.
//!
//! Decoders check every length and panic on nothing; what follows the known fields of a message is ignored.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::beacon::Beacon;
use crate::ken::{DocumentId, Entry, OwnerMark};
use crate::names::{NamespaceId, RnodeId};

pub(crate) use decode::decode;
pub(crate) use encode::encode;

/// The version of header and messages that this code writes.
pub(crate) const VERSION: u8 = 1;
/// The oldest version that this code reads.
pub(crate) const VERSION_MIN: u8 = 1;
/// Bytes of the header.
pub(crate) const HEADER_BYTES: usize = 28;

/// What precedes every message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) namespace: [u8; 8],
    pub(crate) sender: [u8; 8],
    pub(crate) incarnation: u64,
}

/// The first eight bytes of a longer name.
pub(crate) fn short(name: &[u8; 32]) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&name[..8]);
    bytes
}

/// What each probe, answer and greeting says of its sender's table and leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Summary {
    pub(crate) fingerprint: u64,
    /// The highest term accepted.
    pub(crate) term: u64,
    /// The start of the leader's name; zero when there is none.
    pub(crate) leader: [u8; 8],
    /// The sequence of the newest heartbeat.
    pub(crate) heartbeat: u64,
}

/// A rnode as far as a statement about its life goes: refuted by a higher sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subject {
    pub(crate) rnode: RnodeId,
    pub(crate) incarnation: u64,
    pub(crate) sequence: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) version_min: u8,
    pub(crate) version_max: u8,
    pub(crate) answer_wanted: bool,
    pub(crate) namespace: NamespaceId,
    pub(crate) sender: RnodeId,
    pub(crate) summary: Summary,
    pub(crate) entries: Vec<Entry>,
    pub(crate) beacon: Option<Beacon>,
}

/// One line of a comparison of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) owner: RnodeId,
    /// The sequence of the owner's record.
    pub(crate) record: u64,
    pub(crate) mark: OwnerMark,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Every owner that the sender thinks is up; an answer with what is wanted may follow.
    Whole,
    /// Only owners of which the sender wants to know more; nothing follows but entries.
    Wanted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) id: DocumentId,
    pub(crate) total: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    Hello(Box<Hello>),
    Probe {
        nonce: u32,
        summary: Summary,
    },
    /// `clock` is the sender's own, in milliseconds, for its watchers to take turns by.
    Ack {
        nonce: u32,
        summary: Summary,
        clock: u32,
    },
    /// Its watchers miss it: fellow watchers probe, the subject speaks up.
    Suspect(Subject),
    /// What its sender has gathered against the subject, in thousandths of a nat.
    Evidence {
        subject: Subject,
        millinats: u32,
    },
    /// The subject lives: drop what was gathered.
    Clear(Subject),
    /// A watcher declares the subject lost.
    Declare(Subject),
    /// The sender holds the subject for lost, from earlier: find out.
    Accused(Subject),
    Heartbeat(Beacon),
    /// What heartbeat is newer than the one in the summary?
    Ask(Summary),
    Entries(Vec<Entry>),
    Compare {
        extent: Extent,
        rows: Vec<Row>,
        document: Option<Offer>,
    },
    Offer(Offer),
    Want {
        id: DocumentId,
        offset: u32,
    },
    Part {
        offer: Offer,
        offset: u32,
        bytes: Arc<[u8]>,
    },
}
