//! The seeded simulator: runs the crux machines without sockets or clocks.
