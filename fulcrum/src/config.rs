//! What a rnode is started with: the checked form of `rnode.json`.
//!
//! Whoever starts a rnode writes the file before it; keeper, agent and cell only read it.
//! The format is drawn in docs/design/first-light.md, section 1.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use crux_core::digest::Digest;
use crux_net::durable;
use serde::{Deserialize, Serialize};

use crate::error::ConfigError;

/// The file's name inside a rnode's directory.
pub const FILE: &str = "rnode.json";

/// A file that the backend puts into a rnode's directory when the rnode is to end for good.
///
/// An agent that is asked to end and finds it leaves the flock; without it, the others wait for the rnode to be back.
pub const LEAVING: &str = "leaving";

/// The longest label or namespace, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// The most mounts of one rnode.
pub const MOUNTS_MAX: usize = 64;

/// What a rnode is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RnodeConfig {
    /// The rnode's label, such as `n1`; unique in its namespace by claim only.
    pub label: String,
    /// The label of the namespace it belongs to.
    pub namespace: String,
    /// The address its services listen on.
    pub host: IpAddr,
    /// Port of fulcrum, rexec and fileio; 0: any free one.
    pub tcp_port: u16,
    /// UDP port of the flock; 0: any free one.
    pub flock_port: u16,
    /// Where other members may be; may be wrong, may be empty.
    pub hints: Vec<HostPort>,
    /// The services of the machine's base rnode; `None` for the base itself.
    pub base: Option<HostPort>,
    /// Where the memoir is written, absolute.
    pub memoir_dir: PathBuf,
    /// Where this rnode's blobs are, absolute.
    pub store_dir: PathBuf,
    /// The `radix` that keeper and agent run from.
    pub executable: Executable,
    /// Host directories to show inside the rnode's cell, in the order of the file.
    pub mounts: Vec<Mount>,
    /// How the rnode is kept apart from its host.
    pub isolation: Isolation,
    /// First uid of the range leased to this rnode; `None`: processes run as the keeper's user.
    pub user_range_start: Option<u32>,
    /// The rnode's tags, as given by whoever realised it.
    pub tags: Vec<String>,
    /// The switch it is plugged into; `None`: it is on the host's network.
    pub network: Option<CellNetwork>,
    /// What its store, and what copies bring to it, may take; `None`: what the disk has.
    pub quota_bytes: Option<u64>,
}

/// How a cell is plugged into a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellNetwork {
    /// Absolute path of the switch's directory on the host.
    pub switch: PathBuf,
    /// The address inside.
    pub address: Ipv4Addr,
}

/// A file in the store and the digest it was stored under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executable {
    /// Absolute path.
    pub path: PathBuf,
    /// Its content.
    pub digest: Digest,
}

/// A host path shown at another path inside a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Absolute path on the host.
    pub host: PathBuf,
    /// Absolute path inside; need not exist on the host.
    pub target: PathBuf,
    /// Storage: what is written inside is written to the host's path itself. Else it is only ever read.
    pub writable: bool,
}

/// How a rnode is kept apart from its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// Not at all: ended by the mark its processes carry.
    None,
    /// Its own process and mount namespaces: the kernel ends all of it with its keeper.
    PidMount,
}

/// A host name or address with a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// A name or address; IPv6 without brackets.
    pub host: String,
    /// The port; never 0.
    pub port: u16,
}

impl RnodeConfig {
    /// Reads and checks `DIR/rnode.json`.
    ///
    /// # Errors
    /// [`ConfigError`], naming the field where one is wrong.
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join(FILE);
        let text = fs::read(&path).map_err(|source| ConfigError::Io {
            path: path.clone(),
            source,
        })?;
        let file: File =
            serde_json::from_slice(&text).map_err(|source| ConfigError::Format { path, source })?;
        file.try_into()
    }

    /// Checks and writes `DIR/rnode.json`, readable by its owner only; the old file stays whole until the new one is durable.
    ///
    /// # Errors
    /// [`ConfigError`]; the old file is unchanged.
    pub fn save(&self, dir: &Path) -> Result<(), ConfigError> {
        self.check()?;
        let path = dir.join(FILE);
        let written = durable::replace(&path, self.to_string().as_bytes());
        written.map_err(|source| ConfigError::Io {
            path: path.clone(),
            source,
        })
    }

    /// Checks what the types alone do not say.
    ///
    /// # Errors
    /// [`ConfigError::Field`] for the first wrong field.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_name("label", &self.label)?;
        check_name("namespace", &self.namespace)?;
        check_path("memoir_dir", &self.memoir_dir)?;
        check_path("store_dir", &self.store_dir)?;
        check_path("executable.path", &self.executable.path)?;
        if let Some(network) = &self.network {
            check_path("network.switch", &network.switch)?;
        }
        check_mounts(&self.mounts)
    }
}

/// Prints the file's text, with a line end.
impl fmt::Display for RnodeConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_string_pretty(&File::from(self)).map_err(|_| fmt::Error)?;
        writeln!(formatter, "{text}")
    }
}

impl HostPort {
    /// Joins a host and a port.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let wrong = || {
            field(
                "host:port",
                text,
                "a host, a colon and a port from 1 to 65535",
            )
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        let port: u16 = port.parse().map_err(|_| wrong())?;
        if host.is_empty() || port == 0 || host.len() > 255 || !host.chars().all(known) {
            return Err(wrong());
        }
        Ok(Self::new(host, port))
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "none",
            Self::PidMount => "pid,mount",
        })
    }
}

impl FromStr for Isolation {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        match text {
            "none" => Ok(Self::None),
            "pid,mount" => Ok(Self::PidMount),
            other => Err(field("isolation", other, "\"pid,mount\" or \"none\"")),
        }
    }
}

/// The file as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    label: String,
    namespace: String,
    host: IpAddr,
    tcp_port: u16,
    flock_port: u16,
    hints: Vec<String>,
    base: Option<FileBase>,
    memoir_dir: PathBuf,
    store_dir: PathBuf,
    executable: FileExecutable,
    mounts: Vec<FileMount>,
    isolation: String,
    user_range_start: Option<u32>,
    tags: Vec<String>,
    #[serde(default)]
    network: Option<FileNetwork>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quota_bytes: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileNetwork {
    switch: PathBuf,
    address: Ipv4Addr,
}

impl From<FileNetwork> for CellNetwork {
    fn from(network: FileNetwork) -> Self {
        Self {
            switch: network.switch,
            address: network.address,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileBase {
    host: String,
    port: u16,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileExecutable {
    path: PathBuf,
    digest: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileMount {
    host: PathBuf,
    target: PathBuf,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    writable: bool,
}

impl From<FileMount> for Mount {
    fn from(mount: FileMount) -> Self {
        Self {
            host: mount.host,
            target: mount.target,
            writable: mount.writable,
        }
    }
}

/// Checks what the types of mounts do not say.
pub(crate) fn check_mounts(mounts: &[Mount]) -> Result<(), ConfigError> {
    if mounts.len() > MOUNTS_MAX {
        return Err(field("mounts", mounts.len(), "at most 64 of them"));
    }
    for mount in mounts {
        check_path("mounts.host", &mount.host)?;
        check_path("mounts.target", &mount.target)?;
        if mount.target == Path::new("/") {
            return Err(field("mounts.target", "/", "a path below the root"));
        }
    }
    Ok(())
}

impl TryFrom<File> for RnodeConfig {
    type Error = ConfigError;

    fn try_from(file: File) -> Result<Self, ConfigError> {
        let digest = file.executable.digest.parse().map_err(|_| {
            field(
                "executable.digest",
                &file.executable.digest,
                "64 lower-case hex digits",
            )
        })?;
        let base = file
            .base
            .map(|base| HostPort::new(base.host, base.port).to_string().parse());
        let config = Self {
            label: file.label,
            namespace: file.namespace,
            host: file.host,
            tcp_port: file.tcp_port,
            flock_port: file.flock_port,
            hints: file
                .hints
                .iter()
                .map(|hint| hint.parse())
                .collect::<Result<_, _>>()?,
            base: base.transpose()?,
            memoir_dir: file.memoir_dir,
            store_dir: file.store_dir,
            executable: Executable {
                path: file.executable.path,
                digest,
            },
            mounts: file.mounts.into_iter().map(Mount::from).collect(),
            isolation: file.isolation.parse()?,
            user_range_start: file.user_range_start,
            tags: file.tags,
            network: file.network.map(CellNetwork::from),
            quota_bytes: file.quota_bytes,
        };
        config.check()?;
        Ok(config)
    }
}

impl From<&RnodeConfig> for File {
    fn from(config: &RnodeConfig) -> Self {
        Self {
            label: config.label.clone(),
            namespace: config.namespace.clone(),
            host: config.host,
            tcp_port: config.tcp_port,
            flock_port: config.flock_port,
            hints: config.hints.iter().map(ToString::to_string).collect(),
            base: config.base.as_ref().map(|base| FileBase {
                host: base.host.clone(),
                port: base.port,
            }),
            memoir_dir: config.memoir_dir.clone(),
            store_dir: config.store_dir.clone(),
            executable: FileExecutable {
                path: config.executable.path.clone(),
                digest: config.executable.digest.to_string(),
            },
            mounts: config
                .mounts
                .iter()
                .map(|mount| FileMount {
                    host: mount.host.clone(),
                    target: mount.target.clone(),
                    writable: mount.writable,
                })
                .collect(),
            isolation: config.isolation.to_string(),
            user_range_start: config.user_range_start,
            tags: config.tags.clone(),
            network: config.network.as_ref().map(|network| FileNetwork {
                switch: network.switch.clone(),
                address: network.address,
            }),
            quota_bytes: config.quota_bytes,
        }
    }
}

pub(crate) fn field(
    field: &'static str,
    value: impl fmt::Display,
    expected: &'static str,
) -> ConfigError {
    ConfigError::Field {
        field,
        value: value.to_string(),
        expected,
    }
}

pub(crate) fn check_name(name: &'static str, value: &str) -> Result<(), ConfigError> {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let starts = value
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    if !starts || value.len() > NAME_BYTES_MAX || !value.chars().all(known) {
        return Err(field(
            name,
            value,
            "1 to 128 of letters, digits, `_`, `-`, `.`, no `.` or `-` first",
        ));
    }
    Ok(())
}

pub(crate) fn check_path(name: &'static str, path: &Path) -> Result<(), ConfigError> {
    let plain = path
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !plain || path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(field(name, path.display(), "an absolute path without `..`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> RnodeConfig {
        RnodeConfig {
            label: "n1".to_owned(),
            namespace: "stix".to_owned(),
            host: IpAddr::from([127, 3, 0, 1]),
            tcp_port: 7400,
            flock_port: 7400,
            hints: vec![HostPort::new("127.3.0.2", 7400)],
            base: Some(HostPort::new("::1", 7400)),
            memoir_dir: "/m".into(),
            store_dir: "/s".into(),
            executable: Executable {
                path: "/s/radix".into(),
                digest: Digest::of(b"radix"),
            },
            mounts: vec![Mount {
                host: "/data/stix".into(),
                target: "/stix".into(),
                writable: false,
            }],
            isolation: Isolation::PidMount,
            user_range_start: Some(200_000),
            tags: vec!["disk".to_owned()],
            network: Some(CellNetwork {
                switch: "/s/switch".into(),
                address: Ipv4Addr::new(198, 18, 1, 1),
            }),
            quota_bytes: Some(20 << 30),
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let read = serde_json::from_str::<File>(text)
            .map_err(|error| error.to_string())
            .and_then(|file| RnodeConfig::try_from(file).map_err(|error| error.to_string()));
        let message = read.expect_err("should be refused");
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn a_configuration_reads_back_what_it_prints() {
        let config = example();
        let file: File = serde_json::from_str(&config.to_string()).unwrap();
        assert_eq!(RnodeConfig::try_from(file).unwrap(), config);
    }

    #[test]
    fn wrong_fields_are_named() {
        let good = example().to_string();
        check(&good.replace("\"tags\"", "\"tag\""), "tag");
        check(
            &good.replace("\"label\": \"n1\"", "\"label\": \"../n1\""),
            "`label`",
        );
        check(&good.replace("\"pid,mount\"", "\"full\""), "`isolation`");
        check(&good.replace("\"/stix\"", "\"/\""), "`mounts.target`");
        check(&good.replace("\"/stix\"", "\"/a/../b\""), "`mounts.target`");
        check(&good.replace("\"/m\"", "\"m\""), "`memoir_dir`");
        check(&good.replace("127.3.0.2:7400", "127.3.0.2"), "`host:port`");
        check(&good.replace("7400", "74000"), "74000");
        check(
            &good.replace(&Digest::of(b"radix").to_string(), "00"),
            "`executable.digest`",
        );
    }
}
