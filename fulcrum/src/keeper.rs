//! The keeper: parent of a rnode's agent and of every execution in it.

pub mod client;
pub(crate) mod packet;
