//! The seeded simulator: runs the machines of `crux-core` without sockets, clock or threads, under every fault we know.
//!
//! One queue ordered by (time, sequence), one generator for the network and one a rnode, so that one seed gives one
//! trace. Not for speed figures of the real thing: those come from `cargo xtask bench`. Start with [`World`].

mod authority;
pub mod chaos;
pub mod invariant;
pub mod measure;
mod network;
mod random;
mod rnode;
mod world;

pub use chaos::Outcome;
pub use network::{FaultKind, Fired, Network};
pub use random::Random;
pub use rnode::{Options, Rnode};
pub use world::{Filter, Parcel, World};
