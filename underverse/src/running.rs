//! Containers and servers as they are.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::generation::Generation;
use crate::name::{ByteCount, ContainerId, Role};
use crate::tag::Tag;

/// One container that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Given by the underverse, unique for ever; a container started again has another one.
    pub id: ContainerId,
    /// Its place in the horde, from 1; kept when it is started again.
    pub ordinal: u32,
    /// Its name within the horde: "n1".
    pub label: String,
    /// Its role.
    pub role: Role,
    /// Server it is on.
    pub server: String,
    /// Its address, where it has one of its own.
    pub address: Option<IpAddr>,
    /// Inherited and added tags.
    pub tags: BTreeSet<Tag>,
    /// Whether it runs.
    pub state: RunningState,
    /// Generation it was started under.
    pub generation: Generation,
    /// Process on the server, where the backend knows it.
    pub pid: Option<i32>,
    /// Its directory on the server, where it has one.
    pub directory: Option<PathBuf>,
}

/// Whether a container runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunningState {
    /// Wanted and not yet started.
    Waiting,
    /// Started.
    Started,
    /// Ended without being asked, and how.
    Failed(String),
}

/// A server of an underverse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its name, unique within the underverse.
    pub name: String,
    /// Its significant properties; containers on it inherit them.
    pub tags: BTreeSet<Tag>,
    /// Processors.
    pub cpus: u32,
    /// Memory installed.
    pub memory: ByteCount,
    /// Memory that can be had now.
    pub memory_available: ByteCount,
}

/// What an administrator says of a server, or has happen to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerChange {
    /// It is started anew: what runs on it ends, and is started again by the next pass.
    Reboot,
    /// It works less well; what runs on it stays.
    Degrade(String),
    /// It is gone: what runs on it ends and is started elsewhere where something fits.
    Withdraw,
    /// It will be maintained from then on, by the wall clock: its containers are moved away as their owners answer.
    Maintain {
        /// When.
        from_unix_ms: u64,
    },
    /// It is as before and takes containers again.
    Restore,
}
