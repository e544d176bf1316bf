//! The stix example: workers that answer lookups in a CSV, slaves that ask them.
//!
//! What both programs share. Each program is one file under `src/bin`; its own source is an input
//! of its own dictum in `stix.begat`, so that an edit of one rebuilds exactly that one.

pub mod answer;
pub mod flags;

pub mod program;
pub mod results;
pub mod table;
pub mod web;

/// The generated messages and services of `proto/stix.proto`.
#[expect(missing_docs, clippy::allow_attributes, reason = "generated code")]
pub mod wire {
    include!("generated/stix.v1.rs");
}

impl crux::Request for wire::LookupRequest {
    type Reply = wire::LookupReply;
    const METHOD: &'static str = "/stix.v1.Prods/Lookup";
    const IDEMPOTENCE: crux::Idempotence = crux::Idempotence::Idempotent;
}
