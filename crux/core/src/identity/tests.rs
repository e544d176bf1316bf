//! Chains made, bent and refused.

mod chains;
mod claims;
mod properties;
mod world;
