//! Shared parts of the stix example.
