//! Integration tests of the crate: real keepers, cells and memoirs in temporary directories.

mod cell;
mod keeper;
mod keeper_kills;
mod memoir;
mod output;
mod rig;
