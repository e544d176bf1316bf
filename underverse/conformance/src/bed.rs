//! What cases are written with: a ground, a spec, and the steps that most of them take.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use futures_util::StreamExt as _;
use underverse::{
    Capabilities, Capability, Effective, End, Error, EventId, Execable, Generation, HordeName,
    HordeSpec, Keep, Kind, NetworkSpec, Progress, Role, Running, RunningState, Underverse,
    UnderverseEvent, finish,
};

use crate::case::{Judged, Stop, ensure};
use crate::fixture::{Cannot, Fixture, Ground, Opened};

/// Time that what must come is waited for: containers need not run yet when a pass ends.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Looks at which a number must be the same before it counts: 500 ms.
const SETTLED_LOOKS: u32 = 20;
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(25);
/// Time after which a stream of events counts as quiet.
const QUIET: Duration = Duration::from_millis(700);
/// Time a pass is given.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// A ground with what cases do on it.
#[derive(Debug)]
pub(crate) struct Bed<'f> {
    fixture: &'f dyn Fixture,
    label: String,
    pub(crate) ground: Box<dyn Ground>,
    pub(crate) capabilities: Capabilities,
}

impl<'f> Bed<'f> {
    pub(crate) async fn new(fixture: &'f dyn Fixture, label: &str) -> Result<Self, Cannot> {
        let ground = fixture.ground(label).await?;
        let opened = ground.open().await?;
        let capabilities = opened.underverse.capabilities();
        Ok(Self {
            fixture,
            label: label.to_owned(),
            ground,
            capabilities,
        })
    }

    /// Another fresh ground of the same kind.
    pub(crate) async fn another(&self) -> Result<Self, Stop> {
        let ground = self.fixture.ground(&self.label).await?;
        Ok(Self {
            fixture: self.fixture,
            label: self.label.clone(),
            ground,
            capabilities: self.capabilities.clone(),
        })
    }

    pub(crate) const fn fixture(&self) -> &'f dyn Fixture {
        self.fixture
    }

    pub(crate) fn enforced(&self, capability: Capability) -> bool {
        self.capabilities.strength(capability).reason().is_none()
    }

    pub(crate) fn has(&self, capability: Capability) -> bool {
        self.capabilities.strength(capability).is_present()
    }

    pub(crate) async fn open(&self) -> Result<Opened, Stop> {
        Ok(self.ground.open().await?)
    }

    /// Kills a process of the backend and starts another.
    pub(crate) async fn restart(&self, opened: Opened) -> Result<Opened, Stop> {
        self.ground.kill(&opened).await?;
        drop(opened);
        self.open().await
    }

    pub(crate) async fn inventory(&self) -> Result<BTreeSet<String>, Stop> {
        Ok(self.ground.inventory().await?)
    }

    /// How many objects there are once their number stays: a process that was just started is not told from others at once.
    pub(crate) async fn settled(&self) -> Result<usize, Stop> {
        let (mut count, mut same) = (self.inventory().await?.len(), 0);
        for _ in 0..WAIT_MAX.as_millis() / LOOK.as_millis() {
            tokio::time::sleep(LOOK).await;
            let now = self.inventory().await?.len();
            same = if now == count { same + 1 } else { 0 };
            count = now;
            if same == SETTLED_LOOKS {
                return Ok(count);
            }
        }
        Err(Stop::Failed("the number of objects never stays".to_owned()))
    }

    pub(crate) async fn mutations(&self) -> Result<u64, Stop> {
        Ok(self.ground.mutations().await?)
    }

    /// A role of `count` containers that stay.
    pub(crate) fn execable(&self, role: &str, count: u32) -> Result<Execable, Stop> {
        let mut execable = Execable::new(Role::new(role)?, self.fixture.program());
        execable.count = count;
        Ok(execable)
    }

    /// A horde of `count` containers that stay.
    pub(crate) fn spec(&self, count: u32) -> Result<HordeSpec, Stop> {
        self.spec_named("suite", count)
    }

    pub(crate) fn spec_named(&self, name: &str, count: u32) -> Result<HordeSpec, Stop> {
        Ok(HordeSpec {
            name: HordeName::new(name)?,
            execables: vec![self.execable("hobbit", count)?],
            network: NetworkSpec {
                flock_private: false,
                ..NetworkSpec::default()
            },
            storage: Vec::new(),
            users: Vec::new(),
            servers: Vec::new(),
            settings: BTreeMap::new(),
        })
    }

    /// Dissolves and shows that nothing is left of what was not there before.
    pub(crate) async fn leaves_nothing(
        &self,
        opened: &Opened,
        generation: u64,
        before: &BTreeSet<String>,
    ) -> Judged {
        dissolved(opened, generation, &horde()?).await?;
        let left = self.inventory().await?;
        ensure(&left == before, || {
            format!("left behind: {}", listed(left.difference(before)))
        })
    }
}

/// The horde of most cases.
pub(crate) fn horde() -> Result<HordeName, Stop> {
    Ok(HordeName::new("suite")?)
}

pub(crate) async fn realise(opened: &Opened, generation: u64, spec: &HordeSpec) -> End {
    finish(
        opened
            .underverse
            .realise(Generation::of_document(generation), spec, DEADLINE),
    )
    .await
}

/// Realises, and stops the case unless that ends `Done`.
pub(crate) async fn realised(
    opened: &Opened,
    generation: u64,
    spec: &HordeSpec,
) -> Result<Effective, Stop> {
    done("realise", realise(opened, generation, spec).await)
}

pub(crate) async fn dissolve(
    opened: &Opened,
    generation: u64,
    name: &HordeName,
    keep: Keep,
) -> End {
    finish(
        opened
            .underverse
            .dissolve(Generation::of_document(generation), name, keep),
    )
    .await
}

pub(crate) async fn dissolved(opened: &Opened, generation: u64, name: &HordeName) -> Judged {
    done(
        "dissolve",
        dissolve(opened, generation, name, Keep::Nothing).await,
    )
    .map(drop)
}

pub(crate) fn done(what: &str, end: End) -> Result<Effective, Stop> {
    match end {
        End::Done(effective) => Ok(effective),
        End::Partial(_, failures) => {
            let named: Vec<String> = failures
                .iter()
                .map(|failure| format!("{}: {}", failure.subject, failure.error.chain()))
                .collect();
            Err(Stop::Failed(format!(
                "{what} ended in part: {}",
                named.join("; ")
            )))
        }
        End::Unknown(error) => Err(Stop::Failed(format!(
            "{what} ended without knowing: {}",
            error.chain()
        ))),
        End::Refused(error) => Err(Stop::Failed(format!(
            "{what} was refused as {:?}: {}",
            error.kind(),
            error.chain()
        ))),
    }
}

/// Stops the case unless `end` is a refusal of this kind; returns it.
pub(crate) fn refused(end: End, kind: Kind) -> Result<Error, Stop> {
    match end {
        End::Refused(error) if error.kind() == kind => Ok(error),
        End::Refused(error) => Err(Stop::Failed(format!(
            "refused as {:?} and not {kind:?}: {}",
            error.kind(),
            error.chain()
        ))),
        other => Err(Stop::Failed(format!(
            "should be refused as {kind:?}, and ended {}",
            word(&other)
        ))),
    }
}

pub(crate) const fn word(end: &End) -> &'static str {
    match end {
        End::Done(_) => "done",
        End::Partial(..) => "in part",
        End::Unknown(_) => "without knowing",
        End::Refused(_) => "refused",
    }
}

/// Stops the case unless `result` failed with this kind.
pub(crate) fn fails<T>(result: Result<T, Error>, kind: Kind) -> Result<Error, Stop> {
    match result {
        Err(error) if error.kind() == kind => Ok(error),
        Err(error) => Err(Stop::Failed(format!(
            "failed as {:?} and not {kind:?}: {}",
            error.kind(),
            error.chain()
        ))),
        Ok(_) => Err(Stop::Failed(format!(
            "should fail as {kind:?}, and succeeded"
        ))),
    }
}

/// Every text of an error, for looking up names in it.
pub(crate) fn told(error: &Error) -> String {
    error.chain()
}

/// Waits until exactly `count` containers are started, and returns them.
pub(crate) async fn started(
    underverse: &dyn Underverse,
    name: &HordeName,
    count: usize,
) -> Result<Vec<Running>, Stop> {
    let wanted = |running: &Vec<Running>| {
        running.len() == count && running.iter().all(|one| one.state == RunningState::Started)
    };
    let mut last = Vec::new();
    for _ in 0..WAIT_MAX.as_millis() / LOOK.as_millis() {
        last = underverse.running(name).await?;
        if wanted(&last) {
            return Ok(last);
        }
        tokio::time::sleep(LOOK).await;
    }
    let states: Vec<String> = last
        .iter()
        .map(|one| format!("{} {:?}", one.label, one.state))
        .collect();
    Err(Stop::Failed(format!(
        "{count} should be started, but there are: {}",
        states.join(", ")
    )))
}

/// Realises until a container that was ended is started again, as whoever tends a horde does.
pub(crate) async fn healed(
    opened: &Opened,
    generation: u64,
    spec: &HordeSpec,
    old: &Running,
) -> Result<Vec<Running>, Stop> {
    let count = spec.count() as usize;
    for _ in 0..WAIT_MAX.as_millis() / LOOK.as_millis() {
        let end = realise(opened, generation, spec).await;
        if let End::Refused(error) | End::Unknown(error) = end {
            return Err(error.into());
        }
        let running = opened.underverse.running(&spec.name).await?;
        let well = running.len() == count
            && running
                .iter()
                .all(|one| one.state == RunningState::Started && one.id != old.id);
        if well {
            return Ok(running);
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Stop::Failed(format!("{} was not started again", old.label)))
}

/// The events after `since`, until none has come for a while.
pub(crate) async fn events(
    underverse: &dyn Underverse,
    since: Option<EventId>,
) -> Result<Vec<UnderverseEvent>, Stop> {
    let mut stream = underverse.events(&horde()?, since);
    let mut events = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(QUIET, stream.next()).await {
        events.push(event);
    }
    Ok(events)
}

/// Takes a stream to its end and returns how many ends it had, and whether anything came after one.
pub(crate) async fn ends(mut stream: underverse::ProgressStream<'_>) -> (u32, bool) {
    let (mut ends, mut after) = (0, false);
    while let Some(item) = stream.next().await {
        after |= ends > 0;
        ends += u32::from(matches!(item, Progress::End(_)));
    }
    (ends, after)
}

pub(crate) fn ids(running: &[Running]) -> Vec<String> {
    running.iter().map(|one| one.id.to_string()).collect()
}

pub(crate) fn listed<T: std::fmt::Display>(lines: impl IntoIterator<Item = T>) -> String {
    let lines: Vec<String> = lines.into_iter().map(|line| line.to_string()).collect();
    if lines.is_empty() {
        "nothing".to_owned()
    } else {
        lines.join(", ")
    }
}
