//! Links between rnodes: authenticated, to whoever is meant, at whatever address; messages whole or not at all.
//!
//! Not for what messages say, nor for whether a loss matters: [`crate::flock`] drives the machine that knows.
//! One kind so far, QUIC; the reasons and values stand in anchors/link.md and `docs/design/flock.md`.

mod quic;

use std::future::Future;
use std::net::SocketAddr;

use bytes::Bytes;
use crux_core::names::RnodeId;

pub use quic::{LinkCounters, QuicConfig, QuicLink};

/// What a link reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// `peer` was met and is whom it says.
    Connected {
        /// The rnode.
        peer: RnodeId,
        /// The address it was found at, if we dialled one without knowing who is there.
        address: Option<SocketAddr>,
    },
    /// There is no longer a link to `peer`.
    Gone {
        /// The rnode.
        peer: RnodeId,
    },
    /// A message came.
    Message {
        /// Who sent it.
        from: RnodeId,
        /// The message.
        bytes: Bytes,
    },
}

/// How a message should travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carriage {
    /// As one datagram; it may be lost.
    Datagram,
    /// Over a stream; it is lost only with the link.
    Stream,
}

/// Links from one rnode to others.
pub trait Link: Send {
    /// Sends, over a link that is there or a new one to the first of `addresses` that answers.
    ///
    /// Never waits; what cannot be sent or kept for a while is dropped and counted.
    fn send(&mut self, peer: RnodeId, addresses: &[SocketAddr], message: Bytes, carriage: Carriage);

    /// Finds out who is at `address`; [`LinkEvent::Connected`] tells, if anyone enrolled here is.
    fn dial(&mut self, address: SocketAddr);

    /// Ends the link to `peer`, if there is one.
    fn close(&mut self, peer: RnodeId);

    /// Judges all peers again, after what is believed of them changed; ends the links of those now refused.
    fn recheck(&mut self);

    /// Waits for the next event.
    ///
    /// # Cancel safety
    /// No event is lost.
    fn next(&mut self) -> impl Future<Output = LinkEvent> + Send;

    /// Waits until what was sent has arrived, but not for long, and ends all links.
    fn finish(&mut self) -> impl Future<Output = ()> + Send;
}
