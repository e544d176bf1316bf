//! What the rest of a process holds of its flock.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crux_core::digest::Digest;
use crux_core::flock::{Admin, Flock, Input, Output, Seated};
use crux_core::ken::{Document, DocumentId, Entry, Refusal};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::view::FlockView;
use crate::link::LinkCounters;

/// Outputs that wait to be done; beyond it requests are refused until the actor has caught up.
const PENDING_MAX: usize = 65_536;

/// The machine and what it wants done, in order; steps are taken under the lock, which nobody holds for long.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) flock: Flock,
    pub(super) pending: VecDeque<Output>,
    pub(super) wake: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) machine: Mutex<Machine>,
    pub(super) start: Instant,
    pub(super) work: Notify,
    pub(super) view: watch::Sender<FlockView>,
    pub(super) changes: watch::Sender<u64>,
    pub(super) document: watch::Sender<Option<Document>>,
    pub(super) ended: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a step and leaves what it wants done to the actor; a refusal comes back.
    pub(super) fn step(&self, input: Input) -> Result<(), Refusal> {
        let mut machine = self.machine();
        if machine.pending.len() > PENDING_MAX {
            return Err(Refusal::Full);
        }
        let outputs = machine.flock.step(self.start.elapsed(), input);
        let mut refused = Ok(());
        let mut changed = false;
        for output in outputs {
            match output {
                Output::Refused(refusal) => refused = Err(refusal),
                Output::Wake(at) => machine.wake = Some(self.start + at),
                Output::EntryChanged { .. } => changed = true,
                other => machine.pending.push_back(other),
            }
        }
        drop(machine);
        if changed {
            self.changes.send_modify(|version| *version += 1);
        }
        refused
    }

    pub(super) fn show(&self, link: LinkCounters) {
        let view = FlockView::of(&self.machine().flock, self.start, link);
        self.view.send_replace(view);
    }
}

/// A handle to a running flock; cheap to clone. Dropping it stops nothing.
#[derive(Debug, Clone)]
pub struct Ref(pub(super) Arc<Shared>);

impl Ref {
    fn ask(&self, input: Input) -> Result<(), Refusal> {
        let result = self.0.step(input);
        self.0.work.notify_one();
        result
    }

    /// Says `value` about `key` to everyone, until it is withdrawn or this rnode goes. Seen here at once.
    ///
    /// # Errors
    /// [`Refusal`]: key or value beyond their limits, too many entries, or this rnode has quit. Nothing changed.
    pub fn publish(&self, key: &str, value: &[u8]) -> Result<(), Refusal> {
        self.ask(Input::Publish {
            key: key.to_owned(),
            value: value.to_vec(),
        })
    }

    /// Takes `key` back; nothing happens when it was not published.
    ///
    /// # Errors
    /// [`Refusal::Ended`].
    pub fn withdraw(&self, key: &str) -> Result<(), Refusal> {
        self.ask(Input::Withdraw {
            key: key.to_owned(),
        })
    }

    /// Asks for what only a seated leader may allow.
    ///
    /// # Errors
    /// Always [`Refusal::Unsupported`] in this version.
    pub fn seated(&self, request: Seated) -> Result<(), Refusal> {
        self.ask(Input::Seated(request))
    }

    /// The flock as this rnode sees it; wakes when leader, members or flock change. Counters are at most a second old.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<FlockView> {
        self.0.view.subscribe()
    }

    /// Everyone's entries whose key begins with `prefix`, by owner and key.
    #[must_use]
    pub fn entries(&self, prefix: &str) -> Vec<Entry> {
        self.0.machine().flock.entries(prefix).cloned().collect()
    }

    /// A number that rises with each change of entries, members or leader.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Gives the flock a document, to be kept by every rnode. Giving the same again does nothing.
    ///
    /// # Errors
    /// [`Refusal::Stale`], [`Refusal::Signature`], [`Refusal::Document`]; nothing changed.
    pub fn put_document(&self, generation: u64, bytes: &[u8]) -> Result<(), Refusal> {
        let id = DocumentId {
            generation,
            digest: Digest::of(bytes),
        };
        self.ask(Input::PutDocument {
            id,
            bytes: Arc::from(bytes),
        })
    }

    /// The newest document of the namespace.
    #[must_use]
    pub fn document(&self) -> watch::Receiver<Option<Document>> {
        self.0.document.subscribe()
    }

    /// Says that a rnode is probably to be found at `address`.
    pub fn hint(&self, address: SocketAddr) {
        // The only refusal is that this rnode has quit, and then hints are no use to it.
        self.ask(Input::Admin(Admin::Hint(address))).ok();
    }

    /// Sets this rnode's vote; a leader that lowers it below others' gives up the lead.
    ///
    /// # Errors
    /// [`Refusal::Ended`].
    pub fn set_vote(&self, vote: u32) -> Result<(), Refusal> {
        self.ask(Input::Admin(Admin::SetVote(vote)))
    }

    /// Forgets the leader and flocks anew.
    ///
    /// # Errors
    /// [`Refusal::Ended`].
    pub fn restart(&self) -> Result<(), Refusal> {
        self.ask(Input::Admin(Admin::Restart))
    }

    /// Leaves the flock for good, tells everyone, and waits until the actor has ended.
    ///
    /// # Cancel safety
    /// The flock is left even if this is not awaited to its end.
    pub async fn quit(&self) {
        self.ask(Input::Admin(Admin::Quit)).ok();
        self.ended().await;
    }

    /// Waits until the actor has ended.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ended(&self) {
        // An error means that the sender is gone, which it cannot be while we hold it.
        self.0.ended.subscribe().wait_for(|ended| *ended).await.ok();
    }
}
