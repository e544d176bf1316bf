//! Keeps a forwarder's members up to date from the file of a horde's addresses: for hordes that have no agents.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::datagrams;
use crate::address;
use crate::network::Carries;

/// Between two looks at the file: a container that was added gets connections after that.
const LOOK: Duration = Duration::from_millis(250);

/// Most connections that wait in the kernel's queue of a door; what comes then is tried again by its side.
const QUEUED_MAX: i32 = 1024;

/// The outer side of a door; it must not block.
#[derive(Debug)]
pub enum Outer {
    /// For connections.
    Tcp(std::net::TcpListener),
    /// For datagrams.
    Udp(std::net::UdpSocket),
}

impl Outer {
    /// Opens the outer side at `listen`; it need not be in a runtime.
    ///
    /// # Errors
    /// What binding says.
    pub fn open(listen: SocketAddr, carries: Carries) -> io::Result<Self> {
        match carries {
            Carries::Tcp => {
                let listener = std::net::TcpListener::bind(listen)?;
                listener.set_nonblocking(true)?;
                rustix::net::listen(&listener, QUEUED_MAX)?;
                Ok(Self::Tcp(listener))
            }
            Carries::Udp => {
                let socket = std::net::UdpSocket::bind(listen)?;
                socket.set_nonblocking(true)?;
                Ok(Self::Udp(socket))
            }
        }
    }

    /// Serves it until `cancel` ends.
    ///
    /// # Errors
    /// The system's; nothing is served then.
    pub(super) async fn carry(
        self,
        members: watch::Receiver<Vec<SocketAddr>>,
        cancel: impl Future<Output = ()>,
    ) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => {
                super::run(TcpListener::from_std(listener)?, members, cancel).await;
                Ok(())
            }
            Self::Udp(socket) => datagrams::carry(socket, members, cancel).await,
        }
    }
}

/// Follows the addresses in `file` at `port` and serves `outer` until `cancel` ends.
///
/// Members are connected to from the network namespace this process is in, wherever the listener is.
///
/// A file that is away or torn changes nothing: the last known members stay.
///
/// # Errors
/// The system's; nothing is served then.
pub async fn run_on_leases(
    outer: Outer,
    file: &Path,
    port: u16,
    cancel: impl Future<Output = ()>,
) -> io::Result<()> {
    let (sender, receiver) = watch::channel(members(file, port).unwrap_or_default());
    let follow = async {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Some(members) = members(file, port) {
                sender.send_if_modified(|held| {
                    let changed = *held != members;
                    *held = members;
                    changed
                });
            }
        }
    };
    tokio::select! {
        carried = outer.carry(receiver, cancel) => carried,
        () = follow => Ok(()),
    }
}

fn members(file: &Path, port: u16) -> Option<Vec<SocketAddr>> {
    let text = fs::read(file).ok()?;
    let leases = address::parse(&text)?;
    let hosts = leases.into_iter().map(|lease| IpAddr::V4(lease.host));
    Some(hosts.map(|host| SocketAddr::new(host, port)).collect())
}
