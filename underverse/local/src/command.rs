//! The file that a cell with a command is started with, as this backend writes it: the twin of `fulcrum`'s `command.json`.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use underverse::{ByteCount, Limits};

use crate::config::{Isolation, RnodeMount};
use crate::durable;
use crate::groups::Group;
use crate::label::rnode_label;
use crate::plan::rnode_users;
use crate::wanted::{Wanted, WantedProgram, WantedRnode};

/// The file's name inside a container's directory.
pub(crate) const FILE: &str = "command.json";

/// What a command is started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommandFile {
    pub(crate) label: String,
    pub(crate) namespace: String,
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) mounts: Vec<RnodeMount>,
    pub(crate) isolation: Isolation,
    #[serde(default)]
    pub(crate) user: Option<u32>,
    #[serde(default)]
    pub(crate) limits: CommandLimits,
    #[serde(default)]
    pub(crate) groups: Vec<PathBuf>,
    #[serde(default)]
    pub(crate) network: Option<CellNetwork>,
}

/// How a cell is plugged into a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CellNetwork {
    pub(crate) switch: PathBuf,
    pub(crate) address: Ipv4Addr,
}

/// Limits that the kernel keeps for a single process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommandLimits {
    #[serde(default)]
    pub(crate) address_space: Option<u64>,
    #[serde(default)]
    pub(crate) processes: Option<u64>,
}

impl CommandFile {
    /// What a command of `wanted` is started with at `host`, with `tags`; `None` for a rnode.
    pub(crate) fn of(
        rnode: &WantedRnode,
        tags: &[String],
        wanted: &Wanted,
        host: Ipv4Addr,
    ) -> Option<Self> {
        let WantedProgram::Command(words) = &rnode.program else {
            return None;
        };
        let label = rnode_label(rnode.ordinal);
        let network = wanted.switch.as_ref().and_then(|switch| {
            Some(CellNetwork {
                switch: switch.dir.clone(),
                address: switch.on.address(rnode.ordinal)?,
            })
        });
        let host = network.as_ref().map_or(host, |network| network.address);
        let told = [
            ("RADIX_HORDE", wanted.namespace.clone()),
            ("RADIX_NAME", label.clone()),
            ("RADIX_ROLE", rnode.role.clone()),
            ("RADIX_ORDINAL", rnode.ordinal.to_string()),
            ("RADIX_SERVER", rnode.server.clone()),
            ("RADIX_TAGS", tags.join(",")),
            ("RADIX_IP", host.to_string()),
        ];
        let told = told.map(|(name, value)| (name.to_owned(), value));
        // What the underverse tells counts; a spec cannot give a container another address.
        let limits = limits_text(&rnode.limits).map(|text| ("RADIX_LIMITS".to_owned(), text));
        let env = rnode
            .env
            .iter()
            .cloned()
            .chain(told)
            .chain(limits)
            .collect();
        let isolated = wanted.isolation == Isolation::PidMount;
        let word = |word: &String| match isolated {
            true => word.clone(),
            false => on_this_machine(word, &rnode.mounts),
        };
        Some(Self {
            label,
            namespace: wanted.namespace.clone(),
            argv: words.iter().map(word).collect(),
            env,
            mounts: rnode.mounts.clone(),
            isolation: wanted.isolation,
            user: rnode_users(wanted, rnode.ordinal),
            limits: CommandLimits {
                address_space: address_space(rnode),
                processes: None,
            },
            groups: rnode
                .groups
                .iter()
                .map(|group| group.path.clone())
                .collect(),
            network,
        })
    }

    /// Whether a command that runs with `self` is as `wanted` says; by which groups it is limited does not matter.
    pub(crate) fn is_as(&self, wanted: &Self) -> bool {
        let groups = self.groups.clone();
        *self
            == Self {
                groups,
                ..wanted.clone()
            }
    }

    pub(crate) fn read(directory: &Path) -> io::Result<Option<Self>> {
        durable::read_json(&directory.join(FILE))
    }

    /// Writes it unless it stands there already. It is written anew before each start.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        if Self::read(directory).ok().flatten().as_ref() == Some(self) {
            return Ok(());
        }
        durable::replace_unsynced(&directory.join(FILE), &durable::json(self)?)
    }
}

/// The limit of address space that stands in for one of memory, where no control group keeps that.
fn address_space(rnode: &WantedRnode) -> Option<u64> {
    let kept = rnode.groups.iter().any(Group::limits_memory);
    rnode.limits.memory.filter(|_| !kept).map(ByteCount::get)
}

/// What a command is told of its limits: "memory=33554432,processes=5".
fn limits_text(limits: &Limits) -> Option<String> {
    let memory = limits.memory.map(|bytes| format!("memory={}", bytes.get()));
    let cpu = limits.cpu_thousandths.map(|cpu| format!("cpu={cpu}"));
    let processes = limits.processes.map(|count| format!("processes={count}"));
    let all: Vec<String> = [memory, cpu, processes].into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join(","))
}

/// A word with the inner path of a mount replaced by the outer one: for where there is no mount namespace.
pub(crate) fn on_this_machine(word: &str, mounts: &[RnodeMount]) -> String {
    let outer = mounts.iter().find_map(|mount| {
        let rest = Path::new(word).strip_prefix(&mount.target).ok()?;
        Some(if rest.as_os_str().is_empty() {
            mount.host.clone()
        } else {
            mount.host.join(rest)
        })
    });
    outer.map_or_else(|| word.to_owned(), |path| path.display().to_string())
}
