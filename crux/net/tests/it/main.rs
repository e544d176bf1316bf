//! The drivers of crux-net, over loopback and temporary directories.

mod fixture;
mod identity;
mod rpc;
