//! The flock of a rnode over real sockets: drives `crux_core::flock` and shows what it knows.
//!
//! [`Config::build`] makes an [`Actor`], which must run, and a [`Ref`], which is cheap to clone.
//! The actor owns the machine, its links and its floor file; it spawns one task a session and one a dial.
//! Not for decisions: those are the machine's. Read `flock/actor.rs` next.

mod actor;
mod authority;
mod floor;
mod handle;
mod view;

pub use actor::{Actor, BuildError, Config};
pub use authority::JudgeDocument;
pub use handle::{PublishError, Ref};
pub use view::{FlockView, MemberView, SharedEntry};
