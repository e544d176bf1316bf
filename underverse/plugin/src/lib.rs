//! Backends in processes of their own: the protocol, both sides of it, and a kit for their authors.
//!
//! An author's `main` is one call, [`serve_plugin`]; whoever uses a backend says [`Plugin::find`].
//! docs/design/plugin.md tells how the two meet. Not for deciding which backend is used: binaries do that.

mod convert;
pub mod find;
pub mod kit;
mod launch;
mod plugin;
mod serve;
mod session;
mod suite;
mod version;

#[expect(
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes,
    reason = "generated code"
)]
pub(crate) mod wire {
    include!("generated/radix.underverse.v1.rs");
}

pub use launch::{Launch, Log, PATIENCE};
pub use plugin::{ATTEMPTS_MAX, BACKOFF_MAX, BACKOFF_MIN, BACKOFF_RESET, Plugin};
pub use serve::{Served, serve_plugin};
pub use session::{HELLO_TIME_MAX, LOG_LINE_BYTES_MAX};
pub use suite::{GROUND_VARIABLE, PluginBelow};
pub use version::{MESSAGE_BYTES_MAX, PLUGIN_VARIABLE, VERSION_MAX, VERSION_MIN};

/// What README.md shows must compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
