//! The backend `local` over a base and a machine that live in memory.

mod backend;
mod fake;
mod forward;
mod heal;
mod interrupted;
mod realise;
mod refused;
mod tags;
