//! The agent's end of the keeper's socket: requests, replies and the ends of executions.
//!
//! [`connect`] gives three parts: a cheap [`KeeperRef`], the channel of exits, and the [`Link`] whose `run` must be
//! driven by a task of its own. Not for starting a keeper: see [`crate::keeper`].

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

use crux_net::boundary;
use crux_wire::keeper::v1::{
    Execution, Forget, FromKeeper, Hello, List, RefusedKind, Retire, Seal, Signal, Spawn, ToKeeper,
    Welcome, from_keeper::Reply, to_keeper::Action,
};
use prost::Message;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use super::packet::{self, PACKET_BYTES_MAX, Packet};

/// The environment variable that names the inherited descriptor.
pub const KEEPER_FD: &str = "RADIX_KEEPER_FD";

/// Requests that may wait for the link. 64: a caller beyond that waits its turn.
const REQUESTS_WAITING_MAX: usize = 64;

/// Exits that may wait in the channel; further ones wait in the link, one an execution at most.
const EXITS_WAITING_MAX: usize = 256;

/// The version of the protocol spoken here.
const VERSION: u32 = 3;

/// The first version of a keeper that can hold an execution until it is let go.
pub const HOLDS_FROM: u32 = 2;

/// The first version of a keeper that limits the time of an execution.
pub const LIMITS_FROM: u32 = 3;

/// Why the keeper did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The keeper refused; it changed nothing.
    #[error("be served by the keeper: {reason}")]
    Refused {
        /// What kind of refusal.
        kind: RefusedKind,
        /// Its reason, for people.
        reason: String,
    },
    /// The request is larger than a packet; nothing was sent.
    #[error("ask the keeper: the request has {0} bytes, more than {PACKET_BYTES_MAX}")]
    TooLarge(usize),
    /// The keeper is gone, or its link was not driven: what became of the request is unknown.
    #[error("reach the keeper")]
    Lost,
    /// The keeper did not answer in this time: what became of the request is unknown.
    #[error("be answered by the keeper within {0:?}")]
    Silent(std::time::Duration),
    /// The reply is not one to this request.
    #[error("understand the keeper's reply")]
    Unexpected,
}

/// A cheap, cloneable reference to the keeper.
#[derive(Debug, Clone)]
pub struct KeeperRef {
    requests: mpsc::Sender<Request>,
}

/// Drives the socket; the keeper is reachable while [`Link::run`] is polled.
#[derive(Debug)]
pub struct Link {
    socket: AsyncFd<OwnedFd>,
    requests: mpsc::Receiver<Request>,
    exits: mpsc::Sender<Execution>,
    talk: Talk,
}

/// What is under way on the socket.
#[derive(Debug, Default)]
struct Talk {
    /// Exits that the channel had no room for; bounded by the keeper's own limits.
    backlog: VecDeque<Execution>,
    pending: BTreeMap<u64, Pending>,
    outgoing: Option<Outgoing>,
    last_request: u64,
}

/// Takes the descriptor that the keeper passed at start.
///
/// Call it once, first thing in `main`: it takes ownership of the descriptor.
///
/// # Errors
/// `NotFound` without `RADIX_KEEPER_FD`, `InvalidInput` where it names no packet socket.
pub fn inherited() -> io::Result<OwnedFd> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("{KEEPER_FD} is not set"));
    let text = std::env::var(KEEPER_FD).map_err(|_| missing())?;
    let wrong = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{KEEPER_FD} is {text:?}"),
        )
    };
    let number: RawFd = text.parse().map_err(|_| wrong())?;
    if number < 3 {
        return Err(wrong());
    }
    let socket = take(number)?;
    let kind = rustix::net::sockopt::socket_type(&socket).map_err(|_| wrong())?;
    if kind != rustix::net::SocketType::SEQPACKET {
        return Err(wrong());
    }
    Ok(socket)
}

/// Takes ownership of an inherited descriptor and keeps it from our own children.
#[expect(
    unsafe_code,
    reason = "an inherited descriptor has no owner in this process yet"
)]
fn take(number: RawFd) -> io::Result<OwnedFd> {
    if nix::fcntl::fcntl(std::io::stdin(), nix::fcntl::FcntlArg::F_GETFD).is_err() {
        // Without a standard input the numbers cannot be trusted.
        return Err(io::Error::other("standard input is closed"));
    }
    let path = format!("/proc/self/fd/{number}");
    std::fs::symlink_metadata(path)?;
    // Safety: the descriptor is open (checked above), and `inherited` is documented to be called once,
    // before anything else could have opened or taken this number: nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    Ok(socket)
}

/// Connects to a keeper over `socket`: a reference for callers, the exits it tells, and the link to drive.
///
/// Exits come once each, in the order in which the keeper recorded them, from the start of this incarnation on;
/// earlier ones are in [`KeeperRef::list`], and one that happens while the list is made may be in both.
/// Must be called inside a tokio runtime with I/O enabled.
///
/// # Errors
/// The system's, where the socket cannot be watched.
pub fn connect(socket: OwnedFd) -> io::Result<(KeeperRef, mpsc::Receiver<Execution>, Link)> {
    rustix::io::ioctl_fionbio(&socket, true)?;
    let (request_tx, request_rx) = mpsc::channel(REQUESTS_WAITING_MAX);
    let (exit_tx, exit_rx) = mpsc::channel(EXITS_WAITING_MAX);
    let link = Link {
        socket: watch(socket)?,
        requests: request_rx,
        exits: exit_tx,
        talk: Talk::default(),
    };
    Ok((
        KeeperRef {
            requests: request_tx,
        },
        exit_rx,
        link,
    ))
}

/// Puts the socket under the runtime's eye.
#[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
fn watch(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // Safety: an `OwnedFd` names the same open descriptor until it is dropped, and the `AsyncFd` owns it.
    unsafe { AsyncFd::register(socket) }.map_err(io::Error::from)
}

impl KeeperRef {
    /// Greets the keeper and learns this agent's incarnation.
    ///
    /// # Errors
    /// [`CallError`].
    ///
    /// # Cancel safety
    /// Safe: a greeting changes nothing.
    pub async fn hello(&self) -> Result<Welcome, CallError> {
        match self
            .call(Action::Hello(Hello { version: VERSION }), Vec::new())
            .await?
        {
            (Reply::Welcome(welcome), _) => Ok(welcome),
            _ => Err(CallError::Unexpected),
        }
    }

    /// Takes the pen for this agent.
    ///
    /// # Errors
    /// [`CallError`].
    ///
    /// # Cancel safety
    /// Safe: taking it twice is taking it once.
    pub async fn seal(&self) -> Result<(), CallError> {
        self.done(Action::Seal(Seal {})).await
    }

    /// Starts an execution from the verified descriptor `executable`; a repeat of `spawn.execution` answers the existing one.
    ///
    /// The start record is durable when this returns. With `spawn.agent_socket` the agent's end of the
    /// process's socket comes along; `spawn.stdin` is set from `stdin`. A program that cannot be executed
    /// shows in its outcome, not here.
    ///
    /// # Errors
    /// [`CallError`]; after `Lost` repeat it under the same name.
    ///
    /// # Cancel safety
    /// The execution may have been started; repeat it under the same name.
    pub async fn spawn(
        &self,
        spawn: Spawn,
        executable: OwnedFd,
        stdin: Option<OwnedFd>,
    ) -> Result<(Execution, Option<OwnedFd>), CallError> {
        self.spawn_held(spawn, executable, stdin, None).await
    }

    /// As [`KeeperRef::spawn`], but the program executes only once a byte is in the pipe `hold`.
    ///
    /// If all its other ends are closed without one, the execution is forgotten as if it had not been asked for: nothing
    /// is told of it any more. A keeper before [`HOLDS_FROM`] does not hold.
    ///
    /// # Errors
    /// As [`KeeperRef::spawn`].
    ///
    /// # Cancel safety
    /// As [`KeeperRef::spawn`].
    pub async fn spawn_held(
        &self,
        mut spawn: Spawn,
        executable: OwnedFd,
        stdin: Option<OwnedFd>,
        hold: Option<OwnedFd>,
    ) -> Result<(Execution, Option<OwnedFd>), CallError> {
        (spawn.stdin, spawn.held) = (stdin.is_some(), hold.is_some());
        let fds = std::iter::once(executable)
            .chain(stdin)
            .chain(hold)
            .collect();
        match self.call(Action::Spawn(spawn), fds).await? {
            (Reply::Spawned(spawned), fds) => {
                let execution = spawned.execution.ok_or(CallError::Unexpected)?;
                Ok((execution, fds.into_iter().next()))
            }
            _ => Err(CallError::Unexpected),
        }
    }

    /// Sends a signal to an execution, or to its whole process group.
    ///
    /// # Errors
    /// [`CallError`]; `NotFound` for one that is unknown or has ended.
    ///
    /// # Cancel safety
    /// The signal may have been sent.
    pub async fn signal(
        &self,
        execution: impl Into<String>,
        signal: i32,
        group: bool,
    ) -> Result<(), CallError> {
        let signal = Signal {
            execution: execution.into(),
            signal,
            group,
        };
        self.done(Action::Signal(signal)).await
    }

    /// Lists all executions, ended ones included, in the order of their start, each with the agent's end of its socket.
    ///
    /// # Errors
    /// [`CallError`].
    ///
    /// # Cancel safety
    /// Safe: listing changes nothing.
    pub async fn list(&self) -> Result<Vec<(Execution, Option<OwnedFd>)>, CallError> {
        match self.call(Action::List(List {}), Vec::new()).await? {
            (Reply::Executions(executions), fds) => {
                let mut fds = fds.into_iter();
                let with_socket = |execution: Execution| {
                    let socket = if execution.has_socket {
                        fds.next()
                    } else {
                        None
                    };
                    (execution, socket)
                };
                Ok(executions.executions.into_iter().map(with_socket).collect())
            }
            _ => Err(CallError::Unexpected),
        }
    }

    /// Drops an ended execution's record and output.
    ///
    /// # Errors
    /// [`CallError`]; `NotFound` for an unknown one, `Invalid` while it runs.
    ///
    /// # Cancel safety
    /// It may have been forgotten; forgetting again answers `NotFound`.
    pub async fn forget(&self, execution: impl Into<String>) -> Result<(), CallError> {
        self.done(Action::Forget(Forget {
            execution: execution.into(),
        }))
        .await
    }

    /// Ends every execution that is not detached, then answers; the keeper then ends this agent and itself.
    ///
    /// # Errors
    /// [`CallError`].
    ///
    /// # Cancel safety
    /// Retiring cannot be called off.
    pub async fn retire(&self, grace: std::time::Duration) -> Result<(), CallError> {
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        self.done(Action::Retire(Retire { grace_ms })).await
    }

    async fn done(&self, action: Action) -> Result<(), CallError> {
        match self.call(action, Vec::new()).await? {
            (Reply::Done(_), _) => Ok(()),
            _ => Err(CallError::Unexpected),
        }
    }

    async fn call(
        &self,
        action: Action,
        fds: Vec<OwnedFd>,
    ) -> Result<(Reply, Vec<OwnedFd>), CallError> {
        if let Some(word) = changing(&action) {
            boundary::cross(boundary::Kind::Keeper, word);
        }
        let (reply_tx, reply_rx) = oneshot::channel();
        let request = Request {
            action,
            fds,
            reply: reply_tx,
        };
        self.requests
            .send(request)
            .await
            .map_err(|_| CallError::Lost)?;
        match reply_rx.await.map_err(|_| CallError::Lost)?? {
            (Reply::Refused(refused), _) => Err(CallError::Refused {
                kind: refused.kind(),
                reason: refused.reason,
            }),
            reply => Ok(reply),
        }
    }
}

/// What a request is called that changes something.
const fn changing(action: &Action) -> Option<&'static str> {
    match action {
        Action::Seal(_) => Some("seal"),
        Action::Spawn(_) => Some("spawn"),
        Action::Signal(_) => Some("signal"),
        Action::Forget(_) => Some("forget"),
        Action::Retire(_) => Some("retire"),
        _ => None,
    }
}

impl Link {
    /// Moves packets until the keeper is gone or every [`KeeperRef`] is dropped.
    ///
    /// # Errors
    /// The system's, or that a packet came incomplete, as it does to a process with too many open files. All waiting
    /// calls then answer [`CallError::Lost`].
    ///
    /// # Cancel safety
    /// Dropping it cuts the link: waiting calls answer [`CallError::Lost`].
    pub async fn run(self) -> io::Result<()> {
        let Self {
            socket,
            mut requests,
            exits,
            mut talk,
        } = self;
        loop {
            // Ordering: reading never waits for writing, else two full sockets would wait for each other.
            tokio::select! {
                packet = socket.async_io(Interest::READABLE, |fd| packet::receive(fd.as_fd())) => match packet {
                    // What it answered cannot be known, and whoever asked would wait for ever.
                    Ok(Some(packet)) if packet.fds_cut => {
                        return Err(io::Error::other(
                            "descriptors of the keeper were lost: too many files are open",
                        ));
                    }
                    Ok(Some(packet)) => talk.received(packet),
                    Ok(None) => break,
                    Err(error) => return Err(error),
                },
                sent = talk.send(&socket), if talk.outgoing.is_some() => {
                    talk.outgoing = None;
                    if let Err(error) = sent {
                        // Reading goes on: what the keeper said before it went away is still to be taken.
                        tracing::warn!(%error, "a request cannot be sent to the keeper");
                        talk.pending.remove(&talk.last_request);
                    }
                }
                permit = exits.reserve(), if !talk.backlog.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(exit) = talk.backlog.pop_front() {
                            permit.send(exit);
                        }
                    }
                    Err(_closed) => talk.backlog.clear(),
                },
                request = requests.recv(), if talk.outgoing.is_none() => match request {
                    Some(request) => talk.accept(request),
                    None => break,
                },
            }
        }
        // Whoever waits for a reply learns that none comes, before anyone has to take exits.
        drop((requests, talk.pending));
        for exit in talk.backlog {
            if exits.send(exit).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

impl Talk {
    async fn send(&self, socket: &AsyncFd<OwnedFd>) -> io::Result<()> {
        let Some(outgoing) = &self.outgoing else {
            return Ok(());
        };
        let fds: Vec<_> = outgoing.fds.iter().map(AsFd::as_fd).collect();
        socket
            .async_io(Interest::WRITABLE, |fd| {
                packet::send(fd.as_fd(), &outgoing.bytes, &fds)
            })
            .await
    }

    fn accept(&mut self, request: Request) {
        self.last_request += 1;
        let message = ToKeeper {
            request: self.last_request,
            action: Some(request.action),
        };
        let length = message.encoded_len();
        if length > PACKET_BYTES_MAX {
            // A caller that stopped waiting needs no answer.
            let _ = request.reply.send(Err(CallError::TooLarge(length)));
            return;
        }
        self.outgoing = Some(Outgoing {
            bytes: message.encode_to_vec(),
            fds: request.fds,
        });
        let pending = Pending {
            reply: request.reply,
            executions: Vec::new(),
            fds: Vec::new(),
        };
        self.pending.insert(self.last_request, pending);
    }

    fn received(&mut self, packet: Packet) {
        let Ok(message) = FromKeeper::decode(packet.bytes.as_slice()) else {
            tracing::warn!("the keeper sent a packet that cannot be read");
            return;
        };
        match (message.request, message.reply) {
            (0, Some(Reply::Exited(exited))) => self.backlog.extend(exited.execution),
            (request, Some(reply)) => self.replied(request, reply, packet.fds),
            // An older agent must bear what a newer keeper says.
            (_, None) => {}
        }
    }

    fn replied(&mut self, request: u64, reply: Reply, fds: Vec<OwnedFd>) {
        let Some(mut pending) = self.pending.remove(&request) else {
            return;
        };
        pending.fds.extend(fds);
        let reply = match reply {
            Reply::Executions(mut executions) => {
                pending.executions.append(&mut executions.executions);
                if executions.more {
                    self.pending.insert(request, pending);
                    return;
                }
                executions.executions = std::mem::take(&mut pending.executions);
                Reply::Executions(executions)
            }
            other => other,
        };
        // A caller that stopped waiting needs no answer.
        let _ = pending.reply.send(Ok((reply, pending.fds)));
    }
}

type Answer = Result<(Reply, Vec<OwnedFd>), CallError>;

#[derive(Debug)]
struct Request {
    action: Action,
    fds: Vec<OwnedFd>,
    reply: oneshot::Sender<Answer>,
}

#[derive(Debug)]
struct Pending {
    reply: oneshot::Sender<Answer>,
    executions: Vec<Execution>,
    fds: Vec<OwnedFd>,
}

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::io::IoSlice;
    use std::mem::MaybeUninit;

    /// More descriptors than a packet may have, so that the receiver loses some as one does that has too many open.
    const TOO_MANY: usize = 200;

    #[tokio::test]
    async fn a_packet_that_lost_descriptors_ends_the_link_and_every_waiting_call() {
        let (ours, keepers) = packet::pair().unwrap();
        let (keeper, _exits, link) = connect(ours).unwrap();
        let answers = async {
            let answers = tokio::join!(keeper.hello(), keeper.list());
            (answers.0.err(), answers.1.err())
        };
        let sends = async {
            let mut asked = 0;
            while asked < 2 {
                match packet::receive(keepers.as_fd()) {
                    Ok(_) => asked += 1,
                    Err(_not_yet) => tokio::task::yield_now().await,
                }
            }
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TOO_MANY))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let fds = [keepers.as_fd(); TOO_MANY];
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
            let reply = FromKeeper {
                request: 1,
                reply: Some(Reply::Welcome(Welcome::default())),
            };
            let bytes = reply.encode_to_vec();
            sendmsg(
                &keepers,
                &[IoSlice::new(&bytes)],
                &mut control,
                SendFlags::empty(),
            )
            .unwrap();
        };
        let (ended, (hello, list), ()) = tokio::join!(link.run(), answers, sends);
        assert!(ended.unwrap_err().to_string().contains("too many files"));
        assert!(matches!(
            (hello, list),
            (Some(CallError::Lost), Some(CallError::Lost))
        ));
    }
}
