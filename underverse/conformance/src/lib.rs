//! Every promise of the `Underverse` trait as a named case, for whoever writes a backend.
//!
//! An author implements [`Fixture`] and [`Ground`] (what is below the backend, seen without asking it) and calls [`run`].
//! Each line of a Behaviour list in `underverse/src/contract.rs` is a case of the same name.
//! A case that needs what the backend lacks shows the refusal instead; one that cannot be judged is skipped, with the reason.
//! Not for tests of one backend's own ways. It spawns no task. Read `fixture.rs` next, then `cases.rs`.

mod bed;
mod case;
mod cases;
mod directory;
mod fixture;
mod refusal;
mod report;
mod runner;
mod tap;

pub use case::{Case, Verdict};
pub use cases::all;
pub use directory::{Below, DirectoryFixture, Scratch};
pub use fixture::{Cannot, Disturbance, Fixture, Ground, Opened, Resolved, Take, Vantage};
pub use report::{Report, Row};
pub use runner::{CASE_TIME_MAX, Choice, run};
pub use tap::{TAP_VARIABLE, Tap};

/// What README.md shows must compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
