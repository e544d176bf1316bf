//! What is on disk of an execution: `start`, `stdout`, `stderr` and exactly one `outcome`.
//!
//! ```text
//! executions/<id>/stdout   written by the program itself
//!                /stderr
//!                /start    the start, durable before the program runs, and behind it room for the outcome
//!                /outcome  the same file again, or a copy where a file has one name only, once the outcome is durable in it;
//!                          only then it is told
//!
//! start: │ JSON, blanks up to a whole room │ one room: blanks, then the outcome as JSON and blanks │
//! ```
//! A directory without a whole `start` never ran anything. One without an outcome has not ended, or its keeper died; a
//! whole outcome counts without the name `outcome` too, which need not be durable.
//!
//! The room is written and synced with the start: a full disk loses no outcome, and writing one changes no metadata, so that
//! its sync costs no more than the block itself. The directory entries of a new file are durable with its own sync on the
//! file systems we know (ext4, xfs, btrfs: one journal commit); on another one a loss of power, which ends every execution
//! anyway, might take the record of the newest starts.
//!
//! A directory with all of this, blank and synced, is made ahead where there is time: `spares/<number>`. To start in one is
//! to rename it and to write a block in place, which needs no new entry of a directory on disk: after a loss of power it may
//! be found under its number, and what its start names is what it is.
//!
//! Older keepers reserved the room in a file `outcome.new`, which became `outcome`; what they left is still read and ended so.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crux_wire::keeper::v1::{Outcome, OutcomeKind};
use serde::{Deserialize, Serialize};

use super::packet::TOLD_BYTES_MAX;

/// The longest name of an execution, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 128;

/// Room reserved for an outcome. 4 KiB: a block of its own, so that writing it cannot tear the start.
const ROOM_BYTES: usize = 4096;

/// The longest reason kept in an outcome, in bytes; escaped it still fits the room reserved.
const REASON_BYTES_MAX: usize = 512;

/// The file of an outcome to be, of keepers that kept none behind the start.
const STAGED: &str = "outcome.new";

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
    spares: PathBuf,
}

/// An execution found on disk.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) start: Start,
    pub(crate) outcome: Option<Outcome>,
}

/// A new execution's directory with its files open.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) stdout: File,
    pub(crate) stderr: File,
    start: File,
}

/// A blank directory, durable, for an execution to come.
#[derive(Debug)]
pub(crate) struct Spare {
    path: PathBuf,
    created: Created,
}

impl Records {
    /// Opens or makes the directories below the rnode's own.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let keeper = dir.join("keeper");
        let (root, spares) = (keeper.join("executions"), keeper.join("spares"));
        for dir in [&root, &spares] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)?;
        }
        File::open(keeper)?.sync_all()?;
        Ok(Self { root, spares })
    }

    /// Where a file of an execution is.
    pub(crate) fn path(&self, execution: &str, file: &str) -> PathBuf {
        self.root.join(execution).join(file)
    }

    /// Makes a blank directory that no other has this number of.
    pub(crate) fn prepare(&self, number: u64) -> io::Result<Spare> {
        let path = self.spares.join(number.to_string());
        let blank = || {
            let created = make(&path)?;
            created.start.write_all_at(&[b' '; 2 * ROOM_BYTES], 0)?;
            created.start.sync_all()?;
            Ok(created)
        };
        match blank() {
            Ok(created) => Ok(Spare { path, created }),
            Err(error) => {
                // What is left of it is removed by the next keeper.
                let _ = fs::remove_dir_all(path);
                Err(error)
            }
        }
    }

    /// Makes an execution's directory and its files, or takes the spare.
    pub(crate) fn create(&self, execution: &str, spare: Option<Spare>) -> io::Result<Created> {
        let path = self.root.join(execution);
        let Some(spare) = spare else {
            return make(&path);
        };
        if fs::rename(&spare.path, &path).is_err() {
            // What is left of it is removed by the next keeper; if none can be made either, that says why.
            let _ = fs::remove_dir_all(spare.path);
            return make(&path);
        }
        Ok(spare.created)
    }

    /// Records a start with room for its outcome; both are durable when this returns.
    pub(crate) fn write_start(&self, created: &Created, start: &Start) -> io::Result<()> {
        let mut text = serde_json::to_vec(start)?;
        text.resize(text.len().next_multiple_of(ROOM_BYTES) + ROOM_BYTES, b' ');
        let file = &created.start;
        let in_place = file.metadata()?.len() == text.len() as u64;
        file.write_all_at(&text, 0)?;
        if in_place {
            return file.sync_data();
        }
        file.sync_all()
    }

    /// Records an outcome; it is durable when this returns.
    pub(crate) fn write_outcome(&self, execution: &str, outcome: &Outcome) -> io::Result<()> {
        let mut text = serde_json::to_vec(&OutcomeFile::from(outcome))?;
        if text.len() > ROOM_BYTES {
            return Err(io::Error::other("the outcome is larger than its room"));
        }
        // Always the whole room, so that nothing of an earlier try stays behind it and no metadata changes.
        text.resize(ROOM_BYTES, b' ');
        let write = |path: &Path| {
            let file = OpenOptions::new().write(true).open(path)?;
            let behind_start = file.metadata()?.len().saturating_sub(ROOM_BYTES as u64);
            file.write_all_at(&text, behind_start)?;
            file.sync_data()
        };
        match write(&self.path(execution, STAGED)) {
            Ok(()) => self.take_place(execution, STAGED),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write(&self.path(execution, "start"))?;
                self.take_place(execution, "start")
            }
            Err(error) => Err(error),
        }
    }

    /// Makes what holds the outcome known as such.
    fn take_place(&self, execution: &str, holder: &str) -> io::Result<()> {
        let (holder, place) = (
            self.path(execution, holder),
            self.path(execution, "outcome"),
        );
        if holder.ends_with(STAGED) {
            return fs::rename(holder, place);
        }
        match fs::hard_link(&holder, &place) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            // Not every file system gives a file two names.
            Err(_) => copy_whole(&holder, &self.path(execution, STAGED), &place),
        }
    }

    /// Reads the outcome at the end of a file; `None` while there is no such file.
    pub(crate) fn read_outcome(path: &Path) -> io::Result<Option<Outcome>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut text = [b' '; ROOM_BYTES];
        let behind_start = file.metadata()?.len().saturating_sub(ROOM_BYTES as u64);
        file.read_exact_at(&mut text, behind_start)?;
        let file: OutcomeFile = serde_json::from_slice(&text)?;
        Ok(Some(file.into()))
    }

    /// Reads a start; `None` where there is no whole one.
    fn read_start(path: &Path) -> Option<Start> {
        let text = fs::read(path).ok()?;
        // Behind it stands nothing, blanks, or an outcome.
        let mut values = serde_json::Deserializer::from_slice(&text).into_iter();
        values.next()?.ok()
    }

    /// Removes an execution's directory; after a crash it is there as a whole or will be removed.
    pub(crate) fn forget(&self, execution: &str) -> io::Result<()> {
        let forgotten = self.root.join(format!("{FORGOTTEN}{execution}"));
        fs::rename(self.root.join(execution), &forgotten)?;
        fs::remove_dir_all(forgotten)
    }

    /// Finds all executions in the order of their start, and removes what never ran or was forgotten.
    pub(crate) fn scan(&self) -> io::Result<Vec<Found>> {
        self.scan_spares()?;
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let path = self.root.join(&name);
            match Self::read_start(&path.join("start")) {
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

    /// Gives each spare that an execution was started in its name, and removes the others.
    fn scan_spares(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.spares)? {
            let path = entry?.path();
            let start = Self::read_start(&path.join("start"));
            let Some(start) = start.filter(|start| is_name(&start.execution)) else {
                fs::remove_dir_all(path)?;
                continue;
            };
            // One of that name that was forgotten may have come back with the same loss of power.
            let named = Self::read_start(&self.path(&start.execution, "start"));
            if named.is_some_and(|named| named.order >= start.order) {
                fs::remove_dir_all(path)?;
                continue;
            }
            match self.forget(&start.execution) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => fs::rename(path, self.root.join(&start.execution))?,
            }
        }
        Ok(())
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
        for holder in [STAGED, "start"] {
            // What cannot be read is the room reserved, or an outcome that was never told.
            if let Ok(Some(outcome)) = Self::read_outcome(&self.path(execution, holder)) {
                self.take_place(execution, holder)?;
                return Ok(Some(outcome));
            }
        }
        Ok(None)
    }
}

/// Copies a file whose content is durable, and shows nothing of it under its name before all of it is there.
fn copy_whole(from: &Path, staged: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, staged)?;
    fs::rename(staged, to)
}

/// Makes a directory that is not there, with the files of an execution.
fn make(path: &Path) -> io::Result<Created> {
    fs::DirBuilder::new().mode(0o700).create(path)?;
    let make = |options: &mut OpenOptions, name| {
        let options = options.create_new(true).mode(0o600);
        options.open(path.join(name))
    };
    Ok(Created {
        stdout: make(OpenOptions::new().append(true), "stdout")?,
        stderr: make(OpenOptions::new().append(true), "stderr")?,
        start: make(OpenOptions::new().write(true), "start")?,
    })
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

    fn start(execution: &str, order: u64) -> Start {
        Start {
            execution: execution.to_owned(),
            instance: String::new(),
            configuration: String::new(),
            command: String::new(),
            argv: Vec::new(),
            digest: String::new(),
            label: String::new(),
            pid: 7,
            start_ticks: 8,
            boot: "boot".to_owned(),
            started_unix_ms: 9,
            detached: false,
            output_bytes_max: 1,
            time_limit_ms: 0,
            order,
        }
    }

    #[test]
    fn a_spare_is_what_its_start_says_whether_or_not_it_has_the_name() {
        let dir = std::env::temp_dir().join(format!("fulcrum-spares-{}", std::process::id()));
        let records = Records::open(&dir).unwrap();
        let spare = |number| records.prepare(number).unwrap();
        let write = |created: &Created, start: &Start| records.write_start(created, start).unwrap();
        // Two that have their name, one of them with a start that is larger than its room.
        let mut long = start("long", 1);
        long.argv = vec!["x".repeat(3 * ROOM_BYTES)];
        write(&records.create("long", Some(spare(1))).unwrap(), &long);
        write(&records.create("made", None).unwrap(), &start("made", 2));
        // Two whose names were lost with the power; of one a forgotten run came back. One lost to a later run; one blank.
        write(&spare(3).created, &start("lost", 3));
        write(&records.create("again", None).unwrap(), &start("again", 4));
        let outcome = Outcome::default();
        records.write_outcome("again", &outcome).unwrap();
        write(&spare(5).created, &start("again", 5));
        write(&spare(6).created, &start("made", 1));
        drop(spare(7));
        // Somebody took it away.
        let taken = spare(8);
        fs::remove_dir_all(&taken.path).unwrap();
        write(
            &records.create("own", Some(taken)).unwrap(),
            &start("own", 6),
        );
        let found = records.scan().unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|found| (found.start.execution.as_str(), found.start.order))
            .collect();
        let left = fs::read_dir(&records.spares).unwrap().count();
        let ended = records.find_outcome("again").unwrap();
        records.write_outcome("long", &outcome).unwrap();
        let whole = Records::read_start(&records.path("long", "start"));
        fs::remove_dir_all(&dir).unwrap();
        let expected = [
            ("long", 1),
            ("made", 2),
            ("lost", 3),
            ("again", 5),
            ("own", 6),
        ];
        assert_eq!(found, expected);
        assert_eq!((left, ended, whole), (0, None, Some(long)));
    }

    #[test]
    fn an_outcome_is_known_as_such_where_a_file_has_one_name_only() {
        let dir = std::env::temp_dir().join(format!("fulcrum-names-{}", std::process::id()));
        let records = Records::open(&dir).unwrap();
        let created = records.create("one", None).unwrap();
        records.write_start(&created, &start("one", 1)).unwrap();
        let outcome = Outcome {
            kind: OutcomeKind::Exited.into(),
            code: 3,
            ..Outcome::default()
        };
        records.write_outcome("one", &outcome).unwrap();
        let (holder, place) = (records.path("one", "start"), records.path("one", "outcome"));
        fs::remove_file(&place).unwrap();
        copy_whole(&holder, &records.path("one", STAGED), &place).unwrap();
        let ended = Records::read_outcome(&place).unwrap();
        let found = records.scan().unwrap();
        let left = fs::read_dir(dir.join("keeper/executions/one"))
            .unwrap()
            .count();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(ended, Some(outcome));
        assert_eq!(found[0].outcome, ended);
        assert_eq!(left, 4, "stdout, stderr, start and outcome");
    }

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
