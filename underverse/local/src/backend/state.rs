//! A horde as it is told to the base.

use std::net::SocketAddr;

use crux_wire::fulcrum::v1::{Event, Exposure, Field, HordeRnode, HordeState};
use underverse::{
    Effective, EventKind, HordeName, Kind, PortState, Protocol, Running, RunningState,
    Underverse as _, UnderverseEvent,
};

use crate::address::Lease;
use crate::local::Local;
use crate::network::{At, Carries};

/// Where a horde is on its way, in the words of `HordeState.phase`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Realising,
    Done,
    Partial,
    Refused,
    Dissolving,
    Dissolved,
}

impl Phase {
    const fn word(self) -> &'static str {
        match self {
            Self::Realising => "realising",
            Self::Done => "done",
            Self::Partial => "partial",
            Self::Refused => "refused",
            Self::Dissolving => "dissolving",
            Self::Dissolved => "dissolved",
        }
    }
}

/// What is told of a horde now: as much as can be seen; `None` while the base is away.
pub(super) async fn state(
    local: &Local,
    horde: &HordeName,
    generation: u64,
    (phase, message): (Phase, &str),
) -> Option<HordeState> {
    let bare = HordeState {
        namespace: horde.to_string(),
        backend: local.name().to_owned(),
        generation,
        phase: phase.word().to_owned(),
        message: message.to_owned(),
        ..HordeState::default()
    };
    match local.seen(horde).await {
        Ok(None) => Some(bare),
        Ok(Some(seen)) => Some(HordeState {
            rnodes: seen
                .running
                .iter()
                .map(|running| rnode(local, running, &seen.leases))
                .collect(),
            exposures: exposures(&seen.effective),
            weaker: seen
                .effective
                .weaker
                .iter()
                .map(ToString::to_string)
                .collect(),
            ..bare
        }),
        Err(error) if error.kind() == Kind::Unavailable => None,
        Err(error) if message.is_empty() => Some(HordeState {
            message: error.chain(),
            ..bare
        }),
        Err(_) => Some(bare),
    }
}

fn rnode(local: &Local, running: &Running, leases: &[Lease]) -> HordeRnode {
    let lease = leases.iter().find(|lease| lease.ordinal == running.ordinal);
    let started = running.state == RunningState::Started;
    let keeper = running
        .pid
        .filter(|_| started)
        .map_or(0, |pid| local.ground().keeper_of(pid));
    HordeRnode {
        ordinal: running.ordinal,
        label: running.label.clone(),
        host: running
            .address
            .map_or_else(String::new, |address| address.to_string()),
        port: lease.map_or(0, |lease| u32::from(lease.tcp_port)),
        flock_port: lease.map_or(0, |lease| u32::from(lease.flock_port)),
        state: match &running.state {
            RunningState::Waiting => "waiting".to_owned(),
            RunningState::Started => "running".to_owned(),
            RunningState::Failed(_) => "failed".to_owned(),
        },
        execution: running.id.to_string(),
        keeper_pid: keeper,
        directory: running
            .directory
            .as_ref()
            .map_or_else(String::new, |d| d.display().to_string()),
        generation: running.generation.document,
        rnode: String::new(),
    }
}

fn exposures(effective: &Effective) -> Vec<Exposure> {
    let exposure = |port: &underverse::EffectivePort| {
        let (state, message) = match &port.state {
            PortState::Waiting => ("waiting", String::new()),
            PortState::Open => ("open", String::new()),
            PortState::Refused(reason) => ("refused", reason.clone()),
        };
        Exposure {
            address: exposed(port.address, port.protocol),
            class: port.class.clone(),
            port: u32::from(port.internal_port),
            state: state.to_owned(),
            message,
            members: 0,
        }
    };
    effective.network.ports.iter().map(exposure).collect()
}

/// An exposed port as the base knows it, by which it counts the members that its forwarder was told.
fn exposed(listen: SocketAddr, protocol: Protocol) -> String {
    let carries = match protocol {
        Protocol::Tcp => Carries::Tcp,
        Protocol::Udp => Carries::Udp,
    };
    At { listen, carries }.to_string()
}

/// An event as the base keeps it; the token is the same at every delivery.
pub(super) fn event(event: &UnderverseEvent) -> Event {
    let field = |name: &str, value: &str| Field {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let fields = match &event.kind {
        EventKind::ContainerFailed { container, reason } => {
            vec![field("container", container), field("reason", reason)]
        }
        EventKind::ContainerStarted {
            container,
            replaces,
        } => {
            let old = replaces.iter().map(|old| field("replaces", old));
            std::iter::once(field("container", container))
                .chain(old)
                .collect()
        }
        EventKind::ServerRebooted { affected }
        | EventKind::ServerGone { affected }
        | EventKind::ServerDegraded { affected, .. }
        | EventKind::MaintenancePlanned { affected, .. } => {
            vec![field("affected", &affected.join(" "))]
        }
        _ => Vec::new(),
    };
    Event {
        token: format!("underverse/{}/{}", event.horde, event.id),
        unix_ms: event.unix_ms,
        kind: event.kind.word().to_owned(),
        subject: event.subject.clone(),
        text: event.to_string(),
        namespace: event.horde.to_string(),
        rnode: event.subject.clone(),
        fields,
    }
}
