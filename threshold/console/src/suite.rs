//! The backend `local` for the conformance suite and as a plug-in: grounds of a directory each, looked at from below.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use crux_wire::document::v1::Document;
use crux_wire::fulcrum::v1::{Event, HordeState};
use futures_util::stream::BoxStream;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use underverse::{Error, Program, Running, StorageExposure, StorageKind};
use underverse_conformance::{Below, Cannot, Opened, Tap, Vantage};
use underverse_local::{
    Abilities, Base, BaseView, Direct, EndSignal, Executable, ExecutionView, Home, Isolation,
    Local, LocalAdmin, Settings, Start, ThisMachine, VirtualServer,
};
use underverse_plugin::{GROUND_VARIABLE, Served};

/// Variable by which the processes of an execution are found; its value is the execution's directory.
const MARK: &str = "RADIX_DIRECT";
/// Time a connection that is tried may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// Rounds of killing after which something counts as unkillable.
const ROUNDS_MAX: u32 = 2_000;
/// Pause between two rounds of killing.
const ROUND_PAUSE: Duration = Duration::from_millis(5);
/// Longest answer that is read from a container.
const ANSWER_BYTES_MAX: u64 = 256;

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

    async fn list(&self) -> Result<Vec<ExecutionView>, Error> {
        self.base.list().await
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
}

impl LocalBelow {
    /// Cells run from `radix`.
    pub(crate) const fn new(radix: PathBuf) -> Self {
        Self {
            radix,
            isolation: OnceLock::new(),
        }
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
            let pids = marked(directory, Some(id))?;
            let named = |(pid, _): &&(i32, String)| {
                environment(*pid).is_ok_and(|found| found.contains_key("RADIX_NAME"))
            };
            if let Some((pid, _)) = pids.iter().find(named) {
                return Ok(*pid);
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
        Err(Cannot::Failed(format!("nothing of {id} runs")))
    }
}

fn environment(pid: i32) -> std::io::Result<BTreeMap<String, String>> {
    let bytes = std::fs::read(format!("/proc/{pid}/environ"))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let pair = |pair: &str| {
        pair.split_once('=')
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    Ok(text.split('\0').filter_map(pair).collect())
}

/// The processes below `directory` with the name of their execution; of one execution, if it is named.
fn marked(directory: &Path, of: Option<&str>) -> Result<Vec<(i32, String)>, Cannot> {
    let folder = format!("{}/", directory.join("direct").display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let environment = environment(pid).unwrap_or_default();
        let Some(execution) = environment
            .get(MARK)
            .and_then(|mark| mark.strip_prefix(&folder))
        else {
            continue;
        };
        if of.is_none_or(|of| of == execution) {
            found.push((pid, execution.to_owned()));
        }
    }
    found.sort();
    Ok(found)
}

fn end_all(directory: &Path, of: Option<&str>) -> Result<(), Cannot> {
    for _ in 0..ROUNDS_MAX {
        let pids = marked(directory, of)?;
        if pids.is_empty() {
            return Ok(());
        }
        for (pid, _) in pids {
            // One that is gone by now was found a moment ago.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(ROUND_PAUSE);
    }
    Err(Cannot::Failed("something does not end".to_owned()))
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
            let containers = directories.filter(|name| hordes.join(&horde).join(name).is_dir());
            found.extend(containers.map(|name| format!("container {horde}/{name}")));
            found.insert(format!("horde {horde}"));
        }
        found.extend(
            marked(directory, None)?
                .into_iter()
                .map(|(_, execution)| format!("execution {execution}")),
        );
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
        end_all(directory, Some(id))
    }

    fn sweep(&self, directory: &Path) {
        if let Err(cannot) = end_all(directory, None) {
            crate::output::talk(&format!("{}: {cannot}", directory.display()));
        }
    }

    async fn environment(
        &self,
        directory: &Path,
        of: &Running,
    ) -> Result<BTreeMap<String, String>, Cannot> {
        Ok(environment(Self::pid(directory, of.id.as_str()).await?)?)
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

    async fn reach(&self, from: Vantage<'_>, to: SocketAddr) -> Result<Option<String>, Cannot> {
        if !to.ip().is_loopback() {
            return Err(Cannot::NotOffered("connections are tried on loopback only"));
        }
        if let Vantage::Inside(running) = from {
            let theirs = running
                .pid
                .and_then(|pid| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok());
            if theirs != std::fs::read_link("/proc/self/ns/net").ok() {
                return Err(Cannot::NotOffered(
                    "connections are not tried from other network namespaces",
                ));
            }
        }
        let answer = tokio::task::spawn_blocking(move || answer(to)).await;
        Ok(answer.ok().flatten())
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

/// What is answered at `to`; `None` if nobody does.
fn answer(to: SocketAddr) -> Option<String> {
    let stream = TcpStream::connect_timeout(&to, CONNECT_TIME_MAX).ok()?;
    stream.set_read_timeout(Some(CONNECT_TIME_MAX)).ok()?;
    let mut text = String::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_string(&mut text)
        .ok()?;
    (!text.is_empty()).then_some(text)
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
        || crate::home::Home::open().map(|home| home.join("plugin-local")),
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
