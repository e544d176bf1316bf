//! What the tests that run the built `radix` binary share: a sandbox with its own state directory,
//! calls of the command, and waiting for what must come true.
//!
//! The binary is named by `RADIX_BIN`; `cargo xtask check` builds it and sets that.
//! Without it, every test of this crate fails and says so.

mod process;
mod sandbox;
mod user;

pub use process::{Inventory, find_marked, kill, pids_of, resume, stop, wait_gone};
pub use sandbox::{Reply, Sandbox, wait_for};
pub use user::User;
