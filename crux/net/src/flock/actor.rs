//! The loop: links, commands and time in; messages, files and the board out.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crux_core::flock::{self, Admin, Flock, Input, Me, Output, Time};
use crux_core::ken::Entry;
use crux_core::names::RnodeId;
use ring::rand::SecureRandom as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::authority::{JudgeDocument, Keys};
use super::floor;
use super::handle::{Board, Command, Ref};
use super::view::{FlockView, MemberView, SharedEntry};
use crate::identity::{Error as IdentityError, RnodeIdentity};
use crate::link::{Endpoint, Event, Links, Settings};

/// Link events that wait for the machine; readers of sessions wait beyond it.
const EVENTS_MAX: usize = 1024;
/// Commands that wait for the machine; beyond it publishing is refused as busy.
const COMMANDS_MAX: usize = 1024;
/// Events taken before readers are shown what changed.
const BATCH_MAX: usize = 64;
/// How often standing sessions are held against charter, denies and claims.
const RECHECK_EVERY: Duration = Duration::from_secs(5);
/// How often figures that change by themselves (silence, tenure) are shown anew.
const SHOW_EVERY: Duration = Duration::from_secs(1);

/// What a flock is made from.
pub struct Config {
    /// Periods and thresholds.
    pub protocol: flock::Config,
    /// Where the floor is kept; must exist.
    pub directory: PathBuf,
    /// Who we are.
    pub identity: Arc<RnodeIdentity>,
    /// Where others can reach us, most preferred first.
    pub addresses: Vec<SocketAddr>,
    /// Where others may be.
    pub hints: Vec<SocketAddr>,
    /// Our vote.
    pub vote: u32,
    /// Our incarnation, above all earlier ones.
    pub incarnation: u64,
    /// Judges documents that others pass on.
    pub judge: JudgeDocument,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Config")
            .field("addresses", &self.addresses)
            .field("hints", &self.hints)
            .finish_non_exhaustive()
    }
}

/// Why a flock could not be begun. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The floor file or the socket.
    #[error("begin to flock")]
    Io(#[from] io::Error),
    /// Keys or TLS.
    #[error("begin to flock")]
    Identity(#[from] IdentityError),
}

/// Runs a flock machine; stops when its future is dropped.
#[derive(Debug)]
pub struct Actor {
    machine: Flock,
    links: Links,
    events: mpsc::Receiver<Event>,
    commands: mpsc::Receiver<Command>,
    board: Arc<Board>,
    directory: PathBuf,
    hints: Vec<SocketAddr>,
    begin: Instant,
    wake: Time,
    foreign: u64,
    quitting: Option<oneshot::Sender<()>>,
}

impl Config {
    /// Takes a bound socket and makes the actor and its handle; must be called within a runtime.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(self, socket: UdpSocket) -> Result<(Actor, Ref), BuildError> {
        socket.set_nonblocking(true)?;
        let floor = floor::read(&self.directory)?;
        let settings = Settings {
            credentials: self.identity.credentials()?,
            namespace: self.identity.namespace().clone(),
            reset_key: floor::reset_key(&self.directory)?,
        };
        let endpoint = Endpoint::new(socket, settings)?;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let own = self.identity.id();
        let me = Me {
            id: own,
            namespace: self.identity.namespace_id(),
            incarnation: self.incarnation,
            vote: self.vote,
            addresses: self.addresses,
            credential: Keys::credential(&self.identity),
        };
        let keys = Keys::new(Arc::clone(&self.identity), self.judge);
        let machine = Flock::new(self.protocol, me, floor, Box::new(keys), seed()?);
        let (commander, commands) = mpsc::channel(COMMANDS_MAX);
        let board = Arc::new(Board {
            entries: RwLock::default(),
            own: Mutex::default(),
            view: watch::Sender::new(Arc::default()),
            changes: watch::Sender::new(0),
            document: watch::Sender::new(None),
        });
        let actor = Actor {
            machine,
            links: Links::new(own, endpoint, sender),
            events,
            commands,
            board: Arc::clone(&board),
            directory: self.directory,
            hints: self.hints,
            begin: Instant::now(),
            wake: Time::ZERO,
            foreign: 0,
            quitting: None,
        };
        Ok((actor, Ref { own, commands: commander, board }))
    }
}

fn seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("no random bytes"))?;
    Ok(u64::from_be_bytes(bytes))
}

impl Actor {
    /// Flocks until `cancel` ends or a handle quits, then says good-bye to open sessions.
    ///
    /// # Errors
    /// Of the disk only: what must be durable cannot be, so nothing more is said.
    ///
    /// # Cancel safety
    /// Dropping the future ends the flock without a word; others find out by silence.
    pub async fn run(mut self, cancel: impl Future<Output = ()>) -> io::Result<()> {
        let mut cancel = std::pin::pin!(cancel);
        let mut recheck = tokio::time::interval(RECHECK_EVERY);
        let mut show = tokio::time::interval(SHOW_EVERY);
        recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
        show.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.step(Input::Tick)?;
        for hint in std::mem::take(&mut self.hints) {
            self.step(Input::Admin(Admin::Hint(hint)))?;
        }
        while self.quitting.is_none() {
            let wake = self.begin + self.wake;
            tokio::select! {
                biased;
                () = &mut cancel => break,
                Some(event) = self.events.recv() => {
                    self.event(event)?;
                    self.more_events()?;
                }
                Some(command) = self.commands.recv() => self.command(command)?,
                () = tokio::time::sleep_until(wake) => self.step(Input::Tick)?,
                _ = recheck.tick() => self.links.recheck(),
                _ = show.tick() => self.show(),
            }
        }
        self.links.end().await;
        if let Some(told) = self.quitting {
            let _ = told.send(());
        }
        Ok(())
    }

    /// Takes what else has arrived, so that a burst is shown once.
    fn more_events(&mut self) -> io::Result<()> {
        for _ in 0..BATCH_MAX {
            match self.events.try_recv() {
                Ok(event) => self.event(event)?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Message { from, bytes } => self.step(Input::Message { from, bytes }),
            Event::Connected { peer, address, connection } => {
                if self.links.connected(peer, address, connection) {
                    return self.step(Input::PeerConnected { peer, address });
                }
                Ok(())
            }
            Event::Gone { peer, session } => {
                if self.links.gone(peer, session) {
                    return self.step(Input::PeerGone { peer });
                }
                Ok(())
            }
            Event::Failed { peer, address, foreign } => {
                self.foreign += u64::from(foreign);
                self.links.failed(peer, address);
                Ok(())
            }
            Event::Foreign => {
                self.foreign += 1;
                Ok(())
            }
        }
    }

    fn command(&mut self, command: Command) -> io::Result<()> {
        match command {
            Command::Publish { key, value } => self.step(Input::Publish { key, value }),
            Command::Withdraw { key } => self.step(Input::Withdraw { key }),
            Command::PutDocument { id, bytes } => self.step(Input::PutDocument { id, bytes }),
            Command::Hint(address) => self.step(Input::Admin(Admin::Hint(address))),
            Command::SetVote(vote) => self.step(Input::Admin(Admin::SetVote(vote))),
            Command::Quit(told) => {
                self.step(Input::Admin(Admin::Quit))?;
                self.quitting = Some(told);
                Ok(())
            }
        }
    }

    fn step(&mut self, input: Input) -> io::Result<()> {
        let now = self.begin.elapsed();
        let mut changed = false;
        let mut entries: Vec<(RnodeId, Box<str>)> = Vec::new();
        for output in self.machine.step(now, input) {
            match output {
                Output::Persist(floor) => floor::write(&self.directory, floor)?,
                Output::Send { peer, bytes, reliable } => {
                    let addresses = self.machine.addresses(&peer);
                    self.links.send(peer, (bytes, reliable), addresses);
                }
                Output::Dial { address } => self.links.dial(address, None),
                Output::Close { peer } => self.links.close(&peer),
                Output::Leader { .. } | Output::Membership { .. } => changed = true,
                Output::EntryChanged { owner, key } => entries.push((owner, key)),
                Output::DocumentChanged(document) => {
                    changed = true;
                    self.board.document.send_replace(Some(document));
                }
                Output::Refused(refusal) => tracing::warn!(?refusal, "the flock refused an input"),
                Output::Wake(at) => self.wake = at,
            }
        }
        if !entries.is_empty() {
            changed = true;
            self.copy_entries(&entries);
        }
        if changed {
            self.show();
            self.board.changes.send_modify(|count| *count = count.wrapping_add(1));
        }
        Ok(())
    }

    /// Copies what the machine now shows of these keys.
    fn copy_entries(&self, changed: &[(RnodeId, Box<str>)]) {
        let mut entries = self.board.entries.write().unwrap_or_else(PoisonError::into_inner);
        for (owner, key) in changed {
            let shown = self
                .machine
                .entries(key)
                .find(|entry| entry.key() == &**key && entry.owner() == *owner && !entry.is_withdrawn());
            match shown {
                Some(entry) => entries.insert((key.to_string(), *owner), shared(entry)),
                None => entries.remove(&(key.to_string(), *owner)),
            };
        }
    }

    fn show(&self) {
        let now = self.begin.elapsed();
        let leader = self.machine.leader();
        let own = self.machine.id();
        let members = self
            .machine
            .members()
            .map(|member| MemberView {
                id: member.id,
                state: member.state,
                incarnation: member.incarnation,
                addresses: member.addresses.clone(),
                silence: if member.id == own {
                    Some(Duration::ZERO)
                } else {
                    member.heard.map(|heard| now.saturating_sub(heard))
                },
            })
            .collect();
        let mut counters: BTreeMap<&'static str, u64> =
            self.machine.counters().list().into_iter().collect();
        counters.insert("foreign_sessions", self.foreign);
        counters.insert("link_dropped", self.links.dropped);
        self.board.view.send_replace(Arc::new(FlockView {
            name: self.machine.flock().to_string(),
            leader: leader.who,
            term: leader.term,
            tenure: if leader.who.is_some() { now.saturating_sub(leader.since) } else { Duration::ZERO },
            members,
            suspects: self.machine.suspects().collect(),
            fingerprint: self.machine.fingerprint(),
            counters,
        }));
    }
}

fn shared(entry: &Entry) -> SharedEntry {
    SharedEntry {
        owner: entry.owner(),
        key: entry.key().to_owned(),
        value: entry.value().to_vec(),
        generation: entry.generation(),
        sequence: entry.sequence(),
    }
}
