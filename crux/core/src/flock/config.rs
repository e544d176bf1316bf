//! What a flock machine is told at its start.

use std::net::SocketAddr;
use std::time::Duration;

use crate::names::{NamespaceId, RnodeId};

/// Periods and thresholds; every rnode of a flock should have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Silence of the leader after which a member flocks over. 5 s: requirement FLK-06.
    pub heartbeat_window: Duration,
    /// Time between a leader's heartbeats. 2.4 s: two a window, and one of two lost still leaves room for delay.
    pub heartbeat_interval: Duration,
    /// Silence after which a member asks a neighbour for the newest heartbeat; none is the literal rule of FLK-06.
    ///
    /// 2.75 s: one heartbeat is late. Without asking, 1 % loss restarts healthy flocks (anchors/membership.md §0).
    pub ask_after: Option<Duration>,
    /// Time between such questions.
    pub ask_interval: Duration,
    /// Time in office after which a leader is above every newcomer.
    pub tenure_latch: Duration,
    /// Time a lost rnode's entries stay, for it to come back under a new incarnation.
    pub remove_after: Duration,
    /// Time between one watcher's probes of one rnode.
    pub probe_interval: Duration,
    /// The same while the rnode is suspected.
    pub suspect_interval: Duration,
    /// Life in which nobody is declared lost, since estimates start cold.
    pub declare_grace: Duration,
    /// Lateness of the machine's own clockwork after which it doubts itself and forgets its open probes.
    pub late_tick: Duration,
    /// How long a rnode with hints waits for company before it leads itself.
    pub found_after: Duration,
    /// Time by which each further successor waits longer before it claims the lead.
    pub successor_delay: Duration,
    /// How long a better candidate waits before it takes the lead from a leader in office too short.
    pub challenge_delay: Duration,
    /// Least time between a leader's claims against other flocks.
    pub merge_interval: Duration,
    /// First pause before a hint or a lost rnode is tried again; it doubles up to `retry_max`.
    pub retry_min: Duration,
    /// Longest such pause.
    pub retry_max: Duration,
    /// Least time between any two such tries while there is company; a lone rnode tries five times as often.
    pub retry_gap: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat_window: Duration::from_secs(5),
            heartbeat_interval: Duration::from_millis(2400),
            ask_after: Some(Duration::from_millis(2750)),
            ask_interval: Duration::from_millis(200),
            tenure_latch: Duration::from_secs(30),
            remove_after: Duration::from_secs(10),
            probe_interval: Duration::from_secs(4),
            suspect_interval: Duration::from_millis(200),
            declare_grace: Duration::from_secs(5),
            late_tick: Duration::from_millis(100),
            found_after: Duration::from_secs(1),
            successor_delay: Duration::from_millis(400),
            challenge_delay: Duration::from_secs(1),
            merge_interval: Duration::from_millis(500),
            retry_min: Duration::from_millis(250),
            retry_max: Duration::from_secs(30),
            retry_gap: Duration::from_secs(2),
        }
    }
}

/// Who this rnode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Me {
    /// Its permanent name.
    pub id: RnodeId,
    /// Its namespace; messages of others are counted and dropped.
    pub namespace: NamespaceId,
    /// Its incarnation: higher at each start.
    pub incarnation: u64,
    /// Its vote; the highest leads, ties go to the higher permanent name.
    pub vote: u32,
    /// Where it can be reached, most preferred first.
    pub addresses: Vec<SocketAddr>,
    /// What shows others that it is enrolled; opaque here, judged by their [`Authority::admit`].
    pub credential: Vec<u8>,
}

/// What must never fall, kept by the driver across restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Floor {
    /// The highest incarnation used.
    pub incarnation: u64,
    /// No sequence up to this one may be used again in that incarnation.
    pub sequence: u64,
    /// The highest term accepted.
    pub term: u64,
}

/// The judgements and signatures that need keys; called within a step, so they must be quick and must not block.
///
/// For replay they must answer alike each time; a signature may differ only if the log of outputs may.
pub trait Authority: Send {
    /// Signs `message` as this rnode; at most [`SIGNATURE_BYTES_MAX`](crate::ken::SIGNATURE_BYTES_MAX) bytes.
    fn sign(&mut self, message: &[u8]) -> Vec<u8>;

    /// Judges whether `credential` shows that `rnode` is enrolled here, and remembers its key if so.
    fn admit(&mut self, rnode: &RnodeId, credential: &[u8]) -> bool;

    /// Whether `signature` over `message` is `rnode`'s. False for a rnode that was not admitted.
    fn verify(&mut self, rnode: &RnodeId, message: &[u8], signature: &[u8]) -> bool;

    /// Whether `bytes` are a document of `generation`, signed by someone who may.
    fn accept_document(&mut self, generation: u64, bytes: &[u8]) -> bool;
}
