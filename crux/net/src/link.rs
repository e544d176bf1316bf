//! Links between rnodes of one namespace: who is at the other end was proven, messages are whole.
//!
//! QUIC after anchors/link.md: datagrams for what may be lost, a stream a message for what may not.
//! A session is judged when it begins; one that is not a rnode of our namespace changes nothing and
//! is counted. Not for deciding whom to talk to: that is the flock machine's.

mod quic;
mod session;

pub(crate) use quic::{Endpoint, Settings};
pub(crate) use session::{Event, Links};
