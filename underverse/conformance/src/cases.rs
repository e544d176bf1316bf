//! The cases, by what they are about. `cargo xtask tidy` compares their names with the lines of the contract.

mod address;
mod admin;
mod command;
mod dissolve;
mod events;
mod known;
mod life;
mod network;
mod realise;
mod resize;
mod storage;
mod survive;
mod told;

use crate::case::Case;

/// Every case, in the order in which it is reported.
#[must_use]
pub fn all() -> Vec<Case> {
    let parts = [
        life::CASES,
        known::CASES,
        address::CASES,
        realise::CASES,
        resize::CASES,
        survive::CASES,
        network::CASES,
        command::CASES,
        storage::CASES,
        told::CASES,
        dissolve::CASES,
        events::CASES,
        admin::CASES,
    ];
    parts.concat()
}
