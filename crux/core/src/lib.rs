//! The pure cores of crux: description files, flock, shared data, identity, digests.
//!
//! No runtime, clock, socket, file, environment or random source: time and randomness are inputs.
