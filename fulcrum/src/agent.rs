//! The agent of a rnode: serves `fulcrum`, `rexec` and `fileio`, and brings the rnode to its assignment.
//!
//! Start with docs/design/agent.md.

pub(crate) mod documents;
pub(crate) mod durable;
pub(crate) mod events;
pub(crate) mod executions;
pub(crate) mod limits;
pub(crate) mod materialise;
pub(crate) mod paths;
pub(crate) mod probe;
pub mod reconcile;
pub(crate) mod resources;
pub(crate) mod status;
pub(crate) mod verified;
