//! Carries a horde's connections out of its switch, and counts them.
//!
//! At the limit the listener is shut, so that the kernel answers the next connection with a reset; it opens again when one ends.
//! One that comes in the very moment in between is reset too, and nothing of it is carried.
//! Where the system has no descriptor left, that is the limit.
//! One task carries all.

use std::future::Future;
use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

use crux_net::process::{is_out_of_files, room_for_connections};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::{OUTSIDE, Uplink};

/// Most connections carried at once for a horde without a limit; the next one is refused.
pub const CONNECTIONS_MAX: u32 = 4096;
/// Connections that wait to be taken. 0: one, so that few are taken back that were let in beyond the limit.
const BACKLOG: i32 = 0;
/// Time the wanted address is given to accept.
const DIAL: Duration = Duration::from_secs(10);
/// Pause before the listener is opened again that was shut because no descriptor was left.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(50);
/// What a probe that was let in is told.
const LET_IN: &[u8] = b"in\n";
/// Bytes buffered a direction.
const BUFFER_BYTES: usize = 16 << 10;

/// Carries until `cancel` ends, at most `limit` connections at once, and at most as many as this process may have files for.
///
/// This process's limit of open files is raised as far as it may be.
/// A connection whose wanted address cannot be reached is reset.
///
/// # Errors
/// The system's, or that the process which holds the switch has died; connections are dropped then.
///
/// # Cancel safety
/// Dropping the future drops all connections.
pub async fn carry(
    uplink: Uplink,
    limit: Option<u32>,
    cancel: impl Future<Output = ()>,
) -> io::Result<()> {
    let limit = limit.unwrap_or(CONNECTIONS_MAX).min(CONNECTIONS_MAX);
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let limit = room_for_connections(wanted).min(wanted);
    if limit < wanted {
        tracing::warn!(
            wanted,
            limit,
            "the limit of open files allows fewer connections out"
        );
    }
    let mut cancel = std::pin::pin!(cancel);
    let held = UnixStream::from_std(uplink.held)?;
    let mut gate = Gate::open(uplink.listener)?;
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = &mut cancel => return Ok(()),
            _ = held.readable() => return Err(io::Error::other("the process that holds the switch has died")),
            accepted = gate.accept() => {
                let full = match accepted? {
                    Accepted::Client(client) => {
                        connections.push(Box::pin(carry_one(client)));
                        connections.len() >= limit
                    }
                    Accepted::GoneAgain => false,
                    Accepted::OutOfFiles => true,
                };
                if full {
                    gate = gate.shut()?;
                }
            }
            // Below the limit it is shut for want of files, which others may have given back.
            () = tokio::time::sleep(OUT_OF_FILES_PAUSE), if gate.is_shut() && connections.len() < limit => {
                gate = gate.reopen()?;
            }
            Some(()) = connections.next() => {
                if connections.len() < limit {
                    gate = gate.reopen()?;
                }
            }
        }
    }
}

/// What came of accepting.
enum Accepted {
    Client(TcpStream),
    /// It went away before it was taken.
    GoneAgain,
    /// It waits still, and is reset when the gate is shut.
    OutOfFiles,
}

/// The listener, open or shut.
enum Gate {
    Open(TcpListener),
    Shut(std::net::TcpListener),
}

impl Gate {
    fn open(listener: std::net::TcpListener) -> io::Result<Self> {
        rustix::net::listen(&listener, BACKLOG)?;
        Ok(Self::Open(TcpListener::from_std(listener)?))
    }

    const fn is_shut(&self) -> bool {
        matches!(self, Self::Shut(_))
    }

    /// The next connection, for ever none while shut.
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Shut(_) => std::future::pending().await,
            Self::Open(listener) => match listener.accept().await {
                Ok((client, _)) => Ok(Accepted::Client(client)),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
                    Ok(Accepted::GoneAgain)
                }
                Err(error) if is_out_of_files(&error) => {
                    tracing::warn!(%error, "a connection out is refused");
                    Ok(Accepted::OutOfFiles)
                }
                Err(error) => Err(error),
            },
        }
    }

    fn shut(self) -> io::Result<Self> {
        let Self::Open(listener) = self else {
            return Ok(self);
        };
        // Taken off the runtime, which would else see the end of it for ever.
        let listener = listener.into_std()?;
        rustix::net::shutdown(&listener, rustix::net::Shutdown::Read)?;
        Ok(Self::Shut(listener))
    }

    fn reopen(self) -> io::Result<Self> {
        match self {
            Self::Shut(listener) => Self::open(listener),
            Self::Open(_) => Ok(self),
        }
    }
}

async fn carry_one(mut client: TcpStream) {
    let wanted = rustix::net::sockopt::ip_original_dst(&client);
    let carried = match wanted {
        Ok(wanted) if wanted == OUTSIDE => stay(&mut client).await,
        Ok(wanted) => dial(&mut client, wanted).await,
        Err(error) => Err(error.into()),
    };
    if let Err(error) = carried {
        tracing::debug!(%error, "a connection out broke");
        // Told at once, as if the wanted address itself had said it.
        drop(client.set_zero_linger());
    }
}

/// What a probe connects to: tells that it was let in, and waits until it goes away.
async fn stay(client: &mut TcpStream) -> io::Result<()> {
    client.write_all(LET_IN).await?;
    let mut buffer = [0; 64];
    while client.read(&mut buffer).await? > 0 {}
    Ok(())
}

async fn dial(client: &mut TcpStream, wanted: SocketAddrV4) -> io::Result<()> {
    let mut outside = tokio::time::timeout(DIAL, TcpStream::connect(wanted)).await??;
    drop(client.set_nodelay(true));
    drop(outside.set_nodelay(true));
    tokio::io::copy_bidirectional_with_sizes(client, &mut outside, BUFFER_BYTES, BUFFER_BYTES)
        .await
        .map(drop)
}
