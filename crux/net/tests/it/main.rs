//! The drivers of crux-net, over loopback and temporary directories.

mod fixture;
mod flock;
mod identity;
mod rest;
mod rpc;
