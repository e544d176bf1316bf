//! The forwarder for datagrams: whoever sends from one address talks to one member until both are silent.
//!
//! ```text
//! sender ──▶ door ──▶ a socket of its own, connected ──▶ member        the answer goes back the same way
//! ```
//! A member that does not listen makes the kernel say so; the datagram then goes to the next one. One task carries all.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use rustix::net::{RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, watch};

use super::pool::Pool;

/// Most senders a door for datagrams knows at once; what another one sends is dropped until one of them is forgotten.
///
/// 400: each takes a descriptor, of which a process has 1024 by default.
pub const SENDERS_MAX: usize = 400;
/// Silence after which a sender is forgotten. 60 s: applications that must be heard send every 15 to 30 s.
pub const SENDER_SILENT_MAX: Duration = Duration::from_secs(60);
/// Silence after which a sender makes room for another where there are too many.
const SENDER_SPARED: Duration = Duration::from_secs(5);
/// Most bytes of a datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Most bytes of a datagram that is kept to be sent to another member when the first does not listen.
const KEPT_BYTES_MAX: usize = 2048;
/// Pause after the system refused to receive.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// Carries datagrams between `door` and the members until `cancel` ends.
///
/// Sockets towards members are made in the network namespace this process is in, wherever the door is.
///
/// # Errors
/// When the socket cannot be used; nothing is carried then.
///
/// # Cancel safety
/// Dropping the future forgets all senders.
pub async fn carry(
    door: std::net::UdpSocket,
    members: watch::Receiver<Vec<SocketAddr>>,
    cancel: impl Future<Output = ()>,
) -> io::Result<()> {
    let door = UdpSocket::from_std(door)?;
    let mut cancel = std::pin::pin!(cancel);
    let mut members = members;
    let pool = Mutex::new(Pool::default());
    locked(&pool).set(members.borrow_and_update().clone());
    // One for all: whoever receives has sent it on before another does.
    let answer = Mutex::new(vec![0; DATAGRAM_BYTES_MAX]);
    let mut senders: BTreeMap<SocketAddr, Arc<Sender>> = BTreeMap::new();
    let mut carried = FuturesUnordered::new();
    let mut following = true;
    let mut bytes = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        tokio::select! {
            () = &mut cancel => return Ok(()),
            changed = members.changed(), if following => {
                following = changed.is_ok();
                let now = members.borrow_and_update().clone();
                let left = senders.values().filter(|sender| !now.contains(&sender.member()));
                let left: Vec<_> = left.cloned().collect();
                locked(&pool).set(now);
                left.iter().for_each(|sender| sender.change(&pool));
            }
            received = door.recv_from(&mut bytes) => match received {
                Ok((length, from)) => {
                    let known = senders.get(&from).cloned();
                    if let Some(sender) = known.or_else(|| admit(&mut senders, from, &pool)) {
                        if sender.is_new() {
                            let shared = (&door, &pool, &answer);
                            carried.push(Box::pin(answers(Arc::clone(&sender), shared)));
                        }
                        sender.send(&bytes[..length], &pool);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a datagram is not received");
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
            },
            Some(gone) = carried.next() => {
                senders.remove(&gone);
            }
        }
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A new sender; `None` while nobody can be reached, or while there are too many who are not silent.
fn admit(
    senders: &mut BTreeMap<SocketAddr, Arc<Sender>>,
    from: SocketAddr,
    pool: &Mutex<Pool>,
) -> Option<Arc<Sender>> {
    if senders.len() >= SENDERS_MAX {
        let oldest = senders.values().max_by_key(|sender| sender.silent())?;
        if oldest.silent() < SENDER_SPARED {
            tracing::warn!(%from, "a datagram is dropped: too many senders");
            return None;
        }
        // It ends by itself, and then is not there any more.
        let oldest = Arc::clone(oldest);
        oldest.end();
        senders.remove(&oldest.from);
    }
    let order = locked(pool).order(Instant::now());
    let (member, socket) = order.into_iter().find_map(connected)?;
    let sender = Arc::new(Sender {
        from,
        state: Mutex::new(State {
            member,
            socket: Arc::new(socket),
            heard: Instant::now(),
            kept: Vec::new(),
            tried: vec![member],
            new: true,
            ended: false,
        }),
        changed: Notify::new(),
    });
    senders.insert(from, Arc::clone(&sender));
    Some(sender)
}

/// A socket to a member; nothing is sent by that.
fn connected(member: SocketAddr) -> Option<(SocketAddr, UdpSocket)> {
    let made = || -> io::Result<UdpSocket> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(member)?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    };
    made().ok().map(|socket| (member, socket))
}

/// Sends at once or not at all; a socket that is new to the runtime would else not be known to be ready.
fn send(socket: &UdpSocket, bytes: &[u8]) -> io::Result<()> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::net::send(socket, bytes, flags)?;
    Ok(())
}

/// Somebody who sends to the door.
struct Sender {
    from: SocketAddr,
    state: Mutex<State>,
    /// Its member is another one now, or it ended.
    changed: Notify,
}

struct State {
    member: SocketAddr,
    socket: Arc<UdpSocket>,
    heard: Instant,
    /// What was sent last, until it is answered.
    kept: Vec<u8>,
    /// Members that were given it.
    tried: Vec<SocketAddr>,
    new: bool,
    ended: bool,
}

impl Sender {
    fn member(&self) -> SocketAddr {
        locked(&self.state).member
    }

    fn silent(&self) -> Duration {
        locked(&self.state).heard.elapsed()
    }

    /// Whether nothing was sent for it yet; it says so once.
    fn is_new(&self) -> bool {
        std::mem::take(&mut locked(&self.state).new)
    }

    fn end(&self) {
        locked(&self.state).ended = true;
        self.changed.notify_one();
    }

    /// Sends to its member, or to the next one if that does not listen.
    fn send(&self, bytes: &[u8], pool: &Mutex<Pool>) {
        let socket = {
            let mut state = locked(&self.state);
            state.heard = Instant::now();
            state.kept.clear();
            if bytes.len() <= KEPT_BYTES_MAX {
                state.kept.extend_from_slice(bytes);
            }
            state.tried = vec![state.member];
            Arc::clone(&state.socket)
        };
        match send(&socket, bytes) {
            // What the kernel says here is of the datagram before.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => self.change(pool),
            // A full queue drops it, as every network may.
            Ok(()) | Err(_) => {}
        }
    }

    /// Gives it the next member that was not tried, which gets what was sent last; without one it ends.
    fn change(&self, pool: &Mutex<Pool>) {
        let order = {
            let mut pool = locked(pool);
            let now = Instant::now();
            pool.suspect(self.member(), now);
            pool.order(now)
        };
        let mut state = locked(&self.state);
        let untried = order.into_iter().filter(|one| !state.tried.contains(one));
        match untried.into_iter().find_map(connected) {
            Some((member, socket)) => {
                state.tried.push(member);
                state.member = member;
                if !state.kept.is_empty() {
                    // It may be lost, as every datagram.
                    let _ = send(&socket, &state.kept);
                }
                state.socket = Arc::new(socket);
            }
            None => state.ended = true,
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Its socket; `None` once it ended or was silent for too long.
    fn socket(&self) -> Option<Arc<UdpSocket>> {
        let state = locked(&self.state);
        let over = state.ended || state.heard.elapsed() >= SENDER_SILENT_MAX;
        (!over).then(|| Arc::clone(&state.socket))
    }

    fn answered(&self) {
        let mut state = locked(&self.state);
        state.heard = Instant::now();
        state.kept.clear();
    }
}

/// Carries the answers to one sender, through the buffer `bytes`, until it is forgotten; returns who it was.
async fn answers(
    sender: Arc<Sender>,
    (door, pool, bytes): (&UdpSocket, &Mutex<Pool>, &Mutex<Vec<u8>>),
) -> SocketAddr {
    while let Some(socket) = sender.socket() {
        let left = SENDER_SILENT_MAX.saturating_sub(sender.silent());
        // Nothing is awaited while the buffer is ours.
        let carry = || {
            let mut bytes = locked(bytes);
            let (length, _) = rustix::net::recv(&*socket, &mut bytes[..], RecvFlags::DONTWAIT)?;
            // A full queue drops it, as every network may.
            let _ = door.try_send_to(&bytes[..length], sender.from);
            Ok(())
        };
        tokio::select! {
            () = sender.changed.notified() => {}
            () = tokio::time::sleep(left) => {}
            carried = socket.async_io(Interest::READABLE | Interest::ERROR, carry) => match carried {
                Ok(()) => {
                    sender.answered();
                    locked(pool).trust(sender.member());
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => sender.change(pool),
                Err(error) => {
                    tracing::debug!(%error, "answers to a sender broke");
                    break;
                }
            }
        }
    }
    sender.from
}
