//! The values of the QUIC endpoint and its connections. Source: anchors/link.md, unless a line says otherwise.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::{Controller, ControllerFactory};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{EndpointConfig, IdleTimeout, TransportConfig, VarInt};
use quinn_proto::RandomConnectionIdGenerator;

/// Bytes of a connection id. Four: each packet has one; none at all would break redialling.
const CONNECTION_ID_BYTES: usize = 4;
const UDP_PAYLOAD_BYTES: u16 = 1200;
const IDLE: VarInt = VarInt::from_u32(60_000);
/// Bytes in flight, whatever happens: the machine above bounds its own rate, and a congestion window would hold probes
/// back after losses, when they matter most.
const WINDOW_BYTES: u64 = 65_536;
/// Round trip assumed before any was measured: with it a dead address costs four packets.
const INITIAL_RTT: Duration = Duration::from_millis(333);
/// A stream carries at most one message of 64 KiB; documents come as many of 32 KiB. The anchor's 4 KiB would cost a
/// round trip for each eighth of such a part; memory is only used while bytes wait.
const STREAM_WINDOW: VarInt = VarInt::from_u32(65_536);
const RECEIVE_WINDOW: VarInt = VarInt::from_u32(131_072);
/// Room for a burst: a merge of two flocks sends a peer some tens of datagrams within a step.
const DATAGRAM_RECEIVE_BYTES: usize = 65_536;
const DATAGRAM_SEND_BYTES: usize = 32_768;
/// Streams a peer may have open at once; each carries one message.
const STREAMS_MAX: VarInt = VarInt::from_u32(16);
/// Handshakes at once that wait to be looked at; more are dropped unanswered.
const INCOMING_MAX: usize = 64;

/// A window that never changes.
#[derive(Debug, Clone)]
struct Flat;

impl Controller for Flat {
    fn on_congestion_event(
        &mut self,
        _: std::time::Instant,
        _: std::time::Instant,
        _: bool,
        _: u64,
    ) {
    }

    fn on_mtu_update(&mut self, _: u16) {}

    fn window(&self) -> u64 {
        WINDOW_BYTES
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        WINDOW_BYTES
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl ControllerFactory for Flat {
    fn build(self: Arc<Self>, _: std::time::Instant, _: u16) -> Box<dyn Controller> {
        Box::new(Self)
    }
}

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::from(IDLE)))
        .keep_alive_interval(None)
        .initial_rtt(INITIAL_RTT)
        .initial_mtu(UDP_PAYLOAD_BYTES)
        .min_mtu(UDP_PAYLOAD_BYTES)
        .mtu_discovery_config(None)
        .ack_frequency_config(None)
        .enable_segmentation_offload(false)
        .stream_receive_window(STREAM_WINDOW)
        .receive_window(RECEIVE_WINDOW)
        .send_window(u64::from(RECEIVE_WINDOW))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(STREAMS_MAX)
        .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE_BYTES))
        .datagram_send_buffer_size(DATAGRAM_SEND_BYTES)
        .congestion_controller_factory(Arc::new(Flat));
    Arc::new(transport)
}

/// The endpoint's values; `secret` makes resets that peers of an earlier process believe.
pub(super) fn endpoint(secret: &[u8; 32]) -> EndpointConfig {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    let mut config = EndpointConfig::new(Arc::new(key));
    // quinn's default generator has a new key at each start, which forbids stateless resets.
    config.cid_generator(|| Box::new(RandomConnectionIdGenerator::new(CONNECTION_ID_BYTES)));
    // 1200 is the least that QUIC allows, so it cannot be refused.
    config.max_udp_payload_size(UDP_PAYLOAD_BYTES).ok();
    config
}

pub(super) fn server(crypto: Arc<QuicServerConfig>) -> quinn::ServerConfig {
    let mut config = quinn::ServerConfig::with_crypto(crypto);
    config
        .transport_config(transport())
        .migration(false)
        .max_incoming(INCOMING_MAX);
    config.validation_token_config(tokens());
    config
}

fn tokens() -> quinn::ValidationTokenConfig {
    let mut tokens = quinn::ValidationTokenConfig::default();
    tokens.sent(0);
    tokens
}

pub(super) fn client(crypto: Arc<QuicClientConfig>) -> quinn::ClientConfig {
    let mut config = quinn::ClientConfig::new(crypto);
    config.transport_config(transport());
    config
}
