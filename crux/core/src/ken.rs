//! Shared data: what the rnodes of a flock tell each other, and which promise each kind of it has.
//!
//! `converging` entries have one owner each; the owner's highest sequence wins, so merging is commutative, associative
//! and idempotent, and everyone who has heard the same has the same. The one `document` of a namespace survives every
//! rnode. Not for sending: [`crate::flock`] decides who is told what and when. The forms on the wire stand in
//! `docs/formats/flock-wire.md`; read [`Entry`] first.
//!
//! Source: requirements KEN-01, KEN-07; anchors/membership.md §3.3.

pub(crate) mod codec;
mod document;
mod entry;
mod quality;
mod table;

pub use codec::Malformed;
pub(crate) use document::Assembly;
pub use document::{Document, DocumentId};
pub use entry::{Draft, Entry, RESERVED_PREFIX};
pub use quality::{Quality, Refusal};
pub(crate) use table::OwnerMark;
pub use table::{Novelty, Table};

/// Most entries one owner may have, withdrawn ones that are not yet swept included.
pub const OWNER_ENTRIES_MAX: usize = 4096;
/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 320;
/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 8 * 1024;
/// Longest signature, in bytes.
pub const SIGNATURE_BYTES_MAX: usize = 256;
/// Most bytes of entries one owner may have. 8 MiB: a thousand entries of the longest value.
pub const OWNER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest document, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;
