//! Sessions with peers: dialling, queues until they stand, whole messages in and out.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crux_core::flock::MESSAGE_BYTES_MAX;
use crux_core::names::RnodeId;
use quinn::VarInt;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Endpoint;
use super::quic::DialError;
use crate::task::{Policy, Task, spawn};

/// Messages that wait for a session that is being dialled; the oldest go first.
const WAITING_MAX: usize = 64;
/// Reliable messages that wait for one session's streams; further ones are dropped and counted.
const STREAM_QUEUE_MAX: usize = 64;
/// Handshakes of strangers at once; further ones wait in QUIC's own backlog.
const HANDSHAKES_MAX: usize = 32;
/// Dials under way at once.
const DIALS_MAX: usize = 64;
/// Two sessions with one peer that began within this time are one dial each way.
const SIMULTANEOUS: Duration = Duration::from_millis(500);
/// How long an older session with the same peer may finish.
const OLD_GRACE: Duration = Duration::from_secs(2);

/// What happened on links.
#[derive(Debug)]
pub(crate) enum Event {
    /// A session stands.
    Connected {
        peer: RnodeId,
        address: Option<SocketAddr>,
        connection: quinn::Connection,
    },
    /// A dial came to nothing.
    Failed { peer: Option<RnodeId>, address: SocketAddr, foreign: bool },
    /// Somebody who is no rnode of our namespace dialled us.
    Foreign,
    /// A whole message.
    Message { from: RnodeId, bytes: Vec<u8> },
    /// A session ended.
    Gone { peer: RnodeId, session: usize },
}

#[derive(Debug)]
struct Session {
    connection: quinn::Connection,
    began: Instant,
    dialled: bool,
    streams: mpsc::Sender<Arc<[u8]>>,
    _reader: Task<()>,
    _writer: Task<()>,
}

/// All sessions of a rnode, by peer.
#[derive(Debug)]
pub(crate) struct Links {
    own: RnodeId,
    endpoint: Endpoint,
    events: mpsc::Sender<Event>,
    sessions: BTreeMap<RnodeId, Session>,
    waiting: BTreeMap<RnodeId, VecDeque<(Arc<[u8]>, bool)>>,
    dialling: BTreeMap<SocketAddr, Task<()>>,
    _acceptor: Task<()>,
    /// Messages that had no place to wait.
    pub(crate) dropped: u64,
}

impl Links {
    /// Begins to accept; what happens comes out of `events`.
    pub(crate) fn new(own: RnodeId, endpoint: Endpoint, events: mpsc::Sender<Event>) -> Self {
        let acceptor = spawn("flock-accept", Policy::ABORT, accept(endpoint.clone(), events.clone()));
        Self {
            own,
            endpoint,
            events,
            sessions: BTreeMap::new(),
            waiting: BTreeMap::new(),
            dialling: BTreeMap::new(),
            _acceptor: acceptor,
            dropped: 0,
        }
    }

    /// Sends to a peer, dialling one of `addresses` if there is no session.
    pub(crate) fn send(
        &mut self,
        peer: RnodeId,
        message: (Arc<[u8]>, bool),
        addresses: &[SocketAddr],
    ) {
        if let Some(session) = self.sessions.get(&peer) {
            if !session.send(message) {
                self.dropped += 1;
            }
            return;
        }
        let queue = self.waiting.entry(peer).or_default();
        if queue.len() >= WAITING_MAX {
            queue.pop_front();
            self.dropped += 1;
        }
        queue.push_back(message);
        match addresses.first() {
            Some(address) => self.dial(*address, Some(peer)),
            None => {
                self.waiting.remove(&peer);
            }
        }
    }

    /// Dials an address, unless that is being done.
    pub(crate) fn dial(&mut self, address: SocketAddr, expected: Option<RnodeId>) {
        self.dialling.retain(|_, task| !task.is_finished());
        if self.dialling.contains_key(&address) || self.dialling.len() >= DIALS_MAX {
            return;
        }
        let (endpoint, events) = (self.endpoint.clone(), self.events.clone());
        let task = spawn("flock-dial", Policy::ABORT, async move {
            let event = match endpoint.dial(address, expected).await {
                Ok((peer, connection)) => {
                    Event::Connected { peer, address: Some(address), connection }
                }
                Err(error) => {
                    tracing::debug!(%address, %error, "a dial came to nothing");
                    let foreign = matches!(error, DialError::Foreign(_));
                    Event::Failed { peer: expected, address, foreign }
                }
            };
            let _ = events.send(event).await;
        });
        self.dialling.insert(address, task);
    }

    /// Takes over a session that stands; false when another one with that peer is kept instead.
    pub(crate) fn connected(
        &mut self,
        peer: RnodeId,
        address: Option<SocketAddr>,
        connection: quinn::Connection,
    ) -> bool {
        if peer == self.own {
            connection.close(VarInt::from_u32(2), b"that is me");
            return false;
        }
        let dialled = address.is_some();
        let now = Instant::now();
        if let Some(old) = self.sessions.get(&peer) {
            let both_dialled = old.dialled != dialled && now - old.began < SIMULTANEOUS;
            // Both ends must keep the same one: the one dialled by the smaller name.
            let keep_old = both_dialled && (self.own < peer) == old.dialled;
            if keep_old && old.connection.close_reason().is_none() {
                connection.close(VarInt::from_u32(3), b"one session is enough");
                return false;
            }
        }
        let (streams, queue) = mpsc::channel(STREAM_QUEUE_MAX);
        let reader = read(peer, connection.clone(), self.events.clone());
        let session = Session {
            began: now,
            dialled,
            streams,
            _reader: spawn("flock-read", Policy::ABORT, reader),
            _writer: spawn("flock-write", Policy::ABORT, write(connection.clone(), queue)),
            connection,
        };
        for message in self.waiting.remove(&peer).unwrap_or_default() {
            session.send(message);
        }
        if let Some(old) = self.sessions.insert(peer, session) {
            drop(spawn("flock-old", Policy::DRAIN, async move {
                // What the peer sent before it learnt of the newer session still arrives.
                tokio::time::sleep(OLD_GRACE).await;
                old.connection.close(VarInt::from_u32(3), b"a newer session stands");
            }));
        }
        true
    }

    /// A dial failed: what waited for that peer is dropped.
    pub(crate) fn failed(&mut self, peer: Option<RnodeId>, address: SocketAddr) {
        self.dialling.remove(&address);
        if let Some(peer) = peer {
            self.dropped += self.waiting.remove(&peer).map_or(0, |queue| queue.len() as u64);
        }
    }

    /// Forgets a session that ended; false when a newer one has taken its place.
    pub(crate) fn gone(&mut self, peer: RnodeId, session: usize) -> bool {
        let current = self.sessions.get(&peer).map(|known| known.connection.stable_id());
        if current == Some(session) {
            self.sessions.remove(&peer);
            return true;
        }
        false
    }

    /// Closes the session with a peer.
    pub(crate) fn close(&mut self, peer: &RnodeId) {
        self.waiting.remove(peer);
        if let Some(session) = self.sessions.remove(peer) {
            session.connection.close(VarInt::from_u32(0), b"closed");
        }
    }

    /// Closes the sessions of peers that would be refused now.
    pub(crate) fn recheck(&mut self) {
        let unwelcome: Vec<RnodeId> = self
            .sessions
            .iter()
            .filter(|(_, session)| !self.endpoint.still_welcome(&session.connection))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in unwelcome {
            self.close(&peer);
        }
    }

    /// Ends all sessions, telling the peers.
    pub(crate) async fn end(self) {
        self.endpoint.close().await;
    }
}

impl Session {
    /// False when the message had no place.
    fn send(&self, (bytes, reliable): (Arc<[u8]>, bool)) -> bool {
        if !reliable && self.connection.send_datagram(Bytes::from_owner(Arc::clone(&bytes))).is_ok() {
            return true;
        }
        self.streams.try_send(bytes).is_ok()
    }
}

async fn accept(endpoint: Endpoint, events: mpsc::Sender<Event>) {
    let mut handshakes = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            incoming = endpoint.incoming(), if handshakes.len() < HANDSHAKES_MAX => {
                let Some(incoming) = incoming else { return };
                let (endpoint, events) = (endpoint.clone(), events.clone());
                handshakes.spawn(async move {
                    let event = match endpoint.welcome(incoming).await {
                        Ok((peer, connection)) => {
                            Event::Connected { peer, address: None, connection }
                        }
                        Err(error) => {
                            tracing::debug!(%error, "a stranger was refused");
                            Event::Foreign
                        }
                    };
                    let _ = events.send(event).await;
                });
            }
            Some(_) = handshakes.join_next(), if !handshakes.is_empty() => {}
        }
    }
}

async fn read(peer: RnodeId, connection: quinn::Connection, events: mpsc::Sender<Event>) {
    let session = connection.stable_id();
    loop {
        let bytes = tokio::select! {
            datagram = connection.read_datagram() => match datagram {
                Ok(bytes) => bytes.to_vec(),
                Err(_) => break,
            },
            stream = connection.accept_uni() => match stream {
                Ok(mut stream) => match stream.read_to_end(MESSAGE_BYTES_MAX).await {
                    Ok(bytes) => bytes,
                    Err(_) => continue,
                },
                Err(_) => break,
            },
        };
        if events.send(Event::Message { from: peer, bytes }).await.is_err() {
            return;
        }
    }
    let _ = events.send(Event::Gone { peer, session }).await;
}

/// Sends reliable messages in order, a stream each.
async fn write(connection: quinn::Connection, mut queue: mpsc::Receiver<Arc<[u8]>>) {
    while let Some(bytes) = queue.recv().await {
        let Ok(mut stream) = connection.open_uni().await else { return };
        if stream.write_all(&bytes).await.is_err() || stream.finish().is_err() {
            return;
        }
    }
}
