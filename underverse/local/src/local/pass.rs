//! One pass: looks, plans and acts until nothing is left to do.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::stream;
use tokio::sync::{MutexGuard, mpsc};
use underverse::{
    Effect, End, Error, Failure, Generation, HordeName, HordeSpec, Keep, Kind, Progress,
    ProgressStream,
};

use super::Local;
use crate::base::ExecutionView;
use crate::execute::{Pass, follow};
use crate::label::{Subject, ordinal_of, rnode_label};
use crate::limits::Room;
use crate::plan::{self, Observed, Plan};
use crate::record::Record;
use crate::wanted::Wanted;
use crate::{address, limits, report};

/// Most rounds of one pass; each takes at least one step, and replacing takes one a rnode.
const ROUNDS_MAX: u32 = 2 * limits::RNODES_MAX + 8;
/// Items a progress stream holds while nobody polls.
const PROGRESS_BUFFER: usize = 64;

/// What a pass is asked for.
pub(super) enum Ask<'a> {
    Realise(Generation, &'a HordeSpec),
    Dissolve(Generation, &'a HordeName, Keep),
}

/// What was seen, and what it leads to.
pub(super) struct Look<'a> {
    pub(super) observed: Observed,
    pub(super) wanted: Option<Wanted>,
    pub(super) plan: Plan,
    /// Held until what was chosen first of what was free is written down; `None` where nothing is to be.
    pub(super) choosing: Option<MutexGuard<'a, ()>>,
}

/// Dead executions that are not started again in this pass.
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// By whoever asked for the pass.
    asked: BTreeSet<String>,
    /// What there was when the pass began. What it starts itself is left dead: the next pass is soon enough, and none
    /// runs in circles around a command that cannot live.
    known: Option<BTreeSet<String>>,
    /// How many may run at the end, where there was no room for all when the pass began. What has just been started has
    /// not taken its memory yet, so the machine is not asked again.
    most: Option<Room>,
}

impl Hold {
    pub(super) fn new(asked: BTreeSet<String>) -> Self {
        Self {
            asked,
            ..Self::default()
        }
    }

    fn know(&mut self, observed: &Observed, wanted: Option<&Wanted>) {
        if self.known.is_some() {
            return;
        }
        let all = observed.executions.iter().map(|view| view.id.clone());
        self.known = Some(all.collect());
        let room = wanted.and_then(|wanted| wanted.room.clone());
        self.most = room.map(|room| Room {
            fits: room.fits.saturating_add(running(observed)),
            ..room
        });
    }

    fn of(&self, observed: &Observed) -> BTreeSet<String> {
        let known = |id: &&String| self.known.as_ref().is_none_or(|known| known.contains(*id));
        let all = observed.executions.iter().map(|view| &view.id);
        let fresh = all.filter(|id| !known(id)).cloned();
        self.asked.iter().cloned().chain(fresh).collect()
    }
}

impl Local {
    /// Observes, checks and plans.
    pub(super) async fn look(&self, ask: &Ask<'_>, hold: &Hold) -> Result<Look<'_>, Error> {
        match ask {
            Ask::Realise(generation, spec) => {
                spec.validate()?;
                let mut observed = self.observe(&spec.name).await?;
                self.check_generation(*generation, &spec.name, &observed)?;
                if !observed.directories.is_empty() {
                    let denied = self.base.denied(spec.name.as_str()).await?;
                    observed.denied = denied
                        .iter()
                        .filter_map(|label| ordinal_of(label))
                        .collect();
                }
                // Ordering: from here on nobody chooses a number or range of uids until ours are written down.
                let choosing = self.choosing.lock().await;
                let wanted = Wanted {
                    room: self.room(spec, &observed, hold)?,
                    ..self.wanted(*generation, spec, &observed)?
                };
                self.doors_taken(&wanted.doors, &mut observed);
                let plan = plan::realise(&wanted, &observed, &hold.of(&observed));
                Ok(Look {
                    choosing: plan.records().then_some(choosing),
                    observed,
                    wanted: Some(wanted),
                    plan,
                })
            }
            Ask::Dissolve(generation, horde, keep) => {
                let observed = self.observe(horde).await?;
                if observed.exists {
                    self.check_generation(*generation, horde, &observed)?;
                }
                let plan = plan::dissolve(&observed, *keep);
                Ok(Look {
                    choosing: None,
                    observed,
                    wanted: None,
                    plan,
                })
            }
        }
    }

    /// The room there is for what is missing; `None`: enough.
    ///
    /// # Errors
    /// `Limit` for what was not accepted before and does not fit.
    fn room(
        &self,
        spec: &HordeSpec,
        observed: &Observed,
        hold: &Hold,
    ) -> Result<Option<Room>, Error> {
        let running = running(observed);
        if hold.known.is_some() {
            let rest = |most: &Room| Room {
                fits: most.fits.saturating_sub(running),
                ..most.clone()
            };
            return Ok(hold.most.as_ref().map(rest));
        }
        let missing = spec.count().saturating_sub(running);
        // The machine's figures are dear to read, and nothing is held against them where nothing is added.
        if missing == 0 {
            return Ok(None);
        }
        let machine = self.ground.machine();
        // What was accepted is made as far as there is room; what is asked for beyond it fits, or is refused.
        let accepted = observed.record.as_ref().map_or(0, Record::accepted);
        limits::check(spec.count(), running.max(accepted), &machine)
            .map_err(|error| error.with("horde", &spec.name))?;
        Ok(limits::room(missing, &machine))
    }

    /// Looks, plans and acts until nothing is left to do.
    pub(super) async fn pass(
        &self,
        ask: &Ask<'_>,
        hold: &BTreeSet<String>,
        progress: &mpsc::Sender<Progress>,
    ) -> End {
        let (horde, generation) = match ask {
            Ask::Realise(generation, spec) => (&spec.name, *generation),
            Ask::Dissolve(generation, horde, _) => (*horde, *generation),
        };
        let gate = self.gate(horde);
        let _held = gate.lock().await;
        self.claim_held(horde);
        let mut hold = Hold::new(hold.clone());
        for round in 0..ROUNDS_MAX {
            let Look {
                observed,
                wanted,
                plan,
                choosing,
            } = match self.look(ask, &hold).await {
                Ok(looked) => looked,
                Err(error) if round == 0 => return End::Refused(error),
                Err(error) => return End::Unknown(error.effect(Effect::Unknown)),
            };
            hold.know(&observed, wanted.as_ref());
            if plan.is_empty() {
                return ended(horde, generation, &observed, &plan);
            }
            let base = match self.base.describe().await {
                Ok(base) => base,
                Err(error) if round == 0 => return End::Refused(error),
                Err(error) => return End::Unknown(error.effect(Effect::Unknown)),
            };
            let numbers = (generation.document, generation.term);
            let pass = Pass::new(self, horde, (wanted.as_ref(), numbers), base, &observed)
                .recording(choosing);
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

    /// Claims again what was leased before this backend began.
    ///
    /// Where another has a claim, the rnode keeps the address while it lives: it has the ports.
    fn claim_held(&self, horde: &HordeName) {
        let leases = address::read(&self.settings.home, horde.as_str()).unwrap_or_default();
        for lease in leases {
            if let Err(error) = self.claim(horde, lease.host) {
                tracing::warn!(%horde, host = %lease.host, %error, "a leased address is not claimed");
            }
        }
    }

    pub(super) async fn partial(
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
    pub(super) fn stream<'a>(
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

    pub(super) async fn too_late(&self, ask: &Ask<'_>, deadline: Duration) -> End {
        let (horde, generation) = match ask {
            Ask::Realise(generation, spec) => (&spec.name, *generation),
            Ask::Dissolve(generation, horde, _) => (*horde, *generation),
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

    /// As [`underverse::Underverse::realise`], but the dead executions in `hold` are not started again yet.
    pub fn tend<'a>(
        &'a self,
        generation: Generation,
        spec: &'a HordeSpec,
        hold: BTreeSet<String>,
        deadline: Duration,
    ) -> ProgressStream<'a> {
        self.stream(Ask::Realise(generation, spec), hold, deadline)
    }
}

/// How many containers run.
fn running(observed: &Observed) -> u32 {
    let cell = |view: &&ExecutionView| {
        view.ended.is_none() && matches!(view.label.subject, Subject::Cell { .. })
    };
    let running = observed.executions.iter().filter(cell).count();
    u32::try_from(running).unwrap_or(u32::MAX)
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
    failures.extend(plan.unplaced.iter().map(|(ordinal, reason)| Failure {
        subject: rnode_label(*ordinal),
        error: Error::new(Kind::Unsatisfiable, "place a container", reason.clone()),
    }));
    failures.extend(plan.no_room.iter().map(|(ordinal, reason)| Failure {
        subject: rnode_label(*ordinal),
        error: Error::new(Kind::Limit, "start a rnode", reason.clone()),
    }));
    failures.extend(plan.waiting.iter().map(|ordinal| Failure {
        subject: rnode_label(*ordinal),
        error: Error::new(
            Kind::Unavailable,
            "start a rnode",
            "it ended and waits to be restarted",
        ),
    }));
    failures
}
