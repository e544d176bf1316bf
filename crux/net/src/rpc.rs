//! gRPC between us, and its REST twins: mutual TLS listeners that know who calls, channels that know whom they call, and process sockets.
//!
//! Not for what a caller may do: handlers read the [`Principal`](crux_core::identity::Principal) from the request's
//! extensions and decide. Start with [`Server`] or [`connect`].
//!
//! Tasks: one a connection inside [`Server::serve`], ended with it; tonic's own one a channel.

mod client;
mod fate;
mod process;
mod rest;
mod server;
mod session;

pub use client::{
    CONNECT_TIME_MAX, NotConnected, connect, connect_lazy, connect_over, connect_process, key_of,
    refusal,
};
pub use fate::{Fate, fate, repeat_unsent};
pub use process::{AGENT_FD_VARIABLE, ProcessListener, ProcessSocket};
pub use rest::{REST_BODY_TIME_MAX, REST_MESSAGE_BYTES_MAX};
pub use server::{
    Answers, CONNECTIONS_MAX, HANDSHAKE_TIME_CROWDED, HANDSHAKE_TIME_MAX, HANDSHAKES_MAX,
    PeerAddress, RefusedPeer, Server, Twins, serve, serve_stream,
};
