//! What is told of a horde: running containers, the effective spec, the capability record. Pure.

use std::net::IpAddr;

use underverse::{
    Capabilities, Capability, ContainerId, Effective, EffectivePort, EffectiveRole,
    EffectiveStorage, Generation, HordeName, PortState, Protocol, Role, Running, RunningState,
    Strength, Tag, Weaker,
};

use crate::base::{Abilities, ExecutionView};
use crate::config::Isolation;
use crate::groups::{Controller, Groups};
use crate::label::rnode_label;
use crate::layout::Home;
use crate::network::Carries;
use crate::plan::Observed;
use crate::record::{Door, Record};
use crate::settings::Settings;
use crate::storage::Allotment;

mod network;

fn execution_of(observed: &Observed, record: &Record, ordinal: u32) -> Option<ExecutionView> {
    let label = record.cell_label(ordinal)?;
    observed
        .executions
        .iter()
        .find(|view| view.label == label)
        .cloned()
}

/// The containers of a horde, by ordinal.
pub(crate) fn running(home: &Home, horde: &HordeName, observed: &Observed) -> Vec<Running> {
    let Some(record) = observed.record.as_ref() else {
        return Vec::new();
    };
    let mut running = Vec::new();
    for (&ordinal, container) in &record.containers {
        let label = rnode_label(ordinal);
        let execution = execution_of(observed, record, ordinal);
        let state = match execution.as_ref().map(|view| view.ended.as_ref()) {
            None => RunningState::Waiting,
            Some(None) => RunningState::Started,
            Some(Some(ended)) => RunningState::Failed(ended.how.clone()),
        };
        let Some(id) = record.cell_label(ordinal) else {
            continue;
        };
        let Ok(role) = Role::new(container.role.clone()) else {
            continue;
        };
        let lease = observed
            .leases
            .iter()
            .find(|lease| lease.ordinal == ordinal);
        running.push(Running {
            id: ContainerId::from_backend(id.execution()),
            ordinal,
            role,
            server: container.server.clone(),
            address: lease.map(|lease| IpAddr::V4(lease.host)),
            tags: container
                .tags
                .iter()
                .filter_map(|tag| Tag::new(tag.clone()).ok())
                .collect(),
            state,
            generation: Generation {
                document: container.generation.0,
                term: container.generation.1,
            },
            pid: execution.map(|view| view.pid),
            directory: Some(home.rnode(horde.as_str(), &label)),
            label,
        });
    }
    running
}

/// What the horde really got.
pub(crate) fn effective(
    horde: &HordeName,
    generation: Generation,
    observed: &Observed,
) -> Effective {
    let record = observed.record.as_ref();
    let ports = record.map_or_else(Vec::new, |record| {
        let inward = |door: &&Door| door.way.leads_in();
        let doors = record.doors.iter().filter(inward);
        doors.map(|door| port(door, record, observed)).collect()
    });
    let (network, found_weaker) = network::network(record, ports);
    let known = record.into_iter().flat_map(|record| &record.weaker);
    let known = known.map(|(asked, obtained)| Weaker {
        asked: asked.clone(),
        obtained: obtained.clone(),
    });
    Effective {
        name: horde.clone(),
        generation: record.map_or(generation, Record::generation),
        roles: record.map_or_else(Vec::new, |record| roles(record, observed)),
        network,
        weaker: known.chain(found_weaker).collect(),
        storage: storage(observed),
    }
}

fn storage(observed: &Observed) -> Vec<EffectiveStorage> {
    let allotments = observed.allotments.iter();
    let mut storage: Vec<_> = allotments.map(Allotment::effective).collect();
    storage.sort();
    storage
}

fn roles(record: &Record, observed: &Observed) -> Vec<EffectiveRole> {
    let mut roles = Vec::new();
    for asked in &record.roles {
        let Ok(role) = Role::new(asked.role.clone()) else {
            continue;
        };
        let mine = || {
            record
                .containers
                .iter()
                .filter(|(_, held)| held.role == asked.role)
        };
        let runs = |ordinal: u32| {
            execution_of(observed, record, ordinal).is_some_and(|view| view.ended.is_none())
        };
        let obtained = mine().filter(|(ordinal, _)| runs(**ordinal)).count();
        let obtained = u32::try_from(obtained).unwrap_or(u32::MAX);
        let ended: Vec<String> = mine()
            .filter_map(|(&ordinal, _)| {
                let ended = execution_of(observed, record, ordinal)?.ended?;
                Some(format!("{} {}", rnode_label(ordinal), ended.how))
            })
            .collect();
        let shortfall = (obtained < asked.count).then(|| match ended.is_empty() {
            true => "not started yet".to_owned(),
            false => ended.join("; "),
        });
        roles.push(EffectiveRole {
            role,
            wanted: asked.count,
            obtained,
            shortfall,
        });
    }
    roles
}

fn port(door: &Door, record: &Record, observed: &Observed) -> EffectivePort {
    let label = record.forward_label(door.at());
    let running = observed
        .executions
        .iter()
        .any(|view| Some(&view.label) == label.as_ref() && view.ended.is_none());
    let state = match (running, observed.doors_taken.get(&door.at())) {
        (true, _) => PortState::Open,
        (false, Some(reason)) => PortState::Refused(reason.clone()),
        (false, None) => PortState::Waiting,
    };
    EffectivePort {
        address: door.listen,
        protocol: match door.carries {
            Carries::Tcp => Protocol::Tcp,
            Carries::Udp => Protocol::Udp,
        },
        class: door.class.clone(),
        internal_port: door.port,
        state,
    }
}

/// How strongly commands are limited; rnodes are not.
fn limits(abilities: &Abilities, groups: &Groups) -> Strength {
    if !abilities.commands.is_present() {
        return Strength::Absent("rnodes are not limited on this backend yet".to_owned());
    }
    let missing = Controller::ALL.into_iter().filter(|one| !groups.has(*one));
    let missing: Vec<&str> = missing.map(Controller::word).collect();
    if missing.is_empty() {
        return Strength::Enforced;
    }
    let missing = missing.join(" ");
    Strength::Weak(format!("no control group can be made here for: {missing}"))
}

/// What backend `local` can do on a machine that grants such namespaces to such a user, over such a base.
#[must_use]
pub fn capabilities(settings: &Settings, uid: u32, abilities: &Abilities) -> Capabilities {
    let isolation = settings.isolation;
    let groups = &settings.groups;
    use Capability as C;
    let absent = |reason: &str| Strength::Absent(reason.to_owned());
    let weak = |reason: &str| Strength::Weak(reason.to_owned());
    let isolated = |reason: &str| match isolation {
        Isolation::PidMount => Strength::Enforced,
        Isolation::None => weak(reason),
    };
    let users = match uid {
        0 => Strength::Enforced,
        _ => weak("only root can lease users; others run everything as themselves"),
    };
    network::capabilities(settings, abilities)
        .enforced(&[C::Tags, C::HordeConnected, C::ExposeTcp, C::ExposeUdp])
        .enforced(&[C::Resize, C::Heal, C::Adopt, C::ExternalAddresses])
        .with(C::Fulcrums, abilities.fulcrums.clone())
        .with(C::Commands, abilities.commands.clone())
        .with(
            C::Images,
            absent("containers share this machine's files"),
        )
        .with(
            C::HostMounts,
            isolated("values typed as paths are rewritten instead"),
        )
        .with(
            C::FileTrees,
            isolated("values typed as paths are rewritten instead"),
        )
        .with(C::Volumes, weak("a file of its size stands for a device"))
        .with(
            C::StorageCapacity,
            weak("volumes have their size; file trees are counted, not enforced"),
        )
        .with(C::Limits, limits(abilities, groups))
        .with(C::Users, users)
        .with(
            C::ProcessIsolation,
            isolated("processes are found by the mark they carry"),
        )
        .with(
            C::MountIsolation,
            isolated("this machine grants no mount namespace"),
        )
        .with(C::Ipv6, absent("addresses are leased from 127.0.0.0/8"))
        .with(C::Multicast, absent("loopback carries none"))
        .with(
            C::Maintenance,
            weak("containers move when a pass runs: without a base rnode, when the owner realises again"),
        )
}
