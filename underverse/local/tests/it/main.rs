//! The backend `local` over a base and a machine that live in memory.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests stop at what they did not expect"
)]

mod backend;
mod client;
mod datagrams;
mod external;
mod fake;
mod follow;
mod forward;
mod heal;
mod interrupted;
mod myriad;
mod order;
mod realise;
mod refused;
mod servers;
mod storage;
mod tags;
