//! Follows a plan: one function a step. Each may be repeated after a death anywhere within.

use std::io;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::sync::{Mutex, MutexGuard, mpsc};
use underverse::{Effect, Error, EventKind, Failure, HordeName, Kind, Progress, StepDone};

use crate::address::{self, Lease};
use crate::base::BaseView;
use crate::durable;
use crate::events::{EventFile, News};
use crate::ground::Ground;
use crate::label::rnode_label;
use crate::local::Local;
use crate::plan::{COMMON, Observed, Plan, Step};
use crate::record::{ContainerRecord, Record};
use crate::wanted::Wanted;

mod ending;
mod news;
mod starting;
mod trying;

use ending::FORWARD_GRACE;

/// Between two looks at whether something has ended.
const END_POLL: Duration = Duration::from_millis(50);
/// Most steps of one stage taken at once.
const STEPS_AT_ONCE: usize = 16;

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
    /// What is held until the record is written.
    choosing: Mutex<Option<MutexGuard<'a, ()>>>,
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
            choosing: Mutex::default(),
        }
    }

    /// The same, which lets go of `choosing` once the record is written.
    pub(crate) fn recording(self, choosing: Option<MutexGuard<'a, ()>>) -> Self {
        Self {
            choosing: Mutex::new(choosing),
            ..self
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
                self.announce_leaving(*ordinal)?;
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
            Step::News { news, boot } => self.news(news, boot.as_deref()).await,
            Step::Free(freed) => self.free(freed),
            Step::Allot(one) => self.allot(one),
            Step::Lease(ordinals) => self.lease(ordinals).await,
            Step::Number { cells, forwards } => self.number(cells, forwards).await,
            Step::Prepare { ordinal } => self.prepare(*ordinal).await,
            Step::StartCell { ordinal, .. } => self.start_cell(*ordinal).await,
            Step::Announce(ordinals) => self.announce(ordinals).await,
            Step::StartForward { door } => self.start_forward(door).await,
            Step::Probe(of) => self.try_network(of).await,
            Step::RemoveHorde => self.remove_horde().await,
        }
    }

    async fn write_record(&self) -> Result<(), Error> {
        let _chosen = self.choosing.lock().await.take();
        let home = &self.local.settings().home;
        let directory = home.horde(self.horde.as_str());
        durable::create_dir(&directory).map_err(io_at("make the horde's directory", &directory))?;
        let mut held = self.record.lock().await;
        let next = match (self.wanted, held.clone()) {
            (Some(wanted), held) => Record {
                boot: boot_of(held.as_ref(), self.local.ground()),
                ..recorded(wanted, held)
            },
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
            let news = |(subject, kind)| News::container(subject, kind);
            ordinals.iter().filter_map(started).map(news).collect()
        };
        self.tell(happened)?;
        self.change(|record| each(record, ordinals, |held| held.announced = true))
            .await
    }

    fn tell(&self, happened: Vec<News>) -> Result<(), Error> {
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

    fn write_leases(&self, leases: &[Lease]) -> Result<(), Error> {
        let home = &self.local.settings().home;
        let path = home.addresses(self.horde.as_str());
        address::write(home, self.horde.as_str(), leases).map_err(io_at("lease addresses", &path))
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
        let order = pass.local.settings().order;
        let mut taken = stream::iter(order.arrange(steps))
            .map(take)
            .buffer_unordered(order.at_once(STEPS_AT_ONCE));
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
    // A horde that begins is not told of what came before it.
    let told = held
        .as_ref()
        .map_or(wanted.servers_serial, |held| held.told);
    let maintenance = held.as_ref().map(|held| held.maintenance.clone());
    let (containers, forwards, probed) = held
        .map(|held| (held.containers, held.forwards, held.probed))
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
        told,
        boot: String::new(),
        maintenance: maintenance.unwrap_or_default(),
        switch: wanted.switch.as_ref().map(|switch| switch.on),
        probed,
        containers,
        forwards,
    }
}

/// The boot that a record is of: the present one for a new record, else what it says until that was told.
fn boot_of(held: Option<&Record>, ground: &dyn Ground) -> String {
    let known = held
        .map(|held| held.boot.clone())
        .filter(|boot| !boot.is_empty());
    known.unwrap_or_else(|| ground.boot())
}
