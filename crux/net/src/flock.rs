//! The driver of [`crux_core::flock`]: one socket, one small file, one task.
//!
//! [`Config::build`] gives an [`Actor`] to run and [`Ref`]s to ask. The task it spawns itself are those of its links:
//! one that accepts, and a reader and a writer a peer. Decisions are the machine's; read `flock/actor_task.rs` first.

mod actor_task;
mod authority;
mod floor;
mod handle;
mod view;

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;

use crux_core::flock::Me;
use crux_core::ken::Refusal;

pub use actor_task::Actor;
pub use crux_core::flock::{Config as Timings, FlockId, State};
pub use crux_core::ken::{Document, DocumentId, Entry};
pub use handle::Ref;
pub use view::{FlockView, MemberView};

use crate::identity::RnodeIdentity;

/// Judges a document's bytes as of a generation, before they are kept and passed on.
pub type DocumentJudge = Box<dyn FnMut(u64, &[u8]) -> bool + Send>;

/// Everything a rnode's part of a flock is made of.
pub struct Config {
    /// Periods and thresholds.
    pub timings: Timings,
    /// Who we are, and whom we believe.
    pub identity: RnodeIdentity,
    /// The bound UDP socket.
    pub socket: UdpSocket,
    /// Where others can reach that socket; empty: where it is bound.
    pub addresses: Vec<SocketAddr>,
    /// Where others may be; where members were before a restart is known without.
    pub hints: Vec<SocketAddr>,
    /// Our vote.
    pub vote: u32,
    /// Our incarnation; raised above the last one used here if it is not.
    pub incarnation: u64,
    /// A directory for what must never fall; made if it is missing.
    pub dir: PathBuf,
    /// Judges documents; none: an encoded `SignedDocument` of that generation, signed for this namespace.
    pub judge: Option<DocumentJudge>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Config")
            .field("dir", &self.dir)
            .field("hints", &self.hints)
            .finish_non_exhaustive()
    }
}

/// Why a flock's driver could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Keys or links could not be used.
    #[error("open the flock's links")]
    Identity(#[from] crate::identity::Error),
    /// What must never fall could not be read or kept; going on could break a promise.
    #[error("{operation} {}", path.display())]
    Floor {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The machine refused a request.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Config {
    /// Prepares the driver; nothing is sent until [`Actor::run`]. Call inside a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Floor`], [`Error::Identity`].
    pub fn build(self) -> Result<(Actor, Ref), Error> {
        let store = floor::FloorStore::open(&self.dir)?;
        let bound = self.socket.local_addr();
        let bound = bound.map_err(|source| Error::Floor {
            operation: "ask for the address of",
            path: "the flock's socket".into(),
            source,
        })?;
        let addresses = if self.addresses.is_empty() {
            vec![bound]
        } else {
            self.addresses
        };
        let judge = self
            .judge
            .unwrap_or_else(|| authority::signed_documents(&self.identity));
        let authority = authority::Keys::new(self.identity.clone(), judge);
        let me = Me {
            id: self.identity.id(),
            namespace: self.identity.namespace_id(),
            incarnation: self.incarnation,
            vote: self.vote,
            addresses,
            credential: authority.credential()?,
        };
        let link = crate::link::QuicLink::open(crate::link::QuicConfig {
            socket: self.socket,
            credentials: self.identity.credentials()?,
            namespace: self.identity.namespace().clone(),
            own: self.identity.id(),
            reset_secret: store.reset_secret()?,
        })?;
        let flock = crux_core::flock::Flock::new(
            self.timings,
            me,
            store.floor(),
            Box::new(authority),
            floor::seed()?,
        );
        let trust = self.identity.trust().changes();
        let mut hints = self.hints;
        hints.extend_from_slice(store.peers());
        Ok(actor_task::build(flock, link, store, (trust, hints)))
    }
}
