//! The two channels on the wire: events, answers, and what becomes of servers.

use std::time::Duration;

use underverse::{
    Error, EventId, EventKind, HordeName, MaintenancePolicy, Reply, ServerChange, UnderverseEvent,
};

use super::{milliseconds, need, unreadable};
use crate::wire;

fn affected(containers: &[String]) -> wire::Affected {
    wire::Affected {
        containers: containers.to_vec(),
        ..wire::Affected::default()
    }
}

impl From<&EventKind> for wire::event::Kind {
    fn from(kind: &EventKind) -> Self {
        match kind {
            EventKind::ContainerFailed { container, reason } => {
                Self::ContainerFailed(wire::ContainerFailed {
                    container: container.clone(),
                    reason: reason.clone(),
                })
            }
            EventKind::ContainerStarted {
                container,
                replaces,
            } => Self::ContainerStarted(wire::ContainerStarted {
                container: container.clone(),
                replaces: replaces.clone(),
            }),
            EventKind::ServiceDegraded(text) => Self::ServiceDegraded(text.clone()),
            EventKind::InterruptionScheduled { from_unix_ms } => {
                Self::InterruptionFromUnixMs(*from_unix_ms)
            }
            EventKind::ServerRebooted { affected: list } => Self::ServerRebooted(affected(list)),
            EventKind::ServerGone { affected: list } => Self::ServerGone(affected(list)),
            EventKind::ServerDegraded {
                reason,
                affected: list,
            } => Self::ServerDegraded(wire::Affected {
                reason: reason.clone(),
                ..affected(list)
            }),
            EventKind::ServerRestored => Self::ServerRestored(wire::Affected::default()),
            EventKind::Partition(servers) => Self::Partition(wire::Words {
                words: servers.clone(),
            }),
            EventKind::Healed(servers) => Self::Healed(wire::Words {
                words: servers.clone(),
            }),
            EventKind::MaintenancePlanned {
                from_unix_ms,
                affected: list,
            } => Self::MaintenancePlanned(wire::Affected {
                from_unix_ms: *from_unix_ms,
                ..affected(list)
            }),
            // A kind that was added to the model and not yet here: told as text, so that nobody misses it.
            other => Self::ServiceDegraded(format!(
                "{} happened, which this protocol cannot tell yet",
                other.word()
            )),
        }
    }
}

impl From<wire::event::Kind> for EventKind {
    fn from(kind: wire::event::Kind) -> Self {
        use wire::event::Kind;
        match kind {
            Kind::ContainerFailed(told) => Self::ContainerFailed {
                container: told.container,
                reason: told.reason,
            },
            Kind::ContainerStarted(told) => Self::ContainerStarted {
                container: told.container,
                replaces: told.replaces,
            },
            Kind::ServiceDegraded(text) => Self::ServiceDegraded(text),
            Kind::InterruptionFromUnixMs(from_unix_ms) => {
                Self::InterruptionScheduled { from_unix_ms }
            }
            Kind::ServerRebooted(told) => Self::ServerRebooted {
                affected: told.containers,
            },
            Kind::ServerGone(told) => Self::ServerGone {
                affected: told.containers,
            },
            Kind::ServerDegraded(told) => Self::ServerDegraded {
                reason: told.reason,
                affected: told.containers,
            },
            Kind::ServerRestored(_) => Self::ServerRestored,
            Kind::Partition(told) => Self::Partition(told.words),
            Kind::Healed(told) => Self::Healed(told.words),
            Kind::MaintenancePlanned(told) => Self::MaintenancePlanned {
                from_unix_ms: told.from_unix_ms,
                affected: told.containers,
            },
        }
    }
}

impl From<&UnderverseEvent> for wire::Event {
    fn from(event: &UnderverseEvent) -> Self {
        Self {
            id: event.id.0,
            horde: event.horde.to_string(),
            unix_ms: event.unix_ms,
            subject: event.subject.clone(),
            kind: Some((&event.kind).into()),
        }
    }
}

impl TryFrom<wire::Event> for UnderverseEvent {
    type Error = Error;
    /// A kind that we do not know is told as a degraded service, with its id: it must not be missed.
    fn try_from(event: wire::Event) -> Result<Self, Error> {
        let unknown = || {
            EventKind::ServiceDegraded(
                "something happened that this radix is too old to name".to_owned(),
            )
        };
        Ok(Self {
            id: EventId(event.id),
            horde: HordeName::new(event.horde)?,
            unix_ms: event.unix_ms,
            subject: event.subject,
            kind: event.kind.map_or_else(unknown, Into::into),
        })
    }
}

impl From<&Reply> for wire::reply_request::Reply {
    fn from(reply: &Reply) -> Self {
        match reply {
            Reply::Ack => Self::Ack(wire::Ack {}),
            Reply::Maintenance(MaintenancePolicy::Rolling { at_once, apart }) => {
                Self::Rolling(wire::Rolling {
                    at_once: *at_once,
                    apart_ms: milliseconds(*apart),
                })
            }
            Reply::Maintenance(MaintenancePolicy::Staged) => Self::Staged(wire::Ack {}),
            Reply::Maintenance(MaintenancePolicy::DenyUntil { unix_ms }) => {
                Self::DenyUntilUnixMs(*unix_ms)
            }
        }
    }
}

impl TryFrom<wire::reply_request::Reply> for Reply {
    type Error = Error;
    fn try_from(reply: wire::reply_request::Reply) -> Result<Self, Error> {
        use wire::reply_request::Reply;
        Ok(match reply {
            Reply::Ack(_) => Self::Ack,
            Reply::Rolling(wire::Rolling { at_once: 0, .. }) => {
                return Err(unreadable("how many may be away at once"));
            }
            Reply::Rolling(told) => Self::Maintenance(MaintenancePolicy::Rolling {
                at_once: told.at_once,
                apart: Duration::from_millis(told.apart_ms),
            }),
            Reply::Staged(_) => Self::Maintenance(MaintenancePolicy::Staged),
            Reply::DenyUntilUnixMs(unix_ms) => {
                Self::Maintenance(MaintenancePolicy::DenyUntil { unix_ms })
            }
        })
    }
}

impl From<&ServerChange> for wire::change_server_request::Change {
    fn from(change: &ServerChange) -> Self {
        match change {
            ServerChange::Reboot => Self::Reboot(wire::Ack {}),
            ServerChange::Degrade(reason) => Self::Degrade(reason.clone()),
            ServerChange::Withdraw => Self::Withdraw(wire::Ack {}),
            ServerChange::Maintain { from_unix_ms } => Self::MaintainFromUnixMs(*from_unix_ms),
            ServerChange::Restore => Self::Restore(wire::Ack {}),
        }
    }
}

/// What becomes of a server, as asked.
pub(crate) fn change(
    asked: Option<wire::change_server_request::Change>,
) -> Result<ServerChange, Error> {
    use wire::change_server_request::Change;
    Ok(match need(asked, "what becomes of the server")? {
        Change::Reboot(_) => ServerChange::Reboot,
        Change::Degrade(reason) => ServerChange::Degrade(reason),
        Change::Withdraw(_) => ServerChange::Withdraw,
        Change::MaintainFromUnixMs(from_unix_ms) => ServerChange::Maintain { from_unix_ms },
        Change::Restore(_) => ServerChange::Restore,
    })
}
