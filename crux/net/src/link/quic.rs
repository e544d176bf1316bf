//! Links over QUIC: one endpoint on one UDP socket dials and accepts.

mod session;
mod transport;

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crux_core::identity::{Verb, Who};
use crux_core::names::{Label, NamespaceId, RnodeId};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use self::session::{Session, serve};
use super::{Carriage, Link, LinkEvent};
use crate::identity::{Credentials, Error, Expect};
use crate::task::{Policy, Task, spawn};

/// The protocol's name in the handshake.
const ALPN: &[u8] = b"radix-flock/1";
/// Not looked at: certificates name keys, not hosts.
const SERVER_NAME: &str = "rnode.radix";
/// Events that wait to be taken; beyond it peers are held back.
const EVENTS_MAX: usize = 1024;
/// Messages kept for a peer that is being dialled; the oldest make room.
const WAITING_MAX: usize = 64;
/// Dials at once; more are dropped and counted.
const DIALS_MAX: usize = 64;
/// How long a dial may take. 2.9 s: a dead address then costs four packets (anchors/link.md).
const DIAL_TIMEOUT: Duration = Duration::from_millis(2900);
/// Links to one peer at once; both sides may dial at the same time.
const SESSIONS_MAX: usize = 2;
/// How long ending waits for what was sent.
const FINISH_TIMEOUT: Duration = Duration::from_millis(500);

/// What a QUIC link is made of.
#[derive(Debug)]
pub struct QuicConfig {
    /// The bound socket; set non-blocking here.
    pub socket: UdpSocket,
    /// Who we are, and whom we believe.
    pub credentials: Credentials,
    /// The label of our namespace: only its rnodes are met.
    pub namespace: Label,
    /// Our permanent name.
    pub own: RnodeId,
    /// Secret that survives restarts, so that peers learn of one at once (stateless reset).
    pub reset_secret: [u8; 32],
}

/// What a link counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkCounters {
    /// Peers whose handshake failed, for whatever reason.
    pub refused: u64,
    /// Peers with good certificates that are not rnodes of our namespace.
    pub foreign: u64,
    /// Messages that could not be sent or kept.
    pub dropped: u64,
    /// Dials that found nobody.
    pub unanswered: u64,
}

#[derive(Debug, Default)]
struct Counts {
    refused: AtomicU64,
    foreign: AtomicU64,
}

/// What is dialled: a rnode, or whoever is at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Rnode(RnodeId),
    Address(SocketAddr),
}

enum Happening {
    Dialled(Target, Option<(RnodeId, quinn::Connection)>),
    Accepted(RnodeId, quinn::Connection),
    Message(RnodeId, Bytes),
    Closed(RnodeId, usize),
}

/// Judges whether the other end of a connection is a rnode of our namespace.
#[derive(Debug)]
struct Gate {
    credentials: Credentials,
    namespace: Label,
    namespace_id: NamespaceId,
    counts: Counts,
}

impl Gate {
    fn admit(&self, connection: &quinn::Connection) -> Option<RnodeId> {
        let Ok(principal) = self.credentials.principal_of_connection(connection) else {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let ours = principal.namespace_id() == Some(self.namespace_id)
            && principal.may(Verb::Peer, &self.namespace).is_ok();
        match principal.who {
            Who::Rnode { id, .. } if ours => Some(id),
            _ => {
                self.counts.foreign.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

/// Links over QUIC. Dropping it ends them all at once.
#[derive(Debug)]
pub struct QuicLink {
    endpoint: quinn::Endpoint,
    gate: Arc<Gate>,
    own: RnodeId,
    sender: mpsc::Sender<Happening>,
    happenings: mpsc::Receiver<Happening>,
    sessions: BTreeMap<RnodeId, Vec<Session>>,
    dials: BTreeMap<Target, VecDeque<(Bytes, Carriage)>>,
    counters: LinkCounters,
    _accepting: Task<()>,
}

impl std::fmt::Debug for Happening {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Happening")
    }
}

impl QuicLink {
    /// Opens the endpoint and begins to accept. Call inside a tokio runtime.
    ///
    /// # Errors
    /// When the socket or the keys cannot be used.
    pub fn open(config: QuicConfig) -> Result<Self, Error> {
        let QuicConfig {
            socket,
            credentials,
            namespace,
            own,
            reset_secret,
        } = config;
        let server = transport::server(credentials.quic_server_config(ALPN)?);
        let endpoint = transport::endpoint(&reset_secret);
        let io = |source| Error::Io {
            operation: "open",
            path: "the flock's socket".into(),
            source,
        };
        socket.set_nonblocking(true).map_err(io)?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new(endpoint, Some(server), socket, runtime).map_err(io)?;
        let namespace_id = NamespaceId::of(&credentials.trust().owner(), &namespace);
        let gate = Arc::new(Gate {
            credentials,
            namespace,
            namespace_id,
            counts: Counts::default(),
        });
        let (sender, happenings) = mpsc::channel(EVENTS_MAX);
        let accepting = accept(endpoint.clone(), Arc::clone(&gate), sender.clone());
        Ok(Self {
            endpoint,
            gate,
            own,
            sender,
            happenings,
            sessions: BTreeMap::new(),
            dials: BTreeMap::new(),
            counters: LinkCounters::default(),
            _accepting: spawn("flock link accept", Policy::ABORT, accepting),
        })
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> LinkCounters {
        LinkCounters {
            refused: self.gate.counts.refused.load(Ordering::Relaxed),
            foreign: self.gate.counts.foreign.load(Ordering::Relaxed),
            ..self.counters
        }
    }

    fn start_dial(&mut self, target: Target, addresses: Vec<SocketAddr>) -> bool {
        if self.dials.contains_key(&target) {
            return true;
        }
        let expect = match target {
            Target::Rnode(id) => Expect::Rnode(id),
            Target::Address(_) => Expect::Owner,
        };
        let client = self.gate.credentials.quic_client_config(expect, ALPN).ok();
        let Some(client) = client.filter(|_| self.dials.len() < DIALS_MAX && !addresses.is_empty())
        else {
            return false;
        };
        let (endpoint, gate, sender) = (
            self.endpoint.clone(),
            Arc::clone(&self.gate),
            self.sender.clone(),
        );
        self.dials.insert(target, VecDeque::new());
        let dial = async move {
            let mut found = None;
            for address in addresses {
                found = connect(
                    &endpoint,
                    transport::client(Arc::clone(&client)),
                    address,
                    &gate,
                )
                .await;
                if found.is_some() {
                    break;
                }
            }
            sender.send(Happening::Dialled(target, found)).await.ok();
        };
        spawn("flock link dial", Policy::DRAIN, dial);
        true
    }

    fn happened(&mut self, happening: Happening) -> Option<LinkEvent> {
        match happening {
            Happening::Dialled(target, Some((peer, connection))) => {
                let waiting = self.dials.remove(&target).unwrap_or_default();
                if peer == self.own {
                    connection.close(0_u8.into(), b"met itself");
                    return Some(LinkEvent::Connected {
                        peer,
                        address: address_of(target),
                    });
                }
                self.keep(peer, connection, self.own);
                for (message, carriage) in waiting {
                    self.send(peer, &[], message, carriage);
                }
                Some(LinkEvent::Connected {
                    peer,
                    address: address_of(target),
                })
            }
            Happening::Dialled(target, None) => {
                let waiting = self.dials.remove(&target).unwrap_or_default();
                self.counters.unanswered += 1;
                match target {
                    // It dialled us meanwhile.
                    Target::Rnode(peer) if self.sessions.contains_key(&peer) => {
                        for (message, carriage) in waiting {
                            self.send(peer, &[], message, carriage);
                        }
                    }
                    _ => self.counters.dropped += waiting.len() as u64,
                }
                None
            }
            Happening::Accepted(peer, connection) => {
                self.keep(peer, connection, peer);
                Some(LinkEvent::Connected {
                    peer,
                    address: None,
                })
            }
            Happening::Message(from, bytes) => Some(LinkEvent::Message { from, bytes }),
            Happening::Closed(peer, id) => {
                let sessions = self.sessions.get_mut(&peer)?;
                sessions.retain(|session| session.id() != id);
                if !sessions.is_empty() {
                    return None;
                }
                self.sessions.remove(&peer);
                Some(LinkEvent::Gone { peer })
            }
        }
    }

    /// Keeps a new connection, which `dialler` made, as the one to send over.
    fn keep(&mut self, peer: RnodeId, connection: quinn::Connection, dialler: RnodeId) {
        serve(peer, connection.clone(), self.sender.clone());
        let sessions = self.sessions.entry(peer).or_default();
        let session = Session::new(connection, dialler, Instant::now());
        if let Some(other) = sessions.last().filter(|other| other.crossed(&session)) {
            // Both sides dialled at once and both keep the dial of the smaller name; its dialler ends the other in a
            // while, so that nothing on its way is lost.
            let surplus = if other.dialler < session.dialler {
                &session
            } else {
                other
            };
            if surplus.dialler == self.own {
                surplus.close_later();
            }
            let at = if other.dialler < session.dialler {
                sessions.len() - 1
            } else {
                sessions.len()
            };
            sessions.insert(at, session);
        } else {
            sessions.push(session);
        }
        if sessions.len() > SESSIONS_MAX {
            sessions.remove(0).close();
        }
    }
}

const fn address_of(target: Target) -> Option<SocketAddr> {
    match target {
        Target::Rnode(_) => None,
        Target::Address(address) => Some(address),
    }
}

async fn connect(
    endpoint: &quinn::Endpoint,
    client: quinn::ClientConfig,
    address: SocketAddr,
    gate: &Gate,
) -> Option<(RnodeId, quinn::Connection)> {
    let connecting = endpoint.connect_with(client, address, SERVER_NAME).ok()?;
    let connection = timeout(DIAL_TIMEOUT, connecting).await.ok()?.ok()?;
    let peer = gate.admit(&connection);
    if peer.is_none() {
        connection.close(1_u8.into(), b"not of this flock");
    }
    Some((peer?, connection))
}

async fn accept(endpoint: quinn::Endpoint, gate: Arc<Gate>, sender: mpsc::Sender<Happening>) {
    while let Some(incoming) = endpoint.accept().await {
        let (gate, sender) = (Arc::clone(&gate), sender.clone());
        let answer = async move {
            let connection = match timeout(DIAL_TIMEOUT, incoming).await {
                Ok(Ok(connection)) => connection,
                Ok(Err(_)) => {
                    gate.counts.refused.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(_) => return,
            };
            match gate.admit(&connection) {
                Some(peer) => drop(sender.send(Happening::Accepted(peer, connection)).await),
                None => connection.close(1_u8.into(), b"not of this flock"),
            }
        };
        spawn("flock link answer", Policy::DRAIN, answer);
    }
}

impl Link for QuicLink {
    fn send(
        &mut self,
        peer: RnodeId,
        addresses: &[SocketAddr],
        message: Bytes,
        carriage: Carriage,
    ) {
        while let Some(session) = self
            .sessions
            .get(&peer)
            .and_then(|sessions| sessions.last())
        {
            match session.send(message.clone(), carriage) {
                session::Sent::Yes => return,
                session::Sent::Full => {
                    self.counters.dropped += 1;
                    return;
                }
                // Its end was not reported yet.
                session::Sent::Dead => {
                    let sessions = self.sessions.entry(peer).or_default();
                    sessions.pop();
                    if sessions.is_empty() {
                        self.sessions.remove(&peer);
                    }
                }
            }
        }
        let target = Target::Rnode(peer);
        if !self.start_dial(target, addresses.to_vec()) {
            self.counters.dropped += 1;
        } else if let Some(waiting) = self.dials.get_mut(&target) {
            if waiting.len() >= WAITING_MAX {
                waiting.pop_front();
                self.counters.dropped += 1;
            }
            waiting.push_back((message, carriage));
        }
    }

    fn dial(&mut self, address: SocketAddr) {
        if !self.start_dial(Target::Address(address), vec![address]) {
            self.counters.dropped += 1;
        }
    }

    fn close(&mut self, peer: RnodeId) {
        for session in self.sessions.remove(&peer).unwrap_or_default() {
            session.close();
        }
    }

    fn recheck(&mut self) {
        for session in self.sessions.values().flatten() {
            if session.is_refused(&self.gate.credentials) {
                self.gate.counts.refused.fetch_add(1, Ordering::Relaxed);
                session.close();
            }
        }
    }

    async fn next(&mut self) -> LinkEvent {
        loop {
            // A sender is kept in `self`, so the channel cannot end.
            if let Some(happening) = self.happenings.recv().await
                && let Some(event) = self.happened(happening)
            {
                return event;
            }
        }
    }

    async fn finish(&mut self) {
        let sessions: Vec<Session> = std::mem::take(&mut self.sessions)
            .into_values()
            .flatten()
            .collect();
        let flushed = futures_util::future::join_all(sessions.iter().map(Session::flush));
        timeout(FINISH_TIMEOUT, flushed).await.ok();
        self.endpoint.close(0_u8.into(), b"done");
        timeout(FINISH_TIMEOUT, self.endpoint.wait_idle())
            .await
            .ok();
    }
}

impl Drop for QuicLink {
    fn drop(&mut self) {
        self.endpoint.close(0_u8.into(), b"gone");
    }
}
