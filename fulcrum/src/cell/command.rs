//! A cell that runs a command instead of a keeper: what a horde of plain programs is made of.
//!
//! ```text
//! cell ─ namespaces ─ mounts ─ fork ─▶ init, process 1 in there ─ fork ─▶ command
//!   └── waits, passes SIGTERM on ◀──────┘ reaps everybody, ends with the command, and tells how it ended
//! ```
//! With isolation `none` the command is the cell's own child, and what it leaves behind is ended by its mark.
//! The command sees the environment of its file and nothing of ours but the marks.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Gid, Uid, chdir, execve, geteuid, setgid, setgroups, setsid, setuid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};

use super::error::CellError;
use super::namespaces::{Namespaces, Privilege};
use super::{SWEEP, code, mounts, tell, wait, watch_signals, words};
use crate::config::{
    CellNetwork, FileMount, FileNetwork, Isolation, Mount, check_mounts, check_name, check_path,
    field,
};
use crate::error::ConfigError;
use crate::keeper::launch::failure_of;
use crate::keeper::output_cap::{self, OUTPUT_BYTES_MAX};
use crate::keeper::raw;
use crate::mark::{self, RNODE_MARK};
use crate::switch::{self, Plugged, Switch};

/// The file that makes a cell run a command, inside its directory.
pub const COMMAND_FILE: &str = "command.json";

/// Variable that tells a container its address.
const ADDRESS: &str = "RADIX_IP";
/// Variables of the cell's own environment that the command carries: by them it is found.
const MARKS: [&str; 2] = [RNODE_MARK, "RADIX_DIRECT"];
/// Where a program without a slash is looked for if the command's environment has no `PATH`.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";
/// Between two looks at how large the output files are.
const OUTPUT_LOOK: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};
/// The most bytes of a text that says how the command ended.
const STATUS_BYTES_MAX: u64 = 128;

/// What a command is started with: the checked form of `command.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandConfig {
    /// The container's label, such as `n1`.
    pub label: String,
    /// The label of the namespace it belongs to.
    pub namespace: String,
    /// The program and its arguments; never empty.
    pub argv: Vec<String>,
    /// The whole environment but the marks.
    pub env: BTreeMap<String, String>,
    /// What is shown inside.
    pub mounts: Vec<Mount>,
    /// How it is kept apart from its host.
    pub isolation: Isolation,
    /// Uid and gid it runs as; `None`: ours.
    pub user: Option<u32>,
    /// Upper limits, each optional.
    pub limits: CommandLimits,
    /// Control groups that it joins, as directories that exist.
    pub groups: Vec<PathBuf>,
    /// The switch it is plugged into; `None`: it is on the host's network.
    pub network: Option<CellNetwork>,
}

/// Limits that the kernel keeps for a single process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandLimits {
    /// Address space of each process, in bytes.
    #[serde(default)]
    pub address_space: Option<u64>,
    /// Processes and threads of its user.
    #[serde(default)]
    pub processes: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileForm {
    label: String,
    namespace: String,
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    mounts: Vec<FileMount>,
    isolation: String,
    #[serde(default)]
    user: Option<u32>,
    #[serde(default)]
    limits: CommandLimits,
    #[serde(default)]
    groups: Vec<PathBuf>,
    #[serde(default)]
    network: Option<FileNetwork>,
}

impl CommandConfig {
    /// Reads and checks `DIR/command.json`; `None` if there is none.
    ///
    /// # Errors
    /// [`ConfigError`], naming the field where one is wrong.
    pub fn load(dir: &Path) -> Result<Option<Self>, ConfigError> {
        let path = dir.join(COMMAND_FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ConfigError::Io { path, source }),
        };
        let file: FileForm =
            serde_json::from_slice(&text).map_err(|source| ConfigError::Format { path, source })?;
        file.try_into().map(Some)
    }
}

impl TryFrom<FileForm> for CommandConfig {
    type Error = ConfigError;

    fn try_from(file: FileForm) -> Result<Self, ConfigError> {
        check_name("label", &file.label)?;
        check_name("namespace", &file.namespace)?;
        let words = || {
            file.argv
                .iter()
                .chain(file.env.keys())
                .chain(file.env.values())
        };
        if file.argv.is_empty() || words().any(|word| word.contains('\0')) {
            return Err(field(
                "argv",
                "",
                "at least one word, none with a zero byte",
            ));
        }
        if file
            .env
            .keys()
            .any(|name| name.is_empty() || name.contains('='))
        {
            return Err(field("env", "", "names without `=`"));
        }
        let mounts: Vec<Mount> = file.mounts.into_iter().map(Mount::from).collect();
        check_mounts(&mounts)?;
        for group in &file.groups {
            check_path("groups", group)?;
        }
        let network = file.network.map(CellNetwork::from);
        if let Some(network) = &network {
            check_path("network.switch", &network.switch)?;
        }
        Ok(Self {
            label: file.label,
            namespace: file.namespace,
            argv: file.argv,
            env: file.env,
            mounts,
            isolation: file.isolation.parse()?,
            user: file.user,
            limits: file.limits,
            groups: file.groups,
            network,
        })
    }
}

/// Runs the command until it ends; returns the code to exit with.
pub(super) fn run(config: &CommandConfig, dir: &Path) -> Result<i32, CellError> {
    let signals = watch_signals()?;
    let work = dir.join("work");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&work)
        .map_err(|error| CellError::at("make", &work, error))?;
    if let Some(id) = config.user {
        // It enters the directory before it becomes that user, since the way there is closed to others.
        std::os::unix::fs::chown(&work, Some(id), Some(id))
            .map_err(|error| CellError::at("give away", &work, error))?;
    }
    // Ordering: before any mount, since the switch is found on the host. This process stays in the switch and holds it.
    let network = config.network.as_ref();
    let network = network.map(|network| Switch::plug(&network.switch, network.address));
    let network = network.transpose()?.map(|(_, plugged)| plugged);
    let privilege = match network {
        Some(_) => Privilege::Held,
        None => Privilege::Needed,
    };
    let isolated = match config.isolation {
        Isolation::None => None,
        Isolation::PidMount => {
            let namespaces = Namespaces::enter(privilege)?;
            mounts::make(&config.mounts, &[], dir, namespaces)?;
            Some(namespaces)
        }
    };
    let outputs = ["stdout", "stderr"].map(|name| dir.join(name));
    let look = || {
        for path in &outputs {
            // A file that cannot be shortened now is looked at again in a second.
            let _ = output_cap::enforce(path, OUTPUT_BYTES_MAX);
        }
    };
    let command = Command {
        network,
        ..Command::new(config, &outputs, work)?
    };
    let _held = hold_address(config);
    let started = start(&command, isolated)?;
    let status = wait(&signals, started.pid, Some((OUTPUT_LOOK, &look)))?;
    if isolated.is_none()
        && let Ok(mark) = std::env::var(RNODE_MARK)
        && mark.starts_with(&format!("{}/{}@", config.namespace, config.label))
    {
        mark::end_marked(&mark, SWEEP)
            .map_err(|error| CellError::io("end what the command left behind", error))?;
    }
    let how = said(started.told).unwrap_or_else(|| words(status));
    tell(&how);
    Ok(code(status))
}

/// Takes the name by which a container's address on the host's network is known to be used, for as long as we or its init
/// live: the backend that leased it may be gone, and no port need be bound there yet.
///
/// `None` on a network of its own, and while what ran there before still ends.
fn hold_address(config: &CommandConfig) -> Option<UnixDatagram> {
    if config.network.is_some() {
        return None;
    }
    let host: Ipv4Addr = config.env.get(ADDRESS)?.parse().ok()?;
    let name = SocketAddr::from_abstract_name(format!("radix/held/{host}")).ok()?;
    UnixDatagram::bind_addr(&name).ok()
}

/// What init said of the command's end, if there was an init and it lived to say it.
fn said(told: OwnedFd) -> Option<String> {
    let mut text = String::new();
    let read = File::from(told)
        .take(STATUS_BYTES_MAX)
        .read_to_string(&mut text);
    (read.is_ok() && !text.is_empty()).then_some(text)
}

/// What was forked.
struct Started {
    pid: i32,
    /// Holds how the command ended, if init lived to say it.
    told: OwnedFd,
    /// Tells the child of our death before it is tied to us; stays open until we end.
    _alive: OwnedFd,
}

/// Forks init, or the command itself where it is not isolated; returns once the command has executed.
fn start(command: &Command, isolated: Option<Namespaces>) -> Result<Started, CellError> {
    let failed = |error: io::Error| CellError::io("start the command", error);
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()));
    let (failure_read, failure_write) = pipe()?;
    let (alive_read, alive_write) = pipe()?;
    let (told_read, told_write) = pipe()?;
    let tie = Tie {
        ours: &alive_write,
        watch: &alive_read,
    };
    let child = || -> Infallible {
        let done = match isolated {
            Some(namespaces) => init(command, namespaces, &tie, (&failure_write, &told_write)),
            None => tie
                .tie()
                .and_then(|()| command.join_network())
                .and_then(|()| command.execute()),
        };
        let Err(error) = done;
        complain(failure_write.as_fd(), &error);
        raw::exit_now(127)
    };
    let pid = raw::fork(child).map_err(failed)?;
    drop(failure_write);
    drop(told_write);
    if let Some(reason) = failure_of(failure_read) {
        raw::reap(pid.as_raw()).map_err(failed)?;
        return Err(failed(io::Error::other(reason)));
    }
    Ok(Started {
        pid: pid.as_raw(),
        told: told_read,
        _alive: alive_write,
    })
}

fn complain(failure: BorrowedFd<'_>, error: &CellError) {
    if let Ok(failure) = failure.try_clone_to_owned() {
        // Nobody is left to tell if this fails.
        let _ = File::from(failure).write_all(error.chain().as_bytes());
    }
}

/// How a child is tied to the cell's life.
struct Tie<'a> {
    ours: &'a OwnedFd,
    watch: &'a OwnedFd,
}

impl Tie<'_> {
    fn tie(&self) -> Result<(), CellError> {
        let operation = "tie the command to the cell";
        let failed = |error: nix::Error| CellError::io(operation, error);
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(failed)?;
        // Ordering: our copy of the cell's end is closed, then the pipe tells whether the cell lived when we were tied to it.
        nix::unistd::close(self.ours.as_raw_fd()).map_err(failed)?;
        let mut fds = [PollFd::from_borrowed_fd(
            self.watch.as_fd(),
            PollFlags::empty(),
        )];
        poll(&mut fds, Some(&Timespec::default()))
            .map_err(|error| CellError::io(operation, error))?;
        if fds[0].revents().is_empty() {
            Ok(())
        } else {
            Err(CellError::io(
                operation,
                io::Error::other("the cell is gone"),
            ))
        }
    }
}

/// Process 1: runs the command, reaps everybody, and ends with it; the kernel then ends the rest.
fn init(
    command: &Command,
    namespaces: Namespaces,
    tie: &Tie<'_>,
    (failure, told): (&OwnedFd, &OwnedFd),
) -> Result<Infallible, CellError> {
    tie.tie()?;
    command.join_network()?;
    namespaces.mount_proc()?;
    let failed = |error: io::Error| CellError::io("start the command", error);
    let child = || -> Infallible {
        let Err(error) = command.execute();
        complain(failure.as_fd(), &error);
        raw::exit_now(127)
    };
    let pid = raw::fork(child).map_err(failed)?;
    // Ordering: the cell waits for every copy of this end to close; we live on after the command has executed.
    nix::unistd::close(failure.as_raw_fd())
        .map_err(|error| CellError::io("let the cell go on", error))?;
    // Blocked since the cell began; a descriptor of our own, since the cell's reads the cell's signals.
    let status = wait(&watch_signals()?, pid.as_raw(), None)?;
    let mut told = File::from(told.try_clone().map_err(failed)?);
    told.write_all(words(status).as_bytes()).map_err(failed)?;
    raw::exit_now(code(status))
}

/// A command that is ready to be executed.
struct Command {
    programs: Vec<CString>,
    argv: Vec<CString>,
    environment: Vec<CString>,
    stdin: File,
    stdout: File,
    stderr: File,
    work: PathBuf,
    user: Option<u32>,
    limits: CommandLimits,
    groups: Vec<PathBuf>,
    network: Option<Plugged>,
}

impl Command {
    fn new(
        config: &CommandConfig,
        [stdout, stderr]: &[PathBuf; 2],
        work: PathBuf,
    ) -> Result<Self, CellError> {
        let failed = |error: io::Error| CellError::io("prepare the command", error);
        let text = |text: String| CString::new(text).map_err(|error| failed(error.into()));
        let append = |path: &PathBuf| {
            let mut options = OpenOptions::new();
            let options = options.append(true).create(true).mode(0o600);
            options
                .open(path)
                .map_err(|error| CellError::at("open", path, error))
        };
        let marks = MARKS
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
        let mut env = config.env.clone();
        env.entry("PATH".to_owned())
            .or_insert_with(|| PATH.to_owned());
        env.extend(marks);
        let programs = programs(&config.argv[0], &env["PATH"]);
        Ok(Self {
            programs: programs.into_iter().map(text).collect::<Result<_, _>>()?,
            argv: config
                .argv
                .iter()
                .cloned()
                .map(text)
                .collect::<Result<_, _>>()?,
            environment: env
                .into_iter()
                .map(|(name, value)| text(format!("{name}={value}")))
                .collect::<Result<_, _>>()?,
            stdin: File::open("/dev/null").map_err(failed)?,
            stdout: append(stdout)?,
            stderr: append(stderr)?,
            work,
            user: config.user,
            limits: config.limits,
            groups: config.groups.clone(),
            network: None,
        })
    }

    fn join_network(&self) -> Result<(), CellError> {
        let failed = |error| CellError::io("join the container's network", error);
        self.network
            .as_ref()
            .map_or(Ok(()), Plugged::enter)
            .map_err(failed)
    }

    /// Becomes the command; what comes back is why not.
    fn execute(&self) -> Result<Infallible, CellError> {
        let failed =
            |operation: &'static str| move |error: nix::Error| CellError::io(operation, error);
        setsid().map_err(failed("leave the cell's session"))?;
        for group in &self.groups {
            let file = group.join("cgroup.procs");
            fs::write(&file, "0\n").map_err(|error| CellError::at("join", group, error))?;
        }
        for (from, number) in [(&self.stdin, 0), (&self.stdout, 1), (&self.stderr, 2)] {
            raw::place(from.as_fd(), number)
                .map_err(|error| CellError::io("place descriptors", error))?;
        }
        chdir(&self.work).map_err(failed("enter the working directory"))?;
        raw::default_sigpipe().map_err(|error| CellError::io("reset signals", error))?;
        SigSet::empty()
            .thread_set_mask()
            .map_err(failed("reset signals"))?;
        self.limit()?;
        if self.network.is_some() && geteuid().is_root() {
            // What an ordinary user has in here goes with the switch's user namespace as soon as it executes.
            switch::give_up_rights().map_err(|error| CellError::io("give up rights", error))?;
        }
        raw::close_on_exec_from(3).map_err(|error| CellError::io("close descriptors", error))?;
        let mut last = nix::Error::ENOENT;
        for program in &self.programs {
            let Err(error) = execve(program, &self.argv, &self.environment);
            if error != nix::Error::ENOENT && error != nix::Error::ENOTDIR {
                last = error;
            }
        }
        let name = self.argv[0].to_string_lossy();
        Err(CellError::io(format!("execute {name}"), last))
    }

    fn limit(&self) -> Result<(), CellError> {
        let limits = [
            (Resource::RLIMIT_AS, self.limits.address_space),
            (Resource::RLIMIT_NPROC, self.limits.processes),
        ];
        for (resource, limit) in limits {
            if let Some(limit) = limit {
                setrlimit(resource, limit, limit)
                    .map_err(|error| CellError::io("set a limit", error))?;
            }
        }
        if let Some(id) = self.user {
            let failed = |error: nix::Error| CellError::io("change the user", error);
            setgroups(&[]).map_err(failed)?;
            setgid(Gid::from_raw(id)).map_err(failed)?;
            setuid(Uid::from_raw(id)).map_err(failed)?;
            prctl::set_no_new_privs().map_err(failed)?;
        }
        Ok(())
    }
}

/// Where the program may be, in order.
fn programs(first: &str, path: &str) -> Vec<String> {
    if first.contains('/') {
        return vec![first.to_owned()];
    }
    let directories = path.split(':').filter(|directory| !directory.is_empty());
    directories
        .map(|directory| format!("{directory}/{first}"))
        .collect()
}
