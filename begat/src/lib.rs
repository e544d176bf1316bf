//! Begat: runs dictums, keeps their products by digest and records each execution.
