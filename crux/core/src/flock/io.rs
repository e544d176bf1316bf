//! What goes into a flock machine and what comes out of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::config::Floor;
use super::members::State;
use crate::ken::{Document, DocumentId, Refusal};
use crate::names::RnodeId;

/// Time since an arbitrary start; never falls.
pub type Time = Duration;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A message came over a link whose other end was shown to be `from`.
    Message {
        /// Who sent it, as the link knows.
        from: RnodeId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// The time asked for with [`Output::Wake`] has come.
    Tick,
    /// An operator's or the agent's word.
    Admin(Admin),
    /// This rnode's own addresses are these now.
    OwnAddresses(Vec<SocketAddr>),
    /// This rnode says `value` about `key`.
    Publish {
        /// At most [`KEY_BYTES_MAX`](crate::ken::KEY_BYTES_MAX) bytes, not below `flock/`.
        key: String,
        /// At most [`VALUE_BYTES_MAX`](crate::ken::VALUE_BYTES_MAX) bytes.
        value: Vec<u8>,
    },
    /// This rnode takes `key` back.
    Withdraw {
        /// The key.
        key: String,
    },
    /// Something that only a seated leader could allow; refused as [`Refusal::Unsupported`].
    Seated(Seated),
    /// A document, judged by the driver or by [`Authority`](super::Authority).
    PutDocument {
        /// Its generation and the digest of `bytes`.
        id: DocumentId,
        /// As signed.
        bytes: Arc<[u8]>,
    },
    /// A link to `peer` is there; it was shown to be that rnode, enrolled in our namespace.
    PeerConnected {
        /// The rnode.
        peer: RnodeId,
        /// The address that was dialled, if we dialled.
        address: Option<SocketAddr>,
    },
    /// What is believed of others changed: those whose credential is no longer accepted are dropped.
    Recheck,
    /// The link to `peer` ended.
    PeerGone {
        /// The rnode.
        peer: RnodeId,
    },
}

/// An operator's or the agent's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admin {
    /// Leave for good, as far as this incarnation goes.
    Quit,
    /// Forget the leader and flock anew.
    Restart,
    /// `mem_hint`: a rnode is probably to be found there.
    Hint(SocketAddr),
    /// Set this rnode's vote; a leader that lowers it gives up the protection of its tenure.
    SetVote(u32),
}

/// What needs a seated leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seated {
    /// Be the only owner of `key`.
    Claim {
        /// The key.
        key: String,
    },
    /// Replace `expected` by `value`.
    CompareAndSet {
        /// The key.
        key: String,
        /// What must be there; none: nothing.
        expected: Option<Vec<u8>>,
        /// What shall be there.
        value: Vec<u8>,
    },
    /// Run `class` at most once.
    Single {
        /// The class.
        class: String,
    },
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Make this durable before doing anything that follows.
    Persist(Floor),
    /// Send to a peer, over a link that is there or one dialled at an address of
    /// [`Flock::addresses`](super::Flock::addresses).
    Send {
        /// To whom.
        peer: RnodeId,
        /// The message.
        bytes: Arc<[u8]>,
        /// Over a stream: it is too long for a datagram, or a loss would cost much.
        reliable: bool,
    },
    /// Find out who is at an address.
    Dial {
        /// The address.
        address: SocketAddr,
    },
    /// Close the link to a peer.
    Close {
        /// Whose.
        peer: RnodeId,
    },
    /// The leader this rnode acknowledges from now on.
    Leader {
        /// The leader, if any.
        who: Option<RnodeId>,
        /// Its term.
        term: u64,
        /// Since when it leads.
        since: Time,
    },
    /// A rnode's membership changed.
    Membership {
        /// The rnode.
        rnode: RnodeId,
        /// What it is now.
        state: State,
        /// Its incarnation.
        incarnation: u64,
    },
    /// What is shown of a key changed.
    EntryChanged {
        /// Whose.
        owner: RnodeId,
        /// The key.
        key: Box<str>,
    },
    /// A newer document is there.
    DocumentChanged(Document),
    /// The input was refused and changed nothing.
    Refused(Refusal),
    /// Call again with [`Input::Tick`] at this time, if nothing else comes before. At most one a step, and the last.
    Wake(Time),
}
