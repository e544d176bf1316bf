//! What is kept of a horde between passes: `hordes/<namespace>/horde.json`.
//!
//! Enough that a new backend process finds every container, number and promise of the old one.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use underverse::{Generation, NetworkSpec};

use crate::config::Isolation;
use crate::durable;
use crate::label::{Label, Subject};
use crate::layout::Home;
use crate::maintenance::Maintenance;
use crate::network::{At, Carries, OnSwitch, ProbeFound, Way};
use crate::servers::Tagging;

/// The durable record of one horde.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) namespace: String,
    /// Highest generation taken on.
    pub(crate) generation: (u64, u64),
    /// The horde is being ended.
    pub(crate) dissolving: bool,
    pub(crate) roles: Vec<RoleRecord>,
    pub(crate) network: NetworkRecord,
    pub(crate) doors: Vec<Door>,
    pub(crate) weaker: Vec<(String, String)>,
    pub(crate) user_range_start: Option<u32>,
    pub(crate) isolation: Isolation,
    /// The switch it is on; `None`: this machine's own network.
    #[serde(default)]
    pub(crate) switch: Option<OnSwitch>,
    /// What was found when its network was tried.
    #[serde(default)]
    pub(crate) probed: Option<Probed>,
    /// By ordinal.
    pub(crate) containers: BTreeMap<u32, ContainerRecord>,
    /// Number of the last change of a server that the horde was told of.
    #[serde(default)]
    pub(crate) told: u64,
    /// Which boot of the machine its containers were last seen under.
    #[serde(default)]
    pub(crate) boot: String,
    /// Maintenance under way, by server.
    #[serde(default)]
    pub(crate) maintenance: BTreeMap<String, Maintenance>,
    /// By where they are.
    #[serde(with = "by_door")]
    pub(crate) forwards: BTreeMap<At, ForwardRecord>,
}

/// A role as asked for; ordinals run through them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RoleRecord {
    pub(crate) role: String,
    pub(crate) count: u32,
}

/// The network as asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkRecord {
    pub(crate) horde_private: bool,
    pub(crate) flock_private: bool,
    pub(crate) horde_connected: bool,
    pub(crate) external_connections_max: Option<u32>,
}

impl NetworkRecord {
    pub(crate) const fn of(asked: &NetworkSpec) -> Self {
        Self {
            horde_private: asked.horde_private,
            flock_private: asked.flock_private,
            horde_connected: asked.horde_connected,
            external_connections_max: asked.external_connections_max,
        }
    }
}

/// An external port and where it leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Door {
    pub(crate) listen: SocketAddr,
    /// Empty: all members.
    pub(crate) class: String,
    pub(crate) port: u16,
    #[serde(default)]
    pub(crate) way: Way,
    #[serde(default)]
    pub(crate) carries: Carries,
}

impl Door {
    pub(crate) const fn at(&self) -> At {
        At {
            listen: self.listen,
            carries: self.carries,
        }
    }
}

/// Forwarders as a map whose keys are for people: what counts is the door itself.
mod by_door {
    use std::collections::BTreeMap;

    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{At, ForwardRecord};

    pub(super) fn serialize<S: Serializer>(
        forwards: &BTreeMap<At, ForwardRecord>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(forwards.iter().map(|(at, held)| (at.to_string(), held)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<At, ForwardRecord>, D::Error> {
        let held = BTreeMap::<String, ForwardRecord>::deserialize(deserializer)?;
        let by_door = held.into_values().map(|held| (held.door.at(), held));
        Ok(by_door.collect())
    }
}

/// What was found when a horde's network was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Probed {
    /// What it was when it was tried; with anything else it is tried anew.
    pub(crate) of: ProbedState,
    /// What was found, or why it could not be tried.
    pub(crate) found: Result<ProbeFound, String>,
}

/// What a horde's network depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProbedState {
    pub(crate) switch: OnSwitch,
    pub(crate) network: NetworkRecord,
    /// Members between which it is tried.
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// Executions that were there: cells by ordinal, and the door out.
    pub(crate) executions: Vec<String>,
}

/// One container's numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) role: String,
    pub(crate) server: String,
    pub(crate) tags: Vec<String>,
    /// What an administrator had given its server and taken from it when it was started.
    #[serde(default)]
    pub(crate) tagging: Tagging,
    pub(crate) generation: (u64, u64),
    /// Number of its present start, from 1.
    pub(crate) attempt: u32,
    /// Execution before this one.
    pub(crate) replaces: Option<String>,
    /// Its start was told.
    pub(crate) announced: bool,
    /// We asked it to end.
    pub(crate) ending: bool,
    /// Its end is confirmed and told.
    pub(crate) buried: bool,
}

/// One forwarder's numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ForwardRecord {
    pub(crate) door: Door,
    pub(crate) generation: (u64, u64),
    pub(crate) attempt: u32,
}

impl Record {
    pub(crate) fn read(home: &Home, namespace: &str) -> io::Result<Option<Self>> {
        durable::read_json(&home.record(namespace))
    }

    pub(crate) fn write(&self, home: &Home) -> io::Result<()> {
        durable::write_json(&home.record(&self.namespace), self)
    }

    /// How many containers it was accepted with; none once it is dissolved.
    pub(crate) fn accepted(&self) -> u32 {
        let counts = self.roles.iter().map(|role| role.count);
        if self.dissolving { 0 } else { counts.sum() }
    }

    pub(crate) const fn generation(&self) -> Generation {
        Generation {
            document: self.generation.0,
            term: self.generation.1,
        }
    }

    /// The label of the container's present execution.
    pub(crate) fn cell_label(&self, ordinal: u32) -> Option<Label> {
        let container = self.containers.get(&ordinal)?;
        Some(Label {
            namespace: self.namespace.clone(),
            generation: container.generation,
            attempt: container.attempt,
            subject: Subject::Cell { ordinal },
        })
    }

    /// The label of the forwarder's present execution.
    pub(crate) fn forward_label(&self, at: At) -> Option<Label> {
        let forward = self.forwards.get(&at)?;
        Some(Label {
            namespace: self.namespace.clone(),
            generation: forward.generation,
            attempt: forward.attempt,
            subject: Subject::Forward {
                listen: at.listen,
                class: forward.door.class.clone(),
                port: forward.door.port,
                way: forward.door.way,
                carries: forward.door.carries,
            },
        })
    }
}

/// The highest generation of a namespace that anybody wrote down, also after it was dissolved.
pub(crate) fn last_generation(home: &Home, namespace: &str) -> Option<u64> {
    std::fs::read_to_string(home.generation(namespace))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// The last number used of a dissolved horde, and under which generation.
pub(crate) fn spent(home: &Home, namespace: &str) -> Option<((u64, u64), u32)> {
    durable::read_json(&home.spent(namespace)).ok().flatten()
}

/// Keeps that, so that no id is used again when the horde comes back under the same generation.
pub(crate) fn keep_spent(home: &Home, namespace: &str, spent: ((u64, u64), u32)) -> io::Result<()> {
    durable::create_dir(&home.path().join("generations"))?;
    durable::write_json(&home.spent(namespace), &spent)
}

/// Writes the highest generation down unless a higher one, or something else, stands there.
pub(crate) fn keep_generation(home: &Home, namespace: &str, generation: u64) -> io::Result<()> {
    let path = home.generation(namespace);
    let lower = last_generation(home, namespace).is_some_and(|last| last < generation);
    if !lower && path.exists() {
        return Ok(());
    }
    durable::create_dir(&home.path().join("generations"))?;
    durable::replace(&path, format!("{generation}\n").as_bytes())
}
