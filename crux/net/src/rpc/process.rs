//! Process sockets: the inherited right to connect to one's agent.
//!
//! ```text
//! process ──(SOCK_SEQPACKET at RADIX_AGENT_FD: one packet = one byte 1 + one end of a fresh stream pair)──▶ agent
//! ```
//!
//! The keeper keeps a duplicate of the agent's end, so packets sent while no agent lives wait for the next one.

use std::env;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketType,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

/// The environment variable that holds the number of the inherited descriptor.
pub const AGENT_FD_VARIABLE: &str = "RADIX_AGENT_FD";

const PACKET: [u8; 1] = [1];

/// A process's end: the right to connect to its agent. Cloning shares it.
#[derive(Debug, Clone)]
pub struct ProcessSocket(Arc<OwnedFd>);

impl ProcessSocket {
    /// The socket this process inherited; `None`: no agent started it.
    ///
    /// # Errors
    /// `InvalidInput` when the variable names no such descriptor.
    pub fn inherited() -> io::Result<Option<Self>> {
        let Some(text) = env::var_os(AGENT_FD_VARIABLE) else {
            return Ok(None);
        };
        let wrong = || {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{AGENT_FD_VARIABLE} names no agent socket"),
            )
        };
        let number: RawFd = text
            .to_str()
            .and_then(|text| text.parse().ok())
            .filter(|number| *number > 2)
            .ok_or_else(wrong)?;
        let socket = duplicate(number).map_err(|_| wrong())?;
        match rustix::net::sockopt::socket_type(&socket) {
            Ok(SocketType::SEQPACKET) => Ok(Some(Self(Arc::new(socket)))),
            _ => Err(wrong()),
        }
    }

    /// Takes a process's end that was come by otherwise.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self(Arc::new(socket))
    }

    /// Makes both ends: the process's and the agent's.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
        let flags = rustix::net::SocketFlags::CLOEXEC;
        Ok(rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            SocketType::SEQPACKET,
            flags,
            None,
        )?)
    }

    /// Connects: makes a stream pair, sends one end, answers the other. The agent may take it later.
    ///
    /// # Errors
    /// `BrokenPipe` when no agent can ever take it: the keeper is gone.
    ///
    /// # Cancel safety
    /// Dropping it leaves nothing, or a stream that the agent finds closed.
    pub async fn connect(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let waiter = watched(self.0.try_clone()?, Interest::WRITABLE)?;
        waiter
            .async_io(Interest::WRITABLE, |socket| {
                send(socket.as_fd(), theirs.as_fd())
            })
            .await?;
        UnixStream::from_std(ours)
    }
}

/// The agent's end: takes the connections of one process.
#[derive(Debug)]
pub struct ProcessListener(AsyncFd<OwnedFd>);

impl ProcessListener {
    /// Takes the agent's end.
    ///
    /// # Errors
    /// What the operating system says.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        watched(socket, Interest::READABLE).map(Self)
    }

    /// Waits for the next connection. Packets that are none are dropped.
    ///
    /// # Errors
    /// `UnexpectedEof` when the process, and all it passed the socket to, are gone: there will be no more.
    ///
    /// # Cancel safety
    /// No connection is lost.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        loop {
            if let Some(stream) = self
                .0
                .async_io(Interest::READABLE, |socket| receive(socket.as_fd()))
                .await?
            {
                let stream = StdStream::from(stream);
                stream.set_nonblocking(true)?;
                return UnixStream::from_std(stream);
            }
        }
    }
}

fn send(socket: BorrowedFd<'_>, end: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let ends = [end];
    if !control.push(SendAncillaryMessage::ScmRights(&ends)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(socket, &[IoSlice::new(&PACKET)], &mut control, flags)?;
    Ok(())
}

/// Takes one packet: the stream in it, or `None` when it is not of our form.
fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        flags,
    )?;
    let ends: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(ends) => Some(ends),
            _ => None,
        })
        .flatten()
        .collect();
    if received.bytes == 0 && ends.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let whole = !received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    let mut ends = ends.into_iter();
    match (ends.next(), ends.next()) {
        (Some(end), None) if whole && byte == PACKET && is_stream(&end) => Ok(Some(end)),
        _ => Ok(None),
    }
}

fn is_stream(end: &OwnedFd) -> bool {
    let unix = rustix::net::sockopt::socket_domain(end) == Ok(rustix::net::AddressFamily::UNIX);
    unix && rustix::net::sockopt::socket_type(end) == Ok(SocketType::STREAM)
}

#[expect(
    unsafe_code,
    reason = "the safe way to register was deprecated for descriptors that lie"
)]
fn watched(socket: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // Safety: an `OwnedFd` always answers the same open descriptor, and the `AsyncFd` keeps it until it is dropped.
    unsafe { AsyncFd::register_with_interest(socket, interest) }
        .map_err(|error| error.into_parts().1)
}

/// A duplicate of the inherited descriptor; the original stays open, for what else in this process knows its number.
#[expect(
    unsafe_code,
    reason = "a descriptor known only by its number cannot be borrowed otherwise"
)]
fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // Safety: the number is not -1 (callers pass numbers above 2), and the borrow ends within this statement, during
    // which nothing here closes it. If it names no open descriptor the kernel answers EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    borrowed.try_clone_to_owned()
}
