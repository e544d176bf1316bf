//! What begat's pure part promises: order, identity, conversion.

#![expect(clippy::unwrap_used, reason = "what a helper cannot do fails its test")]

mod convert;
mod graph;
mod manifest;
