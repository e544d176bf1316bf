//! What is kept of an execution.

use std::collections::BTreeMap;

use crux_core::digest::Digest;

use crate::manifest::Input;

/// What first-version begat cannot see, as every record says.
pub const NOT_SEEN: [&str; 3] = [
    "undeclared reads of files",
    "use of the network",
    "reads of the clock",
];

/// A file that an execution left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Relative to the tree's root.
    pub path: String,
    /// Digest of its bytes, under which the store has it.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Whether it may be executed.
    pub executable: bool,
}

/// A program of the host, as it was when it was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedTool {
    /// Its name.
    pub name: String,
    /// Where it was found.
    pub path: String,
    /// What it said of itself, first line.
    pub version: String,
    /// Digest of all it said of itself.
    pub digest: Digest,
}

/// How an execution ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// One execution of a dictum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Digest of the execution's text: the same key means the same outputs.
    pub key: Digest,
    /// The dictum's name at the time, for people.
    pub name: String,
    /// Digest of the dictum's text.
    pub dictum: Digest,
    /// The dictum's text.
    pub dictum_text: String,
    /// The execution's text, over which `key` is.
    pub execution_text: String,
    /// What was read, sorted by path.
    pub inputs: Vec<Input>,
    /// What was left, sorted by path; empty after a failure.
    pub outputs: Vec<Output>,
    /// Programs of the host.
    pub tools: Vec<UsedTool>,
    /// Environment that was passed on from the caller's, on top of the dictum's own.
    pub environment: BTreeMap<String, String>,
    /// How it ended.
    pub exit: Exit,
    /// When it began, in Unix milliseconds.
    pub started_unix_ms: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Digest of its output to standard output and error, in the store.
    pub log: Option<Digest>,
}

impl Record {
    /// Whether it ended well.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.exit == Exit::Code(0)
    }
}
