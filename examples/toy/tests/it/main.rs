//! The toy keeps the mandatory part of the contract, linked in and as a plug-in.

#![cfg(test)]

mod plugin;
mod suite;

/// One at a time: what hangs, dies and heals here is told by watching, and takes both processors.
pub(crate) static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
