//! Messages between an underverse and the owner of a horde: the two channels of the Chronicles.

use std::fmt;
use std::time::Duration;

use crate::name::HordeName;

/// Names an event within its horde; ordered. A repeated delivery carries the same id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub u64);

impl fmt::Display for EventId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// Something that happened below a horde.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnderverseEvent {
    /// Its place in the horde's order.
    pub id: EventId,
    /// The horde.
    pub horde: HordeName,
    /// Wall clock, for people only.
    pub unix_ms: u64,
    /// Label of what it is about: a container ("n3"), a server, a door.
    pub subject: String,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// A container ended without being asked, confirmed from below.
    ContainerFailed {
        /// Id of what ended.
        container: String,
        /// How it ended.
        reason: String,
    },
    /// A container was started.
    ContainerStarted {
        /// Id of what was started.
        container: String,
        /// Id of the one it stands in for; `None` for the first.
        replaces: Option<String>,
    },
    /// A service of the platform works less well than promised.
    ServiceDegraded(String),
    /// The platform will interrupt the subject.
    InterruptionScheduled {
        /// When, by the wall clock.
        from_unix_ms: u64,
    },
    /// A server came back after a reboot; what ran on it ended and is started again.
    ServerRebooted {
        /// Ids of the horde's containers that ran on it, by ordinal.
        affected: Vec<String>,
    },
    /// A server is gone; what ran on it is started elsewhere where something fits.
    ServerGone {
        /// Ids of the horde's containers that ran on it, by ordinal.
        affected: Vec<String>,
    },
    /// A server works less well.
    ServerDegraded {
        /// What is worse: "a disk reports errors".
        reason: String,
        /// Ids of the horde's containers on it, by ordinal.
        affected: Vec<String>,
    },
    /// A server that was degraded, gone or being maintained is as before.
    ServerRestored,
    /// These servers cannot be reached.
    Partition(Vec<String>),
    /// They can be reached again.
    Healed(Vec<String>),
    /// Maintenance of a server is planned and may be answered with a [`Reply::Maintenance`].
    ///
    /// From then on its containers are moved to other servers as the answer says; without one, all at once.
    MaintenancePlanned {
        /// When, by the wall clock.
        from_unix_ms: u64,
        /// Ids of the horde's containers on it, by ordinal.
        affected: Vec<String>,
    },
}

impl EventKind {
    /// A fixed word for logs and formats.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::ContainerFailed { .. } => "container-failed",
            Self::ContainerStarted { .. } => "container-started",
            Self::ServiceDegraded(_) => "service-degraded",
            Self::InterruptionScheduled { .. } => "interruption-scheduled",
            Self::ServerRebooted { .. } => "server-rebooted",
            Self::ServerGone { .. } => "server-gone",
            Self::ServerDegraded { .. } => "server-degraded",
            Self::ServerRestored => "server-restored",
            Self::Partition(_) => "partition",
            Self::Healed(_) => "healed",
            Self::MaintenancePlanned { .. } => "maintenance-planned",
        }
    }
}

impl fmt::Display for UnderverseEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { horde, subject, .. } = self;
        match &self.kind {
            EventKind::ContainerFailed { container, reason } => {
                write!(
                    formatter,
                    "{horde}/{subject} ({container}) failed: {reason}"
                )
            }
            EventKind::ContainerStarted {
                container,
                replaces: None,
            } => {
                write!(formatter, "{horde}/{subject} ({container}) started")
            }
            EventKind::ContainerStarted {
                container,
                replaces: Some(old),
            } => {
                write!(
                    formatter,
                    "{horde}/{subject} ({container}) started in place of {old}"
                )
            }
            EventKind::ServiceDegraded(text) => write!(formatter, "{subject} degraded: {text}"),
            EventKind::ServerDegraded { reason, affected } => {
                let on_it = affected.join(" ");
                write!(formatter, "{subject} degraded: {reason}; on it: {on_it}")
            }
            EventKind::ServerRebooted { affected }
            | EventKind::ServerGone { affected }
            | EventKind::MaintenancePlanned { affected, .. } => {
                let (word, on_it) = (self.kind.word(), affected.join(" "));
                write!(formatter, "{subject}: {word}; on it: {on_it}")
            }
            EventKind::Partition(servers) | EventKind::Healed(servers) => {
                write!(formatter, "{}: {}", self.kind.word(), servers.join(" "))
            }
            EventKind::InterruptionScheduled { .. } | EventKind::ServerRestored => {
                write!(formatter, "{subject}: {}", self.kind.word())
            }
        }
    }
}

/// An owner's answer to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Seen; it need not be delivered again.
    Ack,
    /// How planned maintenance is to be done.
    Maintenance(MaintenancePolicy),
}

/// How planned maintenance is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MaintenancePolicy {
    /// So many at a time, so far apart.
    Rolling {
        /// How many containers may be away at once; at least 1.
        at_once: u32,
        /// Least time between two steps.
        apart: Duration,
    },
    /// One first; the rest when the owner acknowledges.
    Staged,
    /// Not before.
    DenyUntil {
        /// By the wall clock.
        unix_ms: u64,
    },
}
