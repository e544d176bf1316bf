//! The toy keeps the mandatory part of the contract, linked in and as a plug-in.

#![cfg(test)]

mod plugin;
mod suite;
