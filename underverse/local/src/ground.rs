//! The machine below, as far as this backend touches it itself; a test stands in for it.

use std::fmt::Debug;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::OnceLock;

use async_trait::async_trait;

use crate::claims::Claim;
use crate::limits::Machine;
use crate::network::{Carries, ProbeAsk, ProbeFound};
use crate::{address, claims, mark};

/// What the machine answers and does.
#[async_trait]
pub trait Ground: Send + Sync + Debug {
    /// Binds a TCP and a UDP port of `host` (0: any) and lets go; says which they were.
    ///
    /// # Errors
    /// What binding says; `AddrInUse` also while a container that runs was given the address.
    fn probe(&self, host: Ipv4Addr, tcp_port: u16, flock_port: u16) -> io::Result<(u16, u16)>;

    /// Claims an address before it is leased, so that no other backend of this machine leases it too.
    ///
    /// # Errors
    /// `AddrInUse` while another one holds it.
    fn claim(&self, host: Ipv4Addr) -> io::Result<Claim>;

    /// Whether a forwarder could listen at `address`.
    ///
    /// # Errors
    /// What binding says.
    fn can_listen(&self, address: SocketAddr, carries: Carries) -> io::Result<()>;

    /// Whether a directory or file exists.
    fn exists(&self, path: &Path) -> bool;

    /// Ends every process that carries the mark of a rnode.
    ///
    /// # Errors
    /// `TimedOut` if some do not end.
    async fn sweep(&self, mark: String) -> io::Result<()>;

    /// Tries what the network of a horde lets through.
    ///
    /// # Errors
    /// Why it cannot be tried, above all that a member is not there yet.
    async fn try_network(&self, ask: ProbeAsk) -> io::Result<ProbeFound>;

    /// The keeper that runs below a cell's process; 0 while there is none.
    fn keeper_of(&self, cell: i32) -> i32;

    /// The machine's figures.
    fn machine(&self) -> Machine;

    /// Wall clock, for people only.
    fn unix_ms(&self) -> u64;

    /// Which boot of the machine this is.
    fn boot(&self) -> String {
        // No process lives in two boots, so it is read once.
        static BOOT: OnceLock<String> = OnceLock::new();
        if let Some(boot) = BOOT.get() {
            return boot.clone();
        }
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let read = text.map(|text| BOOT.get_or_init(|| text.trim().to_owned()).clone());
        read.unwrap_or_default()
    }

    /// User we run as.
    fn uid(&self) -> u32;
}

/// This machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThisMachine;

#[async_trait]
impl Ground for ThisMachine {
    fn probe(&self, host: Ipv4Addr, tcp_port: u16, flock_port: u16) -> io::Result<(u16, u16)> {
        claims::unheld(host)?;
        address::probe(host, tcp_port, flock_port)
    }

    fn claim(&self, host: Ipv4Addr) -> io::Result<Claim> {
        Claim::take(host)
    }

    fn can_listen(&self, address: SocketAddr, carries: Carries) -> io::Result<()> {
        match carries {
            Carries::Tcp => TcpListener::bind(address).map(drop),
            Carries::Udp => UdpSocket::bind(address).map(drop),
        }
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    async fn sweep(&self, mark: String) -> io::Result<()> {
        let end = move || mark::end_marked(mark::RNODE_MARK, &mark).map(drop);
        tokio::task::spawn_blocking(end)
            .await
            .map_err(io::Error::other)?
    }

    async fn try_network(&self, ask: ProbeAsk) -> io::Result<ProbeFound> {
        tokio::task::spawn_blocking(move || ask.run())
            .await
            .map_err(io::Error::other)?
    }

    fn keeper_of(&self, cell: i32) -> i32 {
        keeper_below(cell, KEEPER_DEPTH_MAX).unwrap_or(0)
    }

    fn machine(&self) -> Machine {
        Machine::read()
    }

    fn unix_ms(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }

    fn uid(&self) -> u32 {
        rustix::process::getuid().as_raw()
    }
}

/// How far below its cell a keeper is looked for: a fork for each namespace at most.
const KEEPER_DEPTH_MAX: u32 = 3;

/// The first descendant whose first argument is `keep`.
fn keeper_below(pid: i32, depth: u32) -> Option<i32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    let mut children = children
        .split_whitespace()
        .filter_map(|child| child.parse::<i32>().ok());
    children.find_map(|child| {
        let arguments = std::fs::read(format!("/proc/{child}/cmdline")).ok()?;
        if arguments.split(|&byte| byte == 0).nth(1) == Some(b"keep") {
            return Some(child);
        }
        if depth == 0 {
            None
        } else {
            keeper_below(child, depth - 1)
        }
    })
}
