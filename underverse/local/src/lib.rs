//! The underverse of this machine: nested rnodes as processes, cells, loopback addresses, an L4 forwarder.
//!
//! [`Local`] implements `underverse::Underverse` over a [`Base`]: `plan.rs` decides (pure), `execute.rs` follows.
//! It spawns no task: a pass works while its stream is polled.

mod address;
mod admin;
mod answers;
pub mod backend;
mod base;
mod base_client;
mod claims;
mod command;
mod config;
mod direct;
mod discover;
mod document;
mod durable;
mod events;
mod execute;
mod external;
pub mod forward;
mod ground;
mod groups;
mod label;
mod layout;
pub mod limits;
mod local;
mod maintenance;
pub mod mark;
pub mod myriad;
pub mod names;
mod network;
mod plan;
mod process;
mod record;
mod report;
mod restarts;
mod servers;
mod settings;
mod storage;
mod switch_dir;
mod trial;
mod wanted;

pub use address::base_host;
pub use admin::{LocalAdmin, ServerTags};
pub use base::{Abilities, Base, BaseView, EndSignal, Ended, ExecutionView, Start};
pub use base_client::BaseClient;
pub use claims::Claim;
pub use config::{Executable, HostPort, Isolation};
pub use direct::{Direct, Inviter, find_radix, on_this_machine, running_below};
pub use document::{Asked, asked};
pub use ground::{Ground, ThisMachine};
pub use groups::Groups;
pub use label::{Label, Subject, ordinal_of, rnode_label};
pub use layout::Home;
pub use local::Local;
pub use network::{Carries, Granted, OnSwitch, ProbeAsk, ProbeFound, Scope, Way};
pub use report::capabilities;
pub use restarts::{BACKOFF_MAX, BACKOFF_MIN, BACKOFF_RESET};
pub use settings::{CELL_GRACE, Settings, VirtualServer};
