//! What the agent knows about files beyond its store: roots, tickets, needs, kinds.
//!
//! docs/design/fileio.md is the page; `crux_net::files` does the copying.

pub(crate) mod at_path;
pub(crate) mod copy;
pub(crate) mod givers;
pub(crate) mod held;
pub(crate) mod mounted;
pub(crate) mod needs;
pub(crate) mod needs_task;
pub(crate) mod pauses;
pub(crate) mod room;
pub(crate) mod roots;
pub(crate) mod service;
pub(crate) mod tickets;
pub(crate) mod writing;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crux_core::files::path::RelPath;
use crux_net::files::{HashCache, Offered, Quota, Relay, Root};
use tokio::sync::Semaphore;

use super::fetch::{Fetching, Lies};
use super::limits::COPIES_MAX;
use givers::Givers;
use held::Held;
use mounted::Mounted;
use needs::Needs;
use tickets::Tickets;

/// A place that was promised to a giver.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) root: Arc<Root>,
    pub(crate) dest: RelPath,
    /// As it was asked for.
    pub(crate) path: String,
}

/// What may be read by whoever names a ticket.
#[derive(Debug)]
pub(crate) enum Offer {
    /// What lies here.
    Offered(Arc<Offered>),
    /// What is on its way here.
    Relay(Arc<Relay>),
}

impl Offer {
    /// The root it is read below.
    pub(crate) fn root(&self) -> &Root {
        match self {
            Self::Offered(offered) => offered.root(),
            Self::Relay(relay) => relay.root(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Files {
    /// Digests of untouched files.
    pub(crate) cache: Arc<HashCache>,
    /// What may be read by whoever names the ticket.
    pub(crate) offers: Tickets<Offer>,
    /// What may be written by whoever names the ticket.
    pub(crate) places: Tickets<Expected>,
    /// What must be here.
    pub(crate) needs: Needs,
    /// What was put here by name, and whether it is to stay.
    pub(crate) held: Held,
    /// The rnode's quota, if it has one.
    pub(crate) quota: Option<Arc<Quota>>,
    /// Held while a needed file is put at its path, or removed there.
    pub(crate) placing: Mutex<()>,
    /// Data sets that are mounted.
    pub(crate) mounted: Mounted,
    /// Copies at once.
    pub(crate) copies: Arc<Semaphore>,
    /// Who reads files from here.
    pub(crate) givers: Arc<Givers>,
    /// Blobs that are being fetched.
    pub(crate) fetching: Fetching,
    /// Who gave something else than a blob.
    pub(crate) lies: Lies,
}

impl Files {
    /// Reads what lies in the agent's directory.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn open(agent_dir: &Path, quota: Option<Arc<Quota>>) -> io::Result<Self> {
        Ok(Self {
            cache: Arc::default(),
            offers: Tickets::default(),
            places: Tickets::default(),
            needs: Needs::open(agent_dir)?,
            held: Held::open(agent_dir)?,
            mounted: Mounted::open(agent_dir)?,
            quota,
            placing: Mutex::default(),
            copies: Arc::new(Semaphore::new(COPIES_MAX)),
            givers: Arc::default(),
            fetching: Fetching::default(),
            lies: Lies::default(),
        })
    }
}
