//! A keeper or cell of its own for each test, whose agent is the test itself.

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crux_core::digest::Digest;
use crux_wire::keeper::v1::{Execution, Outcome, OutcomeKind, Spawn};
use fulcrum::config::{Executable, Isolation, Mount, RnodeConfig};
use fulcrum::keeper::client::{self, KeeperRef};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::net::UnixListener;
use tokio::sync::mpsc;

/// The stand-in for `radix`.
pub(crate) const TESTEE: &str = env!("CARGO_BIN_EXE_fulcrum-testee");

/// Generous: only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An ordinary user for tests run by root.
pub(crate) const NOBODY: u32 = 65534;

/// A directory that is gone when the test is.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fulcrum-it-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path.canonicalize().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fulcrum::cell::clear(&self.0.join("rnode"));
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} is left: {error}", self.0.display());
        }
    }
}

/// How a rig is started.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) word: &'static str,
    /// What the process is started by; the program and its words follow.
    pub(crate) wrapper: Vec<String>,
    pub(crate) isolation: Isolation,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) uid: Option<u32>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            word: "keep",
            wrapper: Vec::new(),
            isolation: Isolation::None,
            mounts: Vec::new(),
            uid: None,
        }
    }
}

/// A rnode's directory, and the process started on it.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) dir: PathBuf,
    pub(crate) process: Option<Child>,
    listener: UnixListener,
    setup: Setup,
    executable: PathBuf,
    // Dropped last, after the processes that use it.
    pub(crate) scratch: Scratch,
}

/// The test in the agent's place.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) pid: i32,
    pub(crate) keeper: KeeperRef,
    pub(crate) exits: mpsc::Receiver<Execution>,
}

impl Rig {
    /// Prepares a directory and starts a keeper on it.
    pub(crate) fn keeper() -> Self {
        Self::start(Scratch::new(), Setup::default())
    }

    pub(crate) fn start(scratch: Scratch, setup: Setup) -> Self {
        let mut rig = Self::prepare(scratch, setup);
        rig.start_process();
        rig
    }

    pub(crate) fn prepare(scratch: Scratch, setup: Setup) -> Self {
        let dir = scratch.path().join("rnode");
        fs::create_dir_all(&dir).unwrap();
        let executable = scratch.path().join("radix");
        copy_executable(Path::new(TESTEE), &executable);
        config(&dir, &executable, &setup).save(&dir).unwrap();
        let listener = UnixListener::bind(dir.join("test.sock")).unwrap();
        if let Some(uid) = setup.uid {
            fs::set_permissions(dir.join("test.sock"), fs::Permissions::from_mode(0o777)).unwrap();
            for path in [dir.clone(), dir.join("rnode.json")] {
                std::os::unix::fs::chown(path, Some(uid), Some(uid)).unwrap();
            }
        }
        Self {
            dir,
            process: None,
            listener,
            setup,
            executable,
            scratch,
        }
    }

    pub(crate) fn command(&self) -> Command {
        let user = self.setup.uid.map(|uid| {
            let set = ["--reuid", "--regid"].map(|name| format!("{name}={uid}"));
            ["setpriv".to_owned(), "--clear-groups".to_owned()]
                .into_iter()
                .chain(set)
        });
        let wrapper = self.setup.wrapper.iter().cloned();
        let mut words = wrapper.chain(user.into_iter().flatten());
        let mut command = match words.next() {
            Some(first) => Command::new(first),
            None => Command::new(&self.executable),
        };
        if !self.setup.wrapper.is_empty() || self.setup.uid.is_some() {
            command.args(words).arg(&self.executable);
        }
        command.arg(self.setup.word).arg("--dir").arg(&self.dir);
        command.env("RADIX_RNODE", self.mark()).stdin(Stdio::null());
        command
    }

    pub(crate) fn start_process(&mut self) {
        self.process = Some(self.command().spawn().unwrap());
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.process.as_ref().unwrap().id()).unwrap()
    }

    /// The mark of this rig's processes; no other test has it.
    pub(crate) fn mark(&self) -> String {
        format!(
            "test/n1@{}",
            self.scratch.path().file_name().unwrap().to_string_lossy()
        )
    }

    /// Becomes the agent that the keeper has just started.
    pub(crate) async fn agent(&self) -> Agent {
        within(self.accept()).await
    }

    async fn accept(&self) -> Agent {
        let (pid, socket) = self.accept_socket().await;
        let (keeper, exits, link) = client::connect(socket).unwrap();
        #[expect(
            clippy::disallowed_methods,
            reason = "a test's task ends with its runtime"
        )]
        tokio::spawn(link.run());
        Agent { pid, keeper, exits }
    }

    /// Takes the agent's pid and its end of the keeper's socket.
    pub(crate) async fn accept_socket(&self) -> (i32, OwnedFd) {
        let (stream, _) = self.listener.accept().await.unwrap();
        let received = stream.async_io(tokio::io::Interest::READABLE, || {
            try_receive_descriptors(&stream)
        });
        let (bytes, mut fds) = received.await.unwrap();
        (i32::from_le_bytes(bytes.try_into().unwrap()), fds.remove(0))
    }

    pub(crate) fn kill(&self, pid: i32) {
        assert!(pid > 1);
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
    }

    /// Kills the process we started and waits for its end.
    pub(crate) fn kill_process(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    pub(crate) async fn ended(&mut self) -> std::process::ExitStatus {
        let mut process = self.process.take().unwrap();
        within(tokio::task::spawn_blocking(move || process.wait().unwrap()))
            .await
            .unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        // Whatever a failed test left running carries the mark.
        if let Err(error) = fulcrum::mark::end_marked(&self.mark(), Duration::from_secs(10)) {
            eprintln!("processes of {} are left: {error}", self.mark());
        }
    }
}

impl Agent {
    /// The next exit told.
    pub(crate) async fn exit(&mut self) -> Execution {
        within(self.exits.recv()).await.unwrap()
    }

    /// Runs a program to its end.
    pub(crate) async fn run(&mut self, name: &str, words: &[&str]) -> Execution {
        self.spawn(name, words).await;
        let execution = self.exit().await;
        assert_eq!(execution.execution, name);
        execution
    }

    pub(crate) async fn spawn(&self, name: &str, words: &[&str]) -> Execution {
        self.spawn_as(spawn(name, words)).await.0
    }

    pub(crate) async fn spawn_as(&self, spawn: Spawn) -> (Execution, Option<OwnedFd>) {
        let program = if spawn.argv[0].starts_with('/') {
            spawn.argv[0].clone()
        } else {
            TESTEE.to_owned()
        };
        let program = fs::File::open(program).unwrap().into();
        within(self.keeper.spawn(spawn, program, None))
            .await
            .unwrap()
    }

    pub(crate) async fn find(&self, name: &str) -> Option<Execution> {
        let list = within(self.keeper.list()).await.unwrap();
        list.into_iter()
            .map(|(execution, _)| execution)
            .find(|execution| execution.execution == name)
    }
}

/// Copies a program by another process: while a test held it open for writing, a child forked by another
/// test would hold it too, and it could not be executed.
pub(crate) fn copy_executable(from: &Path, to: &Path) {
    assert!(
        Command::new("cp")
            .arg(from)
            .arg(to)
            .status()
            .unwrap()
            .success()
    );
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Makes an executable script, likewise.
pub(crate) fn write_script(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    fs::write(&draft, text).unwrap();
    copy_executable(&draft, path);
    fs::remove_file(draft).unwrap();
}

/// What to start: words of the testee, or a program by its path.
pub(crate) fn spawn(name: &str, words: &[&str]) -> Spawn {
    let mut argv: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    if !argv[0].starts_with('/') {
        argv.insert(0, "testee".to_owned());
    }
    Spawn {
        execution: name.to_owned(),
        instance: format!("test/{name}/1"),
        configuration: "test".to_owned(),
        command: words[0].to_owned(),
        argv,
        working_directory: "/".to_owned(),
        digest: "d".to_owned(),
        label: b"label\0".to_vec(),
        ..Spawn::default()
    }
}

pub(crate) fn outcome(execution: &Execution) -> (OutcomeKind, i32) {
    let outcome: &Outcome = execution.outcome.as_ref().unwrap();
    (outcome.kind(), outcome.code)
}

pub(crate) fn stdout(execution: &Execution) -> String {
    String::from_utf8_lossy(&fs::read(&execution.stdout_path).unwrap()).into_owned()
}

pub(crate) fn stderr(execution: &Execution) -> String {
    String::from_utf8_lossy(&fs::read(&execution.stderr_path).unwrap()).into_owned()
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether the process with this pid and start lives.
pub(crate) fn lives(execution: &Execution) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", execution.pid)) else {
        return false;
    };
    let fields: Vec<_> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_ascii_whitespace()
        .collect();
    fields[0] != "Z" && fields[19].parse() == Ok(execution.start_ticks)
}

/// Waits for what no event tells, a short pause at a time.
pub(crate) async fn until(mut condition: impl AsyncFnMut() -> bool) {
    within(async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it takes too long")
}

/// Takes one message with its descriptors, waiting for it.
pub(crate) fn receive_descriptors(socket: impl std::os::fd::AsFd) -> (Vec<u8>, Vec<OwnedFd>) {
    try_receive_descriptors(socket).unwrap()
}

fn try_receive_descriptors(
    socket: impl std::os::fd::AsFd,
) -> std::io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let rights = control.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    let fds = rights.flatten().collect();
    Ok((bytes[..received.bytes].to_vec(), fds))
}

fn config(dir: &Path, executable: &Path, setup: &Setup) -> RnodeConfig {
    RnodeConfig {
        label: "n1".to_owned(),
        namespace: "test".to_owned(),
        host: [127, 0, 0, 1].into(),
        tcp_port: 0,
        flock_port: 0,
        hints: Vec::new(),
        base: None,
        memoir_dir: dir.join("memoir"),
        store_dir: dir.join("store"),
        executable: Executable {
            path: executable.to_owned(),
            digest: Digest::of(b"testee"),
        },
        mounts: setup.mounts.clone(),
        isolation: setup.isolation,
        user_range_start: None,
        tags: Vec::new(),
        network: None,
        quota_bytes: None,
    }
}
