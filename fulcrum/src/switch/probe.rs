//! Tries what a network lets through: once to learn what this machine grants, and on each horde to learn what it got.

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::sockopt::DontRoute;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

use super::{Plugged, Switch, enter_user, holders::Holders, nft};
use crate::cell::CellError;

/// Where a way out is tried: an address that documents are written with, which the uplink itself answers.
pub const OUTSIDE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 9);
/// Time a connection is given. 1 s: on one machine it comes about in microseconds, or never.
const CONNECT: Duration = Duration::from_secs(1);
/// Most connections out that are tried at once; a higher limit is not tried to its end.
pub const OUTBOUND_TRIED_MAX: u32 = 64;

/// What this machine lets this user do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// Why there can be no switch; `None` if there can.
    pub switch: Option<String>,
    /// Why there can be no way out of one; `None` if there can.
    pub outbound: Option<String>,
}

/// Tries it by running `executable switch --trial --dir DIR`, which must call [`trial`]. Blocks for some milliseconds.
#[must_use]
pub fn granted(executable: &Path, dir: &Path) -> Granted {
    let neither = |reason: String| Granted {
        switch: Some(reason.clone()),
        outbound: Some(reason),
    };
    let mut command = Command::new(executable);
    command
        .args(["switch", "--trial", "--dir"])
        .arg(dir)
        .stdin(Stdio::null());
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return neither(format!("the trial cannot be started: {error}")),
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    let last = errors.lines().rev().find(|line| !line.trim().is_empty());
    match (output.status.success(), last) {
        (false, Some(reason)) => neither(reason.to_owned()),
        (false, None) => neither(format!("the trial ended with {}", output.status)),
        (true, reason) => Granted {
            switch: None,
            outbound: reason.map(ToOwned::to_owned),
        },
    }
}

/// Makes a switch in `dir`, plugs in two namespaces and connects them, in this process, which should exit afterwards.
///
/// Returns why there can be no way out; `None` if there can.
///
/// # Errors
/// [`CellError`], naming what is not allowed here.
pub fn trial(dir: &Path) -> Result<Option<String>, CellError> {
    let dir = dir.join(format!("switch-{}", std::process::id()));
    let tried = trial_in(&dir);
    let removed = std::fs::remove_dir_all(&dir);
    let tried = tried?;
    removed.map_err(|error| CellError::at("remove", &dir, error))?;
    Ok(tried)
}

fn trial_in(dir: &Path) -> Result<Option<String>, CellError> {
    let [first, second] = [1, 2].map(|member| Ipv4Addr::new(198, 18, 254, member));
    let (switch, one) = Switch::plug(dir, first)?;
    let (_, two) = Switch::plug(dir, second)?;
    let connected = connect_between(&one, &two, second);
    connected.map_err(|error| CellError::io("connect two members of a switch", error))?;
    switch
        .back()
        .map_err(|error| CellError::io("enter the switch", error))?;
    Ok(nft::redirect(254, 1)
        .err()
        .map(|error| format!("nftables cannot be used here: {error}")))
}

fn connect_between(from: &Plugged, to: &Plugged, address: Ipv4Addr) -> io::Result<()> {
    to.enter()?;
    let listener = TcpListener::bind((address, 0))?;
    from.enter()?;
    TcpStream::connect_timeout(&listener.local_addr()?, CONNECT).map(drop)
}

/// What was tried on a horde. `true` is a connection that came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// From one member to another, or to itself where there is one only.
    pub members: bool,
    /// From this machine's network, over its own links only.
    pub outside: bool,
    /// Connections out that came about, all held at once.
    pub outbound: u32,
    /// The connection after those failed.
    pub outbound_ended: bool,
}

/// What is tried on a horde.
#[derive(Debug, Clone, Copy)]
pub struct Probes<'a> {
    /// Directory of the switch.
    pub dir: &'a Path,
    /// A member that connects.
    pub from: Ipv4Addr,
    /// A member that is connected to.
    pub to: Ipv4Addr,
    /// Connections out to try; at most [`OUTBOUND_TRIED_MAX`].
    pub outbound: u32,
}

/// Tries it, in this process, which should exit afterwards: it is in a member's network then.
///
/// Nothing is sent beyond this machine.
///
/// # Errors
/// [`CellError`], above all when a member is not there.
pub fn probe(probes: &Probes<'_>) -> Result<Found, CellError> {
    let failed = |error: io::Error| CellError::io("try the horde's network", error);
    // Ordering: made before anything is entered, so that it is of this machine's network.
    let outsider = stream_socket().map_err(failed)?;
    // Whoever is outside is so on this machine; a packet must not go looking for a router.
    nix::sys::socket::setsockopt(&outsider, DontRoute, &true)
        .map_err(|error| failed(error.into()))?;
    let holders = Holders::lock(probes.dir).map_err(failed)?;
    let missing = |address| failed(io::Error::other(format!("{address} is not on the switch")));
    let open = |address: Ipv4Addr| {
        let member = holders.member(&address.to_string()).map_err(failed)?;
        member.ok_or_else(|| missing(address))
    };
    let (held, from) = open(probes.from)?;
    let (_, to) = open(probes.to)?;
    drop(holders);
    if !nix::unistd::geteuid().is_root() {
        enter_user(&held.user)?;
    }
    let enter = |network: &std::fs::File| {
        setns(network, CloneFlags::CLONE_NEWNET).map_err(|error| failed(error.into()))
    };
    enter(&to)?;
    let listener = TcpListener::bind((probes.to, 0)).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    enter(&from)?;
    let members = TcpStream::connect_timeout(&address, CONNECT).is_ok();
    let outside = connects(&outsider, address);
    let outbound = outward(probes.outbound.min(OUTBOUND_TRIED_MAX));
    Ok(Found {
        members,
        outside,
        outbound,
        outbound_ended: outbound < probes.outbound,
    })
}

/// How many of `count` connections out were let in, all held at once.
fn outward(count: u32) -> u32 {
    let mut held = Vec::new();
    for _ in 0..count {
        let connected = TcpStream::connect_timeout(&OUTSIDE.into(), CONNECT);
        held.extend(connected.ok());
    }
    let let_in = |stream: &mut TcpStream| {
        let mut byte = [0];
        stream.set_read_timeout(Some(CONNECT)).is_ok() && matches!(stream.read(&mut byte), Ok(1))
    };
    let count = held
        .iter_mut()
        .filter_map(|stream| let_in(stream).then_some(()));
    u32::try_from(count.count()).unwrap_or(u32::MAX)
}

fn stream_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

/// Whether a socket that does not block connects in time.
fn connects(socket: &OwnedFd, address: SocketAddr) -> bool {
    match rustix::net::connect(socket, &address) {
        Ok(()) => return true,
        Err(rustix::io::Errno::INPROGRESS) => {}
        Err(_) => return false,
    }
    let timeout = Timespec {
        tv_sec: CONNECT.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    let mut fds = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::OUT)];
    poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
        && matches!(sockopt::socket_error(socket), Ok(Ok(())))
}
