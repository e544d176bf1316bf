//! The dialling side: channels that prove who they are, know whom they want, and take each new leaf when they redial.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crux_core::identity::{PublicKey, Refusal};
use crux_wire::status::{Effect, Kind};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::error::Error;
use crate::identity::{ALPN_GRPC, Credentials, Expect, refusal_in};
use crate::rpc::ProcessSocket;
use crate::rpc::server::FRAME_BYTES_MAX;

/// Longest a connection may take to stand, handshake included. 5 s: the server's own limit.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest to wait for a refusal once a connection stands. 1 s: it comes with the server's next words, a round trip later.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(1);
/// How often an idle server is asked whether it is still there, and how long it may take to say so.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// What stands as the authority in requests; nothing is decided by it.
const ORIGIN: &str = "http://radix";

/// No connection stood, so nothing was sent: such a call is safe to repeat anywhere.
#[derive(Debug)]
pub struct NotConnected {
    source: io::Error,
}

impl fmt::Display for NotConnected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("connect")
    }
}

impl StdError for NotConnected {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.source)
    }
}

/// Connects to `expect` at `address` (`host:port`). The channel redials by itself when its connection ends.
///
/// Connections are replaced as leaves are renewed; a call that meets that moment never arrives, and says so
/// ([`fate`](crate::rpc::fate)): [`repeat_unsent`](crate::rpc::repeat_unsent) makes it again.
/// A server that refuses *us* shows it only at the first call.
///
/// # Errors
/// [`Kind::Unavailable`] when nobody answers, [`Kind::Unauthenticated`] when it is somebody else: effect none.
///
/// # Cancel safety
/// Dropping it leaves nothing.
pub async fn connect(
    address: &str,
    credentials: &Credentials,
    expect: Expect,
) -> Result<Channel, Error> {
    let dialler = dialler(address, credentials, expect)?;
    let connector = tower::service_fn(move |_| {
        let dialler = dialler.clone();
        async move { dialler.dial().await }
    });
    endpoint()
        .connect_with_connector(connector)
        .await
        .map_err(|error| failed(error, address))
}

/// The key that `expect` at `address` proves itself with now: of its leaf, so for half an hour or less.
///
/// For programs that know no Radix certificates and can only compare a key.
///
/// # Errors
/// [`Kind::Unavailable`] when nobody answers, or somebody else: effect none.
///
/// # Cancel safety
/// Dropping it leaves nothing.
pub async fn key_of(
    address: &str,
    credentials: &Credentials,
    expect: Expect,
) -> Result<PublicKey, Error> {
    let stream = dialler(address, credentials, expect)?
        .dial()
        .await
        .map_err(|error| unmet(address, error))?;
    let shown = stream.inner().get_ref().1.peer_certificates();
    shown
        .and_then(<[_]>::first)
        .ok_or(Refusal::NoCertificate)
        .and_then(|leaf| PublicKey::of_certificate(leaf))
        .map_err(|refusal| unmet(address, refusal))
}

/// How `expect` at `address` refuses us in the handshake; `None` where it does not, or cannot be reached.
///
/// Who refuses shuts the connection at once, and what a call had written by then may take the reason with it: a broken
/// connection is all that is left. So nothing is written here.
///
/// # Cancel safety
/// Dropping it leaves nothing.
pub async fn refusal(
    address: &str,
    credentials: &Credentials,
    expect: Expect,
) -> Option<io::Error> {
    let stream = dialler(address, credentials, expect).ok()?.dial().await;
    let mut stream = stream.ok()?.into_inner();
    // Whoever takes us waits for our first word; the alert of who does not is an error of the reader.
    let told = tokio::time::timeout(REFUSAL_TIME_MAX, stream.read_u8()).await;
    let error = told.ok()?.err()?;
    (error.kind() == io::ErrorKind::InvalidData).then_some(error)
}

fn unmet(address: &str, error: impl StdError + Send + Sync + 'static) -> Error {
    Error::new(Kind::Unavailable, "connect")
        .effect_is(Effect::None)
        .with("to", address)
        .because(error)
}

/// As [`connect`], but dials at the first call.
///
/// # Errors
/// [`Kind::Bug`] when TLS cannot be prepared.
pub fn connect_lazy(
    address: &str,
    credentials: &Credentials,
    expect: Expect,
) -> Result<Channel, Error> {
    let dialler = dialler(address, credentials, expect)?;
    let connector = tower::service_fn(move |_| {
        let dialler = dialler.clone();
        async move { dialler.dial().await }
    });
    Ok(endpoint().connect_with_connector_lazy(connector))
}

/// Connects to `expect` inside `stream` (a tunnel): TLS runs end to end within it. The channel ends with the stream.
///
/// # Errors
/// As [`connect`].
///
/// # Cancel safety
/// Dropping it drops the stream.
pub async fn connect_over<S>(
    stream: S,
    credentials: &Credentials,
    expect: Expect,
) -> Result<Channel, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let tls = connector(credentials, expect)?;
    let once = Arc::new(Mutex::new(Some(stream)));
    let connector = tower::service_fn(move |_| {
        let (tls, once) = (tls.clone(), once.clone());
        async move {
            let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
            let stream = stream.ok_or_else(|| not_connected(io::ErrorKind::NotConnected.into()))?;
            secure(&tls, stream).await
        }
    });
    endpoint()
        .connect_with_connector(connector)
        .await
        .map_err(|error| failed(error, "a tunnel"))
}

/// A channel to our agent over the inherited process socket. It dials at the first call, and again when the agent restarts.
#[must_use]
pub fn connect_process(socket: &ProcessSocket) -> Channel {
    let socket = socket.clone();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move {
            socket
                .connect()
                .await
                .map(TokioIo::new)
                .map_err(not_connected)
        }
    });
    endpoint().connect_with_connector_lazy(connector)
}

#[derive(Clone)]
struct Dialler {
    address: Arc<str>,
    tls: TlsConnector,
}

impl Dialler {
    async fn dial(&self) -> Result<TokioIo<TlsStream<TcpStream>>, NotConnected> {
        let stream = within(TcpStream::connect(&*self.address))
            .await
            .map_err(not_connected)?;
        stream.set_nodelay(true).map_err(not_connected)?;
        secure(&self.tls, stream).await
    }
}

fn dialler(address: &str, credentials: &Credentials, expect: Expect) -> Result<Dialler, Error> {
    Ok(Dialler {
        address: address.into(),
        tls: connector(credentials, expect)?,
    })
}

fn connector(credentials: &Credentials, expect: Expect) -> Result<TlsConnector, Error> {
    let config = credentials
        .client_config(expect, &ALPN_GRPC[..1])
        .map_err(|error| Error::new(Kind::Bug, "prepare a connection").because(error))?;
    Ok(TlsConnector::from(config))
}

async fn secure<S>(tls: &TlsConnector, stream: S) -> Result<TokioIo<TlsStream<S>>, NotConnected>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // The name is required and never looked at: whom we want stands in `Expect`.
    let name =
        ServerName::try_from("radix").map_err(|error| not_connected(io::Error::other(error)))?;
    within(tls.connect(name, stream))
        .await
        .map(TokioIo::new)
        .map_err(not_connected)
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(CONNECT_TIME_MAX, work)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

const fn not_connected(source: io::Error) -> NotConnected {
    NotConnected { source }
}

fn endpoint() -> Endpoint {
    Endpoint::from_static(ORIGIN)
        .max_frame_size(FRAME_BYTES_MAX)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
}

fn failed(error: tonic::transport::Error, address: &str) -> Error {
    let identity =
        refusal_in(&error).is_some_and(|refusal| !matches!(refusal, Refusal::Expired(_)));
    let kind = if identity {
        Kind::Unauthenticated
    } else {
        Kind::Unavailable
    };
    Error::new(kind, "connect")
        .effect_is(Effect::None)
        .with("to", address)
        .because(error)
}
