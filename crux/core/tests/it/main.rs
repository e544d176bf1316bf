//! Integration tests of crux-core.

mod adf;
