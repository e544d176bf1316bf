//! Storage as asked for and as exposed; nothing is bound before `realise`.

use std::collections::BTreeSet;
use std::fmt;

use crate::capability::Strength;
use crate::name::ByteCount;

/// Names storage asked for within one horde: derived from the request's order, so stable over restarts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorageId(String);

impl StorageId {
    pub(crate) fn of_request(horde: &str, ordinal: usize) -> Self {
        Self(format!("{horde}/storage/{ordinal}"))
    }

    /// Takes an id as it was written down by [`StorageId::as_str`]; only backends and wire formats need it.
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

impl fmt::Display for StorageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What shape storage has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StorageKind {
    /// A directory.
    FileTree,
    /// A block device.
    Volume,
}

/// Storage asked for. Each container gets its own allotment unless `shared` is among the properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageRequest {
    /// Its name; mounts use it.
    pub id: StorageId,
    /// Its shape.
    pub kind: StorageKind,
    /// Least capacity.
    pub capacity: ByteCount,
    /// Words such as `fast`, `robust`, `shared`, `ephemeral`; all but `shared` must be among the exposure's tags.
    pub properties: BTreeSet<String>,
}

impl fmt::Display for StorageRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            StorageKind::FileTree => "file tree",
            StorageKind::Volume => "volume",
        };
        write!(formatter, "{kind} of {}", self.capacity)?;
        for property in &self.properties {
            write!(formatter, " {property}")?;
        }
        Ok(())
    }
}

/// Splits properties written in one text, at white space or commas.
#[must_use]
pub fn properties(text: &str) -> BTreeSet<String> {
    text.split(|c: char| c.is_whitespace() || c == ',')
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Storage that an administrator offers on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageExposure {
    /// Server it lies on.
    pub server: String,
    /// Directory or device, as the plug-in named by `bind` reads it.
    pub source: String,
    /// `scheme` or `scheme:argument`: which plug-in binds it.
    pub bind: String,
    /// Its shape.
    pub kind: StorageKind,
    /// Properties it has.
    pub tags: BTreeSet<String>,
    /// More may be promised than there is: sizes are counted and reported, but neither limited nor enforced.
    pub thin: bool,
}

/// An exposure with what is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposed {
    /// What was offered.
    pub exposure: StorageExposure,
    /// What it could hold when it was exposed, as probed.
    pub capacity: ByteCount,
    /// The sum of what is allotted of it.
    pub allotted: ByteCount,
    /// How strongly sizes hold on it.
    pub size: Strength,
}

impl Exposed {
    /// What can still be allotted; `None` on a thin one, which has no limit.
    #[must_use]
    pub fn available(&self) -> Option<ByteCount> {
        let left = self.capacity.get().saturating_sub(self.allotted.get());
        (!self.exposure.thin).then_some(ByteCount::bytes(left))
    }
}
