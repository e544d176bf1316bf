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

/// Between two looks at the file: a container that was added gets connections after that.
const LOOK: Duration = Duration::from_millis(250);

/// The outer side of a door; it must not block.
#[derive(Debug)]
pub enum Outer {
    /// For connections.
    Tcp(std::net::TcpListener),
    /// For datagrams.
    Udp(std::net::UdpSocket),
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
    let carried = async {
        match outer {
            Outer::Tcp(listener) => {
                super::run(TcpListener::from_std(listener)?, receiver, cancel).await;
                Ok(())
            }
            Outer::Udp(socket) => datagrams::carry(socket, receiver, cancel).await,
        }
    };
    tokio::select! {
        carried = carried => carried,
        () = follow => Ok(()),
    }
}

fn members(file: &Path, port: u16) -> Option<Vec<SocketAddr>> {
    let text = fs::read(file).ok()?;
    let leases = address::parse(&text)?;
    let hosts = leases.into_iter().map(|lease| IpAddr::V4(lease.host));
    Some(hosts.map(|host| SocketAddr::new(host, port)).collect())
}
