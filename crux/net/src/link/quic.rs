//! The QUIC endpoint of a rnode's flock port, set as anchors/link.md measured it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use crux_core::identity::Who;
use crux_core::names::{Label, RnodeId};
use quinn::congestion::{Controller, ControllerFactory};
use quinn::{ClientConfig, EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use quinn_proto::RandomConnectionIdGenerator;

use crate::identity::{Credentials, Error, Expect};

/// Protocol name of flock links.
const ALPN: &[u8] = b"radix-flock/1";
/// Name given in handshakes; peers are judged by key, so it means nothing.
const SERVER_NAME: &str = "radix";
/// Silence after which a session is closed. 60 s: probes come every few seconds.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How long a dial may take. 2.9 s: four packets to a dead address.
const DIAL_TIME_MAX: Duration = Duration::from_millis(2900);
/// Largest UDP payload. 1 200: what passes everywhere without discovery.
const PAYLOAD_BYTES_MAX: u16 = 1200;
/// Length of connection ids. 4: with 0 redialling fails.
const CONNECTION_ID_BYTES: usize = 4;
/// Congestion window that never moves: the machine bounds its own rate.
const WINDOW_BYTES: u64 = 65_536;
/// Bytes of one stream, of all streams of a session, and sent but not acknowledged.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// Bytes of datagrams that wait to be read, and to be sent.
const DATAGRAM_BUFFER_BYTES: (usize, usize) = (32 * 1024, 16 * 1024);
/// Streams a peer may have open at once.
const STREAMS_MAX: u32 = 8;

/// What a link endpoint is made from.
#[derive(Debug)]
pub(crate) struct Settings {
    /// What we show and believe.
    pub(crate) credentials: Credentials,
    /// Our namespace; peers of another are refused.
    pub(crate) namespace: Label,
    /// Key of stateless resets, kept across restarts so that a peer notices at once that we did.
    pub(crate) reset_key: [u8; 32],
}

/// A rnode's end of all its links.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    endpoint: quinn::Endpoint,
    credentials: Credentials,
    namespace: Label,
    transport: Arc<TransportConfig>,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// Nobody answered in time, or the handshake failed.
    #[error("reach the peer: {0}")]
    Unreachable(String),
    /// Whoever answered is no rnode of our namespace.
    #[error("accept the peer: {0}")]
    Foreign(String),
}

impl Endpoint {
    /// Takes a bound socket.
    pub(crate) fn new(socket: UdpSocket, settings: Settings) -> Result<Self, Error> {
        let Settings { credentials, namespace, reset_key } = settings;
        let transport = Arc::new(transport());
        let mut server = ServerConfig::with_crypto(credentials.quic_server_config(ALPN)?);
        server.transport_config(Arc::clone(&transport)).migration(false);
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &reset_key);
        let mut config = EndpointConfig::new(Arc::new(key));
        config.cid_generator(|| Box::new(RandomConnectionIdGenerator::new(CONNECTION_ID_BYTES)));
        config
            .max_udp_payload_size(PAYLOAD_BYTES_MAX)
            .map_err(|error| Error::crypto("prepare QUIC")(error))?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new(config, Some(server), socket, runtime)
            .map_err(Error::io("open", std::path::Path::new("the flock's socket")))?;
        Ok(Self { endpoint, credentials, namespace, transport })
    }

    /// Dials `address`; `expected` is who must be there, if that is known.
    pub(crate) async fn dial(
        &self,
        address: SocketAddr,
        expected: Option<RnodeId>,
    ) -> Result<(RnodeId, quinn::Connection), DialError> {
        let expect = expected.map_or(Expect::Owner, Expect::Rnode);
        let unreachable = |error: &dyn std::fmt::Display| DialError::Unreachable(error.to_string());
        let crypto = self
            .credentials
            .quic_client_config(expect, ALPN)
            .map_err(|error| unreachable(&error))?;
        let mut config = ClientConfig::new(crypto);
        config.transport_config(Arc::clone(&self.transport));
        let connecting = self
            .endpoint
            .connect_with(config, address, SERVER_NAME)
            .map_err(|error| unreachable(&error))?;
        let connection = tokio::time::timeout(DIAL_TIME_MAX, connecting)
            .await
            .map_err(|_| DialError::Unreachable("no answer in time".to_owned()))?
            .map_err(|error| unreachable(&error))?;
        self.judge(connection)
    }

    /// The next peer that dials us; `None` once the endpoint is closed.
    pub(crate) async fn incoming(&self) -> Option<quinn::Incoming> {
        self.endpoint.accept().await
    }

    /// Finishes the handshake of a peer that dialled us.
    pub(crate) async fn welcome(
        &self,
        incoming: quinn::Incoming,
    ) -> Result<(RnodeId, quinn::Connection), DialError> {
        let connection = tokio::time::timeout(DIAL_TIME_MAX, incoming)
            .await
            .map_err(|_| DialError::Unreachable("the handshake took too long".to_owned()))?
            .map_err(|error| DialError::Foreign(error.to_string()))?;
        self.judge(connection)
    }

    /// Accepts only rnodes of our namespace.
    fn judge(&self, connection: quinn::Connection) -> Result<(RnodeId, quinn::Connection), DialError> {
        let refuse = |why: String| {
            connection.close(VarInt::from_u32(1), b"refused");
            Err(DialError::Foreign(why))
        };
        match self.credentials.principal_of_connection(&connection) {
            Ok(principal) => match &principal.who {
                Who::Rnode { namespace, id, .. } if *namespace == self.namespace => Ok((*id, connection)),
                _ => refuse(format!("{principal} is no rnode of namespace {}", self.namespace)),
            },
            Err(refusal) => refuse(refusal.to_string()),
        }
    }

    /// Whether a standing session would still be accepted.
    pub(crate) fn still_welcome(&self, connection: &quinn::Connection) -> bool {
        self.credentials.recheck(connection).is_ok()
    }

    /// Closes every session and waits until peers have been told.
    pub(crate) async fn close(&self) {
        self.endpoint.close(VarInt::from_u32(0), b"bye");
        self.endpoint.wait_idle().await;
    }
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(IdleTimeout::try_from(IDLE_MAX).ok())
        .keep_alive_interval(None)
        .mtu_discovery_config(None)
        .initial_mtu(PAYLOAD_BYTES_MAX)
        .min_mtu(PAYLOAD_BYTES_MAX)
        .enable_segmentation_offload(false)
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES * 2))
        .send_window(u64::from(STREAM_WINDOW_BYTES) * 2)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES.0))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES.1)
        .congestion_controller_factory(Arc::new(FlatWindow));
    transport
}

/// A window that loss does not shrink: a healed split must not deliver what is seconds old.
///
/// Acceptable only because the flock machine bounds its own rate.
#[derive(Debug, Clone)]
struct FlatWindow;

impl ControllerFactory for FlatWindow {
    fn build(self: Arc<Self>, _now: std::time::Instant, _mtu: u16) -> Box<dyn Controller> {
        Box::new(Self)
    }
}

impl Controller for FlatWindow {
    fn on_congestion_event(
        &mut self,
        _now: std::time::Instant,
        _sent: std::time::Instant,
        _is_persistent: bool,
        _lost_bytes: u64,
    ) {
    }

    fn on_mtu_update(&mut self, _new_mtu: u16) {}

    fn window(&self) -> u64 {
        WINDOW_BYTES
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self)
    }

    fn initial_window(&self) -> u64 {
        WINDOW_BYTES
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }
}
