//! Runs one dictum's commands in a work directory of its own and keeps what they leave.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use begat_core::dictum::{Dictum, Form, Paths, Product};
use begat_core::record::{Exit, Output};
use crux_core::digest::Digest;
use crux_net::store::{Put, Store};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::error::{Error, Kind};
use crate::tools::Host;

/// Time after which a dictum without `limit seconds=` is ended.
pub const SECONDS_MAX_DEFAULT: u64 = 3600;
/// Between looks at whether a running dictum is to be stopped, or prints too much.
const TICK: Duration = Duration::from_millis(200);
/// Between asking a program to end and ending it.
const GRACE: Duration = Duration::from_secs(5);
/// What a dictum may print.
const LOG_BYTES_MAX: u64 = 256 << 20;
/// What of its output an error shows.
const TAIL_BYTES: u64 = 8 << 10;
const TAIL_LINES: usize = 40;
/// Files that one output directory may hold.
const OUTPUT_FILES_MAX: usize = 100_000;

/// Age from which a work directory that nobody has locked is a dead build's.
const ABANDONED_AFTER: Duration = Duration::from_secs(60);

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// A directory that lives as long as one execution.
#[derive(Debug)]
pub(crate) struct Work {
    dir: PathBuf,
    /// Locked while it is in use, so that others can tell what is abandoned.
    _lock: fs::File,
}

impl Work {
    pub(crate) fn make(begat: &Path) -> Result<Self, Error> {
        let dir = fresh(&begat.join("work"))?;
        let failed = |source| Error::io("make", &dir, source);
        let lock = fs::File::create(dir.join("lock")).map_err(failed)?;
        lock.lock().map_err(failed)?;
        for part in ["out", "in"] {
            fs::create_dir(dir.join(part)).map_err(failed)?;
        }
        Ok(Self { dir, _lock: lock })
    }

    /// Removes what dead builds left.
    pub(crate) fn sweep(begat: &Path) {
        let entries = fs::read_dir(begat.join("work")).into_iter().flatten();
        for entry in entries.filter_map(Result::ok) {
            let lock = fs::File::open(entry.path().join("lock"));
            // A young one may be about to be locked.
            let age = entry.metadata().and_then(|found| found.modified()).ok();
            let old = age
                .and_then(|made| SystemTime::now().duration_since(made).ok())
                .is_some_and(|age| age > ABANDONED_AFTER);
            if old && lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    pub(crate) fn output(&self, path: &str) -> PathBuf {
        self.dir.join("out").join(path)
    }

    /// Lays a copy of a blob where the dictum can read it; returns its path.
    pub(crate) fn lay(&self, store: &Store, made: &Output) -> Result<String, Error> {
        let path = self.dir.join("in").join(&made.path);
        let failed = |source| Error::io("lay out an input at", &path, source);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let (mut from, _) = store.open_verified(&made.digest)?;
        let mut to = fs::File::create(&path).map_err(failed)?;
        std::io::copy(&mut from, &mut to).map_err(failed)?;
        let mode = if made.executable { 0o555 } else { 0o444 };
        to.set_permissions(fs::Permissions::from_mode(mode))
            .map_err(failed)?;
        Ok(path.display().to_string())
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Stores what has been printed.
    pub(crate) fn keep_log(&self, store: &Store) -> Option<Digest> {
        store.put_file(&self.log()).ok().map(|info| info.digest)
    }

    /// The last lines that were printed.
    pub(crate) fn tail(&self) -> String {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = fs::File::open(self.log())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

/// Makes a directory under a name that nobody has.
fn fresh(work: &Path) -> Result<PathBuf, Error> {
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(work);
    made.map_err(|source| Error::io("make", work, source))?;
    builder.recursive(false);
    loop {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let dir = work.join(format!("{}-{serial}", std::process::id()));
        match builder.create(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(Error::io("make", &dir, source)),
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // Outputs may be read-only directories; what stays is swept by the next build.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What the commands of a dictum are run with.
pub(crate) struct Run<'a> {
    pub(crate) dictum: &'a Dictum,
    pub(crate) work: &'a Work,
    pub(crate) tree: &'a Path,
    pub(crate) host: &'a Host,
    pub(crate) inputs: &'a [String],
    pub(crate) cancel: &'a AtomicBool,
}

impl Run<'_> {
    /// Runs every command until one fails.
    pub(crate) fn run(&self) -> Result<Exit, Error> {
        let outputs = self.make_room()?;
        let paths = Paths {
            inputs: self.inputs,
            outputs: &outputs,
        };
        let deadline = Instant::now() + self.limit()?;
        for step in &self.dictum.steps {
            let argv = step.argv(paths).map_err(|error| {
                Error::new(Kind::Missing, error.to_string()).at(self.dictum.span)
            })?;
            let status = self.command(&argv, deadline)?;
            if !status.success() {
                return Ok(exit(status));
            }
        }
        Ok(Exit::Code(0))
    }

    /// Makes the folders that outputs go into, and returns the paths of the outputs.
    fn make_room(&self) -> Result<Vec<String>, Error> {
        let room = |product: &Product| {
            let path = self.work.output(&product.path);
            let folder = if product.form == Form::Dir {
                Some(path.as_path())
            } else {
                path.parent()
            };
            let made = folder.map_or(Ok(()), fs::create_dir_all);
            made.map_err(|source| Error::io("make room at", &path, source))?;
            Ok(path.display().to_string())
        };
        self.dictum.products.iter().map(room).collect()
    }

    fn limit(&self) -> Result<Duration, Error> {
        let mut seconds = SECONDS_MAX_DEFAULT;
        for (name, value) in &self.dictum.limits {
            let parsed: Option<u64> = value.parse().ok();
            match (name.as_str(), parsed) {
                ("seconds", Some(given)) if given > 0 => seconds = given,
                _ => {
                    let message = format!("build `{}`: limit {name}={value}", self.dictum.name);
                    return Err(Error::new(Kind::Unsupported, message)
                        .at(self.dictum.span)
                        .with_help("the limit known so far is `limit seconds=N`"));
                }
            }
        }
        Ok(Duration::from_secs(seconds))
    }

    fn command(&self, argv: &[String], deadline: Instant) -> Result<ExitStatus, Error> {
        let Some((program, arguments)) = argv.split_first() else {
            return Err(Error::new(Kind::Missing, "run an empty command").at(self.dictum.span));
        };
        let found = self
            .host
            .find(program, self.tree)
            .ok_or_else(|| missing_program(program, self.dictum))?;
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.work.log());
        let log = log.map_err(|source| Error::io("write", &self.work.log(), source))?;
        let copy = log
            .try_clone()
            .map_err(|source| Error::io("write", &self.work.log(), source))?;
        let child = Command::new(&found)
            .args(arguments)
            .env_clear()
            .envs(self.environment())
            .current_dir(self.tree)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(copy)
            .spawn()
            .map_err(|source| Error::io("run", &found, source).at(self.dictum.span))?;
        self.wait(child, deadline)
    }

    fn environment(&self) -> BTreeMap<&str, &str> {
        let both = self
            .host
            .environment()
            .iter()
            .chain(&self.dictum.environment);
        both.map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }

    fn wait(&self, mut child: Child, deadline: Instant) -> Result<ExitStatus, Error> {
        let watched = watch(&child);
        loop {
            let ended = child
                .try_wait()
                .map_err(|source| Error::io("wait for", self.tree, source))?;
            if let Some(status) = ended {
                return Ok(status);
            }
            let printed = fs::metadata(self.work.log()).map_or(0, |found| found.len());
            let reason = if self.cancel.load(Ordering::Relaxed) {
                Some((Kind::Cancelled, "it was told to stop"))
            } else if Instant::now() >= deadline {
                Some((Kind::TooLarge, "it took longer than its `limit seconds=`"))
            } else if printed > LOG_BYTES_MAX {
                Some((Kind::TooLarge, "it printed more than 256 MiB"))
            } else {
                None
            };
            if let Some((kind, reason)) = reason {
                end(&mut child);
                let message = format!("build `{}`: {reason}", self.dictum.name);
                return Err(Error::new(kind, message)
                    .at(self.dictum.span)
                    .with_output(self.work.tail()));
            }
            pause(watched.as_ref(), TICK);
        }
    }
}

/// Without pidfds (kernels before 5.3) waiting falls back to looking once a tick.
fn watch(child: &Child) -> Option<rustix::fd::OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

fn pause(watched: Option<&rustix::fd::OwnedFd>, time: Duration) {
    let nanoseconds = i64::from(time.subsec_nanos());
    let timeout = Timespec {
        tv_sec: time.as_secs().cast_signed(),
        tv_nsec: nanoseconds,
    };
    match watched {
        Some(child) => {
            let _ = poll(&mut [PollFd::new(child, PollFlags::IN)], Some(&timeout));
        }
        None => std::thread::sleep(time),
    }
}

/// Asks a program to end, then ends it.
fn end(child: &mut Child) {
    let watched = watch(child);
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
    pause(watched.as_ref(), GRACE);
    let _ = child.kill();
    let _ = child.wait();
}

fn exit(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or(0)),
    }
}

pub(crate) fn missing_program(program: &str, dictum: &Dictum) -> Error {
    let span = dictum.tools.get(program).copied().unwrap_or(dictum.span);
    let message = format!(
        "build `{}`: there is no program `{program}` on PATH",
        dictum.name
    );
    let help = format!(
        "install `{program}`, or bring what it would make from a machine that has it: \
         `begat export` there, `begat import` here"
    );
    Error::new(Kind::Missing, message).at(span).with_help(help)
}

/// Stores everything that was declared, and refuses what was not.
pub(crate) fn collect(dictum: &Dictum, work: &Work, store: &Store) -> Result<Vec<Output>, Error> {
    let mut outputs = Vec::new();
    let root = work.dir.join("out");
    let mut left = Vec::new();
    files(&root, "", &mut left)?;
    for path in left {
        let inside = |product: &Product| {
            product.form == Form::Dir && path.starts_with(&format!("{}/", product.path))
        };
        let declared = |product: &&Product| product.path == path || inside(product);
        if !dictum.products.iter().any(|product| declared(&product)) {
            let message = format!(
                "build `{}`: it made `{path}`, which it does not declare",
                dictum.name
            );
            let help = format!("add `> {path}` to it");
            return Err(Error::new(Kind::Failed, message)
                .at(dictum.span)
                .with_help(help));
        }
        outputs.push(keep(&root, path, store)?);
    }
    for product in &dictum.products {
        let made = work.output(&product.path);
        let is_there = match product.form {
            Form::Optional => true,
            Form::Dir => made.is_dir(),
            Form::File | Form::Log => outputs.iter().any(|output| output.path == product.path),
        };
        if !is_there {
            let message = format!(
                "build `{}`: it ended well but did not make `{}`",
                dictum.name, product.path
            );
            return Err(Error::new(Kind::Failed, message)
                .at(product.span)
                .with_output(work.tail())
                .with_help("its command has to write to the path that `%>` stands for"));
        }
    }
    outputs.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(outputs)
}

fn keep(root: &Path, path: String, store: &Store) -> Result<Output, Error> {
    let full = root.join(&path);
    let mut file = fs::File::open(&full).map_err(|source| Error::io("read", &full, source))?;
    let mode = file
        .metadata()
        .map_or(0, |found| found.permissions().mode());
    let executable = mode & 0o111 != 0;
    let info = store.put_reader(
        &mut file,
        Put {
            expected: None,
            executable,
        },
    )?;
    // Whether this one may be executed, not whether the same bytes ever may.
    Ok(Output {
        path,
        digest: info.digest,
        size: info.size,
        executable,
    })
}

/// Every file below `folder`, links followed; anything else that lies there is refused.
fn files(root: &Path, folder: &str, found: &mut Vec<String>) -> Result<(), Error> {
    let path = root.join(folder);
    let entries = fs::read_dir(&path).map_err(|source| Error::io("list", &path, source))?;
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| {
            Error::new(
                Kind::Failed,
                "keep what was made: a file's name is not text",
            )
        })?;
        let below = if folder.is_empty() {
            name.to_owned()
        } else {
            format!("{folder}/{name}")
        };
        let kind = entry
            .file_type()
            .map_err(|source| Error::io("inspect", &path, source))?;
        if found.len() >= OUTPUT_FILES_MAX {
            return Err(Error::new(
                Kind::TooLarge,
                "keep what was made: there are too many files",
            ));
        }
        if kind.is_dir() {
            files(root, &below, found)?;
        } else if kind.is_file() {
            found.push(below);
        } else {
            let message = format!("keep what was made: `{below}` is neither a file nor a folder");
            return Err(Error::new(Kind::Unsupported, message));
        }
    }
    Ok(())
}
