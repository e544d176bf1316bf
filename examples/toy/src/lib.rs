//! A backend in under 200 lines: containers are processes. docs/backend-authors.md walks through it.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use underverse::*;
use underverse_conformance::Tap;
use underverse_plugin::kit::{Hordes, environment, pass, process};

mod below;
pub use below::ToyBelow;

/// Most containers of one horde.
pub const COUNT_MAX: u32 = 64;
type Answer<T> = Result<T, Error>;

/// The backend. It remembers nothing: everything is read from below its root again.
#[derive(Debug)]
pub struct Toy {
    hordes: Hordes,
    one_pass: tokio::sync::Mutex<()>,
}

/// What each container is to be made from, by ordinal; or what this backend cannot do.
fn wanted(spec: &HordeSpec) -> Answer<Vec<HordeSpec>> {
    spec.validate()?;
    let no = |kind, why: &str| Err(Error::new(kind, "read a horde", why));
    if spec.count() > COUNT_MAX {
        return no(Kind::Limit, "toy runs at most 64 containers in a horde");
    }
    let bare = spec.storage.is_empty() && spec.users.is_empty() && spec.servers.is_empty();
    if !bare || !spec.network.ports.is_empty() {
        return no(Kind::Unsupported, "toy has no storage, users or doors");
    }
    let mut wanted = Vec::new();
    for one in &spec.execables {
        let bare = one.required.is_empty() && one.mounts.is_empty() && one.limits.is_none();
        if !bare || one.image.is_some() || matches!(one.program, Program::Fulcrum(_)) {
            return no(Kind::Unsupported, "toy runs bare commands only");
        }
        let mut made = spec.clone();
        made.network = NetworkSpec::default();
        made.execables = vec![one.clone()];
        made.execables[0].count = 1;
        wanted.extend(vec![made; one.count as usize]);
    }
    Ok(wanted)
}

impl Toy {
    /// The backend below `root`; the suite counts its mutating calls at `tap`.
    #[must_use]
    pub fn new(root: PathBuf, tap: Tap) -> Self {
        let hordes = Hordes::new(root, tap);
        let one_pass = tokio::sync::Mutex::default();
        Self { hordes, one_pass }
    }

    async fn start(&self, at: Generation, ordinal: u32, made: &HordeSpec) -> Answer<()> {
        let (id, directory) = self.hordes.make(at, ordinal, made).await?;
        let one = &made.execables[0];
        let env = environment(&made.name, ordinal, one, ("toy", &one.added));
        process::start(&directory, one.program.words(), &env)?;
        let label = format!("n{ordinal}");
        self.hordes.journal(&made.name).started(&label, &id)
    }

    async fn make_so(&self, at: Generation, spec: &HordeSpec) -> Answer<End> {
        let (_held, name, hordes) = (self.one_pass.lock().await, &spec.name, &self.hordes);
        hordes.check(name, at)?;
        let wanted = wanted(spec)?;
        hordes.note(at, spec).await?;
        let mut failures = Vec::new();
        let mut note = |subject: String, did: Answer<()>| {
            failures.extend(did.err().map(|error| Failure { subject, error }));
        };
        let (well, ill) = hordes.sorted(name, &wanted);
        for one in &well {
            // Its maker may have died before it told.
            let told = hordes.journal(name).started(&one.label(), &one.id);
            note(one.label(), told);
        }
        for one in &ill {
            note(one.label(), hordes.give_up(name, one).await);
        }
        note("what was given up".to_owned(), hordes.sweep(name).await);
        for (ordinal, made) in (1..).zip(&wanted) {
            if !well.iter().any(|one| one.ordinal == ordinal) {
                note(format!("n{ordinal}"), self.start(at, ordinal, made).await);
            }
        }
        let obtained = hordes.obtained(name);
        Ok(match failures.is_empty() {
            true => End::Done(obtained),
            false => End::Partial(obtained, failures),
        })
    }

    async fn unmake(&self, at: Generation, name: &HordeName) -> Answer<End> {
        let _held = self.one_pass.lock().await;
        self.hordes.unmake(at, name).await?;
        Ok(End::Done(self.hordes.obtained(name)))
    }
}

#[async_trait]
impl Underverse for Toy {
    fn name(&self) -> &str {
        "toy"
    }

    fn capabilities(&self) -> Capabilities {
        use Capability::{Adopt, Commands, Heal, HordeConnected, Outbound, Resize};
        let weak = || Strength::Weak("all share this machine".to_owned());
        let record = Capabilities::new().enforced(&[Adopt, Commands, Heal, Resize]);
        record.with(HordeConnected, weak()).with(Outbound, weak())
    }

    async fn servers(&self) -> Answer<Vec<Server>> {
        let (name, tags, cpus) = ("toy".to_owned(), Default::default(), 1);
        let (memory, memory_available) = Default::default();
        Ok(vec![Server {
            name,
            tags,
            cpus,
            memory,
            memory_available,
        }])
    }

    async fn plan(&self, at: Generation, spec: &HordeSpec) -> Answer<HordePlan> {
        self.hordes.check(&spec.name, at)?;
        let wanted = wanted(spec)?;
        let (well, ill) = self.hordes.sorted(&spec.name, &wanted);
        let reason = || "it is not as asked".to_owned();
        let step = |action, subject| PlannedStep {
            action,
            subject,
            reason: reason(),
        };
        let mut steps: Vec<_> = ill
            .iter()
            .map(|one| step(Action::Remove, one.label()))
            .collect();
        for ordinal in 1..=spec.count() {
            if !well.iter().any(|one| one.ordinal == ordinal) {
                steps.push(step(Action::Start, format!("n{ordinal}")));
            }
        }
        Ok(HordePlan { steps })
    }

    fn realise<'a>(
        &'a self,
        at: Generation,
        spec: &'a HordeSpec,
        by: Duration,
    ) -> ProgressStream<'a> {
        pass(by, self.make_so(at, spec), || {
            self.hordes.obtained(&spec.name)
        })
    }

    async fn running(&self, name: &HordeName) -> Answer<Vec<Running>> {
        Ok(self.hordes.running(name, "toy"))
    }

    async fn effective(&self, name: &HordeName) -> Answer<Effective> {
        self.hordes.effective(name)
    }

    fn dissolve<'a>(&'a self, at: Generation, name: &'a HordeName, _: Keep) -> ProgressStream<'a> {
        pass(Duration::MAX, self.unmake(at, name), || {
            self.hordes.obtained(name)
        })
    }

    fn events(
        &self,
        of: &HordeName,
        since: Option<EventId>,
    ) -> BoxStream<'static, UnderverseEvent> {
        self.hordes.journal(of).follow(since)
    }

    async fn answer(&self, name: &HordeName, event: EventId, _: Reply) -> Answer<()> {
        self.hordes.journal(name).answer(event)
    }

    async fn list(&self) -> Answer<Vec<HordeName>> {
        self.hordes.list()
    }
}
