//! The backend `local` for the conformance suite and as a plug-in: grounds of a directory each, looked at from below.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use crux_net::order::Order;
use crux_net::process::{self, Environment};
use crux_wire::document::v1::Document;
use crux_wire::fulcrum::v1::{Event, HordeState};
use futures_util::stream::BoxStream;
use underverse::{Error, Program, Running, StorageExposure, StorageKind};
use underverse_conformance::{Below, Cannot, Opened, Resolved, Take, Tap, Vantage};
use underverse_local::{
    Abilities, Base, BaseView, Direct, EndSignal, Executable, ExecutionView, Granted, Groups, Home,
    Isolation, Local, LocalAdmin, Settings, Start, ThisMachine, VirtualServer,
};
use underverse_plugin::{GROUND_VARIABLE, Served};

/// Variable by which the processes of an execution are found; its value is the execution's directory.
const MARK: &str = "RADIX_DIRECT";
/// How `radix look` calls this machine's own network.
const OUTSIDE: &str = "-";
/// The directory of a horde in which its switch is held.
const SWITCH: &str = "switch";
/// How long ending what runs may take.
const END_MAX: Duration = Duration::from_secs(10);
/// Looks after which what is awaited counts as not coming.
const ROUNDS_MAX: u32 = 2_000;
/// Pause between two looks.
const ROUND_PAUSE: Duration = Duration::from_millis(5);

/// A base whose mutating calls pass a tap.
#[derive(Debug)]
struct Tapped {
    base: Direct,
    tap: Tap,
}

#[async_trait]
impl Base for Tapped {
    fn abilities(&self) -> Abilities {
        self.base.abilities()
    }

    async fn describe(&self) -> Result<BaseView, Error> {
        self.base.describe().await
    }

    async fn start(&self, start: Start) -> Result<(), Error> {
        self.tap.call("start").await?;
        self.base.start(start).await
    }

    async fn list(&self, of: Option<&str>) -> Result<Vec<ExecutionView>, Error> {
        self.base.list(of).await
    }

    async fn until_ended(&self, executions: &[String]) {
        self.base.until_ended(executions).await;
    }

    async fn signal(&self, execution: &str, signal: EndSignal) -> Result<(), Error> {
        self.tap.call("signal").await?;
        self.base.signal(execution, signal).await
    }

    async fn forget(&self, namespace: &str) -> Result<(), Error> {
        self.tap.call("forget").await?;
        self.base.forget(namespace).await
    }

    async fn invite(&self, namespace: &str, label: &str) -> Result<String, Error> {
        self.tap.call("invite").await?;
        self.base.invite(namespace, label).await
    }

    async fn documents(&self) -> Result<BoxStream<'static, Result<Document, Error>>, Error> {
        self.base.documents().await
    }

    async fn report(&self, state: HordeState, events: Vec<Event>) -> Result<(), Error> {
        self.base.report(state, events).await
    }
}

/// `local` over a base of its own, below any directory.
#[derive(Debug)]
pub(crate) struct LocalBelow {
    radix: PathBuf,
    isolation: OnceLock<Isolation>,
    granted: OnceLock<Granted>,
}

impl LocalBelow {
    /// Cells run from `radix`.
    pub(crate) const fn new(radix: PathBuf) -> Self {
        Self {
            radix,
            isolation: OnceLock::new(),
            granted: OnceLock::new(),
        }
    }

    /// What networks this machine grants, found out by trying, once.
    fn granted(&self, directory: &Path) -> &Granted {
        self.granted
            .get_or_init(|| Granted::find(&self.radix, directory))
    }

    /// How `radix look` is told where to look from.
    async fn vantage(directory: &Path, from: Vantage<'_>) -> Result<String, Cannot> {
        match from.id() {
            Some(id) => Ok(Self::pid(directory, id).await?.to_string()),
            None => Ok(OUTSIDE.to_owned()),
        }
    }

    /// What `radix look` tells, in a process of its own, since it goes where a container is.
    async fn look(&self, words: &[&str]) -> Result<String, Cannot> {
        let mut command = tokio::process::Command::new(&self.radix);
        command.arg("look").args(words).stdin(Stdio::null());
        let output = command.output().await?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let reason = String::from_utf8_lossy(&output.stderr);
        Err(Cannot::Failed(reason.trim().to_owned()))
    }

    /// What this machine grants, found out by trying, once.
    fn isolation(&self, directory: &Path) -> Isolation {
        *self.isolation.get_or_init(|| {
            let trial = directory.join("trial");
            let probe = fulcrum::cell::probe(&self.radix, &trial);
            let _ = std::fs::remove_dir(trial);
            match probe.isolation {
                fulcrum::config::Isolation::PidMount => Isolation::PidMount,
                fulcrum::config::Isolation::None => Isolation::None,
            }
        })
    }

    /// The process of the container's own program, once it runs.
    async fn pid(directory: &Path, id: &str) -> Result<i32, Cannot> {
        for _ in 0..ROUNDS_MAX {
            let named = |environment: &Environment| {
                belongs(environment, directory, Some(id))
                    && environment.value("RADIX_NAME").is_some()
            };
            if let Some(pid) = process::carrying(named)?.first() {
                return Ok(*pid);
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
        Err(Cannot::Failed(format!("nothing of {id} runs")))
    }
}

/// The execution below `directory` that a process belongs to.
fn execution(environment: &Environment, directory: &Path) -> Option<String> {
    let mark = environment.value(MARK)?;
    let folder = format!("{}/", directory.join("direct").display());
    let name = mark.strip_prefix(folder.as_bytes())?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// The processes below `directory`; of one execution, if it is named.
fn marked(directory: &Path, of: Option<&str>) -> std::io::Result<Vec<i32>> {
    process::carrying(|environment| belongs(environment, directory, of))
}

fn belongs(environment: &Environment, directory: &Path, of: Option<&str>) -> bool {
    let found = execution(environment, directory);
    found.is_some_and(|found| of.is_none_or(|of| of == found))
}

fn end_all(directory: &Path, of: Option<&str>) -> std::io::Result<()> {
    process::end_carrying(|environment| belongs(environment, directory, of), END_MAX).map(drop)
}

/// The control groups of the containers below `directory`.
fn groups(directory: &Path) -> Vec<PathBuf> {
    let hordes = directory.join("hordes");
    let mut found = Vec::new();
    for horde in names(&hordes) {
        for container in names(&hordes.join(&horde)) {
            let path = hordes.join(&horde).join(container).join("command.json");
            let text = std::fs::read(path).unwrap_or_default();
            let file: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
            let groups = file["groups"].as_array().into_iter().flatten();
            found.extend(groups.filter_map(|group| group.as_str().map(PathBuf::from)));
        }
    }
    found
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

#[async_trait]
impl Below for LocalBelow {
    async fn open(&self, directory: &Path, tap: Tap) -> Result<Opened, Cannot> {
        let failed = |error: Error| Cannot::Failed(error.chain());
        let home = Home::new(directory);
        let base = Direct::open(&home, &self.radix).await.map_err(failed)?;
        let executable = Executable {
            path: self.radix.clone(),
            digest: String::new(),
        };
        let servers = ["east", "west"].map(|name| VirtualServer {
            name: name.to_owned(),
            tags: BTreeSet::new(),
        });
        let settings = Settings {
            servers: servers.to_vec(),
            groups: Groups::probe(),
            granted: self.granted(directory).clone(),
            order: Order::from_environment(),
            ..Settings::new(home.clone(), executable, self.isolation(directory))
        };
        let admin = LocalAdmin::new(home, settings.servers.clone());
        let local = Local::new(
            settings,
            Arc::new(Tapped { base, tap }),
            Arc::new(ThisMachine),
        );
        Ok(Opened {
            underverse: Arc::new(local),
            admin: Some(Arc::new(admin)),
            process: None,
        })
    }

    async fn inventory(&self, directory: &Path) -> Result<BTreeSet<String>, Cannot> {
        let mut found = BTreeSet::new();
        let hordes = directory.join("hordes");
        for horde in names(&hordes) {
            let directories = names(&hordes.join(&horde)).into_iter();
            let container =
                |name: &String| hordes.join(&horde).join(name).is_dir() && name.as_str() != SWITCH;
            let containers = directories.filter(container);
            found.extend(containers.map(|name| format!("container {horde}/{name}")));
            found.insert(format!("horde {horde}"));
        }
        let executions = marked(directory, None)?
            .into_iter()
            .filter_map(|pid| execution(&Environment::of(pid).ok()?, directory));
        found.extend(executions.map(|name| format!("execution {name}")));
        for store in ["store0", "store1"] {
            found.extend(
                names(&directory.with_file_name(store))
                    .iter()
                    .map(|name| format!("{store}/{name}")),
            );
        }
        Ok(found)
    }

    async fn remove(&self, directory: &Path, id: &str) -> Result<(), Cannot> {
        if marked(directory, Some(id))?.is_empty() {
            return Err(Cannot::Failed(format!("nothing of {id} runs")));
        }
        Ok(end_all(directory, Some(id))?)
    }

    fn sweep(&self, directory: &Path) {
        let groups = groups(directory);
        if let Err(error) = end_all(directory, None) {
            crate::output::talk(&format!("{}: {error}", directory.display()));
        }
        for group in groups {
            // The kernel lets go of one a moment after its last process; one that is gone was dissolved.
            let gone = |_: &u32| {
                let busy = nix::errno::Errno::EBUSY as i32;
                let removed = std::fs::remove_dir(&group);
                !removed.is_err_and(|error| error.raw_os_error() == Some(busy)) || {
                    std::thread::sleep(ROUND_PAUSE);
                    false
                }
            };
            (0..ROUNDS_MAX).find(gone);
        }
    }

    async fn environment(
        &self,
        directory: &Path,
        of: &Running,
    ) -> Result<BTreeMap<String, String>, Cannot> {
        let pid = Self::pid(directory, of.id.as_str()).await?;
        Ok(Environment::of(pid)?.to_text())
    }

    async fn inside(&self, directory: &Path, of: &Running, path: &str) -> Result<PathBuf, Cannot> {
        if self.isolation(directory) == Isolation::None {
            return Err(Cannot::NotOffered(
                "without mount namespaces nothing is mounted",
            ));
        }
        let pid = Self::pid(directory, of.id.as_str()).await?;
        Ok(format!("/proc/{pid}/root{path}").into())
    }

    fn exposure(&self, directory: &Path, number: u32) -> Option<StorageExposure> {
        let source = directory.with_file_name(format!("store{number}"));
        std::fs::create_dir_all(&source).ok()?;
        let source = source.to_str()?.to_owned();
        let (server, bind) = ("east".to_owned(), "dir:max=64000000".to_owned());
        Some(StorageExposure {
            server,
            source,
            bind,
            kind: StorageKind::FileTree,
            tags: BTreeSet::new(),
            thin: false,
        })
    }

    async fn reach(
        &self,
        directory: &Path,
        from: Vantage<'_>,
        to: SocketAddr,
    ) -> Result<Option<String>, Cannot> {
        let from = Self::vantage(directory, from).await?;
        let text = self.look(&[&from, "tcp", &to.to_string()]).await?;
        Ok(text.lines().next().map(str::to_owned))
    }

    async fn exchange(
        &self,
        directory: &Path,
        from: Vantage<'_>,
        (to, text): (SocketAddr, &str),
    ) -> Result<Option<String>, Cannot> {
        let from = Self::vantage(directory, from).await?;
        let words = [&from, "udp", &to.to_string(), text];
        let answer = self.look(&words).await?;
        Ok(answer.lines().next().map(str::to_owned))
    }

    async fn hold(&self, directory: &Path, from: &[&str], to: SocketAddr) -> Result<u32, Cannot> {
        let mut pids = Vec::new();
        for id in from {
            pids.push(Self::pid(directory, id).await?.to_string());
        }
        let words = [&pids.join(","), "hold", &to.to_string()];
        let text = self.look(&words).await?;
        let count = text.trim_end().parse();
        count.map_err(|_| Cannot::Failed(format!("{text:?} is no number")))
    }

    async fn resolve(
        &self,
        directory: &Path,
        from: &Running,
        name: &str,
    ) -> Result<Vec<Resolved>, Cannot> {
        let pid = Self::pid(directory, from.id.as_str()).await?.to_string();
        let text = self.look(&[&pid, "name", name]).await?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    fn internet(&self, directory: &Path) -> Option<SocketAddr> {
        let granted = self.granted(directory);
        let can = granted.switch.is_none() && granted.outbound.is_none();
        can.then_some(fulcrum::switch::OUTSIDE.into())
    }

    fn other_addresses(&self) -> Vec<IpAddr> {
        let links = nix::ifaddrs::getifaddrs().into_iter().flatten();
        let address = |link: nix::ifaddrs::InterfaceAddress| {
            Some(IpAddr::V4(link.address?.as_sockaddr_in()?.ip()))
        };
        let addresses: BTreeSet<IpAddr> = links.filter_map(address).collect();
        addresses.into_iter().collect()
    }

    fn taker(&self, port: u16, what: Take) -> Option<Program> {
        let (kind, number) = what.words();
        let radix = self.radix.display().to_string();
        let words = [
            radix,
            "take".to_owned(),
            port.to_string(),
            kind.to_owned(),
            number.to_string(),
        ];
        Some(Program::Command(words.to_vec()))
    }

    fn listener(&self, port: u16) -> Option<Program> {
        let words = [
            self.radix.display().to_string(),
            "answer".to_owned(),
            port.to_string(),
        ];
        Some(Program::Command(words.to_vec()))
    }
}

/// `radix-underverse-local`: this backend as a plug-in, below `RADIX_UNDERVERSE_GROUND` or the state directory.
pub(crate) fn plugin(rest: &[String]) -> ExitCode {
    let words: Vec<&str> = rest.iter().map(String::as_str).collect();
    let ourselves = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("radix"));
    let below = LocalBelow::new(ourselves);
    if let ["--ground", ..] = words.as_slice() {
        return Served::ground(&below, &words[1..]);
    }
    let ground = std::env::var_os(GROUND_VARIABLE).map(PathBuf::from);
    let home = ground.map_or_else(
        || crate::home::Home::open().map(|home| home.join(crate::living::PLUGIN)),
        Ok,
    );
    let opened = home
        .map_err(|failure| failure.to_string())
        .and_then(|home| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.map_err(|error| error.to_string())?;
            let opened = runtime.block_on(below.open(&home, Tap::from_env()));
            opened.map_err(|cannot| cannot.to_string())
        });
    match opened {
        Ok(opened) => {
            let mut served = Served::shared(opened.underverse)
                .below(below)
                .version(env!("CARGO_PKG_VERSION"));
            if let Some(admin) = opened.admin {
                served = served.admin(admin);
            }
            served.run_with(&words)
        }
        Err(reason) => {
            crate::output::talk(&format!("radix-underverse-local: {reason}"));
            ExitCode::FAILURE
        }
    }
}
