//! Fulcrum: the keeper and the agent of a rnode.
//!
//! Three processes are made from here, each a word of the one binary:
//! `cell` prepares namespaces and mounts, `keeper` is parent of everything inside,
//! and the agent serves `fulcrum`, `rexec` and `fileio`.
//! Start with docs/design/keeper.md, then [`config`].

pub mod agent;
pub mod authority;
pub mod cell;
pub mod config;
pub mod error;
pub mod keeper;
pub mod mark;
pub mod memoir;
pub mod output;
mod signals;
pub mod switch;
