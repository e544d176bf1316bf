//! The task that gives the machine what happens and does what it says.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crux_core::flock::{Admin, Flock, Input, Output, State};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::floor::FloorStore;
use super::handle::{Machine, Ref, Shared};
use super::view::FlockView;
use crate::link::{Carriage, Link, LinkCounters, LinkEvent, QuicLink};

/// How old counters in a view may get.
const VIEW_AGE_MAX: Duration = Duration::from_secs(1);
/// When the machine asked for no time, it is given one anyway.
const WAKE_MAX: Duration = Duration::from_secs(5);

/// One rnode's part of a flock, until [`run`](Self::run) ends.
#[derive(Debug)]
pub struct Actor {
    shared: Arc<Shared>,
    link: QuicLink,
    store: FloorStore,
    trust: watch::Receiver<u64>,
    shown: Instant,
}

pub(super) fn build(
    flock: Flock,
    link: QuicLink,
    store: FloorStore,
    (trust, hints): (watch::Receiver<u64>, Vec<SocketAddr>),
) -> (Actor, Ref) {
    let start = Instant::now();
    let view = FlockView::of(&flock, start, LinkCounters::default());
    let shared = Arc::new(Shared {
        machine: std::sync::Mutex::new(Machine {
            flock,
            pending: VecDeque::new(),
            wake: None,
        }),
        start,
        work: Notify::new(),
        view: watch::channel(view).0,
        changes: watch::channel(0).0,
        document: watch::channel(None).0,
        ended: watch::channel(false).0,
    });
    for hint in hints {
        // A machine that has just been made refuses no hint.
        shared.step(Input::Admin(Admin::Hint(hint))).ok();
    }
    (
        Actor {
            shared: Arc::clone(&shared),
            link,
            store,
            trust,
            shown: start,
        },
        Ref(shared),
    )
}

/// What woke the actor.
enum Woken {
    Link(LinkEvent),
    Trust,
    Work,
    Timer,
    Cancelled,
}

impl Actor {
    /// Runs until `cancel`, as if it had crashed, or until [`Ref::quit`].
    ///
    /// # Errors
    /// [`Error::Floor`] when what must never fall could not be kept; nothing that depended on it was done.
    ///
    /// # Cancel safety
    /// Dropping it is like a crash.
    pub async fn run(mut self, cancel: CancellationToken) -> Result<(), Error> {
        let result = self.go_on(&cancel).await;
        self.shared.show(self.link.counters());
        self.shared.ended.send_replace(true);
        result
    }

    async fn go_on(&mut self, cancel: &CancellationToken) -> Result<(), Error> {
        self.give(Input::Tick);
        loop {
            if self.perform()? {
                self.link.finish().await;
                return Ok(());
            }
            match self.wait(cancel).await {
                Woken::Link(LinkEvent::Message { from, bytes }) => {
                    self.give(Input::Message {
                        from,
                        bytes: bytes.to_vec(),
                    });
                }
                Woken::Link(LinkEvent::Connected { peer, address }) => {
                    self.give(Input::PeerConnected { peer, address })
                }
                Woken::Link(LinkEvent::Gone { peer }) => self.give(Input::PeerGone { peer }),
                Woken::Trust => {
                    self.link.recheck();
                    self.give(Input::Recheck);
                }
                Woken::Work => {}
                Woken::Timer => self.give(Input::Tick),
                Woken::Cancelled => return Ok(()),
            }
        }
    }

    /// A refusal here can only be that the machine has ended, which `perform` sees.
    fn give(&self, input: Input) {
        self.shared.step(input).ok();
    }

    async fn wait(&mut self, cancel: &CancellationToken) -> Woken {
        let wake = self
            .shared
            .machine()
            .wake
            .unwrap_or_else(|| Instant::now() + WAKE_MAX);
        tokio::select! {
            // Messages before the timer, so that after a stall what waited is heard before anyone is suspected.
            biased;
            () = cancel.cancelled() => Woken::Cancelled,
            event = self.link.next() => Woken::Link(event),
            () = self.shared.work.notified() => Woken::Work,
            changed = self.trust.changed() => if changed.is_ok() { Woken::Trust } else { std::future::pending().await },
            () = sleep_until(wake) => Woken::Timer,
        }
    }

    /// Does everything the machine wants done, in order; true when it has ended.
    fn perform(&mut self) -> Result<bool, Error> {
        let mut shows = false;
        let mut ended = false;
        loop {
            let (output, addresses) = {
                let mut machine = self.shared.machine();
                let Some(output) = machine.pending.pop_front() else {
                    break;
                };
                let addresses = match &output {
                    Output::Send { peer, .. } => machine.flock.addresses(peer).to_vec(),
                    _ => Vec::new(),
                };
                (output, addresses)
            };
            match output {
                Output::Persist(floor) => self.store.keep(floor)?,
                Output::Send {
                    peer,
                    bytes,
                    reliable,
                } => {
                    let carriage = if reliable {
                        Carriage::Stream
                    } else {
                        Carriage::Datagram
                    };
                    self.link
                        .send(peer, &addresses, Bytes::from_owner(bytes), carriage);
                }
                Output::Dial { address } => self.link.dial(address),
                Output::Close { peer } => self.link.close(peer),
                Output::Leader { .. } => shows = true,
                Output::Membership { rnode, state, .. } => {
                    shows = true;
                    if state == State::Down {
                        // The next try shall dial anew, not wait for a connection to notice that it is dead.
                        self.link.close(rnode);
                    }
                    ended |= state == State::Left && rnode == self.shared.machine().flock.id();
                }
                Output::DocumentChanged(document) => {
                    shows = true;
                    self.shared.document.send_replace(Some(document));
                }
                Output::EntryChanged { .. } | Output::Refused(_) | Output::Wake(_) => {}
            }
        }
        self.show(shows);
        Ok(ended)
    }

    /// Keeps where the members are, as hints for the next start.
    fn remember(&mut self) {
        let peers = {
            let machine = self.shared.machine();
            let own = machine.flock.id();
            let up = machine
                .flock
                .members()
                .filter(|member| member.state == State::Up && member.id != own);
            up.filter_map(|member| member.addresses.first().copied())
                .collect()
        };
        self.store.remember(peers);
    }

    fn show(&mut self, now: bool) {
        if now {
            self.shared.show(self.link.counters());
            self.shared.changes.send_modify(|version| *version += 1);
            self.remember();
            self.shown = Instant::now();
        } else if self.shown.elapsed() >= VIEW_AGE_MAX {
            self.shown = Instant::now();
            let fresh = FlockView::of(
                &self.shared.machine().flock,
                self.shared.start,
                self.link.counters(),
            );
            // Counters alone wake nobody.
            self.shared.view.send_if_modified(|view| {
                *view = fresh;
                false
            });
        }
    }
}
