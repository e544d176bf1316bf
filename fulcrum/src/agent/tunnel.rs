//! The CLI's relay to a nested rnode: bytes both ways, TLS runs inside and is not ours to read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crux_core::identity::Principal;
use crux_wire::fulcrum::v1::TunnelBytes;
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::context::{Agent, background};
use super::guard::covers;
use super::limits::{CALL_TIMEOUT, CHUNK_BYTES, STREAM_CHUNKS, TUNNELS_MAX};
use super::rexec_service::Replies;
use super::status::host_port;

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// Counts a tunnel while it is open.
struct Slot;

impl Slot {
    fn take() -> Option<Self> {
        let taken = OPEN.fetch_add(1, Ordering::Relaxed);
        let slot = Self;
        (taken < TUNNELS_MAX).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Opens a tunnel to the target that the first message names: ourselves, or a rnode in a horde that the caller's grant covers.
///
/// # Errors
/// `PermissionDenied` for any other target, `Unavailable` if it does not answer.
pub(crate) async fn open(
    agent: &Arc<Agent>,
    caller: &Principal,
    mut inputs: Streaming<TunnelBytes>,
) -> Result<Replies<TunnelBytes>, Status> {
    let first = inputs.message().await?;
    let first = first.ok_or_else(|| Status::invalid_argument("open a tunnel: no target"))?;
    let own = host_port(&agent.config.host.to_string(), agent.me.tcp_port.into());
    let known = |namespace: &str| covers(caller, namespace);
    let known = || agent.hordes.knows_address(&first.target, known);
    if !agent.is_base() || (first.target != own && !known()) {
        return Err(Status::permission_denied(format!(
            "open a tunnel to {}: no rnode here has this address",
            first.target
        )));
    }
    let slot = Slot::take();
    let slot =
        slot.ok_or_else(|| Status::resource_exhausted("open a tunnel: too many are open"))?;
    let connecting = tokio::time::timeout(CALL_TIMEOUT, TcpStream::connect(&first.target)).await;
    let stream = match connecting {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return Err(Status::unavailable(format!(
                "reach {}: {error}",
                first.target
            )));
        }
        Err(_) => return Err(Status::unavailable(format!("reach {}", first.target))),
    };
    // Small writes matter more than full packets here.
    let _ = stream.set_nodelay(true);
    let (from, to) = stream.into_split();
    let (tx, rx) = mpsc::channel(STREAM_CHUNKS);
    background("tunnel-in", inward(inputs, to, first.bytes));
    background("tunnel-out", outward(from, tx, slot));
    Ok(ReceiverStream::new(rx).boxed())
}

async fn inward(mut inputs: Streaming<TunnelBytes>, mut to: OwnedWriteHalf, first: Vec<u8>) {
    if to.write_all(&first).await.is_err() {
        return;
    }
    while let Ok(Some(piece)) = inputs.message().await {
        if to.write_all(&piece.bytes).await.is_err() {
            return;
        }
    }
}

async fn outward(
    mut from: OwnedReadHalf,
    tx: mpsc::Sender<Result<TunnelBytes, Status>>,
    slot: Slot,
) {
    let _slot = slot;
    loop {
        let mut bytes = vec![0; CHUNK_BYTES];
        let read = tokio::select! {
            read = from.read(&mut bytes) => read,
            () = tx.closed() => return,
        };
        match read {
            Ok(0) | Err(_) => return,
            Ok(length) => bytes.truncate(length),
        }
        if tx
            .send(Ok(TunnelBytes {
                target: String::new(),
                bytes,
            }))
            .await
            .is_err()
        {
            return;
        }
    }
}
