//! What was obtained. A request is a [`crate::spec::HordeSpec`]: another type, so that nobody takes one for the other.

use std::net::SocketAddr;

use crate::capability::Strength;
use crate::generation::Generation;
use crate::name::{ByteCount, HordeName, Role};
use crate::spec::Protocol;
use crate::storage::StorageId;

/// What a horde really got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The horde.
    pub name: HordeName,
    /// Highest generation carried out, in full or in part.
    pub generation: Generation,
    /// Counts by role, in the order of the spec.
    pub roles: Vec<EffectiveRole>,
    /// The network as it is.
    pub network: EffectiveNetwork,
    /// What storage was allotted, by request, then by container.
    pub storage: Vec<EffectiveStorage>,
    /// Everything obtained in weaker form than asked.
    pub weaker: Vec<Weaker>,
}

impl Effective {
    /// How many containers are missing over all roles.
    #[must_use]
    pub fn missing(&self) -> u32 {
        self.roles.iter().map(EffectiveRole::missing).sum()
    }
}

/// How many containers of a role there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveRole {
    /// The role.
    pub role: Role,
    /// How many were asked for.
    pub wanted: u32,
    /// How many are started.
    pub obtained: u32,
    /// Why some are missing; `None` if none is.
    pub shortfall: Option<String>,
}

impl EffectiveRole {
    /// How many are missing.
    #[must_use]
    pub const fn missing(&self) -> u32 {
        self.wanted.saturating_sub(self.obtained)
    }
}

/// Storage that was allotted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EffectiveStorage {
    /// The request it answers.
    pub id: StorageId,
    /// Label of the container it belongs to: "n1"; `None` where all share it.
    pub container: Option<String>,
    /// Server it lies on.
    pub server: String,
    /// Source of the exposure it was taken from.
    pub source: String,
    /// Exactly what was asked for.
    pub capacity: ByteCount,
    /// How strongly the capacity holds.
    pub size: Strength,
}

/// The network as it is: each restriction with how strongly it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveNetwork {
    /// Only members can open connections into the horde.
    pub horde_private: Obtained<bool>,
    /// Only the flock can.
    pub flock_private: Obtained<bool>,
    /// Every member reaches every member.
    pub horde_connected: Obtained<bool>,
    /// Most connections to the internet; `None` is no limit.
    pub external_connections_max: Obtained<Option<u32>>,
    /// The doors, in the order of the spec.
    pub ports: Vec<EffectivePort>,
    /// What was tried on this horde and what came of it; empty where nothing was.
    pub probes: Vec<NetworkProbe>,
}

/// Something that was tried to find out how a network really is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetworkProbe {
    /// What was tried: "n1 to n2".
    pub tried: String,
    /// Whether the connection came about.
    pub connected: bool,
    /// How, for people: "TCP from a socket in n1's network namespace to one in n2's".
    pub how: String,
}

/// A value with how strongly it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obtained<T> {
    /// What holds.
    pub value: T,
    /// How strongly.
    pub strength: Strength,
}

/// A door as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectivePort {
    /// Where it is.
    pub address: SocketAddr,
    /// What it carries; of two doors at one address it tells which is which.
    pub protocol: Protocol,
    /// Class it leads to; empty for all members.
    pub class: String,
    /// Port the members listen on.
    pub internal_port: u16,
    /// Whether it is open.
    pub state: PortState,
}

/// Whether a door is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortState {
    /// Not yet started.
    Waiting,
    /// It listens.
    Open,
    /// It cannot be had, and why: "port 8080 is taken".
    Refused(String),
}

/// Something obtained in weaker form than asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weaker {
    /// What was asked.
    pub asked: String,
    /// What holds instead, and why.
    pub obtained: String,
}

impl std::fmt::Display for Weaker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.asked, self.obtained)
    }
}
