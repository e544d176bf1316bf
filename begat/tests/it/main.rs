//! Builds small trees with real programs, and looks at what begat did.

mod builds;
mod carry;
mod failures;
mod fixture;
