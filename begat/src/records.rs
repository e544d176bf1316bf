//! The records of executions, one JSON file each, and what they can be found by.
//!
//! `DIR/records/<key>.<n>.json`: the n-th execution of that key; more than one only after a
//! failure, or after the store lost what an earlier one made. Nothing is ever changed or removed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use begat_core::manifest::Input;
use begat_core::record::{Exit, NOT_SEEN, Output, Record, UsedTool};
use crux_core::digest::Digest;
use crux_net::boundary::{Kind as Boundary, cross_file};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind};

/// What `format` says in files of this version.
const FORMAT: &str = "begat-record/1";
/// Largest record that is read.
const RECORD_BYTES_MAX: u64 = 16 << 20;
/// Executions of one key that are kept apart; after that begat refuses to go on.
const REPEATS_MAX: u32 = 100_000;

/// A record and the file it lies in.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The record.
    pub record: Record,
    /// Digest of its JSON text: what documents name it by.
    pub digest: Digest,
    /// Its file name.
    pub name: String,
}

/// The directory of records.
#[derive(Debug)]
pub struct Records {
    dir: PathBuf,
}

impl Records {
    /// Opens the records below begat's directory, making it (0700) if needed.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(begat: &Path) -> Result<Self, Error> {
        let dir = begat.join("records");
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir);
        made.map_err(|source| Error::io("make", &dir, source))?;
        Ok(Self { dir })
    }

    /// Adds a record; it is synced when this returns.
    ///
    /// # Errors
    /// If it cannot be written; nothing is left then.
    pub fn add(&self, record: Record) -> Result<Kept, Error> {
        let text = print(&record)?;
        self.add_bytes(record, text.as_bytes())
    }

    fn add_bytes(&self, record: Record, bytes: &[u8]) -> Result<Kept, Error> {
        for number in 0..REPEATS_MAX {
            let name = format!("{}.{number}.json", record.key);
            let path = self.dir.join(&name);
            match self.write_new(&path, bytes) {
                Ok(()) => {
                    return Ok(Kept {
                        digest: Digest::of(bytes),
                        record,
                        name,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(Error::io("write", &path, source)),
            }
        }
        let message = format!("keep a record of {}: there are too many", record.key);
        Err(Error::new(Kind::TooLarge, message))
    }

    /// Writes a file whole or not at all, and never over another.
    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let beside = path.with_extension(format!(
            "new-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        cross_file(Boundary::Write, path);
        let result = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| {
                cross_file(Boundary::Rename, path);
                fs::hard_link(&beside, path)
            });
        let _ = fs::remove_file(&beside);
        result.and_then(|()| fs::File::open(&self.dir)?.sync_all())
    }

    /// Takes over a record from elsewhere, unless the same one is here.
    ///
    /// # Errors
    /// If it is no record, its key is not that of its text, or it cannot be written.
    pub fn adopt(&self, bytes: &[u8]) -> Result<Kept, Error> {
        let record = read(bytes)?;
        let digest = Digest::of(bytes);
        if let Some(kept) = self
            .of_key(&record.key)
            .into_iter()
            .find(|kept| kept.digest == digest)
        {
            return Ok(kept);
        }
        self.add_bytes(record, bytes)
    }

    /// The records of one key, newest first; files that cannot be read are passed over.
    #[must_use]
    pub fn of_key(&self, key: &Digest) -> Vec<Kept> {
        let mut found = Vec::new();
        for number in 0..REPEATS_MAX {
            match self.load(&format!("{key}.{number}.json")) {
                Some(kept) => found.push(kept),
                None if self.dir.join(format!("{key}.{number}.json")).exists() => {}
                None => break,
            }
        }
        found.reverse();
        found
    }

    /// Every record, by file name.
    #[must_use]
    pub fn all(&self) -> Vec<Kept> {
        let entries = fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .filter_map(Result::ok);
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names.iter().filter_map(|name| self.load(name)).collect()
    }

    fn load(&self, name: &str) -> Option<Kept> {
        if !name.ends_with(".json") {
            return None;
        }
        let path = self.dir.join(name);
        let small = fs::metadata(&path).ok()?.len() <= RECORD_BYTES_MAX;
        let bytes = small.then(|| fs::read(&path).ok()).flatten()?;
        let record = read(&bytes).ok()?;
        Some(Kept {
            record,
            digest: Digest::of(&bytes),
            name: name.to_owned(),
        })
    }

    /// The bytes of a kept record.
    ///
    /// # Errors
    /// If its file cannot be read.
    pub fn bytes(&self, kept: &Kept) -> Result<Vec<u8>, Error> {
        let path = self.dir.join(&kept.name);
        fs::read(&path).map_err(|source| Error::io("read", &path, source))
    }
}

#[derive(Serialize, Deserialize)]
struct RecordTwin {
    format: String,
    key: String,
    name: String,
    dictum: String,
    dictum_text: String,
    execution_text: String,
    inputs: Vec<InputTwin>,
    outputs: Vec<OutputTwin>,
    tools: Vec<ToolTwin>,
    environment: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    started_unix_ms: u64,
    duration_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<String>,
    isolation: String,
    not_seen: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct InputTwin {
    path: String,
    digest: String,
    #[serde(default, skip_serializing_if = "is_false")]
    executable: bool,
}

#[derive(Serialize, Deserialize)]
struct OutputTwin {
    path: String,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "is_false")]
    executable: bool,
}

#[derive(Serialize, Deserialize)]
struct ToolTwin {
    name: String,
    path: String,
    version: String,
    digest: String,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_false(flag: &bool) -> bool {
    !*flag
}

fn print(record: &Record) -> Result<String, Error> {
    let (exit, signal) = match record.exit {
        Exit::Code(code) => (Some(code), None),
        Exit::Signal(signal) => (None, Some(signal)),
    };
    let input = |input: &Input| InputTwin {
        path: input.path.clone(),
        digest: input.digest.to_string(),
        executable: input.executable,
    };
    let output = |output: &Output| OutputTwin {
        path: output.path.clone(),
        digest: output.digest.to_string(),
        size: output.size,
        executable: output.executable,
    };
    let tool = |tool: &UsedTool| ToolTwin {
        name: tool.name.clone(),
        path: tool.path.clone(),
        version: tool.version.clone(),
        digest: tool.digest.to_string(),
    };
    let twin = RecordTwin {
        format: FORMAT.to_owned(),
        key: record.key.to_string(),
        name: record.name.clone(),
        dictum: record.dictum.to_string(),
        dictum_text: record.dictum_text.clone(),
        execution_text: record.execution_text.clone(),
        inputs: record.inputs.iter().map(input).collect(),
        outputs: record.outputs.iter().map(output).collect(),
        tools: record.tools.iter().map(tool).collect(),
        environment: record.environment.clone(),
        exit,
        signal,
        started_unix_ms: record.started_unix_ms,
        duration_ms: record.duration_ms,
        log: record.log.map(|log| log.to_string()),
        isolation: "none".to_owned(),
        not_seen: NOT_SEEN.iter().map(|text| (*text).to_owned()).collect(),
    };
    let print = |error| Error::new(Kind::Store, "print a record").caused_by(error);
    serde_json::to_string_pretty(&twin)
        .map(|text| text + "\n")
        .map_err(print)
}

/// Reads a record and checks that its digests are those of its texts.
fn read(bytes: &[u8]) -> Result<Record, Error> {
    let wrong = |reason: &str| Error::new(Kind::Store, format!("read a record: {reason}"));
    let twin: RecordTwin = serde_json::from_slice(bytes)
        .map_err(|error| wrong("it is not of the form").caused_by(error))?;
    if twin.format != FORMAT {
        return Err(wrong(&format!(
            "its format is `{}`, not `{FORMAT}`",
            twin.format
        )));
    }
    let digest = |text: &str| {
        text.parse::<Digest>()
            .map_err(|_| wrong("a digest in it is none"))
    };
    let (key, dictum) = (digest(&twin.key)?, digest(&twin.dictum)?);
    let own = Digest::of(twin.execution_text.as_bytes()) == key
        && Digest::of(twin.dictum_text.as_bytes()) == dictum;
    if !own {
        return Err(wrong("its key is not that of its text"));
    }
    let exit = match (twin.exit, twin.signal) {
        (Some(code), None) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        _ => return Err(wrong("it needs either `exit` or `signal`")),
    };
    let inputs = twin.inputs.into_iter().map(|input| {
        let digest = digest(&input.digest)?;
        Ok(Input {
            path: input.path,
            digest,
            executable: input.executable,
        })
    });
    let outputs = twin.outputs.into_iter().map(|output| {
        let digest = digest(&output.digest)?;
        let OutputTwin {
            path,
            size,
            executable,
            ..
        } = output;
        Ok(Output {
            path,
            digest,
            size,
            executable,
        })
    });
    let tools = twin.tools.into_iter().map(|tool| {
        let digest = digest(&tool.digest)?;
        Ok(UsedTool {
            name: tool.name,
            path: tool.path,
            version: tool.version,
            digest,
        })
    });
    Ok(Record {
        key,
        name: twin.name,
        dictum,
        dictum_text: twin.dictum_text,
        execution_text: twin.execution_text,
        inputs: inputs.collect::<Result<_, Error>>()?,
        outputs: outputs.collect::<Result<_, Error>>()?,
        tools: tools.collect::<Result<_, Error>>()?,
        environment: twin.environment,
        exit,
        started_unix_ms: twin.started_unix_ms,
        duration_ms: twin.duration_ms,
        log: twin.log.as_deref().map(digest).transpose()?,
    })
}
