//! The L4 forwarder: spreads the connections to one external port over the ready members of a class.
//!
//! It runs as an execution of the base, one a port, and outlives its agent: `forward/follow.rs` keeps the members,
//! `forward/pool.rs` decides whose turn it is. It carries what the application speaks and looks at none of it.
//! One task serves all connections.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crux_net::process::{is_out_of_files, room_for_connections};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub mod datagrams;
mod follow;
mod leases;
mod pool;

pub use follow::{Followed, follow};
pub use leases::{Outer, run_on_leases};
use pool::Pool;

/// Most connections carried at once; more wait in the kernel's queue until one ends.
pub const CONNECTIONS_MAX: usize = 4096;
/// Time one member is given to accept. 1 s: on one machine it answers in microseconds or not at all.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time a connection waits for a member that accepts. 3 s: a killed instance is back before that.
pub const MEMBER_WAIT: Duration = Duration::from_secs(3);
/// Pause between two rounds over the members while none accepts.
const ROUND_PAUSE: Duration = Duration::from_millis(50);
/// Bytes buffered a direction.
const BUFFER_BYTES: usize = 16 << 10;
/// Pause after the system refused to accept, for descriptors to become free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `listener` until `cancel` ends: each connection goes to the next member that accepts.
///
/// At most [`CONNECTIONS_MAX`] at once, and at most as many as this process may have files for; its limit of open files is
/// raised as far as it may be.
/// A connection for which no member accepts within [`MEMBER_WAIT`] is closed. When one side has no more to send, the other may still send.
/// `members` may change at any time; connections that exist stay with their member.
/// Connections that exist when `cancel` ends are dropped.
///
/// # Cancel safety
/// Dropping the future drops all connections.
pub async fn run(
    listener: TcpListener,
    members: watch::Receiver<Vec<SocketAddr>>,
    cancel: impl Future<Output = ()>,
) {
    let mut cancel = std::pin::pin!(cancel);
    let mut members = members;
    let pool = Arc::new(Mutex::new(Pool::default()));
    set(&pool, members.borrow_and_update().clone());
    let mut connections = FuturesUnordered::new();
    let connections_max = room_for_connections(CONNECTIONS_MAX);
    let mut following = true;
    // While set, the system refused to accept: those that are carried go on.
    let mut paused_until = None;
    loop {
        tokio::select! {
            () = &mut cancel => return,
            changed = members.changed(), if following => {
                // Without its source the last known members stay.
                following = changed.is_ok();
                set(&pool, members.borrow_and_update().clone());
            }
            accepted = accept(&listener, paused_until), if connections.len() < connections_max => {
                paused_until = None;
                match accepted {
                    Ok((client, _)) => connections.push(Box::pin(carry(client, Arc::clone(&pool)))),
                    Err(error) => {
                        tracing::warn!(%error, "a connection is not accepted");
                        paused_until = Some(tokio::time::Instant::now() + ACCEPT_PAUSE);
                    }
                }
            }
            Some(()) = connections.next() => {}
        }
    }
}

/// The next connection, not before the pause is over.
async fn accept(
    listener: &TcpListener,
    paused_until: Option<tokio::time::Instant>,
) -> io::Result<(TcpStream, SocketAddr)> {
    if let Some(end) = paused_until {
        tokio::time::sleep_until(end).await;
    }
    listener.accept().await
}

/// Binds the exposed address, follows the members over `channel` and serves until `cancel` ends.
///
/// The agent is asked for members only once the port is open: who asks can be connected to.
///
/// # Errors
/// What binding says, `AddrInUse` above all; nothing is served then.
pub async fn run_on_agent(
    followed: Followed,
    channel: tonic::transport::Channel,
    cancel: impl Future<Output = ()>,
) -> io::Result<()> {
    let outer = Outer::open(followed.exposure, followed.carries)?;
    let (sender, receiver) = watch::channel(Vec::new());
    tokio::select! {
        carried = outer.carry(receiver, cancel) => carried,
        () = follow(channel, &followed, &sender) => Ok(()),
    }
}

fn set(pool: &Mutex<Pool>, members: Vec<SocketAddr>) {
    pool.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .set(members);
}

async fn carry(mut client: TcpStream, pool: Arc<Mutex<Pool>>) {
    let Some(mut member) = reach(&pool).await else {
        return;
    };
    // Both ends are told at once what was written: requests and answers are small.
    drop(client.set_nodelay(true));
    drop(member.set_nodelay(true));
    let copied = tokio::io::copy_bidirectional_with_sizes(
        &mut client,
        &mut member,
        BUFFER_BYTES,
        BUFFER_BYTES,
    );
    if let Err(error) = copied.await {
        tracing::debug!(%error, "a connection broke");
    }
}

/// A connection to the next member that accepts; `None` if none does in time.
///
/// While none does, the round is made again, with the members that are known by then.
async fn reach(pool: &Mutex<Pool>) -> Option<TcpStream> {
    let rounds = async {
        loop {
            if let Some(member) = round(pool).await {
                return member;
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    };
    let reached = tokio::time::timeout(MEMBER_WAIT, rounds).await;
    if reached.is_err() {
        tracing::debug!("no member accepts");
    }
    reached.ok()
}

/// Tries each member once, in the order of the pool.
async fn round(pool: &Mutex<Pool>) -> Option<TcpStream> {
    let order = pool
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .order(Instant::now());
    for address in order {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
        match connected {
            Ok(Ok(member)) => {
                pool.trust(address);
                return Some(member);
            }
            // Our lack says nothing about the member.
            Ok(Err(error)) if is_out_of_files(&error) => {}
            Ok(Err(_)) | Err(_) => pool.suspect(address, Instant::now()),
        }
    }
    None
}
