//! The file a rnode is started with, as this backend writes it: the twin of `fulcrum`'s `rnode.json`.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable;

/// The file's name inside a rnode's directory.
pub(crate) const FILE: &str = "rnode.json";

/// How a nested rnode is kept apart from this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Isolation {
    /// Process and mount namespaces: the kernel ends all of it with its keeper.
    #[serde(rename = "pid,mount")]
    PidMount,
    /// Not at all: ended by the mark its processes carry.
    #[serde(rename = "none")]
    None,
}

/// A file in the store and its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executable {
    /// Absolute path.
    pub path: PathBuf,
    /// BLAKE3, 64 hex digits.
    pub digest: String,
}

/// A directory of this machine shown at another path inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RnodeMount {
    pub(crate) host: PathBuf,
    pub(crate) target: PathBuf,
    /// Storage: what is written inside is written to the host's path itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) writable: bool,
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// A name or address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What a nested rnode is started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RnodeFile {
    pub(crate) label: String,
    pub(crate) namespace: String,
    pub(crate) host: Ipv4Addr,
    pub(crate) tcp_port: u16,
    pub(crate) flock_port: u16,
    pub(crate) hints: Vec<String>,
    pub(crate) base: Option<HostPort>,
    pub(crate) memoir_dir: PathBuf,
    pub(crate) store_dir: PathBuf,
    pub(crate) executable: Executable,
    pub(crate) mounts: Vec<RnodeMount>,
    pub(crate) isolation: Isolation,
    pub(crate) user_range_start: Option<u32>,
    pub(crate) tags: Vec<String>,
    /// What it may keep; `None`: what the disk has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quota_bytes: Option<u64>,
}

impl RnodeFile {
    pub(crate) fn read(directory: &Path) -> io::Result<Option<Self>> {
        durable::read_json(&directory.join(FILE))
    }

    /// Writes it unless it stands there already; says whether it wrote. It is written anew before each start.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<bool> {
        if Self::read(directory).ok().flatten().as_ref() == Some(self) {
            return Ok(false);
        }
        durable::replace_unsynced(&directory.join(FILE), &durable::json(self)?)?;
        Ok(true)
    }
}
