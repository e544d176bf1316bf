//! Benchmarks beside their peers; see `src/bin`.
