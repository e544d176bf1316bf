//! The horde model as its users see it.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests stop at what they did not expect"
)]

mod model;
mod rnodes;
