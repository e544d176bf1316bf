//! Fixtures and helpers for tests.
//!
//! [`golden`] runs case files, in which input and expected output stand side by side.

pub mod golden;
