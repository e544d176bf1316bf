//! Files and folders copied whole between roots that nobody leaves.
//!
//! [`Root`] walks; [`offer`] says what a path consists of and gives its parts; [`mod@take`] compares,
//! stages, verifies, syncs and names. Blobs by digest are the [`store`](crate::store)'s.
//! docs/design/fileio.md has the states and invariants.

mod cache;
mod error;
mod folders;
pub mod give;
pub mod offer;
mod place;
mod quota;
mod relay;
mod root;
pub mod service;
mod sink;
mod spread;
mod staging;
pub mod take;
mod ticket;

pub use cache::HashCache;
pub use error::{Error, Kind};
pub use give::give;
pub use offer::{HardLinks, Offered};
pub use quota::{Beyond, Quota, Reserved};
pub use relay::Relay;
pub use root::Root;
pub use sink::Sink;
pub use spread::{Reached, Thing, spread};
pub use take::{RANGES_AT_ONCE, Source, Tally, Told, take};
pub use ticket::ticket;
