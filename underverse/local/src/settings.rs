//! What this backend is told by whoever starts it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crux_net::order::Order;
use underverse::Tag;

use crate::config::{Executable, Isolation};
use crate::groups::Groups;
use crate::layout::Home;
use crate::network::Granted;

/// Time a cell is given to end after being asked. 15 s: its instances have 10 s.
pub const CELL_GRACE: Duration = Duration::from_secs(15);

/// Settings of the backend `local`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// State directory.
    pub home: Home,
    /// The `radix` that nested rnodes run from.
    pub executable: Executable,
    /// What namespaces this machine grants us; probed by the caller.
    pub isolation: Isolation,
    /// Virtual servers with their tags; never empty. Containers spread over them.
    pub servers: Vec<VirtualServer>,
    /// Where commands can be limited; nowhere unless it was probed.
    pub groups: Groups,
    /// Time a cell is given to end after being asked.
    pub cell_grace: Duration,
    /// What networks this machine grants; probed by the caller, nothing by default.
    pub granted: Granted,
    /// Where this machine's `/dev`, `/proc` and `/sys` are; `/` but in tests. What is found there tags its servers.
    pub machine_root: PathBuf,
    /// In which order what a pass may do at once is done; as asked but in tests.
    pub order: Order,
}

impl Settings {
    /// Settings with one server named `local` without tags.
    #[must_use]
    pub fn new(home: Home, executable: Executable, isolation: Isolation) -> Self {
        Self {
            home,
            executable,
            isolation,
            servers: Self::own_servers(),
            groups: Groups::default(),
            cell_grace: CELL_GRACE,
            granted: Granted::default(),
            machine_root: PathBuf::from("/"),
            order: Order::default(),
        }
    }

    /// The servers where none are declared: one named `local`, without tags of its own.
    #[must_use]
    pub fn own_servers() -> Vec<VirtualServer> {
        vec![VirtualServer {
            name: "local".to_owned(),
            tags: BTreeSet::new(),
        }]
    }
}

/// A share of this machine that has a name and tags of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualServer {
    /// Its name.
    pub name: String,
    /// Its tags; containers on it inherit them.
    pub tags: BTreeSet<Tag>,
}
