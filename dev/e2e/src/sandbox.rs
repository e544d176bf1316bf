//! A state directory of a test's own, and everything in it ended when the test ends.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{find_marked, kill};
use crate::user::User;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// What one call of `radix` gave back.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Exit code; 128 + n for a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Reply {
    /// Fails the test with both streams unless the exit code is `code`.
    #[track_caller]
    #[must_use]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "exit code\n--- stdout\n{}\n--- stderr\n{}",
            self.stdout, self.stderr
        );
        self
    }

    /// The result as JSON.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}{}", self.stdout, self.stderr))
    }
}

/// A directory for one test: `home` is its `RADIX_HOME`, `tree` a copy of the workspace's sources.
#[derive(Debug)]
pub struct Sandbox {
    root: PathBuf,
    user: User,
    binary: PathBuf,
    /// One test at a time, so that a machine of two cores is not asked for a dozen applications at once.
    /// Released after everything of this sandbox has ended; `None` in a sandbox beside another.
    _turn: Option<MutexGuard<'static, ()>>,
}

static TURN: Mutex<()> = Mutex::new(());

/// Repeats `look` until it gives a value, at most for `limit`.
pub fn wait_for<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if start.elapsed() > limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap_or_else(|error| panic!("no workspace: {error}"))
}

impl Sandbox {
    /// A fresh sandbox for `user`, with a copy of the workspace's sources in `tree`
    /// and the products of `examples/stix` imported, so that nothing needs a compiler.
    #[track_caller]
    #[must_use]
    pub fn with_stix(user: User) -> Self {
        Self::empty(user).filled()
    }

    /// Another sandbox of the same user with a stix of its own, at the same time as this one.
    #[track_caller]
    #[must_use]
    pub fn beside(&self) -> Self {
        Self::new(self.user, None).filled()
    }

    #[track_caller]
    fn filled(self) -> Self {
        let sandbox = self;
        copy_sources(&workspace(), &sandbox.tree());
        let products = products(&sandbox.binary);
        let mine = sandbox.root.join("products");
        std::fs::copy(products, &mine).expect("the products can be copied");
        sandbox.give();
        let _ = sandbox
            .radix(&["begat", "import", &mine.display().to_string()])
            .expect(0);
        sandbox
    }

    /// A fresh sandbox with nothing in it.
    #[track_caller]
    #[must_use]
    pub fn empty(user: User) -> Self {
        // A test that failed while it had the turn has cleaned up all the same.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Self::new(user, Some(turn))
    }

    #[track_caller]
    fn new(user: User, turn: Option<MutexGuard<'static, ()>>) -> Self {
        let named = std::env::var_os("RADIX_BIN").unwrap_or_else(|| {
            panic!("RADIX_BIN must name the built radix; `cargo xtask check` sets it")
        });
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("radix-e2e-{}-{number}", std::process::id()));
        std::fs::create_dir_all(root.join("home")).expect("a temporary directory can be made");
        let binary = root.join("radix");
        std::fs::copy(&named, &binary)
            .unwrap_or_else(|error| panic!("cannot copy {}: {error}", named.display()));
        let sandbox = Self {
            root,
            user,
            binary,
            _turn: turn,
        };
        sandbox.give();
        sandbox
    }

    fn give(&self) {
        self.user
            .own(&self.root)
            .expect("the sandbox can be given to its user");
    }

    /// The state directory.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// The copy of the built `radix`.
    #[must_use]
    pub fn binary(&self) -> PathBuf {
        self.binary.clone()
    }

    /// The directory for anything else a test makes.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The copy of the workspace's sources.
    #[must_use]
    pub fn tree(&self) -> PathBuf {
        self.root.join("tree")
    }

    /// The application's directory in the copy.
    #[must_use]
    pub fn stix(&self) -> PathBuf {
        self.tree().join("examples/stix")
    }

    /// Replaces `from` by `to` in a file of the application; fails the test when `from` is not there.
    #[track_caller]
    pub fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.stix().join(file);
        let text = std::fs::read_to_string(&path).expect("the file can be read");
        assert!(text.contains(from), "{file} has no `{from}`:\n{text}");
        std::fs::write(&path, text.replacen(from, to, 1)).expect("the file can be written");
    }

    /// Goes on with another radix, the same but for its bytes: an odd one behind its end.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn renew_radix(&mut self) {
        let newer = self.root.join("radix-newer");
        let mut bytes = std::fs::read(&self.binary).expect("radix can be read");
        bytes.push(0);
        std::fs::write(&newer, bytes).expect("a file can be written");
        let permissions = std::fs::metadata(&self.binary).expect("it is there");
        std::fs::set_permissions(&newer, permissions.permissions())
            .expect("it can be made executable");
        self.binary = newer;
        self.give();
    }

    /// The command with `arguments`, not yet started.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(&self.binary, arguments)
    }

    /// The same of another program.
    #[must_use]
    pub fn command_of(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = self.user.command(program, &self.root);
        command
            .args(arguments)
            .env("RADIX_HOME", self.home())
            .env("CARGO_TARGET_DIR", workspace().join("target"))
            .current_dir(&self.root)
            .stdin(Stdio::null());
        command
    }

    /// Runs `radix` to its end.
    #[track_caller]
    #[must_use]
    pub fn radix(&self, arguments: &[&str]) -> Reply {
        self.run(&mut self.command(arguments))
    }

    /// Runs a command of [`Sandbox::command`] to its end.
    #[track_caller]
    #[must_use]
    pub fn run(&self, command: &mut Command) -> Reply {
        use std::os::unix::process::ExitStatusExt as _;
        let output = command
            .output()
            .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let signal = output.status.signal().map(|signal| 128 + signal);
        Reply {
            code: output.status.code().or(signal).unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// `radix up` of the application with `--yes`.
    #[track_caller]
    #[must_use]
    pub fn up(&self) -> Reply {
        self.radix(&["up", &self.stix().display().to_string(), "--yes"])
    }

    /// `radix status --format json`.
    #[track_caller]
    #[must_use]
    pub fn status(&self) -> Value {
        self.radix(&["status", "--format", "json"]).expect(0).json()
    }

    /// Waits until `look` accepts the status; fails the test with the last one otherwise.
    #[track_caller]
    pub fn until<T>(&self, what: &str, mut look: impl FnMut(&Value) -> Option<T>) -> T {
        let mut last = String::new();
        wait_for(Duration::from_secs(90), || {
            let reply = self.radix(&["status", "--format", "json"]);
            last = format!("{}{}", reply.stdout, reply.stderr);
            if reply.code != 0 {
                return None;
            }
            serde_json::from_str(&reply.stdout)
                .ok()
                .and_then(|status| look(&status))
        })
        .unwrap_or_else(|| panic!("never seen: {what}; last status:\n{last}"))
    }

    /// Waits until the application is settled with these numbers of ready instances.
    #[track_caller]
    pub fn until_settled(&self, counts: &[(&str, u64)]) -> Value {
        self.until("settled", |status| {
            let right = counts
                .iter()
                .all(|(class, count)| ready(status, class) == *count);
            (status["settled"] == true && right).then(|| status.clone())
        })
    }
}

/// How many instances of `class` are ready.
fn ready(status: &Value, class: &str) -> u64 {
    let instances = status["instances"].as_array();
    let ready = instances
        .into_iter()
        .flatten()
        .filter(|instance| instance["class"] == class && instance["state"] == "ready");
    ready.count() as u64
}

impl Drop for Sandbox {
    #[expect(
        clippy::print_stdout,
        reason = "tells a failing test what it left running"
    )]
    fn drop(&mut self) {
        let _ = self.radix(&["down", "--purge", "--yes", "--timeout", "20s"]);
        for (pid, command) in find_marked(&self.home()) {
            if std::thread::panicking() {
                println!("ended by the sandbox: {pid} {command}");
            }
            kill(pid);
        }
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

/// Copies what git tracks, and what it does not ignore, to `to`.
fn copy_sources(from: &Path, to: &Path) {
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(from)
        .output()
        .expect("git can list the sources");
    for name in listed
        .stdout
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let name = String::from_utf8_lossy(name).into_owned();
        let (source, target) = (from.join(&name), to.join(&name));
        if source.is_file() {
            std::fs::create_dir_all(target.parent().unwrap_or(to))
                .expect("a directory can be made");
            std::fs::copy(&source, &target).expect("a source can be copied");
        }
    }
}

/// Builds `examples/stix` once for all tests of this run and exports what was made.
fn products(binary: &Path) -> PathBuf {
    static MADE: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let make = || {
        let directory = workspace().join("target/e2e");
        let file = directory.join("products");
        std::fs::create_dir_all(&directory).expect("a directory can be made");
        let stix = workspace().join("examples/stix").display().to_string();
        let file_name = file.display().to_string();
        for arguments in [["begat", "build", &stix], ["begat", "export", &file_name]] {
            let output = User::Ourselves
                .command(binary, &directory)
                .args(arguments)
                .env("RADIX_HOME", directory.join("home"))
                .env("CARGO_TARGET_DIR", workspace().join("target"))
                .output()
                .expect("radix can be run");
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "radix {arguments:?}: {text}");
        }
        file
    };
    MADE.get_or_init(make).clone()
}
