//! Chains made, bent and refused.

mod chains;
mod claims;
mod closings;
mod denials;
mod properties;
mod succession;
mod verdicts;
mod vouchers;
mod world;
