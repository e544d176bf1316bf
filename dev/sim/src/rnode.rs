//! One simulated rnode: a flock machine, a disk that holds its floor, and what its agent wants published.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crux_core::flock::{Config, Flock, Floor, Me};
use crux_core::names::{NamespaceId, RnodeId};

use crate::authority::SimAuthority;

/// How a rnode is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// Periods and thresholds.
    pub config: Config,
    /// Its vote.
    pub vote: u32,
    /// What it is told of others, at each start.
    pub hints: Vec<SocketAddr>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            config: Config::default(),
            vote: 100,
            hints: Vec::new(),
        }
    }
}

/// One simulated rnode.
#[derive(Debug)]
pub struct Rnode {
    /// Its permanent name.
    pub id: RnodeId,
    /// Where it can be reached.
    pub address: SocketAddr,
    /// How it was made.
    pub options: Options,
    /// The machine; none while it is down.
    pub flock: Option<Flock>,
    /// What survives a crash.
    pub disk: Floor,
    /// What its agent publishes, anew at each start.
    pub wanted: BTreeMap<String, Vec<u8>>,
    /// Incarnations started by its keeper.
    pub starts: u64,
    /// Until when it does nothing.
    pub stalled_until: Option<Duration>,
    /// Bytes and messages it sent.
    pub sent: (u64, u64),
    pub(crate) identities: u8,
}

impl Rnode {
    pub(crate) fn new(index: usize, options: Options) -> Self {
        Self {
            id: id(index, 0),
            address: address(index),
            options,
            flock: None,
            disk: Floor::default(),
            wanted: BTreeMap::new(),
            starts: 0,
            stalled_until: None,
            sent: (0, 0),
            identities: 0,
        }
    }

    /// Gives it another identity, as when its disk was replaced.
    pub(crate) fn replace(&mut self, index: usize) {
        self.identities += 1;
        self.id = id(index, self.identities);
        self.disk = Floor::default();
        self.starts = 0;
    }

    pub(crate) fn start(&mut self, seed: u64) {
        self.starts += 1;
        let me = Me {
            id: self.id,
            namespace: namespace(),
            incarnation: self.starts,
            vote: self.options.vote,
            addresses: vec![self.address],
            credential: SimAuthority::credential(&self.id),
        };
        let authority = Box::new(SimAuthority::new(self.id));
        self.flock = Some(Flock::new(
            self.options.config,
            me,
            self.disk,
            authority,
            seed,
        ));
    }
}

pub(crate) fn namespace() -> NamespaceId {
    NamespaceId::from_bytes([0x5a; 32])
}

/// The address of the rnode with this index.
pub(crate) fn address(index: usize) -> SocketAddr {
    let [_, _, high, low] = u32::try_from(index + 1).unwrap_or(0).to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 7400))
}

fn id(index: usize, identity: u8) -> RnodeId {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(b"simulated rnode")
        .update(&index.to_le_bytes())
        .update(&[identity]);
    RnodeId::from_bytes(*hasher.finalize().as_bytes())
}
