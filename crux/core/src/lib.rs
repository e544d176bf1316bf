//! The pure cores of crux: description files, flock, shared data, identity, digests.
//!
//! No runtime, clock, socket, file, environment or random source: time and randomness are inputs.
//! Start with [`digest`], then the module of your concern.

pub mod adf;
pub mod digest;
pub mod files;
pub mod flock;
pub mod identity;
pub mod ken;
pub mod names;
