//! Integration tests of crux-core.

mod adf;
mod threat_model;
