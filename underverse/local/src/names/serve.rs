//! Answers on a socket and a listener, in one task.

use std::future::Future;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::Table;
use super::answer::{Over, answer};
use crate::layout::Home;

/// Time a table is kept before the records are read again: less than an answer may be kept.
const TABLE_KEPT: Duration = Duration::from_millis(250);
/// Most bytes of a question; a longer one is cut and then no question.
const QUESTION_BYTES_MAX: usize = 512;
/// Most connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// Time a connection may be silent before it is closed.
const SILENT_MAX: Duration = Duration::from_secs(5);
/// Pause after the system refused something, for it to recover.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// What is answered from.
struct Source<'a> {
    home: &'a Home,
    horde: &'a str,
    held: Mutex<(Table, Option<Instant>, usize)>,
}

impl Source<'_> {
    fn answer(&self, question: &[u8], over: Over) -> Option<Vec<u8>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (table, read, turn) = &mut *held;
        if read.is_none_or(|read| read.elapsed() >= TABLE_KEPT) {
            if let Some(now) = Table::read(self.home, self.horde) {
                *table = now;
            }
            *read = Some(Instant::now());
        }
        *turn = turn.wrapping_add(1);
        answer(question, table, *turn, over)
    }
}

/// Answers for the names of `horde` and its flock, whose records are below `home`, until `cancel` ends.
///
/// Neither socket may block. While the records cannot be read, what was known last is answered.
///
/// # Errors
/// The system's, when the sockets cannot be used; nothing is served then.
///
/// # Cancel safety
/// Dropping the future drops the connections.
pub async fn serve(
    (socket, listener): (std::net::UdpSocket, std::net::TcpListener),
    (home, horde): (&Home, &str),
    cancel: impl Future<Output = ()>,
) -> io::Result<()> {
    let socket = UdpSocket::from_std(socket)?;
    let listener = TcpListener::from_std(listener)?;
    let source = Source {
        home,
        horde,
        held: Mutex::new((Table::of(horde), None, 0)),
    };
    let mut cancel = std::pin::pin!(cancel);
    let mut question = [0; QUESTION_BYTES_MAX];
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = &mut cancel => return Ok(()),
            received = socket.recv_from(&mut question) => match received {
                Ok((length, asker)) => {
                    if let Some(reply) = source.answer(&question[..length], Over::Udp) {
                        // An asker that is gone, or a full queue: it asks again.
                        let _ = socket.try_send_to(&reply, asker);
                    }
                }
                Err(error) => pause(&error).await,
            },
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => connections.push(converse(stream, &source)),
                Err(error) => pause(&error).await,
            },
            Some(()) = connections.next() => {}
        }
    }
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "a question is not received");
    tokio::time::sleep(ERROR_PAUSE).await;
}

/// One connection: questions and answers, each after its length in two bytes.
async fn converse(mut stream: TcpStream, source: &Source<'_>) {
    loop {
        let turn = tokio::time::timeout(SILENT_MAX, one(&mut stream, source));
        // It ended, was silent, or asked what is no question.
        let Ok(Ok(true)) = turn.await else {
            return;
        };
    }
}

/// Whether a question was answered.
async fn one(stream: &mut TcpStream, source: &Source<'_>) -> io::Result<bool> {
    let length = usize::from(stream.read_u16().await?);
    let mut question = [0; QUESTION_BYTES_MAX];
    let Some(question) = question.get_mut(..length) else {
        return Ok(false);
    };
    stream.read_exact(question).await?;
    let Some(reply) = source.answer(question, Over::Tcp) else {
        return Ok(false);
    };
    let Ok(length) = u16::try_from(reply.len()) else {
        return Ok(false);
    };
    stream.write_u16(length).await?;
    stream.write_all(&reply).await?;
    Ok(true)
}
