//! One file a command.

pub(crate) mod api;
pub(crate) mod backend;
pub(crate) mod begat;
pub(crate) mod ca;
pub(crate) mod ca_deny;
pub(crate) mod ca_root;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod cp;
pub(crate) mod data;
pub(crate) mod down;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod flock;
pub(crate) mod fmt;
pub(crate) mod logs;
pub(crate) mod memoir;
pub(crate) mod myriad;
pub(crate) mod need;
pub(crate) mod plan;
pub(crate) mod ps;
pub(crate) mod rnode;
pub(crate) mod rnodes;
pub(crate) mod services;
pub(crate) mod status;
pub(crate) mod up;
