//! The tree of a `.rnodes` file: where the rnodes come from.
//!
//! Grammar: docs/formats/rnodes.md. What a block becomes is crate `underverse`'s business.

use super::include::Lost;
use super::source::{At, Span};

pub(super) mod parse;
mod print;

/// A `.rnodes` file, or several joined by includes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RnodesFile {
    /// Names of included files, in order.
    pub includes: Vec<At<String>>,
    /// The blocks, in order.
    pub blocks: Vec<At<Block>>,
    /// What could not be read, so that it is not reported a second time as missing.
    pub(in crate::adf) lost: Lost,
}

/// `provider { … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Who supplies the rnodes.
    pub provider: At<Provider>,
    /// `n = 6`: how many; at least 1 once checked.
    pub count: Option<At<u32>>,
    /// `cmd = …`: what each runs, the program first.
    pub command: Option<At<Vec<String>>>,
    /// `mount HOST = PATH`, in order.
    pub mounts: Vec<At<Mount>>,
    /// `expose PORT[/udp] = class:PORT`, in order.
    pub exposes: Vec<At<Expose>>,
    /// `user NAME = self | auto`, in order.
    pub users: Vec<At<User>>,
    /// `tags = A B`: tags that every rnode of the block gets.
    pub tags: Vec<At<String>>,
    /// `server NAME = tag tag`: virtual servers of the local underverse, in order.
    pub servers: Vec<At<Server>>,
    /// Settings that only this provider has, in order, each allowed by [`Provider::keys`].
    pub settings: Vec<At<BlockSetting>>,
}

/// Who supplies rnodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    /// This machine.
    Local,
    /// The backend named by `--backend`, local by default.
    Myriad,
    /// Containers of a Docker engine.
    Docker,
    /// Other machines with a base rnode.
    Metal,
    /// Pods.
    Kubernetes,
    /// Instances of a cloud.
    Ec2,
}

/// `mount HOST = PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Directory of the host; relative ones start at the application's directory.
    pub host: At<String>,
    /// Where the rnode sees it: absolute and clean.
    pub path: At<String>,
}

/// `expose PORT[/udp] = class:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expose {
    /// Port on the host's outer address, never 0.
    pub external: At<u16>,
    /// What comes in there.
    pub carries: Carries,
    /// Class whose ready instances answer.
    pub class: At<String>,
    /// Port they listen on, never 0.
    pub internal: At<u16>,
}

/// What an exposed port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// Connections.
    Tcp,
    /// Datagrams: `/udp` behind the port.
    Udp,
}

impl Carries {
    /// What is written behind the port.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Tcp => "",
            Self::Udp => "/udp",
        }
    }
}

/// `user NAME = self | auto`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// As `userid=` names it.
    pub name: At<String>,
    /// Who that is on the host.
    pub source: At<UserSource>,
}

/// Who a named user is on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserSource {
    /// Whoever runs the rnode.
    Oneself,
    /// An unprivileged user of a leased range for root, oneself otherwise.
    Auto,
}

/// `server NAME = tag tag`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Name of the virtual server.
    pub name: At<String>,
    /// Its tags.
    pub tags: Vec<At<String>>,
}

/// `key = words` that only some providers have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockSetting {
    /// Key.
    pub key: At<String>,
    /// Words; not empty.
    pub words: Vec<At<String>>,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Local,
        Self::Myriad,
        Self::Docker,
        Self::Metal,
        Self::Kubernetes,
        Self::Ec2,
    ];

    /// Its word in the file.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Myriad => "myriad",
            Self::Docker => "docker",
            Self::Metal => "metal",
            Self::Kubernetes => "kubernetes",
            Self::Ec2 => "ec2",
        }
    }

    /// The provider that a word of the file names; `k8s` and `baremetal` are other names.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        match word {
            "k8s" => Some(Self::Kubernetes),
            "baremetal" => Some(Self::Metal),
            _ => Self::ALL
                .into_iter()
                .find(|provider| provider.word() == word),
        }
    }

    /// Keys that this provider has besides the common ones.
    #[must_use]
    pub const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Local => &["isolation", "quota"],
            Self::Myriad => &["isolation", "quota", "image"],
            Self::Docker => &["image", "network"],
            Self::Metal => &["hosts"],
            Self::Kubernetes => &["image", "namespace", "storage_class"],
            Self::Ec2 => &["image", "instance_type", "region", "key_pair"],
        }
    }
}

impl Block {
    /// The words of a provider's own setting.
    #[must_use]
    pub fn setting(&self, key: &str) -> Option<&At<BlockSetting>> {
        self.settings
            .iter()
            .find(|setting| setting.key.value == key)
    }

    /// The host path of what the rnode sees as `path`, by the deepest mount that holds it.
    ///
    /// A mount on `/` is not a prefix of everything but the path itself joined to it.
    #[must_use]
    pub fn host_path(&self, path: &str) -> Option<String> {
        let inside = |mount: &&At<Mount>| rest_below(&mount.path, path).is_some();
        let deepest = self
            .mounts
            .iter()
            .filter(inside)
            .max_by_key(|mount| mount.path.len())?;
        let rest = rest_below(&deepest.path, path)?;
        let host = deepest.host.trim_end_matches('/');
        let empty_host = if host.is_empty() { "/" } else { host };
        Some(if rest.is_empty() {
            empty_host.to_owned()
        } else {
            format!("{host}/{rest}")
        })
    }

    /// Where the block begins.
    #[must_use]
    pub const fn span(&self) -> Span {
        self.provider.span
    }
}

/// What remains of `path` below `base`, without a slash before it.
fn rest_below<'p>(base: &str, path: &'p str) -> Option<&'p str> {
    let rest = path.strip_prefix(base.trim_end_matches('/'))?;
    if rest.is_empty() {
        Some("")
    } else {
        rest.strip_prefix('/')
    }
}
