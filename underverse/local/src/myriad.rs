//! `myriad`: a number of processes from one `.rnodes` block, and nothing else of Radix.
//!
//! Synchronous; no base, no identity, no document. What is spawned stands on disk before and after each spawn, and
//! every process carries a mark in its environment, so that [`clean`] finds all of it after a kill at any moment.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crux_core::adf::{Diagnostic, FileKind, FileTree, SourceMap};
use crux_net::process::Environment;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use underverse::{Error, Execable, FromRnodes, HordeName, HordeSpec, Kind, Program, from_rnodes};

use crate::claims::Claim;
use crate::command::on_this_machine;
use crate::execute::io_at;
use crate::ground::{Ground as _, ThisMachine};
use crate::label::rnode_label;
use crate::layout::Home;
use crate::limits::{self, Machine};
use crate::{address, durable, mark, wanted};

pub use crate::process::ProcessName;

/// Name of the variable that every process of a run carries; its value is the run's directory.
pub const MYRIAD_MARK: &str = "RADIX_MYRIAD";
/// Largest `.rnodes` file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Most runs kept at once.
const RUNS_MAX: u32 = 10_000;
/// Time processes are given to end after being asked.
const CLEAN_GRACE: Duration = Duration::from_secs(5);
/// Between two looks at whether they have.
const CLEAN_POLL: Duration = Duration::from_millis(20);
/// The record of a run in its directory.
const RECORD: &str = "run.json";

/// Why `myriad` failed.
#[derive(Debug)]
pub enum MyriadError {
    /// The file does not check; every finding.
    Description(Vec<Diagnostic>),
    /// Anything else.
    Failed(Error),
}

impl fmt::Display for MyriadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Description(found) => {
                write!(formatter, "read the .rnodes file: {} findings", found.len())
            }
            Self::Failed(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for MyriadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Description(_) => None,
            Self::Failed(error) => std::error::Error::source(error),
        }
    }
}

impl From<Error> for MyriadError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// State directory: the run is kept in `myriad/` below it.
    pub home: &'a Home,
    /// The `.rnodes` file.
    pub file: &'a Path,
    /// The `radix` that runs a `cmd` whose last part is `fulcrum`.
    pub radix: &'a Path,
}

/// What was spawned. Dropping it leaves the processes running.
#[derive(Debug)]
pub struct Run {
    /// Its name: what `clean` tells.
    pub id: String,
    /// Where its record and the processes' output are.
    pub directory: PathBuf,
    /// The processes, in order.
    pub processes: Vec<Spawned>,
    /// What was obtained in weaker form than the block asks.
    pub weaker: Vec<String>,
    children: Vec<Child>,
    /// Its addresses, as long as we live; afterwards the record speaks for those of what runs still.
    _claims: Vec<Claim>,
}

/// One process of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawned {
    /// Its name: "n1", also given as `-rnode`.
    pub label: String,
    /// Its address, also given as `-ip`.
    pub address: Ipv4Addr,
    /// Which process it is.
    pub process: ProcessName,
}

/// A run as it is written.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    file: PathBuf,
    processes: Vec<Spawned>,
    /// Of all of its processes, also of those that ended before they could be named.
    #[serde(default)]
    addresses: Vec<Ipv4Addr>,
}

/// What `clean` ended and removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// The runs, by name.
    pub runs: Vec<String>,
    /// How many processes still ran.
    pub ended: usize,
}

impl Run {
    /// Waits until every process has ended, and says how each did.
    ///
    /// # Errors
    /// What waiting says; the others are not waited for then.
    pub fn wait(&mut self) -> io::Result<Vec<(String, ExitStatus)>> {
        let labels = self.processes.iter().map(|spawned| spawned.label.clone());
        labels
            .zip(&mut self.children)
            .map(|(label, child)| Ok((label, child.wait()?)))
            .collect()
    }
}

/// Spawns what the file's block asks for, each with `-rnode` and `-ip` appended.
///
/// If one cannot be started, those that were are ended, and nothing is left.
///
/// # Errors
/// [`MyriadError::Description`] if the file does not check; `Limit` if this machine cannot hold so many;
/// `NotFound` or `Denied` if the command cannot be executed.
pub fn run(request: &Request<'_>) -> Result<Run, MyriadError> {
    let spec = read(request.file)?;
    let [execable] = spec.execables.as_slice() else {
        let error = Error::new(Kind::Bug, "read a block", "it is not one execable");
        return Err(error.into());
    };
    limits::check(execable.count, 0, &Machine::read())?;
    let directory = new_directory(request.home, request.file)?;
    match spawn_all(request, execable, &directory) {
        Ok(started) => Ok(Run {
            id: run_name(&directory),
            directory,
            processes: started.processes,
            weaker: weaker(&spec, execable),
            children: started.children,
            _claims: started.claims,
        }),
        Err(error) => {
            clean_all(&[directory])?;
            Err(error.into())
        }
    }
}

/// The runs of which a process runs still, by name, sorted.
///
/// # Errors
/// `Io` if they cannot be listed.
pub fn live(home: &Home) -> Result<Vec<String>, Error> {
    let live = live_of(directories(home)?, || mark::values(MYRIAD_MARK))?;
    let mut names: Vec<String> = live
        .iter()
        .map(|(directory, _)| run_name(directory))
        .collect();
    names.sort();
    Ok(names)
}

/// The addresses of runs of which a process runs still, whoever started them and whether that still lives.
///
/// # Errors
/// `Io` if they cannot be listed.
pub(crate) fn addresses(home: &Home) -> Result<BTreeSet<Ipv4Addr>, Error> {
    let live = live_of(directories(home)?, || mark::values(MYRIAD_MARK))?;
    let of = |(_, record): (PathBuf, Record)| {
        // An older version wrote down those of its processes only.
        let named = record.processes.into_iter().map(|one| one.address);
        record.addresses.into_iter().chain(named)
    };
    Ok(live.into_iter().flat_map(of).collect())
}

/// The runs of which a process runs still; `marks`: which runs processes carry the mark of, asked once, and only where a
/// record does not suffice.
fn live_of(
    directories: Vec<PathBuf>,
    marks: impl FnOnce() -> io::Result<BTreeSet<Vec<u8>>>,
) -> Result<Vec<(PathBuf, Record)>, Error> {
    let runs = directories.into_iter().map(|directory| {
        let record = recorded(&directory);
        (directory, record)
    });
    let named =
        |(_, record): &(PathBuf, Record)| record.processes.iter().any(|one| one.process.is_alive());
    let (mut live, ended): (Vec<_>, Vec<_>) = runs.partition(named);
    if let Some((first, _)) = ended.first() {
        let marks = marks().map_err(io_at("look for processes of runs", first))?;
        let marked = |(directory, _): &(PathBuf, Record)| {
            marks.contains(directory.as_os_str().as_encoded_bytes())
        };
        live.extend(ended.into_iter().filter(marked));
    }
    Ok(live)
}

/// The directories of all runs.
fn directories(home: &Home) -> Result<Vec<PathBuf>, Error> {
    let runs = home.myriad();
    let entries = match fs::read_dir(&runs) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_at("list the runs", &runs)(error)),
    };
    // The mark names a run's directory as it was found when it was made.
    let runs = fs::canonicalize(&runs).map_err(io_at("list the runs", &runs))?;
    entries
        .map(|entry| Ok(runs.join(entry?.file_name())))
        .collect::<io::Result<_>>()
        .map_err(io_at("list the runs", &runs))
}

/// What is written of a run. A record that was never whole names nobody; the mark still finds them.
fn recorded(directory: &Path) -> Record {
    let record = durable::read_json(&directory.join(RECORD));
    record.ok().flatten().unwrap_or_default()
}

/// Ends everything that any run of this home spawned, and removes what was kept of it.
///
/// # Errors
/// `DeadlineExceeded` if a process does not end; what was ended stays ended, and a repeat goes on.
pub fn clean(home: &Home) -> Result<Cleaned, Error> {
    let directories = directories(home)?;
    let ended = clean_all(&directories)?;
    let mut runs: Vec<String> = directories.iter().map(|run| run_name(run)).collect();
    runs.sort();
    durable::remove_empty_dir(&home.myriad());
    Ok(Cleaned { runs, ended })
}

fn read(file: &Path) -> Result<HordeSpec, MyriadError> {
    let unreadable = |error| io_at("read the .rnodes file", file)(error);
    let size = fs::metadata(file).map_err(unreadable)?.len();
    if size > FILE_BYTES_MAX {
        let message = format!("it has {size} bytes, at most {FILE_BYTES_MAX}");
        return Err(Error::new(Kind::Limit, "read the .rnodes file", message).into());
    }
    let text = fs::read(file).map_err(unreadable)?;
    let text = String::from_utf8(text).map_err(|_| {
        Error::new(Kind::Invalid, "read the .rnodes file", "it is not UTF-8")
            .with("path", file.display())
    })?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let (tree, mut found) = FileTree::parse(FileKind::Rnodes, &name, &text);
    found.retain(Diagnostic::is_error);
    let (FileTree::Rnodes(tree), true) = (tree, found.is_empty()) else {
        return Err(MyriadError::Description(found));
    };
    let mut files = SourceMap::default();
    files.add(&name, text, false);
    let horde = HordeName::new(stem(file))?;
    let directory = fs::canonicalize(file).map_err(unreadable)?;
    let directory = directory.parent().unwrap_or_else(|| Path::new("/"));
    let request = FromRnodes {
        name: &horde,
        backend: "local",
        directory,
        files: &files,
    };
    from_rnodes(&tree, &request).map_err(MyriadError::Description)
}

/// The file's name without its ending, as far as it can name a horde.
fn stem(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let clean: String = stem
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' {
                c
            } else {
                '-'
            }
        })
        .take(40)
        .collect();
    let clean = clean.trim_start_matches(['-', '_']);
    if clean.is_empty() {
        "myriad".to_owned()
    } else {
        clean.to_owned()
    }
}

fn run_name(directory: &Path) -> String {
    directory
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Makes a directory that no other run has.
fn new_directory(home: &Home, file: &Path) -> Result<PathBuf, Error> {
    let runs = home.myriad();
    durable::create_dir(&runs).map_err(io_at("make the directory of runs", &runs))?;
    let runs = fs::canonicalize(&runs).map_err(io_at("make the directory of runs", &runs))?;
    for number in 1..=RUNS_MAX {
        let directory = runs.join(format!("{}-{number}", stem(file)));
        match fs::create_dir(&directory) {
            Ok(()) => return Ok(directory),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io_at("make the run's directory", &directory)(error)),
        }
    }
    let message = format!("there are {RUNS_MAX}; `myriad clean` ends them");
    Err(Error::new(Kind::Limit, "keep another run", message))
}

/// What was started of a run.
struct Started {
    processes: Vec<Spawned>,
    children: Vec<Child>,
    claims: Vec<Claim>,
}

/// Addresses of what runs: of other runs, and of hordes.
fn taken(home: &Home) -> Result<BTreeSet<Ipv4Addr>, Error> {
    let hordes = home.hordes();
    let mut taken =
        address::leased_elsewhere(home, "").map_err(io_at("read leased addresses", &hordes))?;
    taken.extend(addresses(home)?);
    Ok(taken)
}

/// Finds an address that nobody has, and claims it.
fn claimed(
    ordinal: u32,
    candidates: &[Ipv4Addr],
    taken: &mut BTreeSet<Ipv4Addr>,
) -> Result<(Ipv4Addr, Claim), Error> {
    let probe = |host, tcp, udp| ThisMachine.probe(host, tcp, udp);
    while let Some(lease) = address::lease(ordinal, candidates, taken, &probe) {
        // Whoever claimed it first has it, also before anything listens there.
        taken.insert(lease.host);
        if let Ok(claim) = Claim::take(lease.host) {
            return Ok((lease.host, claim));
        }
    }
    let message = "no loopback address is free";
    Err(Error::new(Kind::Limit, "find an address", message))
}

fn spawn_all(
    request: &Request<'_>,
    execable: &Execable,
    directory: &Path,
) -> Result<Started, Error> {
    let path = directory.join(RECORD);
    let mut record = Record {
        file: request.file.to_owned(),
        ..Record::default()
    };
    let (mut children, mut claims) = (Vec::new(), Vec::new());
    let mut taken = taken(request.home)?;
    let candidates: Vec<_> = address::candidates(rustix::process::getuid().as_raw()).collect();
    for ordinal in 1..=execable.count {
        let (host, claim) = claimed(ordinal, &candidates, &mut taken)?;
        claims.push(claim);
        record.addresses.push(host);
        // Before each spawn, so that the directory is known to `clean` whatever happens next, and the address to others.
        durable::write_json(&path, &record).map_err(io_at("keep the run", &path))?;
        let label = rnode_label(ordinal);
        let child = command(request, execable, directory, (&label, host))?;
        let pid = child.id().cast_signed();
        children.push(child);
        // One that has ended already cannot be named any more, and need not be.
        if let Some(process) = ProcessName::of(pid) {
            record.processes.push(Spawned {
                label,
                address: host,
                process,
            });
        }
    }
    durable::write_json(&path, &record).map_err(io_at("keep the run", &path))?;
    Ok(Started {
        processes: record.processes,
        children,
        claims,
    })
}

/// Spawns one process in a group of its own, its output in files of the run's directory.
fn command(
    request: &Request<'_>,
    execable: &Execable,
    directory: &Path,
    (label, host): (&str, Ipv4Addr),
) -> Result<Child, Error> {
    let place = directory.join(label);
    durable::create_dir(&place).map_err(io_at("make a process's directory", &place))?;
    let output = |name: &str| {
        let path = place.join(name);
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path);
        file.map_err(io_at("open a process's output", &path))
    };
    let mounts = wanted::mounts(execable, &[]);
    let words: Vec<String> = execable
        .program
        .words()
        .iter()
        .map(|word| on_this_machine(word, &mounts))
        .collect();
    let (first, rest) = words
        .split_first()
        .map_or(("", &[][..]), |(f, r)| (f.as_str(), r));
    let mut command = match &execable.program {
        Program::Fulcrum(_) => {
            let mut command = Command::new(request.radix);
            command
                .arg("fulcrum")
                .args(rest)
                .arg("-resource")
                .arg(place.join("rnode"));
            command
        }
        Program::Command(_) => {
            let mut command = Command::new(first);
            command.args(rest);
            command
        }
    };
    command
        .args(["-rnode", label, "-ip", &host.to_string()])
        .envs(&execable.env)
        .env(MYRIAD_MARK, directory)
        .current_dir(&place)
        .stdin(Stdio::null())
        .stdout(output("stdout")?)
        .stderr(output("stderr")?)
        .process_group(0);
    command.spawn().map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => Kind::NotFound,
            io::ErrorKind::PermissionDenied => Kind::Denied,
            _ => Kind::Io,
        };
        Error::new(kind, "start a process", error.to_string())
            .with("rnode", label)
            .with("command", command.get_program().to_string_lossy())
            .caused_by(error)
    })
}

fn weaker(spec: &HordeSpec, execable: &Execable) -> Vec<String> {
    let mounts = execable.mounts.iter().map(|mount| {
        let target = mount.target.display();
        format!("mount {target}: not made; words of the command below it name the outer path")
    });
    let users = spec.users.iter().map(|user| {
        format!(
            "user {}: everything runs as the user who started it",
            user.name
        )
    });
    let ports = spec
        .network
        .ports
        .iter()
        .map(|port| format!("expose {}: myriad forwards no ports", port.external_port));
    mounts.chain(users).chain(ports).collect()
}

/// Ends the processes of runs, by name, group and mark, and removes their directories; one look at a time for all of them.
fn clean_all(directories: &[PathBuf]) -> Result<usize, Error> {
    let Some(first) = directories.first() else {
        return Ok(0);
    };
    let io = |error| io_at("end the processes of runs", first)(error);
    let values: BTreeSet<&[u8]> = directories
        .iter()
        .map(|directory| directory.as_os_str().as_encoded_bytes())
        .collect();
    let ours = |environment: &Environment| {
        let mark = MYRIAD_MARK.as_bytes();
        let mut variables = environment.variables();
        variables.any(|(name, value)| name == mark && values.contains(value))
    };
    let records = directories.iter().map(|directory| recorded(directory));
    let mut running: Vec<ProcessName> = records
        .flat_map(|record| record.processes)
        .map(|spawned| spawned.process)
        .collect();
    running.retain(|process| process.signal(Signal::TERM));
    let mut asked = running.iter().map(|process| process.pid).collect();
    let begun = Instant::now();
    // What was forked meanwhile is asked too; nobody is asked twice.
    while mark::ask(ours, &mut asked).map_err(io)? > 0
        || running.iter().any(|process| process.is_alive())
    {
        if begun.elapsed() >= CLEAN_GRACE {
            break;
        }
        std::thread::sleep(CLEAN_POLL);
    }
    let ended = asked.len();
    for process in &running {
        process.signal(Signal::KILL);
    }
    mark::end(ours).map_err(io)?;
    for directory in directories {
        durable::remove_tree(directory).map_err(io_at("remove the run's directory", directory))?;
    }
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_looked_through_once_for_all_runs_and_not_where_records_suffice() {
        let root = std::env::temp_dir().join(format!("myriad-live-{}", std::process::id()));
        let ours = ProcessName::of(std::process::id().cast_signed()).unwrap();
        let run = |name: &str, processes: Vec<Spawned>| {
            let directory = root.join(name);
            fs::create_dir_all(&directory).unwrap();
            let record = Record {
                processes,
                ..Record::default()
            };
            durable::write_json(&directory.join(RECORD), &record).unwrap();
            directory
        };
        let spawned = Spawned {
            label: "n1".to_owned(),
            address: Ipv4Addr::LOCALHOST,
            process: ours,
        };
        let named = run("named", vec![spawned]);
        let unneeded = || -> io::Result<_> { panic!("records suffice") };
        assert_eq!(live_of(vec![named.clone()], unneeded).unwrap().len(), 1);
        let ended = [run("ended-1", Vec::new()), run("ended-2", Vec::new())];
        let marked = run("marked", Vec::new());
        let value = marked.as_os_str().as_encoded_bytes().to_vec();
        let all: Vec<PathBuf> = ended.into_iter().chain([named, marked]).collect();
        // It can be asked once only.
        let live = live_of(all, || Ok(BTreeSet::from([value]))).unwrap();
        let names: BTreeSet<String> = live.iter().map(|(run, _)| run_name(run)).collect();
        assert_eq!(
            names,
            BTreeSet::from(["marked", "named"].map(str::to_owned))
        );
        fs::remove_dir_all(root).unwrap();
    }
}
