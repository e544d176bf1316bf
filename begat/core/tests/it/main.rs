//! What begat's pure part promises: order, identity, conversion.

mod convert;
mod graph;
mod manifest;
