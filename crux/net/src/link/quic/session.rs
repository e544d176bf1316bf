//! One connection to one peer: its reader, its writer, and its end.

use std::time::Duration;

use bytes::Bytes;
use crux_core::flock::MESSAGE_BYTES_MAX;
use crux_core::names::RnodeId;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::Happening;
use crate::identity::Credentials;
use crate::link::Carriage;
use crate::task::{Policy, spawn};

/// Messages that wait for a stream; further ones are dropped and counted.
const STREAM_QUEUE_MAX: usize = 256;
/// Two dials within this time crossed each other; a later one is a redial, as after a restart.
const CROSSED_WITHIN: Duration = Duration::from_secs(3);
/// How long a surplus connection stays open for what is on its way.
const CLOSE_AFTER: Duration = Duration::from_secs(1);

/// A connection that is there.
#[derive(Debug)]
pub(super) struct Session {
    connection: quinn::Connection,
    pub(super) dialler: RnodeId,
    since: Instant,
    stream: mpsc::Sender<Bytes>,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Yes,
    /// There is no room for it.
    Full,
    /// The connection has ended.
    Dead,
}

impl Session {
    pub(super) fn new(connection: quinn::Connection, dialler: RnodeId, since: Instant) -> Self {
        let (stream, messages) = mpsc::channel(STREAM_QUEUE_MAX);
        spawn(
            "flock link write",
            Policy::DRAIN,
            write(connection.clone(), messages),
        );
        Self {
            connection,
            dialler,
            since,
            stream,
        }
    }

    pub(super) fn id(&self) -> usize {
        self.connection.stable_id()
    }

    /// Whether this and `newer` come from both sides dialling at the same time.
    pub(super) fn crossed(&self, newer: &Self) -> bool {
        let living = self.connection.close_reason().is_none();
        living
            && self.dialler != newer.dialler
            && newer.since.duration_since(self.since) < CROSSED_WITHIN
    }

    pub(super) fn send(&self, message: Bytes, carriage: Carriage) -> Sent {
        if self.connection.close_reason().is_some() {
            return Sent::Dead;
        }
        if carriage == Carriage::Datagram {
            match self.connection.send_datagram(message.clone()) {
                Ok(()) => return Sent::Yes,
                Err(quinn::SendDatagramError::ConnectionLost(_)) => return Sent::Dead,
                // Too long for this path, or not wanted there: the stream takes it.
                Err(_) => {}
            }
        }
        match self.stream.try_send(message) {
            Ok(()) => Sent::Yes,
            Err(mpsc::error::TrySendError::Full(_)) => Sent::Full,
            Err(mpsc::error::TrySendError::Closed(_)) => Sent::Dead,
        }
    }

    pub(super) fn is_refused(&self, credentials: &Credentials) -> bool {
        credentials.recheck(&self.connection).is_err()
    }

    pub(super) fn close(&self) {
        self.connection.close(0_u8.into(), b"closed");
    }

    pub(super) fn close_later(&self) {
        let connection = self.connection.clone();
        spawn("flock link close", Policy::DRAIN, async move {
            sleep(CLOSE_AFTER).await;
            connection.close(0_u8.into(), b"the other one is kept");
        });
    }

    /// Waits until the peer has all that was sent before.
    pub(super) async fn flush(&self) {
        while self.stream.capacity() < STREAM_QUEUE_MAX && self.connection.close_reason().is_none()
        {
            sleep(Duration::from_millis(5)).await;
        }
        if let Ok(mut stream) = self.connection.open_uni().await
            && stream.finish().is_ok()
        {
            stream.stopped().await.ok();
        }
    }
}

async fn write(connection: quinn::Connection, mut messages: mpsc::Receiver<Bytes>) {
    while let Some(message) = messages.recv().await {
        let Ok(mut stream) = connection.open_uni().await else {
            return;
        };
        // A failure here is the end of the connection, which the reader reports.
        if stream.write_all(&message).await.is_err() || stream.finish().is_err() {
            return;
        }
    }
}

/// Reads from `connection` until it ends.
pub(super) fn serve(peer: RnodeId, connection: quinn::Connection, sender: mpsc::Sender<Happening>) {
    spawn("flock link read", Policy::DRAIN, async move {
        let id = connection.stable_id();
        while let Some(message) = read(&connection).await {
            if !message.is_empty()
                && sender
                    .send(Happening::Message(peer, message))
                    .await
                    .is_err()
            {
                break;
            }
        }
        connection.close(0_u8.into(), b"done reading");
        sender.send(Happening::Closed(peer, id)).await.ok();
    });
}

/// The next message, whole; none when the connection has ended. Empty when a stream broke off.
async fn read(connection: &quinn::Connection) -> Option<Bytes> {
    tokio::select! {
        datagram = connection.read_datagram() => datagram.ok(),
        stream = connection.accept_uni() => {
            let message = stream.ok()?.read_to_end(MESSAGE_BYTES_MAX).await;
            Some(message.map(Bytes::from).unwrap_or_default())
        }
    }
}
