//! The pure part of begat: the dictum graph, the identity of executions, records.
