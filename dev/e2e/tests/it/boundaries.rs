//! `radix`, the base's agent and its backend killed at every call boundary of `up` and `down`, one after the other.
//!
//! What a boundary is: docs/design/boundaries.md. With `RADIX_FULL=1` every one is tried, else the last of each kind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crux_net::boundary::{CONSENT, CONSENT_FILE, VARIABLE};
use crux_net::process::Environment;
use e2e::{Inventory, Reply, Sandbox, User, kill, wait_for, wait_gone};
use serde_json::Value;

/// Who is killed.
const ROLES: [&str; 3] = ["radix", "agent", "backend"];
/// What the small application is when all is ready.
const TINY: [(&str, u64); 2] = [("cserver", 1), ("stay", 2)];
/// Most boundaries of one pass; more means that it does not end.
const BOUNDARIES_MAX: usize = 400;

/// Which pass is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    Up,
    Down,
}

/// What is done after the death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// The pass is run again, looked at, and all is taken away.
    Again,
    /// All is taken away at once.
    Down,
}

/// A small application in a sandbox, and the switch that ends processes.
struct Bench {
    sandbox: Sandbox,
    port: u16,
}

/// What an undisturbed application consists of.
struct Whole {
    processes: BTreeMap<String, usize>,
    files: BTreeSet<String>,
    left: BTreeSet<String>,
}

impl Bench {
    fn new() -> Self {
        let sandbox = Sandbox::empty(User::Ourselves);
        let port = crate::tiny(&sandbox, 2);
        let bench = Self { sandbox, port };
        fs::create_dir_all(bench.switch()).expect("as the test needs it");
        fs::set_permissions(bench.switch(), fs::Permissions::from_mode(0o700))
            .expect("as the test needs it");
        fs::write(bench.switch().join(CONSENT_FILE), CONSENT).expect("as the test needs it");
        bench
    }

    fn application(&self) -> PathBuf {
        self.sandbox.root().join("tiny")
    }

    fn switch(&self) -> PathBuf {
        self.sandbox.root().join("switch")
    }

    fn pass(&self, pass: Pass) -> Reply {
        let directory = self.application().display().to_string();
        let word = match pass {
            Pass::Up => "up",
            Pass::Down => "down",
        };
        let mut command = self.sandbox.command(&[word, &directory, "--yes"]);
        self.sandbox.run(command.env(VARIABLE, self.switch()))
    }

    /// Forgets what was crossed, and chooses where `role` ends next.
    fn arm(&self, role: &str, number: Option<usize>) {
        for role in ROLES {
            let _ = fs::remove_file(self.switch().join(format!("{role}.arm")));
            let _ = fs::remove_file(self.switch().join(format!("{role}.log")));
        }
        if let Some(number) = number {
            let path = self.switch().join(format!("{role}.arm"));
            fs::write(path, number.to_string()).expect("as the test needs it");
        }
    }

    /// Whether what was armed has died.
    fn died(&self, role: &str) -> bool {
        !self.switch().join(format!("{role}.arm")).exists()
    }

    /// The kinds of what `role` crossed, in order.
    fn kinds(&self, role: &str) -> Vec<String> {
        let text = fs::read_to_string(self.switch().join(format!("{role}.log")));
        let text = text.unwrap_or_default();
        let kinds = text.lines().filter_map(|line| line.split(' ').next());
        kinds.map(str::to_owned).collect()
    }

    /// What was crossed last: where the process died.
    fn place(&self, role: &str, number: usize) -> String {
        let text = fs::read_to_string(self.switch().join(format!("{role}.log")));
        let text = text.unwrap_or_default();
        text.lines().nth(number - 1).unwrap_or("?").to_owned()
    }

    fn fresh(&self) {
        let home = self.sandbox.home();
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home).expect("as the test needs it");
    }

    /// What is there once all is ready: right counts, by everybody's word.
    fn ready(&self) -> (BTreeMap<String, usize>, BTreeSet<String>) {
        let status = self.sandbox.until_settled(&TINY);
        assert_eq!(
            status["instances"].as_array().map(Vec::len),
            Some(3),
            "{status}"
        );
        assert_eq!(labels(&status), ["n1", "n2"], "{status}");
        assert!(std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok());
        (processes(&self.sandbox.home()), self.files("hordes"))
    }

    fn files(&self, below: &str) -> BTreeSet<String> {
        let files = Inventory::take(&self.sandbox.home()).files;
        let here = files.iter().filter(|file| file.starts_with(below));
        here.map(|file| general(&file.to_string_lossy())).collect()
    }

    /// Ends everything and returns what is left on disk.
    fn ended(&self) -> BTreeSet<String> {
        let _ = self.pass(Pass::Down).expect(0);
        let gone = wait_for(Duration::from_secs(10), || {
            processes(&self.sandbox.home()).is_empty().then_some(())
        });
        assert!(gone.is_some(), "{:?}", processes(&self.sandbox.home()));
        let left = Inventory::take(&self.sandbox.home());
        assert_eq!(left.mounts, Vec::<String>::new());
        let freed = std::net::TcpListener::bind(("127.0.0.1", self.port));
        assert!(freed.is_ok(), "the exposed port is free again: {freed:?}");
        left.files
            .iter()
            .map(|file| general(&file.to_string_lossy()))
            .collect()
    }

    /// Runs both passes undisturbed; also the kinds that `role` crosses in `pass`.
    fn whole(&self, pass: Pass, role: &str) -> (Whole, Vec<String>) {
        self.fresh();
        self.arm("", None);
        let _ = self.pass(Pass::Up).expect(0);
        let (processes, files) = self.ready();
        let up = self.kinds(role);
        self.arm("", None);
        let left = self.ended();
        let whole = Whole {
            processes,
            files,
            left,
        };
        match pass {
            Pass::Up => (whole, up),
            Pass::Down => (whole, self.kinds(role)),
        }
    }

    /// Kills `role` at boundary `number` of `pass` and looks at what comes of it; the place, or `None` if it has fewer.
    fn killed(
        &self,
        (pass, role, number): (Pass, &str, usize),
        after: After,
        whole: &Whole,
    ) -> Option<String> {
        self.fresh();
        self.arm("", None);
        if pass == Pass::Down {
            let _ = self.pass(Pass::Up).expect(0);
            let _ = self.ready();
        }
        self.arm(role, Some(number));
        let first = self.pass(pass);
        let died = self.died(role);
        let place = self.place(role, number);
        self.arm("", None);
        assert!(died || first.code == 0, "nobody was killed: {first:?}");
        if pass == Pass::Up && after == After::Again {
            let _ = self.pass(Pass::Up).expect(0);
            let (processes, files) = self.ready();
            assert_eq!(
                processes, whole.processes,
                "nothing doubled, nothing missing"
            );
            assert_eq!(files, whole.files, "the same directories");
        }
        let left = self.ended();
        let strange: Vec<_> = left.difference(&whole.left).collect();
        assert!(strange.is_empty(), "left behind: {strange:?}");
        died.then_some(place)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.arm("", None);
        for (pid, _) in found(&self.sandbox.home()) {
            kill(pid);
            let _ = wait_gone(pid);
        }
    }
}

fn labels(status: &Value) -> Vec<String> {
    let rnodes = status["rnodes"].as_array().into_iter().flatten();
    let label = |rnode: &Value| rnode["label"].as_str().unwrap_or_default().to_owned();
    rnodes.map(label).collect()
}

/// Processes that carry the state directory's name anywhere.
fn found(home: &Path) -> Vec<(i32, String)> {
    let name = home.display().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten();
    let process = |entry: fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        // Ordering: what has its environment has its command line, too.
        let environment = Environment::of(pid).unwrap_or_default();
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let named = |value: &[u8]| String::from_utf8_lossy(value).contains(&name);
        let ours =
            command.contains(&name) || environment.variables().any(|(_, value)| named(value));
        (ours && !command.is_empty()).then_some((pid, command))
    };
    entries.filter_map(Result::ok).filter_map(process).collect()
}

/// The same by command line, and how many there are of each.
fn processes(home: &Path) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for (_, command) in found(home) {
        *counted.entry(general(&command)).or_default() += 1;
    }
    counted
}

/// A name without what differs from run to run: digests, ids and numbers.
fn general(name: &str) -> String {
    let word = |word: &str| {
        let hex = word.len() >= 8 && word.chars().all(|c| c.is_ascii_hexdigit());
        let number = word.chars().all(|c| c.is_ascii_digit());
        match (word.is_empty(), hex, number) {
            (false, true, _) => "H".to_owned(),
            (false, _, true) => "N".to_owned(),
            _ => word.to_owned(),
        }
    };
    let mut out = String::new();
    let mut part = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() {
            part.push(c);
        } else {
            out.push_str(&word(&part));
            part.clear();
            out.push(c);
        }
    }
    out + &word(&part)
}

/// The numbers that are tried: the last of each kind, or all.
fn chosen(kinds: &[String], full: bool) -> Vec<usize> {
    if full {
        return (1..=BOUNDARIES_MAX).collect();
    }
    let last: BTreeMap<&String, usize> = kinds.iter().zip(1..).collect();
    last.into_values().collect()
}

#[expect(clippy::print_stdout, reason = "the count is the result")]
fn enumerate(pass: Pass, role: &str) {
    let full = std::env::var_os("RADIX_FULL").is_some_and(|value| value == "1");
    let bench = Bench::new();
    let (whole, kinds) = bench.whole(pass, role);
    assert!(kinds.len() > 3, "{role} crosses {kinds:?}");
    let mut tried = 0;
    let from = std::env::var("RADIX_FULL_FROM").ok();
    let from = from.and_then(|text| text.parse().ok()).unwrap_or(1);
    for number in chosen(&kinds, full)
        .into_iter()
        .filter(|number| *number >= from)
    {
        let afters: &[After] = match (pass, full) {
            (Pass::Down, _) => &[After::Down],
            (Pass::Up, true) => &[After::Again, After::Down],
            (Pass::Up, false) => &[[After::Again, After::Down][tried % 2]],
        };
        println!("{pass:?} {role} {number} {afters:?}");
        let died: Vec<_> = afters
            .iter()
            .map(|after| bench.killed((pass, role, number), *after, &whole))
            .collect();
        if full && died.iter().all(Option::is_none) {
            break;
        }
        tried += 1;
        println!("  died before: {died:?}");
    }
    println!(
        "{pass:?}: {role} killed at {tried} boundaries of about {}",
        kinds.len()
    );
    assert!(tried > 2, "{role} was killed");
}

#[test]
fn up_whose_radix_is_killed_at_any_boundary_is_finished_by_the_next() {
    enumerate(Pass::Up, "radix");
}

#[test]
fn up_whose_base_agent_is_killed_at_any_boundary_is_finished_by_the_next() {
    enumerate(Pass::Up, "agent");
}

#[test]
fn up_whose_backend_is_killed_at_any_boundary_is_finished_by_the_next() {
    enumerate(Pass::Up, "backend");
}

#[test]
fn down_whose_radix_is_killed_at_any_boundary_is_finished_by_the_next() {
    enumerate(Pass::Down, "radix");
}

#[test]
fn down_whose_base_agent_is_killed_at_any_boundary_is_finished_by_the_next() {
    enumerate(Pass::Down, "agent");
}

#[test]
fn down_whose_backend_is_killed_at_any_boundary_is_finished_by_the_next() {
    enumerate(Pass::Down, "backend");
}
