//! The accepting side: mutual TLS, one task a connection, a judged principal in every request.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crux_core::identity::{Principal, Refusal};
use crux_wire::rest::{Api, Problem};
use crux_wire::status::{Effect, Kind};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt as _;

use crate::boundary;
use crate::error::Error;
use crate::identity::{ALPN_GRPC, Credentials, refusal_in};
use crate::process::open_files_max;
use crate::rpc::rest;
use crate::rpc::session::Session;

/// Longest a TLS handshake may take. 5 s: a slow stranger holds a place no longer.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// The same while every place for a handshake is taken. 1 s: a peer's takes milliseconds.
pub const HANDSHAKE_TIME_CROWDED: Duration = Duration::from_secs(1);
/// Most handshakes at once, whoever they are with; others wait in the kernel's queue. 128: what strangers can hold of the
/// process's descriptors, of which it is an eighth at most.
pub const HANDSHAKES_MAX: usize = 128;
/// Most connections at once of those who passed, half of the process's descriptors at most; more are closed after the
/// handshake.
pub const CONNECTIONS_MAX: usize = 1_024;
/// Most calls at once on one connection; the peer waits beyond it.
const STREAMS_MAX: u32 = 256;
/// Largest header block of one call.
const HEADER_BYTES_MAX: u32 = 16_384;
/// Most bytes of a call in one frame. 256 KiB: several pieces of a file; the default of 16 KiB cuts each into five.
pub(super) const FRAME_BYTES_MAX: u32 = 256 << 10;
/// How often an idle peer is asked whether it is still there, and how long it may take to say so.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long open calls may take to end when the server stops. 10 s: as long as a process gets.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
/// How often a handshake that takes long looks whether others wait for its place.
const CROWD_LOOK: Duration = Duration::from_millis(100);
/// How long to wait before accepting again after the system refused (out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where a request came from; in its extensions when it came over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

/// Someone who was turned away before any call, or whose call was a browser's.
#[derive(Debug, Clone)]
pub struct RefusedPeer {
    /// Where it came from.
    pub address: SocketAddr,
    /// Why, if identity was why.
    pub refusal: Option<Refusal>,
    /// Why, for people.
    pub reason: String,
}

type OnRefusal = Arc<dyn Fn(RefusedPeer) + Send + Sync>;

/// Tells the methods that also have REST twins. It is called at the first such request, not before.
pub type Twins = fn() -> &'static Api;

/// A listener for gRPC and HTTP/1.1 under mutual TLS.
#[derive(Clone)]
pub struct Server {
    credentials: Credentials,
    answers: Answers,
    on_refusal: OnRefusal,
}

/// What is answered: routes, and which of their methods have REST twins as well.
#[derive(Clone)]
pub struct Answers {
    routes: Routes,
    twins: Option<Twins>,
    /// Told of requests that a browser's page made.
    on_refusal: Option<OnRefusal>,
}

impl Answers {
    /// Answers as gRPC only.
    #[must_use]
    pub fn new(routes: Routes) -> Self {
        Self {
            routes: routes.prepare(),
            twins: None,
            on_refusal: None,
        }
    }

    /// Answers as REST too, through the same routes: whatever is not gRPC is taken for a call of one of these methods.
    #[must_use]
    pub fn twins(mut self, twins: Twins) -> Self {
        self.twins = Some(twins);
        self
    }
}

impl From<Routes> for Answers {
    fn from(routes: Routes) -> Self {
        Self::new(routes)
    }
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Answers")
            .field("twins", &self.twins.is_some())
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Serves `answers` to whoever our owner vouches for.
    #[must_use]
    pub fn new(credentials: Credentials, answers: impl Into<Answers>) -> Self {
        let on_refusal: OnRefusal = Arc::new(|refused| {
            tracing::info!(address = %refused.address, reason = %refused.reason, "a peer was refused");
        });
        Self {
            credentials,
            answers: answers.into(),
            on_refusal,
        }
    }

    /// Tells `tell` of everyone who is turned away, and of requests of browsers' pages. It must not block.
    #[must_use]
    pub fn on_refusal(mut self, tell: impl Fn(RefusedPeer) + Send + Sync + 'static) -> Self {
        self.on_refusal = Arc::new(tell);
        self.answers.on_refusal = Some(Arc::clone(&self.on_refusal));
        self
    }

    /// Accepts until `shutdown` ends, then lets open calls end for at most 10 s.
    ///
    /// # Errors
    /// [`Kind::Bug`] when TLS cannot be prepared; nothing was accepted.
    ///
    /// # Cancel safety
    /// Dropping it cuts every connection at once.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let config = self
            .credentials
            .server_config(&ALPN_GRPC)
            .map_err(|error| Error::new(Kind::Bug, "serve").because(error))?;
        let acceptor = TlsAcceptor::from(config);
        let places = Places::new();
        let stop = Arc::new(Stop::default());
        let mut tasks = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = tasks.join_next() => {}
                accepted = places.accept(&listener) => match accepted {
                    Ok((stream, address, handshake)) => {
                        let (server, acceptor) = (self.clone(), acceptor.clone());
                        let (stop, places) = (stop.clone(), places.clone());
                        tasks.spawn(async move {
                            let Some((stream, session)) =
                                server.greet(acceptor, stream, address, &places.handshakes).await
                            else {
                                return;
                            };
                            // Ordering: the place of a peer is taken before that of a stranger is given back.
                            let place = places.connections.try_acquire();
                            drop(handshake);
                            if place.is_err() {
                                let reason = "every place for a connection is taken".to_owned();
                                return (server.on_refusal)(RefusedPeer { address, refusal: None, reason });
                            }
                            converse(stream, Arc::new(session), Some(address), server.answers, &stop).await;
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        stop.order();
        let drained = tokio::time::timeout(DRAIN_TIME_MAX, async {
            while tasks.join_next().await.is_some() {}
        })
        .await;
        if drained.is_err() {
            tracing::warn!(
                connections = tasks.len(),
                "calls were cut at the end of the drain time"
            );
        }
        Ok(())
    }

    /// Shakes hands, and judges whom we met; whoever is turned away is told of.
    async fn greet(
        &self,
        acceptor: TlsAcceptor,
        stream: TcpStream,
        address: SocketAddr,
        handshakes: &Semaphore,
    ) -> Option<(TlsStream<TcpStream>, Session)> {
        // Replies are small and awaited; a failure to set this costs time, not correctness.
        let _ = stream.set_nodelay(true);
        let refuse = |refusal: Option<Refusal>, reason: String| {
            (self.on_refusal)(RefusedPeer {
                address,
                refusal,
                reason,
            });
        };
        let shaken = tokio::select! {
            shaken = acceptor.accept(stream) => shaken,
            () = outstayed(handshakes) => {
                refuse(None, "the handshake took too long".to_owned());
                return None;
            }
        };
        let stream = match shaken {
            Ok(stream) => stream,
            Err(error) => {
                let refusal = refusal_in(&error).cloned();
                let reason = refusal
                    .as_ref()
                    .map_or_else(|| error.to_string(), ToString::to_string);
                refuse(refusal, reason);
                return None;
            }
        };
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let chain = shown
            .iter()
            .map(|certificate| certificate.to_vec())
            .collect();
        match Session::begin(chain, self.credentials.trust().clone()) {
            Ok(session) => Some((stream, session)),
            Err(refusal) => {
                let reason = refusal.to_string();
                refuse(Some(refusal), reason);
                None
            }
        }
    }
}

/// Places for handshakes, which strangers can take too, and for those who passed.
#[derive(Debug, Clone)]
struct Places {
    handshakes: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

impl Places {
    /// As many as this process has descriptors for.
    fn new() -> Self {
        let files = open_files_max().unwrap_or(usize::MAX);
        let places = |most: usize, share| Arc::new(Semaphore::new(most.min(files / share).max(1)));
        Self {
            handshakes: places(HANDSHAKES_MAX, 8),
            connections: places(CONNECTIONS_MAX, 2),
        }
    }

    /// The next connection, once there is a place for its handshake.
    async fn accept(
        &self,
        listener: &TcpListener,
    ) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        // Given back until somebody comes: a place that nobody shakes hands in would make the others crowded.
        let free = self.handshakes.acquire().await;
        drop(free.map_err(io::Error::other)?);
        let (stream, address) = listener.accept().await?;
        // One accepts at a time, so that it is still there.
        let place = self.handshakes.clone().try_acquire_owned();
        Ok((stream, address, place.map_err(io::Error::other)?))
    }
}

/// Waits until a handshake has taken too long: sooner while every place for one is taken.
async fn outstayed(handshakes: &Semaphore) {
    let end = tokio::time::Instant::now() + HANDSHAKE_TIME_MAX;
    tokio::time::sleep(HANDSHAKE_TIME_CROWDED).await;
    while handshakes.available_permits() > 0 && tokio::time::Instant::now() < end {
        tokio::time::sleep(CROWD_LOOK).await;
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Server")
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

/// Serves `answers` on `listener` to whoever our owner vouches for: [`Server`] without more.
///
/// # Errors
/// As [`Server::serve`].
///
/// # Cancel safety
/// Dropping it cuts every connection at once.
pub async fn serve(
    listener: TcpListener,
    credentials: Credentials,
    answers: impl Into<Answers>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    Server::new(credentials, answers)
        .serve(listener, shutdown)
        .await
}

/// Serves `answers` on one stream to `principal`, whom the caller knows by other means, until the stream ends.
///
/// # Cancel safety
/// Dropping it cuts the stream.
pub async fn serve_stream<S>(stream: S, principal: Principal, answers: impl Into<Answers>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    converse(
        stream,
        Arc::new(Session::Given(Box::new(principal))),
        None,
        answers.into(),
        &Stop::default(),
    )
    .await;
}

/// The order to stop, which is not missed by whoever looks late.
#[derive(Debug, Default)]
struct Stop {
    given: std::sync::atomic::AtomicBool,
    notify: Notify,
}

impl Stop {
    fn order(&self) {
        self.given.store(true, std::sync::atomic::Ordering::Release);
        self.notify.notify_waiters();
    }

    async fn ordered(&self) {
        // Ordering: the waiter is registered before the flag is read, so an order between the two wakes it.
        let mut notified = pin!(self.notify.notified());
        notified.as_mut().enable();
        if !self.given.load(std::sync::atomic::Ordering::Acquire) {
            notified.await;
        }
    }
}

/// Answers calls on one connection until either side has had enough.
async fn converse<S>(
    stream: S,
    session: Arc<Session>,
    address: Option<SocketAddr>,
    answers: Answers,
    stop: &Stop,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let renew = Arc::new(Notify::new());
    let renew_at = session.renew_at();
    let service = {
        let (session, renew) = (session.clone(), renew.clone());
        service_fn(move |request: Request<Incoming>| {
            let (session, renew, answers) = (session.clone(), renew.clone(), answers.clone());
            async move {
                let judged = session.principal();
                if judged.is_err() || session.is_due(renew_at) {
                    renew.notify_one();
                }
                Ok::<_, Infallible>(match judged {
                    Ok(principal) => answer(request, principal, address, answers).await,
                    Err(refusal) => turned_away(&refusal, rest::is_grpc(request.headers())),
                })
            }
        })
    };
    let builder = builder();
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let timer = session
        .seconds_to_renewal()
        .map(|seconds| tokio::time::sleep(Duration::from_secs(seconds)));
    let mut timer = pin!(optional(timer));
    let mut changes = session.changes();
    let mut stopped = pin!(stop.ordered());
    let mut ending = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error, "a connection ended");
                }
                return;
            }
            () = &mut timer, if !ending => ending = true,
            () = &mut stopped, if !ending => ending = true,
            () = renew.notified(), if !ending => ending = true,
            () = changed(&mut changes) => {
                if session.recheck().is_err() {
                    // A denied peer is cut off in the middle of whatever it has open.
                    return;
                }
                continue;
            }
        }
        connection.as_mut().graceful_shutdown();
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_frame_size(FRAME_BYTES_MAX)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_buf_size(HEADER_BYTES_MAX as usize)
        .header_read_timeout(HANDSHAKE_TIME_MAX);
    builder
}

async fn answer(
    request: Request<Incoming>,
    principal: Principal,
    address: Option<SocketAddr>,
    answers: Answers,
) -> Response<Body> {
    if let Some(refused) = rest::refused_origin(request.headers()) {
        tracing::info!(?address, %principal, reason = refused.message, "a request was refused");
        if let (Some(tell), Some(address)) = (&answers.on_refusal, address) {
            // Without the origin itself, which whoever asks may choose: refusals are summed by their reason.
            let reason = "a request with an Origin".to_owned();
            tell(RefusedPeer {
                address,
                refusal: None,
                reason,
            });
        }
        return rest::problem(&refused);
    }
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(principal);
    if let Some(address) = address {
        request.extensions_mut().insert(PeerAddress(address));
    }
    if let Some(twins) = answers.twins
        && !rest::is_grpc(request.headers())
    {
        return rest::answer(request, twins(), answers.routes).await;
    }
    let path = boundary::directory().map(|_| request.uri().path().to_owned());
    if let Some(path) = &path {
        boundary::cross(boundary::Kind::Serve, path);
    }
    match answers.routes.oneshot(request).await {
        Ok(response) => {
            if let Some(path) = &path {
                boundary::cross(boundary::Kind::Answer, path);
            }
            response
        }
        Err(never) => match never {},
    }
}

/// The answer to a call whose caller no longer passes. Nothing was carried out.
fn turned_away(refusal: &Refusal, grpc: bool) -> Response<Body> {
    // An expired leaf is no fault of the caller: it comes again with its next one.
    let kind = if matches!(refusal, Refusal::Expired(_)) {
        Kind::Unavailable
    } else {
        Kind::Unauthenticated
    };
    let status = crux_wire::status::status(kind, Effect::None, refusal.to_string());
    if grpc {
        status.into_http()
    } else {
        rest::problem(&Problem::of_status(&status))
    }
}

async fn optional(timer: Option<tokio::time::Sleep>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}

/// Waits for the next change; for ever when there will be none.
async fn changed(changes: &mut Option<tokio::sync::watch::Receiver<u64>>) {
    if let Some(receiver) = changes
        && receiver.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn handshakes_are_crowded_when_every_place_is_taken_and_not_before() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let places = Places {
            handshakes: Arc::new(Semaphore::new(2)),
            connections: Arc::new(Semaphore::new(1)),
        };
        let _first = places.handshakes.clone().try_acquire_owned().unwrap();
        // Waits for whoever comes next, with one place left.
        let mut accepting = Box::pin(places.accept(&listener));
        assert!(accepting.as_mut().now_or_never().is_none());
        let began = Instant::now();
        outstayed(&places.handshakes).await;
        assert_eq!(began.elapsed(), HANDSHAKE_TIME_MAX);
        let _second = places.handshakes.clone().try_acquire_owned().unwrap();
        let began = Instant::now();
        outstayed(&places.handshakes).await;
        assert_eq!(began.elapsed(), HANDSHAKE_TIME_CROWDED);
    }
}
