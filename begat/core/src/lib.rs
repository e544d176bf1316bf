//! The pure part of begat: dictums, their order, and what they and their executions are known by.
//!
//! No file, process, clock or environment: the driver in `begat` brings those.
//! Start with [`dictum`], then [`graph`] and [`manifest`].

pub mod convert;
pub mod dictum;
pub mod glob;
pub mod graph;
pub mod manifest;
pub mod record;
