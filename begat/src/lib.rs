//! Begat: runs dictums, keeps what they make by digest, and records each execution.
//!
//! A dictum that has been executed before, with the same inputs and the same versions of its
//! tools, is not executed again. This first version runs dictums on the machine itself and sees
//! only what they declare; each record says so.
//!
//! Threads of its own live only inside [`build`]; nothing is printed. See docs/design/begat.md.
//!
//! ```no_run
//! # fn main() -> Result<(), begat::Error> {
//! use std::path::Path;
//! let home = Path::new("/home/anna/.local/state/radix");
//! let tree = begat::Tree::open(Path::new("examples/stix"), &home.join("begat"))?;
//! println!("{:?}", tree.matches("src/**/*.rs")?);
//! # Ok(())
//! # }
//! ```

mod build;
mod carry;
mod error;
mod execute;
mod graph;
mod records;
mod tools;
mod tree;

pub use build::{Made, Outcome, Progress, Report, Request, build};
pub use carry::{Carried, export, import};
pub use error::{Error, Kind};
pub use execute::SECONDS_MAX_DEFAULT;
pub use graph::graph;
pub use records::{Kept, Records};
pub use tools::Host;
pub use tree::Tree;
