//! The simulator's tests: scenarios for requirement rows, and seeds of chaos.

mod chaos;
mod scenario;
