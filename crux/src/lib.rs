//! crux: what an application links. Its agent, service handles, its own server, the blackboard, identity.
//!
//! Not for running an agent. Start with [`Service`] to ask, [`serve()`] to answer, [`Agent`] for everything else.
//!
//! Tasks: one a handle, which follows its members; one a registration; one in [`serve()`], which renews the leaf.
//! All end with what started them.

/// What README.md shows must compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod agent;
mod blackboard;
mod error;
mod serve;
mod service;

pub use agent::{AGENT_PATIENCE, Agent, Offer, Registered, Watch};
pub use blackboard::{Blackboard, BlackboardWatch, Entry, KEY_BYTES_MAX, VALUE_BYTES_MAX};
pub use crux_core as core;
pub use crux_net as net;
pub use crux_net::rpc::Answers;
pub use crux_wire as wire;
pub use error::Error;
pub use serve::serve;
pub use service::{DEADLINE_DEFAULT, Idempotence, Request, Service};
