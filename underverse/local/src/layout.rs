//! Where everything lies below `$RADIX_HOME`; drawn in docs/design/first-light.md §1.

use std::path::{Path, PathBuf};

use crux_core::digest::Digest;

/// File in a rnode's directory that says that it is to end for good; its agent leaves the flock then.
pub(crate) const LEAVING: &str = "leaving";

/// The state directory of one owner on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home(PathBuf);

impl Home {
    /// Takes the directory; it need not exist.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Eight digits that tell this directory from others, for names that the whole machine shares.
    pub(crate) fn short(&self) -> String {
        let digest = Digest::of(self.0.as_os_str().as_encoded_bytes()).to_string();
        digest.chars().take(8).collect()
    }

    /// Where all hordes are.
    #[must_use]
    pub fn hordes(&self) -> PathBuf {
        self.0.join("hordes")
    }

    /// Where one horde is.
    #[must_use]
    pub fn horde(&self, namespace: &str) -> PathBuf {
        self.hordes().join(namespace)
    }

    /// A nested rnode's directory.
    #[must_use]
    pub fn rnode(&self, namespace: &str, label: &str) -> PathBuf {
        self.horde(namespace).join(label)
    }

    /// A nested rnode's memoir; stays after the rnode.
    #[must_use]
    pub fn memoir(&self, namespace: &str, label: &str) -> PathBuf {
        self.0.join("memoirs").join(namespace).join(label)
    }

    pub(crate) fn record(&self, namespace: &str) -> PathBuf {
        self.horde(namespace).join("horde.json")
    }

    pub(crate) fn addresses(&self, namespace: &str) -> PathBuf {
        self.horde(namespace).join("addresses.json")
    }

    pub(crate) fn events(&self, namespace: &str) -> PathBuf {
        self.horde(namespace).join("events.jsonl")
    }

    /// The last event that the base was told of.
    pub(crate) fn told(&self, namespace: &str) -> PathBuf {
        self.horde(namespace).join("told")
    }

    pub(crate) fn answers(&self, namespace: &str) -> PathBuf {
        self.horde(namespace).join("answers.json")
    }

    /// The last generation of a namespace, in decimal; stays after `down`.
    pub(crate) fn generation(&self, namespace: &str) -> PathBuf {
        self.0.join("generations").join(namespace)
    }

    /// The last number used of a dissolved horde.
    pub(crate) fn spent(&self, namespace: &str) -> PathBuf {
        self.0
            .join("generations")
            .join(format!(".{namespace}.spent"))
    }

    /// What was said of this machine's servers.
    pub(crate) fn servers(&self) -> PathBuf {
        self.0.join("servers.json")
    }

    /// Where exposures and allotments are kept.
    #[must_use]
    pub fn storage(&self) -> PathBuf {
        self.0.join("storage")
    }

    /// Where executions without a base rnode are kept.
    #[must_use]
    pub fn direct(&self) -> PathBuf {
        self.0.join("direct")
    }

    /// The external addresses that are given out.
    pub(crate) fn external(&self) -> PathBuf {
        self.0.join("external.json")
    }

    /// Where the switch of the owner's flock is held.
    pub(crate) fn flock_switch(&self) -> PathBuf {
        self.0.join("switch")
    }

    /// What the containers of a horde on a switch see as `/etc/hosts`.
    pub(crate) fn hosts(&self, namespace: &str) -> PathBuf {
        self.horde(namespace).join("hosts")
    }

    /// What the containers of a horde on a switch see as `/etc/resolv.conf`.
    pub(crate) fn resolver(&self, namespace: &str) -> PathBuf {
        self.horde(namespace).join("resolv.conf")
    }

    /// Where `myriad` keeps what it spawned.
    #[must_use]
    pub fn myriad(&self) -> PathBuf {
        self.0.join("myriad")
    }
}
