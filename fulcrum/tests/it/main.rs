//! Integration tests of the crate: real keepers, cells and memoirs in temporary directories.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests fail by panicking and say what they skip"
)]

mod agent;
mod agent_authority;
mod agent_base;
mod agent_blobs;
mod agent_callers;
mod agent_ends;
mod agent_files;
mod agent_flock;
mod agent_instances;
mod agent_invitations;
mod agent_lifecycle;
mod agent_mounts;
mod agent_narrow;
mod agent_relay;
mod agent_rig;
mod agent_services;
mod cell;
mod cutting;
mod keeper;
mod keeper_kills;
mod liar;
mod memoir;
mod output;
mod rest;
mod rest_fuzz;
mod rig;
mod switch;
mod twins;
