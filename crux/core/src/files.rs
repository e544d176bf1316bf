//! Copying files, without touching one: paths that stay below their root, manifests, who copies from whom.
//!
//! Start with [`manifest`]; docs/design/fileio.md says how the parts meet.

pub mod manifest;
pub mod path;
pub mod plan;
