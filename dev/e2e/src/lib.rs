//! Tests that run the built `radix` binary; see `tests/it/`.
