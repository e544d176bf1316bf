//! tokio drivers of crux: links, listeners, typed clients, stores and tasks.
//!
//! Not for decisions: those are in `crux-core`.

pub mod boundary;
pub mod durable;
pub mod error;
pub mod files;
pub mod flock;
pub mod identity;
pub mod link;
pub mod order;
pub mod process;
pub mod rpc;
pub mod staged;
pub mod store;
pub mod task;
