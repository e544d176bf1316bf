//! Every bound of the flock, with its unit and its reason.

use std::time::Duration;

/// Most members of one flock in this version, which sends directly to all.
pub const MEMBERS_MAX: usize = 64;
/// Most rnodes that are remembered, members and lost ones together.
pub const REMEMBERED_MAX: usize = 256;
/// Most addresses one rnode publishes.
pub const ADDRESSES_MAX: usize = 8;
/// Most hints held at once; further ones replace the one that failed most.
pub const HINTS_MAX: usize = 256;
/// Longest message that goes as one datagram, in bytes. 1 200: what QUIC guarantees to pass.
pub const DATAGRAM_BYTES_MAX: usize = 1200;
/// Bytes a link adds to a datagram of ours: QUIC's short header, its frame and its tag, at their largest.
pub(crate) const DATAGRAM_OVERHEAD_BYTES: usize = 48;
/// Longest message of any kind, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Longest credential, in bytes: a chain of four certificates.
pub const CREDENTIAL_BYTES_MAX: usize = crate::ken::VALUE_BYTES_MAX;
/// Most bytes of entries sent in answer to one comparison; the next comparison brings the rest.
pub(crate) const SYNC_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a document in one message.
pub(crate) const DOCUMENT_PART_BYTES: usize = 32 * 1024;
/// Watchers of each rnode. Source: anchors/membership.md §3.1.
pub(crate) const WATCHERS: usize = 4;
/// Successors named in a heartbeat.
pub(crate) const SUCCESSORS: usize = 5;
/// Superseded ballots named in a heartbeat.
pub(crate) const SUPERSEDED_MAX: usize = 8;
/// How long a new leader names what it supersedes.
pub(crate) const SUPERSEDED_FOR: Duration = Duration::from_secs(10);
/// Sequences made durable at once, so that publishing seldom waits for the disk.
pub(crate) const SEQUENCE_RESERVE: u64 = 1024;
/// Least time between two comparisons of tables with one peer.
pub(crate) const SYNC_PEER_INTERVAL: Duration = Duration::from_millis(100);
/// Least time between two comparisons of tables with anyone, so that one change is not fetched from eight neighbours.
pub(crate) const SYNC_INTERVAL: Duration = Duration::from_millis(20);
/// Pause before neighbours are told that the table changed, so that one nudge tells of many changes.
pub(crate) const NUDGE_AFTER: Duration = Duration::from_millis(20);
/// Time without a part after which a document is asked of someone else.
pub(crate) const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(2);
/// Least time between two greetings of one peer.
pub(crate) const HELLO_INTERVAL: Duration = Duration::from_millis(250);
/// Least time between two answers of one leader to another flock's.
pub(crate) const INTRODUCE_INTERVAL: Duration = Duration::from_millis(500);
/// Probes a second that suspicion may cost; beyond it detection gets slower and the network lives.
pub(crate) const SUSPECT_PROBES_PER_SECOND: u32 = 20;
