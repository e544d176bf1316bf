//! A base without a base rnode: for library users, who have no owner, no document and no agent.
//!
//! It starts `radix cell …` and `radix forward …` itself, as detached processes that outlive it, and finds them again:
//! each has a directory below `direct/` with what was asked, which process it became and how it ended
//! (`direct/execution.rs`). It spawns no task; a dead child is reaped when somebody looks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use crux_core::digest::Digest;
use crux_net::order::Order;
use crux_wire::document::v1::Document;
use crux_wire::fulcrum::v1::{Event, HordeState};
use futures_util::stream::{self, BoxStream, FuturesUnordered, StreamExt as _};
use rustix::fs::FlockOperation;
use tokio::sync::Mutex;
use underverse::{Error, Kind, Strength};

use crate::base::{Abilities, Base, BaseView, EndSignal, ExecutionView, Start};
use crate::config::Executable;
use crate::durable;
use crate::execute::io_at;
use crate::ground::ThisMachine;
use crate::groups::Groups;
use crate::layout::Home;
use crate::local::Local;
use crate::network::Granted;
use crate::settings::Settings;

mod execution;
mod radix;

use execution::Execution;
pub use radix::find_radix;

/// Most ended executions that are kept of a namespace; the oldest go first.
const ENDED_MAX: usize = 1024;
/// Time an earlier process of the same home is given to let go of it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two tries to take the home.
const LOCK_POLL: Duration = Duration::from_millis(20);
/// Between two looks at an execution whose process is not yet known.
const UNKNOWN_POLL: Duration = Duration::from_millis(50);
/// How much of the digest of the home's path tells its marks from those of other homes, in hex digits.
const OWNER_DIGITS: usize = 16;

/// Makes invitations for rnodes; takes the namespace and the label.
pub type Inviter = dyn Fn(&str, &str) -> Result<String, Error> + Send + Sync;

/// A base without a base rnode. One process holds a home's at a time.
pub struct Direct {
    radix: PathBuf,
    root: PathBuf,
    owner: String,
    inviter: Option<Arc<Inviter>>,
    /// Held for as long as we live; the kernel lets go of it if we are killed.
    _lock: fs::File,
    /// What lies below `root`, for one look or start at a time; nobody else changes it while we hold the lock.
    index: Mutex<Index>,
}

impl fmt::Debug for Direct {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Direct")
            .field("radix", &self.radix)
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

/// Names of executions by namespace.
#[derive(Debug, Default)]
struct Index {
    of: BTreeMap<String, BTreeSet<String>>,
    /// Those that were never wholly asked for: a kill came between.
    unasked: BTreeSet<String>,
}

impl Index {
    fn read(root: &Path) -> io::Result<Self> {
        let mut index = Self::default();
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            if !entry.file_type()?.is_dir() {
                continue;
            }
            match Execution::new(entry.path()).namespace() {
                Some(namespace) => drop(index.of.entry(namespace).or_default().insert(name)),
                None => drop(index.unasked.insert(name)),
            }
        }
        Ok(index)
    }

    fn names(&self, of: Option<&str>) -> Vec<String> {
        match of {
            Some(namespace) => self
                .of
                .get(namespace)
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            None => self.of.values().flatten().cloned().collect(),
        }
    }

    fn remove(&mut self, namespace: &str, name: &str) {
        self.unasked.remove(name);
        if let Some(names) = self.of.get_mut(namespace) {
            names.remove(name);
            if names.is_empty() {
                self.of.remove(namespace);
            }
        }
    }
}

impl Direct {
    /// Takes the executions of `home`, running ones included, and starts more from the executable `radix`.
    ///
    /// # Errors
    /// `Taken` if another process holds them, `Io`.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken.
    pub async fn open(home: &Home, radix: impl Into<PathBuf>) -> Result<Self, Error> {
        let root = home.direct();
        durable::create_dir(&root).map_err(io_at("make the directory of executions", &root))?;
        let root =
            fs::canonicalize(&root).map_err(io_at("find the directory of executions", &root))?;
        let lock = take(&root).await?;
        let index = Index::read(&root).map_err(io_at("list the executions", &root))?;
        let text = Digest::of(root.as_os_str().as_encoded_bytes()).to_string();
        Ok(Self {
            radix: radix.into(),
            owner: text[..OWNER_DIGITS].to_owned(),
            root,
            inviter: None,
            _lock: lock,
            index: Mutex::new(index),
        })
    }

    /// Runs rnodes too: of `owner` (hex of its id), with invitations from `inviter`.
    #[must_use]
    pub fn with_owner(mut self, owner: impl Into<String>, inviter: Arc<Inviter>) -> Self {
        self.owner = owner.into();
        self.inviter = Some(inviter);
        self
    }

    fn execution(&self, name: &str) -> Execution {
        Execution::new(self.root.join(name))
    }

    /// The executions that were ever started and are kept.
    fn look(&self, index: &mut Index, of: Option<&str>) -> io::Result<Vec<ExecutionView>> {
        let mut views = Vec::new();
        let mut ended: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
        for name in index.names(of) {
            let Some(view) = self.execution(&name).look()? else {
                continue;
            };
            if let Some(end) = &view.ended {
                let of = ended.entry(view.label.namespace.clone()).or_default();
                of.push((end.unix_ms, name));
            }
            views.push(view);
        }
        for (namespace, mut ended) in ended {
            ended.sort();
            let surplus = ended.len().saturating_sub(ENDED_MAX);
            for (_, name) in ended.into_iter().take(surplus) {
                durable::remove_tree(&self.root.join(&name))?;
                index.remove(&namespace, &name);
                views.retain(|view| view.id != name);
            }
        }
        Ok(views)
    }
}

/// The backend `local` over a base of its own in `home`, on this machine, with cells run by `radix`.
///
/// What namespaces this machine grants is found out by trying. The directory is made if need be.
///
/// # Errors
/// `Taken` if another process realises hordes from this home, `Io`.
///
/// # Cancel safety
/// Safe: nothing is taken.
pub async fn on_this_machine(home: &Path, radix: &Path) -> Result<Local, Error> {
    durable::create_dir(home).map_err(io_at("make the state directory", home))?;
    let home = fs::canonicalize(home).map_err(io_at("find the state directory", home))?;
    let home = Home::new(home);
    let base = Direct::open(&home, radix).await?;
    let (isolation, reason) = radix::probe_isolation(radix, &home.direct());
    if let Some(reason) = reason {
        tracing::warn!(reason, "this machine grants no namespaces");
    }
    let executable = Executable {
        path: radix.to_owned(),
        digest: String::new(),
    };
    let granted = Granted::find(radix, &home.direct());
    if let Some(reason) = &granted.switch {
        tracing::warn!(reason, "this machine grants no networks");
    }
    let settings = Settings {
        granted,
        groups: Groups::probe(),
        order: Order::from_environment(),
        ..Settings::new(home, executable, isolation)
    };
    Ok(Local::new(settings, Arc::new(base), Arc::new(ThisMachine)))
}

/// The hordes below `home` of which something runs that a program without a base started, by name.
///
/// Looks only: whoever holds the executions is not disturbed, and nothing is made.
///
/// # Errors
/// `Io` if they cannot be listed.
pub fn running_below(home: &Home) -> Result<BTreeSet<String>, Error> {
    let root = home.direct();
    let failed = |error| io_at("list the executions", &root)(error);
    let index = match Index::read(&root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        index => index.map_err(failed)?,
    };
    let mut running = BTreeSet::new();
    for (namespace, names) in index.of {
        for name in names {
            if Execution::new(root.join(name)).lives().map_err(failed)? {
                running.insert(namespace.clone());
            }
        }
    }
    Ok(running)
}

/// Takes the lock of a directory of executions.
async fn take(root: &Path) -> Result<fs::File, Error> {
    let path = root.join("lock");
    let failed = io_at("open the lock of the executions", &path);
    let mut options = fs::OpenOptions::new();
    let file = options
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    let wait = async {
        while rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            tokio::time::sleep(LOCK_POLL).await;
        }
    };
    if tokio::time::timeout(LOCK_TIMEOUT, wait).await.is_err() {
        let message = "another process realises hordes from this directory";
        return Err(Error::new(Kind::Taken, "take a home", message).with("path", path.display()));
    }
    Ok(file)
}

#[async_trait]
impl Base for Direct {
    fn abilities(&self) -> Abilities {
        let fulcrums = match &self.inviter {
            Some(_) => Strength::Enforced,
            None => Strength::Absent(
                "rnodes need an owner who invites them, and none was given".to_owned(),
            ),
        };
        Abilities {
            fulcrums,
            commands: Strength::Enforced,
            class_doors: Strength::Absent(
                "without an agent nobody knows where instances of a class are ready".to_owned(),
            ),
        }
    }

    async fn describe(&self) -> Result<BaseView, Error> {
        Ok(BaseView {
            owner: self.owner.clone(),
            address: None,
        })
    }

    async fn start(&self, start: Start) -> Result<(), Error> {
        let mut index = self.index.lock().await;
        let name = start.label.execution();
        let of = index.of.entry(start.label.namespace.clone()).or_default();
        of.insert(name.clone());
        index.unasked.remove(&name);
        let started = self.execution(&name).start(&self.radix, &start);
        started.map_err(|error| error.with("execution", name))
    }

    async fn list(&self, of: Option<&str>) -> Result<Vec<ExecutionView>, Error> {
        let mut index = self.index.lock().await;
        self.look(&mut index, of)
            .map_err(io_at("list the executions", &self.root))
    }

    async fn until_ended(&self, executions: &[String]) {
        let wait = |name: &String| {
            let execution = self.execution(name);
            async move {
                while !execution.until_ended().await {
                    tokio::time::sleep(UNKNOWN_POLL).await;
                }
            }
        };
        let mut waits: FuturesUnordered<_> = executions.iter().map(wait).collect();
        waits.next().await;
    }

    async fn signal(&self, execution: &str, signal: EndSignal) -> Result<(), Error> {
        let _index = self.index.lock().await;
        let held = self.execution(execution);
        held.signal(signal)
            .map_err(|error| error.with("execution", execution))
    }

    async fn forget(&self, namespace: &str) -> Result<(), Error> {
        let mut index = self.index.lock().await;
        let mut names = index.names(Some(namespace));
        names.extend(index.unasked.iter().cloned());
        for name in names {
            let forgotten = self.execution(&name).forget();
            if forgotten.map_err(io_at("forget executions", &self.root))? {
                index.remove(namespace, &name);
            }
        }
        Ok(())
    }

    async fn invite(&self, namespace: &str, label: &str) -> Result<String, Error> {
        let Some(inviter) = &self.inviter else {
            let message = "no owner was given";
            return Err(Error::unsupported("invite a rnode", message));
        };
        inviter(namespace, label)
    }

    async fn documents(&self) -> Result<BoxStream<'static, Result<Document, Error>>, Error> {
        Ok(stream::pending().boxed())
    }

    async fn report(&self, _state: HordeState, _events: Vec<Event>) -> Result<(), Error> {
        Ok(())
    }
}
