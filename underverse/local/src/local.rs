//! The backend `local`: nested rnodes of this machine, each a cell that the base rnode started.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream};
use tokio::sync::{Mutex, mpsc, watch};
use underverse::{
    AddressId, Capabilities, Effect, Effective, End, Error, EventId, Failure, Generation,
    HordeName, HordePlan, HordeSpec, Keep, Kind, Progress, ProgressStream, Reply, Running, Server,
    Underverse, UnderverseEvent,
};

use crate::address::{self, Lease};
use crate::base::{Base, ExecutionView};
use crate::config::RnodeFile;
use crate::events::EventFile;
use crate::execute::{Pass, follow, io_at, is_of};
use crate::ground::Ground;
use crate::label::{Subject, ordinal_of};
use crate::plan::{self, DirectoryView, Observed, Plan, Step};
use crate::record::{self, Door, Record};
use crate::settings::Settings;
use crate::wanted::{Facts, Wanted, wanted};
use crate::{answers, limits, report};

/// Most rounds of one pass; each takes at least one step, and replacing takes one a rnode.
const ROUNDS_MAX: u32 = 2 * limits::RNODES_MAX + 8;
/// Items a progress stream holds while nobody polls.
const PROGRESS_BUFFER: usize = 64;

/// The backend `local`. Everything it makes is found again from disk and from the base's list.
#[derive(Debug)]
pub struct Local {
    settings: Settings,
    base: Arc<dyn Base>,
    ground: Arc<dyn Ground>,
    /// Rings when an event was written down.
    bell: watch::Sender<u64>,
    /// One pass a horde at a time.
    gates: StdMutex<BTreeMap<HordeName, Arc<Mutex<()>>>>,
}

/// What can be seen of a horde.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) running: Vec<Running>,
    pub(crate) effective: Effective,
    pub(crate) leases: Vec<Lease>,
}

/// What a pass is asked for.
enum Ask<'a> {
    Realise(Generation, &'a HordeSpec),
    Dissolve(Generation, &'a HordeName),
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
            gates: StdMutex::default(),
        }
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

    /// Looks at disk and base.
    pub(crate) async fn observe(&self, horde: &HordeName) -> Result<Observed, Error> {
        let (home, name) = (&self.settings.home, horde.as_str());
        let executions = self.base.list().await?;
        let executions = executions
            .into_iter()
            .filter(|view| is_of(view, name))
            .collect();
        let directory = home.horde(name);
        let record = Record::read(home, name)
            .map_err(io_at("read the horde's record", &home.record(name)))?;
        let leases = address::read(home, name)
            .map_err(io_at("read the horde's addresses", &home.addresses(name)))?;
        let directories =
            directories(&directory).map_err(io_at("read the horde's directory", &directory))?;
        Ok(Observed {
            record,
            leases,
            directories,
            executions,
            doors_taken: BTreeMap::new(),
            exists: directory.exists(),
        })
    }

    /// The doors that nobody of ours holds and that cannot be had.
    fn doors_taken(&self, doors: &[Door], observed: &mut Observed) {
        for door in doors {
            let ours = observed.executions.iter().any(|view| {
                view.ended.is_none()
                    && matches!(view.label.subject, Subject::Forward { listen, .. } if listen == door.listen)
            });
            if ours {
                continue;
            }
            if let Err(error) = self.ground.can_listen(door.listen) {
                observed
                    .doors_taken
                    .insert(door.listen, why_closed(door.listen, &error));
            }
        }
    }

    fn wanted(
        &self,
        generation: Generation,
        spec: &HordeSpec,
        observed: &Observed,
    ) -> Result<Wanted, Error> {
        let user_ranges_taken = self.user_ranges_taken(spec.name.as_str());
        let ground = self.ground();
        let facts = Facts {
            settings: &self.settings,
            uid: ground.uid(),
            exists: &|path: &Path| ground.exists(path),
            record: observed.record.as_ref(),
            user_ranges_taken: &user_ranges_taken,
        };
        wanted(generation, spec, &facts)
    }

    fn user_ranges_taken(&self, horde: &str) -> BTreeSet<u32> {
        let home = &self.settings.home;
        let others = horde_directories(&home.hordes()).unwrap_or_default();
        let held = |other: &String| Record::read(home, other).ok()??.user_range_start;
        others
            .iter()
            .filter(|other| *other != horde)
            .filter_map(held)
            .collect()
    }

    /// Refuses a generation below the highest that was ever written down for the horde.
    fn check_generation(
        &self,
        generation: Generation,
        horde: &HordeName,
        observed: &Observed,
    ) -> Result<(), Error> {
        let held = observed.record.as_ref().map(Record::generation);
        let last = record::last_generation(&self.settings.home, horde.as_str());
        let last = last.map(Generation::of_document);
        match held.max(last) {
            Some(highest) if generation < highest => Err(Error::new(
                Kind::Stale,
                "change a horde",
                format!("generation {generation} is older than {highest}, which was seen"),
            )
            .with("horde", horde)),
            _ => Ok(()),
        }
    }

    /// Observes, checks and plans.
    async fn look(
        &self,
        ask: &Ask<'_>,
        hold: &BTreeSet<String>,
    ) -> Result<(Observed, Option<Wanted>, Plan), Error> {
        match ask {
            Ask::Realise(generation, spec) => {
                spec.validate()?;
                let mut observed = self.observe(&spec.name).await?;
                self.check_generation(*generation, &spec.name, &observed)?;
                let running = observed
                    .executions
                    .iter()
                    .filter(|view| view.ended.is_none())
                    .filter(|view| matches!(view.label.subject, Subject::Cell { .. }))
                    .count();
                let running = u32::try_from(running).unwrap_or(u32::MAX);
                limits::check(spec.count(), running, &self.ground.machine())
                    .map_err(|error| error.with("horde", &spec.name))?;
                let wanted = self.wanted(*generation, spec, &observed)?;
                self.doors_taken(&wanted.doors, &mut observed);
                let plan = plan::realise(&wanted, &observed, hold);
                Ok((observed, Some(wanted), plan))
            }
            Ask::Dissolve(generation, horde) => {
                let observed = self.observe(horde).await?;
                if observed.exists {
                    self.check_generation(*generation, horde, &observed)?;
                }
                let plan = plan::dissolve(&observed);
                Ok((observed, None, plan))
            }
        }
    }

    /// Looks, plans and acts until nothing is left to do.
    async fn pass(
        &self,
        ask: &Ask<'_>,
        hold: &BTreeSet<String>,
        progress: &mpsc::Sender<Progress>,
    ) -> End {
        let (horde, generation) = match ask {
            Ask::Realise(generation, spec) => (&spec.name, *generation),
            Ask::Dissolve(generation, horde) => (*horde, *generation),
        };
        let gate = self.gate(horde);
        let _held = gate.lock().await;
        for round in 0..ROUNDS_MAX {
            let (observed, wanted, plan) = match self.look(ask, hold).await {
                Ok(looked) => looked,
                Err(error) if round == 0 => return End::Refused(error),
                Err(error) => return End::Unknown(error.effect(Effect::Unknown)),
            };
            if plan.is_empty() {
                return ended(horde, generation, &observed, &plan);
            }
            let base = match self.base.describe().await {
                Ok(base) => base,
                Err(error) if round == 0 => return End::Refused(error),
                Err(error) => return End::Unknown(error.effect(Effect::Unknown)),
            };
            let numbers = (generation.document, generation.term);
            let pass = Pass::new(self, horde, (wanted.as_ref(), numbers), base, &observed);
            let mut failures = follow(&pass, &plan, progress).await;
            if !failures.is_empty() {
                failures.extend(unobtained(&plan));
                return self.partial(horde, generation, failures).await;
            }
        }
        let error = Error::new(
            Kind::Bug,
            "converge",
            format!("not done in {ROUNDS_MAX} rounds"),
        );
        End::Unknown(error.effect(Effect::Unknown))
    }

    async fn partial(
        &self,
        horde: &HordeName,
        generation: Generation,
        failures: Vec<Failure>,
    ) -> End {
        match self.observe(horde).await {
            Ok(observed) => End::Partial(report::effective(horde, generation, &observed), failures),
            Err(error) => End::Unknown(error.effect(Effect::Unknown)),
        }
    }

    /// A pass as a stream that works while it is polled.
    fn stream<'a>(
        &'a self,
        ask: Ask<'a>,
        hold: BTreeSet<String>,
        deadline: Duration,
    ) -> ProgressStream<'a> {
        let (tx, rx) = mpsc::channel(PROGRESS_BUFFER);
        let work = Box::pin(async move {
            match tokio::time::timeout(deadline, self.pass(&ask, &hold, &tx)).await {
                Ok(end) => end,
                Err(_) => self.too_late(&ask, deadline).await,
            }
        });
        Box::pin(stream::unfold(
            (Some(work), rx, None),
            |(mut work, mut rx, mut end)| async move {
                loop {
                    if let Some(running) = work.as_mut() {
                        tokio::select! {
                            biased;
                            Some(item) = rx.recv() => return Some((item, (work, rx, end))),
                            ended = running => {
                                end = Some(ended);
                                work = None;
                            }
                        }
                    } else if let Ok(item) = rx.try_recv() {
                        return Some((item, (work, rx, end)));
                    } else {
                        let ended = end.take()?;
                        return Some((Progress::End(Box::new(ended)), (work, rx, end)));
                    }
                }
            },
        ))
    }

    async fn too_late(&self, ask: &Ask<'_>, deadline: Duration) -> End {
        let (horde, generation) = match ask {
            Ask::Realise(generation, spec) => (&spec.name, *generation),
            Ask::Dissolve(generation, horde) => (*horde, *generation),
        };
        let message = format!("{} s have passed", deadline.as_secs_f32());
        let error =
            Error::new(Kind::DeadlineExceeded, "finish in time", message).effect(Effect::Unknown);
        self.partial(
            horde,
            generation,
            vec![Failure {
                subject: horde.to_string(),
                error,
            }],
        )
        .await
    }

    /// As [`Underverse::realise`], but the dead executions in `hold` are not started again yet.
    pub fn tend<'a>(
        &'a self,
        generation: Generation,
        spec: &'a HordeSpec,
        hold: BTreeSet<String>,
        deadline: Duration,
    ) -> ProgressStream<'a> {
        self.stream(Ask::Realise(generation, spec), hold, deadline)
    }

    /// The horde's executions as the base lists them.
    pub(crate) async fn executions(&self, horde: &HordeName) -> Result<Vec<ExecutionView>, Error> {
        let executions = self.base.list().await?;
        Ok(executions
            .into_iter()
            .filter(|view| is_of(view, horde.as_str()))
            .collect())
    }

    /// What can be seen of a horde now; `None` if it is not there.
    pub(crate) async fn seen(&self, horde: &HordeName) -> Result<Option<Seen>, Error> {
        let mut observed = self.observe(horde).await?;
        let Some(record) = observed.record.clone() else {
            return Ok(None);
        };
        self.doors_taken(&record.doors, &mut observed);
        Ok(Some(Seen {
            running: report::running(&self.settings.home, horde, &observed),
            effective: report::effective(horde, record.generation(), &observed),
            leases: observed.leases,
        }))
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

/// How a pass with nothing left to do ended.
fn ended(horde: &HordeName, generation: Generation, observed: &Observed, plan: &Plan) -> End {
    let effective = report::effective(horde, generation, observed);
    let failures = unobtained(plan);
    if failures.is_empty() {
        End::Done(effective)
    } else {
        End::Partial(effective, failures)
    }
}

/// What the plan itself says cannot be had now.
fn unobtained(plan: &Plan) -> Vec<Failure> {
    let mut failures: Vec<Failure> = plan
        .refused
        .iter()
        .map(|(door, reason)| Failure {
            subject: format!("port {}", door.listen),
            error: Error::new(Kind::Taken, "open a port", reason.clone()),
        })
        .collect();
    failures.extend(plan.waiting.iter().map(|ordinal| Failure {
        subject: crate::label::rnode_label(*ordinal),
        error: Error::new(
            Kind::Unavailable,
            "start a rnode",
            "it ended and waits to be restarted",
        ),
    }));
    failures
}

fn why_closed(listen: std::net::SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("port {} of {} is taken", listen.port(), listen.ip()),
        io::ErrorKind::PermissionDenied => {
            format!("port {} may not be opened by this user", listen.port())
        }
        io::ErrorKind::AddrNotAvailable => format!("{} is not an address here", listen.ip()),
        _ => format!("port {} of {}: {error}", listen.port(), listen.ip()),
    }
}

/// The rnode directories below a horde's, with what each was last started with.
fn directories(horde: &Path) -> io::Result<BTreeMap<u32, DirectoryView>> {
    let mut found = BTreeMap::new();
    let entries = match std::fs::read_dir(horde) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let ordinal = entry.file_name().to_str().and_then(ordinal_of);
        let Some(ordinal) = ordinal.filter(|_| entry.path().is_dir()) else {
            continue;
        };
        // A file that cannot be read is written anew before the next start.
        let file = RnodeFile::read(&entry.path()).ok().flatten();
        found.insert(ordinal, DirectoryView { file });
    }
    Ok(found)
}

fn horde_directories(hordes: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(hordes) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.path().is_dir() {
            names.extend(entry.file_name().to_str().map(str::to_owned));
        }
    }
    Ok(names)
}

#[async_trait]
impl Underverse for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn capabilities(&self) -> Capabilities {
        report::capabilities(self.settings.isolation, self.ground.uid())
    }

    async fn servers(&self) -> Result<Vec<Server>, Error> {
        let machine = self.ground.machine();
        let mut servers: Vec<Server> = self
            .settings
            .servers
            .iter()
            .map(|server| Server {
                name: server.name.clone(),
                tags: server.tags.clone(),
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
        _horde: &HordeName,
        _request: &str,
    ) -> Result<(AddressId, IpAddr), Error> {
        Err(Error::unsupported(
            "obtain an external address",
            NO_ADDRESSES,
        ))
    }

    async fn release_address(&self, _id: &AddressId) -> Result<(), Error> {
        Err(Error::unsupported(
            "release an external address",
            NO_ADDRESSES,
        ))
    }

    async fn plan(&self, generation: Generation, spec: &HordeSpec) -> Result<HordePlan, Error> {
        let (_, _, plan) = self
            .look(&Ask::Realise(generation, spec), &BTreeSet::new())
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
        _keep: Keep,
    ) -> ProgressStream<'a> {
        let deadline = self.settings.cell_grace + DISSOLVE_SLACK;
        self.stream(Ask::Dissolve(generation, name), BTreeSet::new(), deadline)
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
                        bell.changed().await.ok()?;
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
        let executions = self.base.list().await?;
        let running = executions.into_iter().filter(|view| view.ended.is_none());
        names.extend(running.map(|view| view.label.namespace));
        Ok(names
            .into_iter()
            .filter_map(|name| HordeName::new(name).ok())
            .collect())
    }
}

/// Why there are no external addresses.
const NO_ADDRESSES: &str = "backend local has none: ports are opened on loopback";
/// Time beyond a cell's grace that a dissolve is given: force, sweep and removal.
const DISSOLVE_SLACK: Duration = Duration::from_secs(45);
