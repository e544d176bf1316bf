//! What a substrate can and cannot do, with strength.

use std::collections::BTreeMap;
use std::fmt;

/// Something a substrate may be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Capability {
    /// Run rnodes.
    Fulcrums,
    /// Run any other program.
    Commands,
    /// Run a program from an image.
    Images,
    /// Make a directory of the server visible, with a writable layer above.
    HostMounts,
    /// Bind file trees by capacity and properties.
    FileTrees,
    /// Bind block devices.
    Volumes,
    /// Enforce the capacity of storage.
    StorageCapacity,
    /// Place by tags of servers.
    Tags,
    /// Limit memory, processor and processes of a container.
    Limits,
    /// Give a container an unprivileged account of its own.
    Users,
    /// A container's processes end with it and see no others.
    ProcessIsolation,
    /// A container has its own view of the file system.
    MountIsolation,
    /// A container has its own network interfaces.
    NetworkIsolation,
    /// Keep others than members out.
    HordePrivate,
    /// Keep others than the flock out.
    FlockPrivate,
    /// Every member reaches every member.
    HordeConnected,
    /// Limit connections to the internet.
    ExternalConnectionLimit,
    /// Open connections to the internet.
    Outbound,
    /// Doors for TCP.
    ExposeTcp,
    /// Doors for UDP.
    ExposeUdp,
    /// Obtain external addresses.
    ExternalAddresses,
    /// Names of containers resolve.
    Names,
    /// IPv6.
    Ipv6,
    /// Broadcast and multicast.
    Multicast,
    /// Change the count of a realised horde.
    Resize,
    /// Start a container again that ended by itself.
    Heal,
    /// Find its containers again after its own death.
    Adopt,
    /// Announce maintenance and take an answer.
    Maintenance,
}

impl Capability {
    /// Every capability, in order.
    pub const ALL: [Self; 28] = [
        Self::Fulcrums,
        Self::Commands,
        Self::Images,
        Self::HostMounts,
        Self::FileTrees,
        Self::Volumes,
        Self::StorageCapacity,
        Self::Tags,
        Self::Limits,
        Self::Users,
        Self::ProcessIsolation,
        Self::MountIsolation,
        Self::NetworkIsolation,
        Self::HordePrivate,
        Self::FlockPrivate,
        Self::HordeConnected,
        Self::ExternalConnectionLimit,
        Self::Outbound,
        Self::ExposeTcp,
        Self::ExposeUdp,
        Self::ExternalAddresses,
        Self::Names,
        Self::Ipv6,
        Self::Multicast,
        Self::Resize,
        Self::Heal,
        Self::Adopt,
        Self::Maintenance,
    ];
}

impl Capability {
    /// A fixed word for lists and formats: "host-mounts".
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fulcrums => "fulcrums",
            Self::Commands => "commands",
            Self::Images => "images",
            Self::HostMounts => "host-mounts",
            Self::FileTrees => "file-trees",
            Self::Volumes => "volumes",
            Self::StorageCapacity => "storage-capacity",
            Self::Tags => "tags",
            Self::Limits => "limits",
            Self::Users => "users",
            Self::ProcessIsolation => "process-isolation",
            Self::MountIsolation => "mount-isolation",
            Self::NetworkIsolation => "network-isolation",
            Self::HordePrivate => "horde-private",
            Self::FlockPrivate => "flock-private",
            Self::HordeConnected => "horde-connected",
            Self::ExternalConnectionLimit => "external-connection-limit",
            Self::Outbound => "outbound",
            Self::ExposeTcp => "expose-tcp",
            Self::ExposeUdp => "expose-udp",
            Self::ExternalAddresses => "external-addresses",
            Self::Names => "names",
            Self::Ipv6 => "ipv6",
            Self::Multicast => "multicast",
            Self::Resize => "resize",
            Self::Heal => "heal",
            Self::Adopt => "adopt",
            Self::Maintenance => "maintenance",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

/// How strongly something holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strength {
    /// It does not hold, and why.
    Absent(String),
    /// It holds among the willing only, and why.
    Weak(String),
    /// It holds against those who try.
    Enforced,
}

impl Strength {
    /// Whether it holds at all.
    #[must_use]
    pub const fn is_present(&self) -> bool {
        !matches!(self, Self::Absent(_))
    }

    /// Why it is not enforced; `None` if it is.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Absent(reason) | Self::Weak(reason) => Some(reason),
            Self::Enforced => None,
        }
    }
}

impl fmt::Display for Strength {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(reason) => write!(formatter, "no: {reason}"),
            Self::Weak(reason) => write!(formatter, "weak: {reason}"),
            Self::Enforced => formatter.write_str("yes"),
        }
    }
}

/// The capability record of a backend. Total: what is not stated is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities(BTreeMap<Capability, Strength>);

impl Capabilities {
    /// A record that states nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// States one capability.
    #[must_use]
    pub fn with(mut self, capability: Capability, strength: Strength) -> Self {
        self.0.insert(capability, strength);
        self
    }

    /// States several that are enforced.
    #[must_use]
    pub fn enforced(self, capabilities: &[Capability]) -> Self {
        capabilities
            .iter()
            .fold(self, |record, &c| record.with(c, Strength::Enforced))
    }

    /// How strongly `capability` holds.
    #[must_use]
    pub fn strength(&self, capability: Capability) -> Strength {
        let unstated = || Strength::Absent("this backend does not state it".to_owned());
        self.0.get(&capability).cloned().unwrap_or_else(unstated)
    }

    /// Every capability with its strength, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Capability, Strength)> + '_ {
        Capability::ALL
            .into_iter()
            .map(|capability| (capability, self.strength(capability)))
    }
}
