//! What is on disk of an execution: `start`, `stdout`, `stderr` and exactly one `outcome`.
//!
//! ```text
//! executions/<id>/start        JSON, durable before the program runs
//!                /stdout       written by the program itself
//!                /stderr
//!                /outcome.new  room reserved at the start, so that a full disk loses no outcome
//!                /outcome      JSON, durable before it is told
//! ```
//! A directory without a whole `start` never ran anything. One without `outcome` has not ended, or its keeper died;
//! a whole outcome in `outcome.new` counts, for its renaming need not be durable.
//!
//! Each of the two records costs one flush of the disk, which is most of what an execution costs. The directory entries of
//! a new file are durable with its own sync on the file systems we know (ext4, xfs, btrfs: one journal commit); on another
//! one a loss of power, which ends every execution anyway, might take the record of the newest starts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crux_wire::keeper::v1::{Outcome, OutcomeKind};
use serde::{Deserialize, Serialize};

use super::packet::TOLD_BYTES_MAX;

/// The longest name of an execution, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 128;

/// Room reserved for an outcome.
const OUTCOME_BYTES_RESERVED: usize = 4096;

/// The longest reason kept in an outcome, in bytes; escaped it still fits the room reserved.
const REASON_BYTES_MAX: usize = 512;

/// Where a forgotten execution goes until it is removed.
const FORGOTTEN: &str = ".forgotten-";

/// What was started, as recorded before it ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) execution: String,
    pub(crate) instance: String,
    pub(crate) configuration: String,
    pub(crate) command: String,
    /// Empty in memory after the start: only the file keeps it.
    pub(crate) argv: Vec<String>,
    pub(crate) digest: String,
    /// Opaque bytes of the agent, in hex.
    pub(crate) label: String,
    pub(crate) pid: i32,
    pub(crate) start_ticks: u64,
    pub(crate) boot: String,
    pub(crate) started_unix_ms: u64,
    pub(crate) detached: bool,
    pub(crate) output_bytes_max: u64,
    /// 0: it may take any time.
    #[serde(default)]
    pub(crate) time_limit_ms: u64,
    /// Position among the keeper's executions.
    pub(crate) order: u64,
}

impl Start {
    /// Leaves out what is longer than a request may bring; true if anything was.
    pub(crate) fn shorten(&mut self) -> bool {
        let told = [
            &mut self.instance,
            &mut self.configuration,
            &mut self.command,
            &mut self.digest,
        ];
        // A label is kept in hex.
        let bounds = told
            .into_iter()
            .map(|text| (text, TOLD_BYTES_MAX))
            .chain([(&mut self.label, 2 * TOLD_BYTES_MAX)]);
        let mut shortened = false;
        for (text, bound) in bounds {
            if text.len() > bound {
                *text = String::new();
                shortened = true;
            }
        }
        shortened
    }
}

/// An outcome as written.
#[derive(Serialize, Deserialize)]
struct OutcomeFile {
    kind: String,
    code: i32,
    ended_unix_ms: u64,
    user_cpu_us: u64,
    system_cpu_us: u64,
    memory_peak_bytes: u64,
    reason: String,
    #[serde(default)]
    timed_out: bool,
}

/// The directory `executions`.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    root: PathBuf,
}

/// An execution found on disk.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) start: Start,
    pub(crate) outcome: Option<Outcome>,
}

/// A new execution's directory with its output files open.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) stdout: File,
    pub(crate) stderr: File,
}

impl Records {
    /// Opens or makes the directory below the rnode's own.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let root = dir.join("keeper").join("executions");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&root)?;
        File::open(dir.join("keeper"))?.sync_all()?;
        Ok(Self { root })
    }

    /// Where a file of an execution is.
    pub(crate) fn path(&self, execution: &str, file: &str) -> PathBuf {
        self.root.join(execution).join(file)
    }

    /// Makes an execution's directory, its output files, and room for its outcome.
    pub(crate) fn create(&self, execution: &str) -> io::Result<Created> {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(self.root.join(execution))?;
        let output = |name| {
            let mut options = OpenOptions::new();
            options
                .append(true)
                .create_new(true)
                .mode(0o600)
                .open(self.path(execution, name))
        };
        let created = Created {
            stdout: output("stdout")?,
            stderr: output("stderr")?,
        };
        let mut options = OpenOptions::new();
        let path = self.path(execution, "outcome.new");
        let mut outcome = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        outcome.write_all(&[b' '; OUTCOME_BYTES_RESERVED])?;
        Ok(created)
    }

    /// Records a start; it is durable when this returns.
    pub(crate) fn write_start(&self, start: &Start) -> io::Result<()> {
        let path = self.path(&start.execution, "start");
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(&serde_json::to_vec(start)?)?;
        file.sync_all()
    }

    /// Records an outcome; it is durable when this returns.
    pub(crate) fn write_outcome(&self, execution: &str, outcome: &Outcome) -> io::Result<()> {
        let staged = self.path(execution, "outcome.new");
        let mut text = serde_json::to_vec(&OutcomeFile::from(outcome))?;
        // Always the whole room, so that nothing of an earlier try stays behind it and no metadata changes.
        text.resize(text.len().max(OUTCOME_BYTES_RESERVED), b' ');
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&staged)?;
        file.write_all_at(&text, 0)?;
        file.sync_data()?;
        fs::rename(&staged, self.path(execution, "outcome"))
    }

    /// Reads an outcome; `None` while there is none.
    pub(crate) fn read_outcome(path: &Path) -> io::Result<Option<Outcome>> {
        let mut text = Vec::new();
        match File::open(path) {
            Ok(file) => file
                .take(2 * OUTCOME_BYTES_RESERVED as u64)
                .read_to_end(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let file: OutcomeFile = serde_json::from_slice(&text)?;
        Ok(Some(file.into()))
    }

    /// Removes an execution's directory; after a crash it is there as a whole or will be removed.
    pub(crate) fn forget(&self, execution: &str) -> io::Result<()> {
        let forgotten = self.root.join(format!("{FORGOTTEN}{execution}"));
        fs::rename(self.root.join(execution), &forgotten)?;
        fs::remove_dir_all(forgotten)
    }

    /// Finds all executions in the order of their start, and removes what never ran or was forgotten.
    pub(crate) fn scan(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let path = self.root.join(&name);
            let start = fs::read(path.join("start")).ok();
            let start = start.and_then(|text| serde_json::from_slice::<Start>(&text).ok());
            match start {
                Some(start) if !name.starts_with(FORGOTTEN) && start.execution == name => {
                    let outcome = self.find_outcome(&name)?;
                    found.push(Found { start, outcome });
                }
                _ => fs::remove_dir_all(path)?,
            }
        }
        found.sort_by_key(|found| found.start.order);
        Ok(found)
    }

    /// The outcome of an execution, put in its place if a crash kept it from there.
    fn find_outcome(&self, execution: &str) -> io::Result<Option<Outcome>> {
        match Self::read_outcome(&self.path(execution, "outcome")) {
            Ok(None) => {}
            Ok(outcome) => return Ok(outcome),
            Err(error) => {
                tracing::warn!(execution, %error, "an outcome cannot be read");
                return Ok(None);
            }
        }
        let staged = self.path(execution, "outcome.new");
        // What cannot be read is the room reserved, or an outcome that was never told.
        let Ok(Some(outcome)) = Self::read_outcome(&staged) else {
            return Ok(None);
        };
        fs::rename(staged, self.path(execution, "outcome"))?;
        Ok(Some(outcome))
    }
}

/// Whether a text can name an execution: a plain file name.
pub(crate) fn is_name(text: &str) -> bool {
    let known =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@' | '+' | ',' | '=');
    !text.is_empty()
        && text.len() <= NAME_BYTES_MAX
        && !text.starts_with('.')
        && text.chars().all(known)
}

impl From<&Outcome> for OutcomeFile {
    fn from(outcome: &Outcome) -> Self {
        let kind = match outcome.kind() {
            OutcomeKind::Exited => "exited",
            OutcomeKind::Signalled => "signalled",
            OutcomeKind::NotStarted => "not_started",
            OutcomeKind::Lost | OutcomeKind::Unspecified => "lost",
        };
        let mut reason = outcome.reason.clone();
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        Self {
            kind: kind.to_owned(),
            code: outcome.code,
            ended_unix_ms: outcome.ended_unix_ms,
            user_cpu_us: outcome.user_cpu_us,
            system_cpu_us: outcome.system_cpu_us,
            memory_peak_bytes: outcome.memory_peak_bytes,
            reason,
            timed_out: outcome.timed_out,
        }
    }
}

impl From<OutcomeFile> for Outcome {
    fn from(file: OutcomeFile) -> Self {
        let kind = match file.kind.as_str() {
            "exited" => OutcomeKind::Exited,
            "signalled" => OutcomeKind::Signalled,
            "not_started" => OutcomeKind::NotStarted,
            _ => OutcomeKind::Lost,
        };
        Self {
            kind: kind.into(),
            code: file.code,
            ended_unix_ms: file.ended_unix_ms,
            user_cpu_us: file.user_cpu_us,
            system_cpu_us: file.system_cpu_us,
            memory_peak_bytes: file.memory_peak_bytes,
            reason: file.reason,
            timed_out: file.timed_out,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_file_names_name_an_execution() {
        for good in ["a", "stix-prog2-4@7", "1.2"] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".x",
            "a/b",
            "a b",
            "a\0",
            "ü",
            &"x".repeat(129),
        ] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
