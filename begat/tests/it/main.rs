//! Builds small trees with real programs, and looks at what begat did.

#![expect(clippy::unwrap_used, reason = "what a helper cannot do fails its test")]

mod builds;
mod carry;
mod failures;
mod fixture;
