//! The backend `local`: nested rnodes of this machine, each a cell that the base rnode started.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream};
use tokio::sync::{Mutex, watch};
use underverse::{
    AddressId, Capabilities, Effective, Error, EventId, Generation, HordeName, HordePlan,
    HordeSpec, Keep, Kind, ProgressStream, Reply, Running, Server, Tag, Underverse,
    UnderverseEvent,
};

use crate::admin::LocalAdmin;
use crate::base::Base;
use crate::claims::Claims;
use crate::config::Isolation;
use crate::events::EventFile;
use crate::execute::io_at;
use crate::ground::Ground;
use crate::plan::Step;
use crate::servers::Servers;
use crate::settings::{Settings, VirtualServer};
use crate::{answers, discover, external, report};

mod observe;
mod pass;

pub(crate) use observe::horde_directories;
use pass::{Ask, Hold, Look};

/// The backend `local`. Everything it makes is found again from disk and from the base's list.
#[derive(Debug)]
pub struct Local {
    settings: Settings,
    base: Arc<dyn Base>,
    ground: Arc<dyn Ground>,
    /// Rings when an event was written down.
    bell: watch::Sender<u64>,
    /// The addresses that are ours alone.
    claims: Claims,
    /// One pass a horde at a time.
    gates: StdMutex<BTreeMap<HordeName, Arc<Mutex<()>>>>,
    /// One choice at a time of what all hordes share: numbers of switches and ranges of uids.
    choosing: Mutex<()>,
}

impl Local {
    /// The backend over `base`, on the machine `ground`.
    #[must_use]
    pub fn new(settings: Settings, base: Arc<dyn Base>, ground: Arc<dyn Ground>) -> Self {
        assert!(
            !settings.servers.is_empty(),
            "a machine is at least one server"
        );
        let (bell, _) = watch::channel(0);
        Self {
            settings,
            base,
            ground,
            bell,
            claims: Claims::default(),
            gates: StdMutex::default(),
            choosing: Mutex::default(),
        }
    }

    /// The administrator of this machine: whoever holds it may expose storage and change servers.
    #[must_use]
    pub fn administrator(&self) -> LocalAdmin {
        let (home, servers) = (self.settings.home.clone(), self.settings.servers.clone());
        LocalAdmin::new(home, servers).with_machine_root(self.settings.machine_root.clone())
    }

    /// The same with these virtual servers instead of one without tags; must not be empty.
    #[must_use]
    pub fn with_servers(mut self, servers: Vec<VirtualServer>) -> Self {
        assert!(!servers.is_empty(), "a machine is at least one server");
        self.settings.servers = servers;
        self
    }

    /// The same of a machine whose `/dev`, `/proc` and `/sys` are below `root`, as far as tags are found there.
    #[must_use]
    pub fn with_machine_root(mut self, root: impl Into<PathBuf>) -> Self {
        self.settings.machine_root = root.into();
        self
    }

    /// The tags that this machine is found to have.
    pub(crate) fn found(&self) -> BTreeSet<String> {
        discover::tags(&self.settings.machine_root)
    }

    /// How containers are kept apart from this machine, unless a horde asks for less.
    #[must_use]
    pub const fn isolation(&self) -> Isolation {
        self.settings.isolation
    }

    pub(crate) const fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn base(&self) -> &dyn Base {
        self.base.as_ref()
    }

    pub(crate) fn base_arc(&self) -> Arc<dyn Base> {
        Arc::clone(&self.base)
    }

    pub(crate) fn ground(&self) -> &dyn Ground {
        self.ground.as_ref()
    }

    /// Claims an address for a horde; says whether it is new.
    ///
    /// # Errors
    /// `AddrInUse` while somebody else has it.
    pub(crate) fn claim(&self, horde: &HordeName, host: Ipv4Addr) -> io::Result<bool> {
        self.claims
            .claim(horde, host, |host| self.ground.claim(host))
    }

    pub(crate) const fn claims(&self) -> &Claims {
        &self.claims
    }

    pub(crate) fn ring(&self) {
        self.bell.send_modify(|rings| *rings += 1);
    }

    fn gate(&self, horde: &HordeName) -> Arc<Mutex<()>> {
        let mut gates = self
            .gates
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        Arc::clone(gates.entry(horde.clone()).or_default())
    }

    /// The last event of a horde that the base was told of.
    pub(crate) fn told(&self, horde: &HordeName) -> Option<EventId> {
        let text = std::fs::read_to_string(self.settings.home.told(horde.as_str())).ok()?;
        text.trim().parse().ok().map(EventId)
    }

    /// Keeps what [`Local::told`] answers; if that is lost, the base is told twice.
    pub(crate) fn keep_told(&self, horde: &HordeName, event: EventId) {
        if !self.settings.home.horde(horde.as_str()).exists() {
            return;
        }
        let path = self.settings.home.told(horde.as_str());
        if let Err(error) = std::fs::write(path, format!("{event}\n")) {
            tracing::debug!(%error, %horde, "what was told is not kept");
        }
    }

    /// The kept events of a horde after `since`.
    ///
    /// # Errors
    /// `Io`.
    pub fn events_after(
        &self,
        horde: &HordeName,
        since: Option<EventId>,
    ) -> Result<Vec<UnderverseEvent>, Error> {
        let path = self.settings.home.events(horde.as_str());
        EventFile::new(&self.settings.home, horde)
            .after(since)
            .map_err(io_at("read the horde's events", &path))
    }
}

#[async_trait]
impl Underverse for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn capabilities(&self) -> Capabilities {
        let abilities = self.base.abilities();
        report::capabilities(&self.settings, self.ground.uid(), &abilities)
    }

    async fn servers(&self) -> Result<Vec<Server>, Error> {
        let machine = self.ground.machine();
        let home = &self.settings.home;
        let said = Servers::read(home).map_err(io_at("read the servers", &home.servers()))?;
        let found = self.found();
        let tags = |server: &VirtualServer| {
            let own = server.tags.iter().map(ToString::to_string);
            let tags = said
                .tagging(&server.name)
                .and(&found)
                .apply(own)
                .into_iter();
            tags.filter_map(|tag| Tag::new(tag).ok()).collect()
        };
        let mut servers: Vec<Server> = self
            .settings
            .servers
            .iter()
            .map(|server| Server {
                name: server.name.clone(),
                tags: tags(server),
                cpus: machine.cpus,
                memory: machine.memory,
                memory_available: machine.memory_available,
            })
            .collect();
        servers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(servers)
    }

    async fn acquire_address(
        &self,
        horde: &HordeName,
        request: &str,
    ) -> Result<(AddressId, IpAddr), Error> {
        let home = &self.settings.home;
        let path = home.external();
        let given = external::acquire(home, self.ground.uid(), (horde, request))
            .map_err(io_at("obtain an external address", &path))?;
        let given = given.ok_or_else(|| {
            let message = format!("all {} of this user are given out", external::EXTERNAL_MAX);
            Error::new(Kind::Limit, "obtain an external address", message)
        })?;
        Ok((AddressId::from_backend(given.id), IpAddr::V4(given.host)))
    }

    async fn release_address(&self, id: &AddressId) -> Result<(), Error> {
        let home = &self.settings.home;
        let path = home.external();
        let users = self.door_hosts()?;
        let used = |host| users.contains(&IpAddr::V4(host));
        let released = external::release(home, id, used)
            .map_err(io_at("release an external address", &path))?;
        if released {
            return Ok(());
        }
        let message = "a door of a realised horde is there";
        Err(Error::new(Kind::Taken, "release an external address", message).with("address", id))
    }

    async fn plan(&self, generation: Generation, spec: &HordeSpec) -> Result<HordePlan, Error> {
        let Look { plan, .. } = self
            .look(&Ask::Realise(generation, spec), &Hold::default())
            .await?;
        Ok(HordePlan {
            steps: plan
                .stages
                .iter()
                .flatten()
                .filter_map(Step::planned)
                .collect(),
        })
    }

    fn realise<'a>(
        &'a self,
        generation: Generation,
        spec: &'a HordeSpec,
        deadline: Duration,
    ) -> ProgressStream<'a> {
        self.stream(Ask::Realise(generation, spec), BTreeSet::new(), deadline)
    }

    async fn running(&self, name: &HordeName) -> Result<Vec<Running>, Error> {
        let observed = self.observe(name).await?;
        Ok(report::running(&self.settings.home, name, &observed))
    }

    async fn effective(&self, name: &HordeName) -> Result<Effective, Error> {
        let missing = || {
            let error = Error::new(Kind::NotFound, "describe a horde", "it is not there");
            error.with("horde", name)
        };
        let seen = self.seen(name).await?;
        seen.map(|seen| seen.effective).ok_or_else(missing)
    }

    fn dissolve<'a>(
        &'a self,
        generation: Generation,
        name: &'a HordeName,
        keep: Keep,
    ) -> ProgressStream<'a> {
        let deadline = self.settings.cell_grace + DISSOLVE_SLACK;
        self.stream(
            Ask::Dissolve(generation, name, keep),
            BTreeSet::new(),
            deadline,
        )
    }

    fn events(
        &self,
        horde: &HordeName,
        since: Option<EventId>,
    ) -> BoxStream<'static, UnderverseEvent> {
        let file = EventFile::new(&self.settings.home, horde);
        let state = (file, since, self.bell.subscribe(), Vec::new().into_iter());
        Box::pin(stream::unfold(
            state,
            |(file, mut since, mut bell, mut queue)| async move {
                loop {
                    if let Some(event) = queue.next() {
                        let event: UnderverseEvent = event;
                        since = Some(event.id);
                        return Some((event, (file, since, bell, queue)));
                    }
                    bell.mark_unchanged();
                    // A file that cannot be read now is read again at the next ring.
                    let fresh = file.after(since).unwrap_or_default();
                    if fresh.is_empty() {
                        // Another process may have written it down: its bell is not heard here.
                        let rung = tokio::time::timeout(EVENTS_LOOK, bell.changed()).await;
                        if matches!(rung, Ok(Err(_))) {
                            return None;
                        }
                    }
                    queue = fresh.into_iter();
                }
            },
        ))
    }

    async fn answer(&self, horde: &HordeName, event: EventId, reply: Reply) -> Result<(), Error> {
        let known = self
            .events_after(horde, None)?
            .iter()
            .any(|kept| kept.id == event);
        if !known {
            return Err(
                Error::new(Kind::NotFound, "answer an event", "it is not kept")
                    .with("horde", horde)
                    .with("event", event),
            );
        }
        let path = self.settings.home.answers(horde.as_str());
        answers::keep(&path, event, &reply).map_err(io_at("keep an answer", &path))
    }

    async fn list(&self) -> Result<Vec<HordeName>, Error> {
        let hordes = self.settings.home.hordes();
        let mut names: BTreeSet<String> = horde_directories(&hordes)
            .map_err(io_at("list the hordes", &hordes))?
            .into_iter()
            .collect();
        let executions = self.base.list(None).await?;
        let running = executions.into_iter().filter(|view| view.ended.is_none());
        names.extend(running.map(|view| view.label.namespace));
        Ok(names
            .into_iter()
            .filter_map(|name| HordeName::new(name).ok())
            .collect())
    }
}

/// Between two looks for events that another process wrote down.
const EVENTS_LOOK: Duration = Duration::from_secs(1);
/// Time beyond a cell's grace that a dissolve is given: force, sweep and removal.
const DISSOLVE_SLACK: Duration = Duration::from_secs(45);
