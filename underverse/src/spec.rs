//! What may be asked of an underverse. What was obtained is in [`crate::effective`]: another type on purpose.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use crate::error::{Error, Kind};
use crate::name::{ByteCount, HordeName, Role};
use crate::storage::{StorageId, StorageRequest};
use crate::tag::{Tag, TagRule};

/// Most execables in one horde.
pub const EXECABLES_MAX: usize = 256;
/// Most mounts of one execable.
pub const MOUNTS_MAX: usize = 64;
/// Most external ports of one horde.
pub const PORTS_MAX: usize = 256;

/// A named set of containers, as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HordeSpec {
    /// Name, unique within the owner.
    pub name: HordeName,
    /// The roles, in order; ordinals of containers run through them, from 1.
    pub execables: Vec<Execable>,
    /// What is asked of the network.
    pub network: NetworkSpec,
    /// Storage asked for, in request order; mounts name it.
    pub storage: Vec<StorageRequest>,
    /// Users that must exist in the containers.
    pub users: Vec<UserSpec>,
    /// Virtual servers to declare, where the backend can; empty: the backend's own.
    pub servers: Vec<ServerSpec>,
    /// Words that only one backend understands, by key; each checks its own.
    pub settings: BTreeMap<String, Vec<String>>,
}

impl HordeSpec {
    /// How many containers are asked for in all; saturates.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.execables
            .iter()
            .fold(0_u32, |sum, execable| sum.saturating_add(execable.count))
    }

    /// Checks what no backend could do: repeated roles, relative mounts, unknown storage, repeated ports.
    ///
    /// # Errors
    /// `Invalid` or `Limit`, naming the first thing wrong.
    pub fn validate(&self) -> Result<(), Error> {
        let refuse = |kind, message: String| {
            Err(Error::new(kind, "read a horde", message).with("horde", &self.name))
        };
        if self.execables.len() > EXECABLES_MAX {
            return refuse(Kind::Limit, format!("more than {EXECABLES_MAX} execables"));
        }
        let mut roles = BTreeSet::new();
        for execable in &self.execables {
            if !roles.insert(&execable.role) {
                return refuse(
                    Kind::Invalid,
                    format!("role {} is given twice", execable.role),
                );
            }
            execable.validate(self)?;
        }
        if self.network.ports.len() > PORTS_MAX {
            return refuse(Kind::Limit, format!("more than {PORTS_MAX} external ports"));
        }
        let mut ports = BTreeSet::new();
        for port in &self.network.ports {
            if !ports.insert((&port.external, port.external_port, port.protocol)) {
                return refuse(
                    Kind::Invalid,
                    format!("external port {} is given twice", port.external_port),
                );
            }
        }
        Ok(())
    }
}

/// One role of a horde. It has no id: ids are given by the underverse and read from `Running`.
///
/// ```compile_fail
/// let execable = underverse::Execable { id: "mine".to_owned(), ..todo!() };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execable {
    /// How many containers; 0 asks for none and is how a role is scaled away.
    pub count: u32,
    /// What it is: "hobbit".
    pub role: Role,
    /// Image to run, where the backend has images.
    pub image: Option<String>,
    /// What runs in it.
    pub program: Program,
    /// Tags the server must have or lack; all must hold.
    pub required: Vec<TagRule>,
    /// Tags added to those inherited from the server.
    pub added: BTreeSet<Tag>,
    /// What is visible where.
    pub mounts: Vec<Mount>,
    /// Environment added to the program's.
    pub env: BTreeMap<String, String>,
    /// Upper limits, each optional.
    pub limits: Limits,
}

impl Execable {
    /// One container of `role` that runs `program` and asks for nothing else.
    #[must_use]
    pub const fn new(role: Role, program: Program) -> Self {
        Self {
            count: 1,
            role,
            image: None,
            program,
            required: Vec::new(),
            added: BTreeSet::new(),
            mounts: Vec::new(),
            env: BTreeMap::new(),
            limits: Limits::none(),
        }
    }

    fn validate(&self, spec: &HordeSpec) -> Result<(), Error> {
        let refuse = |kind, message: String| {
            Err(Error::new(kind, "read an execable", message).with("role", &self.role))
        };
        if self.mounts.len() > MOUNTS_MAX {
            return refuse(Kind::Limit, format!("more than {MOUNTS_MAX} mounts"));
        }
        if matches!(&self.program, Program::Command(argv) if argv.is_empty()) {
            return refuse(Kind::Invalid, "the program has no words".to_owned());
        }
        let mut targets = BTreeSet::new();
        for mount in &self.mounts {
            let target = mount.target.display();
            if !mount.target.is_absolute() {
                return refuse(
                    Kind::Invalid,
                    format!("mount {target} is not an absolute path"),
                );
            }
            if !targets.insert(&mount.target) {
                return refuse(Kind::Invalid, format!("mount {target} is given twice"));
            }
            if let MountSource::Storage(id) = &mount.source
                && !spec.storage.iter().any(|request| request.id == *id)
            {
                return refuse(
                    Kind::Invalid,
                    format!("mount {target} names storage {id}, which was not asked for"),
                );
            }
        }
        Ok(())
    }
}

/// What a container runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// A rnode of Radix; name and address are appended by the backend. The words are those of the description.
    Fulcrum(Vec<String>),
    /// Any other command, first word first; never empty.
    Command(Vec<String>),
}

impl Program {
    /// The words as described.
    #[must_use]
    pub fn words(&self) -> &[String] {
        match self {
            Self::Fulcrum(words) | Self::Command(words) => words,
        }
    }
}

/// Something made visible in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it comes from.
    pub source: MountSource,
    /// Absolute path inside.
    pub target: PathBuf,
}

/// Where a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A directory of the server: a read-only lower layer, with a writable upper layer of the container's own.
    Host(PathBuf),
    /// Storage asked for in the same spec.
    Storage(StorageId),
}

/// Upper limits of one container; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Resident memory.
    pub memory: Option<ByteCount>,
    /// Processor time per time, in thousandths of one processor.
    pub cpu_thousandths: Option<u32>,
    /// Processes and threads.
    pub processes: Option<u32>,
}

impl Limits {
    /// No limit at all.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            memory: None,
            cpu_thousandths: None,
            processes: None,
        }
    }

    /// Whether nothing is limited.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::none()
    }
}

/// A user name that the containers need.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UserSpec {
    /// The name applications use.
    pub name: String,
    /// Which account of the server it is.
    pub source: UserSource,
}

/// Which account stands behind a user name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UserSource {
    /// Whoever runs the underverse.
    Oneself,
    /// An unprivileged account of its own where the backend can lease one, else oneself, reported as weaker.
    Auto,
}

/// A virtual server to declare.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerSpec {
    /// Its name, unique within the spec.
    pub name: String,
    /// Its tags.
    pub tags: BTreeSet<Tag>,
}

/// What is asked of a horde's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Only members may open connections into the horde.
    pub horde_private: bool,
    /// Only members of the flock may; the usual expectation.
    pub flock_private: bool,
    /// Every member can reach every member; `false` promises nothing and forbids nothing.
    pub horde_connected: bool,
    /// Most connections from the whole horde to the internet; `None` is no limit, 0 none at all.
    pub external_connections_max: Option<u32>,
    /// Doors from outside; exempt from the restrictions above.
    pub ports: Vec<PortConnect>,
}

impl Default for NetworkSpec {
    /// Flock-private and connected, nothing exposed: what the Chronicles call the normal expectation.
    fn default() -> Self {
        Self {
            horde_private: false,
            flock_private: true,
            horde_connected: true,
            external_connections_max: None,
            ports: Vec::new(),
        }
    }
}

/// A door: what reaches an external port goes to a member that listens on the internal one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortConnect {
    /// Where the door is.
    pub external: ExternalAddress,
    /// Its port.
    pub external_port: u16,
    /// Port the members listen on.
    pub internal_port: u16,
    /// Which members.
    pub members: Members,
    /// What it carries.
    pub protocol: Protocol,
}

/// Where a door is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExternalAddress {
    /// Where the backend puts it by default: loopback on `local`.
    Default,
    /// At this address of the server.
    Host(IpAddr),
    /// At an address obtained by `acquire_address`.
    Acquired(AddressId),
}

/// Which members a door leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Members {
    /// Every container that listens.
    All,
    /// Ready instances of this class of the application that runs in the horde.
    Class(String),
}

/// What a door carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Names an external address that was obtained; stable until released.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressId(String);

impl AddressId {
    /// Takes an id as the underverse wrote it; only backends make one.
    #[must_use]
    pub fn from_backend(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for AddressId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}
