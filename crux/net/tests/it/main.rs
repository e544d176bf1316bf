//! The drivers of crux-net, over loopback and temporary directories.

mod fixture;
mod flock;
mod identity;
mod owner;
mod rest;
mod rpc;
