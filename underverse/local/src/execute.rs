//! Follows a plan: one function a step. Each may be repeated after a death anywhere within.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::sync::{Mutex, mpsc};
use underverse::{Effect, Error, EventKind, Failure, HordeName, Kind, Progress, StepDone};

use crate::address::{self, Lease};
use crate::base::{BaseView, EndSignal, ExecutionView, Start};
use crate::config::{Isolation, RnodeFile};
use crate::durable;
use crate::events::EventFile;
use crate::label::rnode_label;
use crate::local::Local;
use crate::mark;
use crate::plan::{COMMON, Observed, Plan, Step, rnode_users};
use crate::record::{self, ContainerRecord, Door, ForwardRecord, Record};
use crate::wanted::Wanted;

/// Between two looks at whether something has ended.
const END_POLL: Duration = Duration::from_millis(50);
/// Time a forwarder is given to end after being asked: it holds nothing that must be kept.
const FORWARD_GRACE: Duration = Duration::from_secs(2);
/// Time for the kernel to take away what was ended by force.
const FORCE_GRACE: Duration = Duration::from_secs(10);
/// How often a leased port is tried before the rnode gets another address: 1 s in all.
const PROBES_MAX: u32 = 20;
/// File that shows that a rnode has enrolled.
const ENROLLED: &str = "identity/chain";
/// Most steps of one stage taken at once.
const STEPS_AT_ONCE: usize = 16;
/// Holds a rnode's invitation until it is claimed.
const INVITATION: &str = "invitation";

/// One pass over one horde.
pub(crate) struct Pass<'a> {
    local: &'a Local,
    horde: &'a HordeName,
    /// `None`: the horde is being dissolved.
    wanted: Option<&'a Wanted>,
    generation: (u64, u64),
    base: BaseView,
    record: Mutex<Option<Record>>,
    leases: Mutex<Vec<Lease>>,
}

fn io_error(operation: &'static str, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::AddrInUse => Kind::Taken,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::Denied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Limit,
        io::ErrorKind::TimedOut => Kind::DeadlineExceeded,
        _ => Kind::Io,
    };
    Error::new(kind, operation, error.to_string())
        .effect(Effect::Unknown)
        .caused_by(error)
}

/// Wraps an I/O error of `operation` on `path`.
pub(crate) fn io_at<'p>(
    operation: &'static str,
    path: &'p std::path::Path,
) -> impl FnOnce(io::Error) -> Error + 'p {
    move |error| io_error(operation, error).with("path", path.display())
}

impl<'a> Pass<'a> {
    pub(crate) fn new(
        local: &'a Local,
        horde: &'a HordeName,
        (wanted, generation): (Option<&'a Wanted>, (u64, u64)),
        base: BaseView,
        observed: &Observed,
    ) -> Self {
        Self {
            local,
            horde,
            wanted,
            generation,
            base,
            record: Mutex::new(observed.record.clone()),
            leases: Mutex::new(observed.leases.clone()),
        }
    }

    /// Takes one step.
    pub(crate) async fn take(&self, step: &Step) -> Result<(), Error> {
        match step {
            Step::Record => self.write_record().await,
            Step::Mark(ordinals) => {
                self.change(|record| each(record, ordinals, |held| held.ending = true))
                    .await
            }
            Step::EndForward { execution, .. } => self.end(execution, FORWARD_GRACE).await,
            Step::EndCell {
                execution, ordinal, ..
            } => {
                self.end(execution, self.local.settings().cell_grace)
                    .await?;
                self.sweep(*ordinal).await
            }
            Step::Bury {
                execution,
                ordinal,
                how,
            } => self.bury(execution, *ordinal, how).await,
            Step::RemoveDirectory { ordinal } => self.remove_directory(*ordinal).await,
            Step::Forget { ordinals, doors } => self.forget(ordinals, doors).await,
            Step::Lease(ordinals) => self.lease(ordinals).await,
            Step::Number { cells, forwards } => self.number(cells, forwards).await,
            Step::Prepare { ordinal } => self.prepare(*ordinal).await,
            Step::StartCell { ordinal, .. } => self.start_cell(*ordinal).await,
            Step::Announce(ordinals) => self.announce(ordinals).await,
            Step::StartForward { door } => self.start_forward(door).await,
            Step::RemoveHorde => self.remove_horde(),
        }
    }

    async fn write_record(&self) -> Result<(), Error> {
        let home = &self.local.settings().home;
        let directory = home.horde(self.horde.as_str());
        durable::create_dir(&directory).map_err(io_at("make the horde's directory", &directory))?;
        let mut held = self.record.lock().await;
        let next = match (self.wanted, held.clone()) {
            (Some(wanted), held) => recorded(wanted, held),
            (None, Some(held)) => {
                let generation = held.generation.max(self.generation);
                Record {
                    dissolving: true,
                    generation,
                    ..held
                }
            }
            (None, None) => return Ok(()),
        };
        let path = home.record(self.horde.as_str());
        next.write(home)
            .map_err(io_at("write the horde's record", &path))?;
        *held = Some(next);
        Ok(())
    }

    /// Changes the record and writes it durably before anybody sees the change.
    async fn change(&self, change: impl FnOnce(&mut Record)) -> Result<(), Error> {
        let home = &self.local.settings().home;
        let mut held = self.record.lock().await;
        let Some(mut next) = held.clone() else {
            return Ok(());
        };
        change(&mut next);
        let path = home.record(self.horde.as_str());
        next.write(home)
            .map_err(io_at("write the horde's record", &path))?;
        *held = Some(next);
        Ok(())
    }

    /// Asks an execution to end, waits, forces it, and returns when the base says that it ended.
    async fn end(&self, execution: &str, grace: Duration) -> Result<(), Error> {
        for (signal, grace) in [(EndSignal::Ask, grace), (EndSignal::Force, FORCE_GRACE)] {
            match self.local.base().signal(execution, signal).await {
                Err(error) if error.kind() == Kind::NotFound => return Ok(()),
                other => other?,
            }
            if tokio::time::timeout(grace, self.ended(execution))
                .await
                .is_ok()
            {
                return Ok(());
            }
        }
        Err(Error::new(
            Kind::DeadlineExceeded,
            "end an execution",
            "it does not end",
        )
        .effect(Effect::Unknown)
        .with("execution", execution))
    }

    async fn ended(&self, execution: &str) {
        loop {
            // A base that is away for a moment is asked again; the time-out around us is the limit.
            if let Ok(list) = self.local.base().list().await
                && list
                    .iter()
                    .all(|view| view.id != execution || view.ended.is_some())
            {
                return;
            }
            tokio::time::sleep(END_POLL).await;
        }
    }

    /// Without a pid namespace, ends what carries the rnode's mark: only then is it dead.
    async fn sweep(&self, ordinal: u32) -> Result<(), Error> {
        let isolation = self
            .record
            .lock()
            .await
            .as_ref()
            .map(|record| record.isolation);
        if isolation == Some(Isolation::PidMount) {
            return Ok(());
        }
        let label = rnode_label(ordinal);
        let mark = mark::rnode_mark(self.horde.as_str(), &label, &self.base.owner);
        let swept = self.local.ground().sweep(mark).await;
        swept.map_err(|error| io_error("end a rnode's processes", error).with("rnode", label))
    }

    async fn bury(&self, execution: &str, ordinal: u32, how: &str) -> Result<(), Error> {
        self.sweep(ordinal).await?;
        let asked = {
            let record = self.record.lock().await;
            let held = record
                .as_ref()
                .and_then(|record| record.containers.get(&ordinal));
            held.is_some_and(|held| held.ending)
        };
        if !asked {
            let kind = EventKind::ContainerFailed {
                container: execution.to_owned(),
                reason: how.to_owned(),
            };
            self.tell(vec![(rnode_label(ordinal), kind)])?;
        }
        self.change(|record| each(record, &[ordinal], |held| held.buried = true))
            .await
    }

    async fn announce(&self, ordinals: &[u32]) -> Result<(), Error> {
        let happened: Vec<_> = {
            let record = self.record.lock().await;
            let Some(record) = record.as_ref() else {
                return Ok(());
            };
            let started = |&ordinal: &u32| {
                let container = record.cell_label(ordinal)?.execution();
                let replaces = record.containers.get(&ordinal)?.replaces.clone();
                let kind = EventKind::ContainerStarted {
                    container,
                    replaces,
                };
                Some((rnode_label(ordinal), kind))
            };
            ordinals.iter().filter_map(started).collect()
        };
        self.tell(happened)?;
        self.change(|record| each(record, ordinals, |held| held.announced = true))
            .await
    }

    fn tell(&self, happened: Vec<(String, EventKind)>) -> Result<(), Error> {
        let home = &self.local.settings().home;
        let path = home.events(self.horde.as_str());
        let now = self.local.ground().unix_ms();
        let told = EventFile::new(home, self.horde).append(self.generation.0, now, happened);
        let told = told.map_err(io_at("write down an event", &path))?;
        if !told.is_empty() {
            self.local.ring();
        }
        Ok(())
    }

    async fn remove_directory(&self, ordinal: u32) -> Result<(), Error> {
        self.sweep(ordinal).await?;
        let path = self
            .local
            .settings()
            .home
            .rnode(self.horde.as_str(), &rnode_label(ordinal));
        durable::remove_tree(&path).map_err(io_at("remove a rnode's directory", &path))
    }

    async fn forget(&self, ordinals: &[u32], doors: &[SocketAddr]) -> Result<(), Error> {
        let mut leases = self.leases.lock().await;
        let mut kept = leases.clone();
        kept.retain(|lease| !ordinals.contains(&lease.ordinal));
        self.write_leases(&kept)?;
        *leases = kept;
        drop(leases);
        self.change(|record| {
            record
                .containers
                .retain(|ordinal, _| !ordinals.contains(ordinal));
            record.forwards.retain(|listen, _| !doors.contains(listen));
        })
        .await
    }

    fn write_leases(&self, leases: &[Lease]) -> Result<(), Error> {
        let home = &self.local.settings().home;
        let path = home.addresses(self.horde.as_str());
        address::write(home, self.horde.as_str(), leases).map_err(io_at("lease addresses", &path))
    }

    async fn lease(&self, ordinals: &[u32]) -> Result<(), Error> {
        let mut leases = self.leases.lock().await;
        let mut next = leases.clone();
        let mut taken = self.taken(&next)?;
        let candidates: Vec<_> = address::candidates(self.local.ground().uid()).collect();
        let ground = self.local.ground();
        for &ordinal in ordinals {
            let probe = |host, tcp, udp| ground.probe(host, tcp, udp);
            let lease = address::lease(ordinal, &candidates, &taken, &probe).ok_or_else(|| {
                let message = format!("none of {} loopback addresses is free", candidates.len());
                Error::new(Kind::Limit, "lease an address", message)
                    .with("rnode", rnode_label(ordinal))
            })?;
            taken.insert(lease.host);
            next.push(lease);
        }
        self.write_leases(&next)?;
        *leases = next;
        Ok(())
    }

    fn taken(&self, own: &[Lease]) -> Result<BTreeSet<std::net::Ipv4Addr>, Error> {
        let home = &self.local.settings().home;
        let mut taken = address::leased_elsewhere(home, self.horde.as_str())
            .map_err(io_at("read leased addresses", &home.hordes()))?;
        taken.extend(own.iter().map(|lease| lease.host));
        let base = self
            .base
            .address
            .as_ref()
            .and_then(|base| base.host.parse().ok());
        taken.extend::<Option<std::net::Ipv4Addr>>(base);
        Ok(taken)
    }

    async fn number(&self, cells: &[(u32, u32)], forwards: &[(Door, u32)]) -> Result<(), Error> {
        let Some(wanted) = self.wanted else {
            return Ok(());
        };
        self.change(|record| {
            for &(ordinal, attempt) in cells {
                let replaces = record.cell_label(ordinal).map(|label| label.execution());
                let rnode = wanted.rnodes.iter().find(|rnode| rnode.ordinal == ordinal);
                let Some(rnode) = rnode else { continue };
                let container = ContainerRecord {
                    role: rnode.role.clone(),
                    server: rnode.server.clone(),
                    tags: rnode.tags.clone(),
                    generation: wanted.generation,
                    attempt,
                    replaces,
                    announced: false,
                    ending: false,
                    buried: false,
                };
                record.containers.insert(ordinal, container);
            }
            for (door, attempt) in forwards {
                let forward = ForwardRecord {
                    door: door.clone(),
                    generation: wanted.generation,
                    attempt: *attempt,
                };
                record.forwards.insert(door.listen, forward);
            }
        })
        .await
    }

    async fn prepare(&self, ordinal: u32) -> Result<(), Error> {
        let home = &self.local.settings().home;
        let label = rnode_label(ordinal);
        let directory = home.rnode(self.horde.as_str(), &label);
        durable::create_dir(&directory).map_err(io_at("make a rnode's directory", &directory))?;
        self.settle_address(ordinal).await?;
        let file = self.rnode_file(ordinal).await?;
        file.write(&directory)
            .map_err(io_at("write a rnode's configuration", &directory))?;
        let invitation = directory.join(INVITATION);
        // An empty one is what a machine that went down may have left.
        let held = std::fs::metadata(&invitation).is_ok_and(|held| held.len() > 0);
        if held || directory.join(ENROLLED).exists() {
            return Ok(());
        }
        let text = self
            .local
            .base()
            .invite(self.horde.as_str(), &label)
            .await?;
        durable::write_lightly(&invitation, text.as_bytes())
            .map_err(io_at("write a rnode's invitation", &invitation))
    }

    /// Keeps the rnode's address if its ports are free, else leases another.
    async fn settle_address(&self, ordinal: u32) -> Result<(), Error> {
        let held = self
            .leases
            .lock()
            .await
            .iter()
            .find(|lease| lease.ordinal == ordinal)
            .cloned();
        let Some(lease) = held else {
            return self.lease(&[ordinal]).await;
        };
        for _ in 0..PROBES_MAX {
            let probed = self
                .local
                .ground()
                .probe(lease.host, lease.tcp_port, lease.flock_port);
            if probed.is_ok() {
                return Ok(());
            }
            // What was just ended may hold its ports for a moment.
            tokio::time::sleep(END_POLL).await;
        }
        self.leases
            .lock()
            .await
            .retain(|lease| lease.ordinal != ordinal);
        self.lease(&[ordinal]).await
    }

    async fn rnode_file(&self, ordinal: u32) -> Result<RnodeFile, Error> {
        let settings = self.local.settings();
        let (home, namespace) = (&settings.home, self.horde.as_str());
        let label = rnode_label(ordinal);
        let missing = |what: &str| {
            Error::new(Kind::Bug, "configure a rnode", format!("{what} is missing"))
                .with("rnode", &label)
        };
        let wanted = self.wanted.ok_or_else(|| missing("what is wanted"))?;
        let rnode = wanted.rnodes.iter().find(|rnode| rnode.ordinal == ordinal);
        let rnode = rnode.ok_or_else(|| missing("the rnode"))?;
        let leases = self.leases.lock().await;
        let of = |ordinal| leases.iter().find(|lease| lease.ordinal == ordinal);
        let lease = of(ordinal).ok_or_else(|| missing("its address"))?;
        // Told no more than one hint: the next one, round in a ring.
        let count = u32::try_from(wanted.rnodes.len()).unwrap_or(u32::MAX);
        let next = ordinal % count + 1;
        let hint = of(next).filter(|_| next != ordinal);
        Ok(RnodeFile {
            namespace: namespace.to_owned(),
            host: lease.host,
            tcp_port: lease.tcp_port,
            flock_port: lease.flock_port,
            hints: hint
                .map(|hint| format!("{}:{}", hint.host, hint.flock_port))
                .into_iter()
                .collect(),
            base: self.base.address.clone(),
            memoir_dir: home.memoir(namespace, &label),
            store_dir: home.rnode(namespace, &label).join("store"),
            executable: settings.executable.clone(),
            mounts: rnode.mounts.clone(),
            isolation: wanted.isolation,
            user_range_start: rnode_users(wanted, ordinal),
            tags: rnode.tags.clone(),
            label,
        })
    }

    async fn start_cell(&self, ordinal: u32) -> Result<(), Error> {
        let name = rnode_label(ordinal);
        let label = self
            .record
            .lock()
            .await
            .as_ref()
            .and_then(|record| record.cell_label(ordinal));
        let label = label.ok_or_else(|| {
            Error::new(Kind::Bug, "start a cell", "it has no number").with("rnode", &name)
        })?;
        let directory = self.local.settings().home.rnode(self.horde.as_str(), &name);
        let rnode = self
            .wanted
            .and_then(|wanted| wanted.rnodes.iter().find(|r| r.ordinal == ordinal));
        let mut env = rnode.map_or_else(Vec::new, |rnode| rnode.env.clone());
        let mark = mark::rnode_mark(self.horde.as_str(), &name, &self.base.owner);
        env.push((mark::RNODE_MARK.to_owned(), mark));
        let args = vec![
            "cell".to_owned(),
            "--dir".to_owned(),
            directory.display().to_string(),
        ];
        self.local.base().start(Start { label, args, env }).await
    }

    async fn start_forward(&self, door: &Door) -> Result<(), Error> {
        let record = self.record.lock().await;
        let label = record
            .as_ref()
            .and_then(|record| record.forward_label(door.listen));
        drop(record);
        let label =
            label.ok_or_else(|| Error::new(Kind::Bug, "open a port", "it has no number"))?;
        let words: Vec<String> = [
            ("--listen", door.listen.to_string()),
            ("--namespace", self.horde.to_string()),
            ("--class", door.class.clone()),
            ("--port", door.port.to_string()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
        let args = std::iter::once("forward".to_owned()).chain(words).collect();
        self.local
            .base()
            .start(Start {
                label,
                args,
                env: Vec::new(),
            })
            .await
    }

    fn remove_horde(&self) -> Result<(), Error> {
        let home = &self.local.settings().home;
        let directory = home.horde(self.horde.as_str());
        let generation = home.generation(self.horde.as_str());
        record::keep_generation(home, self.horde.as_str(), self.generation.0)
            .map_err(io_at("keep the horde's last generation", &generation))?;
        durable::remove_tree(&directory)
            .map_err(io_at("remove the horde's directory", &directory))?;
        durable::remove_empty_dir(&home.hordes());
        Ok(())
    }
}

/// Takes the steps of a plan and returns what failed.
///
/// A failed step stops the later ones of its subject, a failed common one all; nothing is forgotten after a failure.
pub(crate) async fn follow(
    pass: &Pass<'_>,
    plan: &Plan,
    progress: &mpsc::Sender<Progress>,
) -> Vec<Failure> {
    let told = |step: &&Step| step.planned().is_some();
    let all = plan.stages.iter().flatten().filter(told).count();
    let of = u32::try_from(all).unwrap_or(u32::MAX);
    let mut number = 0;
    let mut failures: Vec<Failure> = Vec::new();
    for stage in &plan.stages {
        let may = |step: &&Step| {
            let failed = failures
                .iter()
                .any(|failure| failure.subject == step.subject());
            !failed && (failures.is_empty() || !step.forgets())
        };
        let steps: Vec<Step> = stage.iter().filter(may).cloned().collect();
        let take = |step: Step| async move {
            let result = pass.take(&step).await;
            (step, result)
        };
        let mut taken = stream::iter(steps)
            .map(take)
            .buffer_unordered(STEPS_AT_ONCE);
        while let Some((step, result)) = taken.next().await {
            let failure = result.err();
            if let Some(planned) = step.planned() {
                number += 1;
                let failure = failure.as_ref().map(Error::chain);
                let done = StepDone {
                    step: planned,
                    number,
                    of,
                    failure,
                };
                // Nobody need listen for the work to be done.
                drop(progress.send(Progress::Step(done)).await);
            }
            let subject = step.subject();
            failures.extend(failure.map(|error| Failure { subject, error }));
        }
        if failures.iter().any(|failure| failure.subject == COMMON) {
            break;
        }
    }
    failures
}

fn each(record: &mut Record, ordinals: &[u32], change: impl Fn(&mut ContainerRecord)) {
    for ordinal in ordinals {
        if let Some(held) = record.containers.get_mut(ordinal) {
            change(held);
        }
    }
}

/// The record of what is wanted, with the numbers that are held.
fn recorded(wanted: &Wanted, held: Option<Record>) -> Record {
    let (containers, forwards) = held
        .map(|held| (held.containers, held.forwards))
        .unwrap_or_default();
    Record {
        namespace: wanted.namespace.clone(),
        generation: wanted.generation,
        dissolving: false,
        roles: wanted.roles.clone(),
        network: wanted.network.clone(),
        doors: wanted.doors.clone(),
        weaker: wanted.weaker.clone(),
        user_range_start: wanted.user_range_start,
        isolation: wanted.isolation,
        containers,
        forwards,
    }
}

/// Whether a listed execution is of this namespace.
pub(crate) fn is_of(view: &ExecutionView, namespace: &str) -> bool {
    view.label.namespace == namespace
}
