//! A backend in memory that keeps every promise but the one it is told to break.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use underverse::{
    Action, AddressId, ByteCount, Capabilities, Capability as C, Effective, EffectiveNetwork,
    EffectivePort, EffectiveRole, EffectiveStorage, End, Error, EventId, EventKind, Execable,
    Exposed, ExternalAddress, Generation, HordeName, HordePlan, HordeSpec, Keep, Kind,
    NetworkProbe, Obtained, PlannedStep, PortState, Progress, ProgressStream, Protocol, Reply,
    Running, RunningState, Server, ServerChange, StorageExposure, Strength, Tag, Underverse,
    UnderverseAdmin, UnderverseEvent, Weaker,
};
use underverse_conformance::Disturbance;

pub(crate) type Files = BTreeMap<String, String>;

#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) made: Execable,
    pub(crate) server: String,
    pub(crate) tags: BTreeSet<Tag>,
    pub(crate) generation: Generation,
    pub(crate) address: Ipv4Addr,
    pub(crate) started: bool,
    pub(crate) dead: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Rec {
    pub(crate) asked: Option<(Generation, HordeSpec)>,
    pub(crate) containers: BTreeMap<u32, Container>,
    pub(crate) events: Vec<UnderverseEvent>,
    pub(crate) answers: BTreeMap<EventId, Vec<Reply>>,
    /// Doors that are open: external address and what is carried, to the place in the spec.
    pub(crate) doors: BTreeMap<(SocketAddr, Protocol), usize>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    pub(crate) tags: BTreeSet<Tag>,
    pub(crate) gone: bool,
    pub(crate) degraded: bool,
    pub(crate) maintained: Option<tokio::time::Instant>,
    pub(crate) last_move: Option<tokio::time::Instant>,
}

#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) serial: u64,
    pub(crate) seen: BTreeMap<HordeName, Generation>,
    pub(crate) hordes: BTreeMap<HordeName, Rec>,
    pub(crate) places: BTreeMap<String, Place>,
    pub(crate) exposed: Vec<StorageExposure>,
    /// What is allotted: horde and key, to source, bytes and content.
    pub(crate) allotted: BTreeMap<(HordeName, String), (StorageExposure, u64, Files)>,
    addresses: BTreeMap<(HordeName, String), (AddressId, IpAddr)>,
    pub(crate) calls: u64,
    pub(crate) disturb: Option<(u64, Disturbance)>,
    pub(crate) hung: bool,
    pub(crate) turn: usize,
    pub(crate) junk: u64,
}

/// The backend. `fault` names the promise that is broken; empty: none.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) fault: &'static str,
    pub(crate) lean: bool,
    /// How many processes of this ground there were before.
    pub(crate) process: u64,
    pub(crate) gate: Arc<tokio::sync::Mutex<()>>,
}

pub(crate) const CAPACITY: u64 = 64_000_000;
pub(crate) const ADDRESSES: usize = 3;

pub(crate) fn error(kind: Kind, message: impl Into<String>) -> Error {
    Error::new(kind, "model", message)
}

pub(crate) fn now_ms() -> u64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl Model {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("nobody panics with it")
    }

    pub(crate) fn bad(&self, name: &str) -> bool {
        self.fault == name
    }

    /// A mutating call.
    pub(crate) async fn call(&self) -> Result<(), Error> {
        let fate = {
            let mut world = self.world();
            world.calls += 1;
            match world.disturb {
                Some((at, disturbance)) if at == world.calls => {
                    world.hung = matches!(disturbance, Disturbance::HangAt(_));
                    disturbance
                }
                _ => Disturbance::None,
            }
        };
        match fate {
            Disturbance::None => Ok(()),
            Disturbance::FailAt(_) => Err(error(Kind::Unavailable, "the suite refused it")),
            Disturbance::HangAt(_) => std::future::pending().await,
        }
    }

    pub(crate) fn tell(
        &self,
        world: &mut World,
        horde: &HordeName,
        subject: &str,
        kind: EventKind,
    ) {
        let bad = self.fault;
        let Some(rec) = world.hordes.get_mut(horde) else {
            return;
        };
        let id = EventId(rec.events.len() as u64 + 1);
        if bad == "events.first"
            && matches!(kind, EventKind::ContainerStarted { replaces: None, .. })
        {
            return;
        }
        rec.events.push(UnderverseEvent {
            id,
            horde: horde.clone(),
            unix_ms: 0,
            subject: subject.to_owned(),
            kind,
        });
    }

    fn storage_of(&self, world: &World, name: &HordeName) -> Vec<EffectiveStorage> {
        let storage = world
            .allotted
            .iter()
            .filter(|((horde, _), _)| horde == name)
            .map(|((_, key), (from, bytes, _))| {
                let (id, container) = key
                    .split_once('@')
                    .map_or((key.as_str(), None), |(id, label)| {
                        (id, Some(label.to_owned()))
                    });
                let thin = from.thin && !self.bad("storage.thin");
                EffectiveStorage {
                    id: underverse::StorageId::from_backend(id),
                    container,
                    server: from.server.clone(),
                    source: from.source.clone(),
                    capacity: ByteCount::bytes(*bytes),
                    size: if thin {
                        Strength::Weak("thin".to_owned())
                    } else {
                        Strength::Enforced
                    },
                }
            });
        storage.collect()
    }

    pub(crate) fn effective_of(&self, world: &World, name: &HordeName) -> Effective {
        let rec = world.hordes.get(name).cloned().unwrap_or_default();
        let (generation, asked) = rec.asked.clone().map_or_else(
            || (Generation::default(), None),
            |(at, spec)| (at, Some(spec)),
        );
        let mut roles = Vec::new();
        let mut weaker = Vec::new();
        for execable in asked.iter().flat_map(|spec| &spec.execables) {
            let of = |one: &&Container| {
                one.started && one.dead.is_none() && one.made.role == execable.role
            };
            let obtained = rec.containers.values().filter(of).count() as u32;
            let short = obtained < execable.count && !self.bad("effective.counts");
            let shortfall = short.then(|| "it ended".to_owned());
            roles.push(EffectiveRole {
                role: execable.role.clone(),
                wanted: execable.count,
                obtained,
                shortfall,
            });
        }
        let network = asked
            .as_ref()
            .map(|spec| spec.network.clone())
            .unwrap_or_default();
        let private = !self.lean;
        if network.horde_private && !private && !self.bad("realise.weaker") {
            weaker.push(Weaker {
                asked: "horde-private".to_owned(),
                obtained: "weak here".to_owned(),
            });
        }
        let strong = |value: bool| Obtained {
            value,
            strength: Strength::Enforced,
        };
        let mut doors: Vec<_> = rec.doors.iter().collect();
        doors.sort_by_key(|(_, at)| **at);
        let ports = doors
            .into_iter()
            .map(|((address, protocol), at)| EffectivePort {
                address: *address,
                protocol: *protocol,
                class: String::new(),
                internal_port: network.ports.get(*at).map_or(0, |port| port.internal_port),
                state: PortState::Open,
            });
        let probe = || NetworkProbe {
            tried: "n1 to n2".to_owned(),
            connected: true,
            how: "in memory".to_owned(),
        };
        let limit = network
            .external_connections_max
            .filter(|_| !self.bad("network.outbound-limit"));
        let told = if self.bad("network.requested-effective") {
            false
        } else {
            network.horde_private && private
        };
        let generation = if self.bad("effective.generation") {
            Generation::default()
        } else {
            generation
        };
        Effective {
            name: name.clone(),
            generation,
            roles,
            network: EffectiveNetwork {
                horde_private: strong(told),
                flock_private: strong(network.flock_private),
                horde_connected: strong(true),
                external_connections_max: Obtained {
                    value: limit,
                    strength: Strength::Enforced,
                },
                ports: ports.collect(),
                probes: if self.bad("network.probed") || self.bad("network.requested-effective") {
                    Vec::new()
                } else {
                    vec![probe()]
                },
            },
            storage: self.storage_of(world, name),
            weaker,
        }
    }
}

#[async_trait]
impl Underverse for Model {
    fn name(&self) -> &'static str {
        "model"
    }

    fn capabilities(&self) -> Capabilities {
        let mut record = Capabilities::new().enforced(&C::ALL);
        if self.lean {
            record = record.with(C::Images, Strength::Absent("none here".to_owned()));
            record = record.with(C::HordePrivate, Strength::Weak("none here".to_owned()));
        }
        if self.bad("capabilities.reasons") {
            record = record.with(C::Multicast, Strength::Weak(" ".to_owned()));
        }
        if self.bad("capabilities.stable") && self.process > 2 {
            record = record.with(C::Ipv6, Strength::Absent("not today".to_owned()));
        }
        record
    }

    async fn servers(&self) -> Result<Vec<Server>, Error> {
        let world = self.world();
        let mut names: BTreeSet<String> = ["east", "west"].map(str::to_owned).into();
        let declared = world
            .hordes
            .values()
            .filter_map(|rec| rec.asked.as_ref())
            .flat_map(|(_, spec)| &spec.servers);
        names.extend(declared.map(|server| server.name.clone()));
        let server = |name: String| Server {
            tags: self.tags_of(&world, &name, None),
            name,
            cpus: 1,
            memory: ByteCount::mebibytes(1),
            memory_available: ByteCount::mebibytes(1),
        };
        let mut servers: Vec<Server> = names.into_iter().map(server).collect();
        if self.bad("servers.sorted") {
            servers.reverse();
        }
        Ok(servers)
    }

    async fn acquire_address(
        &self,
        horde: &HordeName,
        request: &str,
    ) -> Result<(AddressId, IpAddr), Error> {
        let mut world = self.world();
        let key = (horde.clone(), request.to_owned());
        if let Some(held) = world.addresses.get(&key)
            && !self.bad("address.repeated")
        {
            return Ok(held.clone());
        }
        if world.addresses.len() >= ADDRESSES {
            let kind = if self.bad("address.exhausted") {
                Kind::Unavailable
            } else {
                Kind::Limit
            };
            return Err(error(kind, "none is left"));
        }
        world.serial += 1;
        let number = if self.bad("address.distinct") {
            1
        } else {
            world.serial
        };
        let address = Ipv4Addr::new(198, 51, 100, u8::try_from(number).unwrap_or(u8::MAX)).into();
        let held = (AddressId::from_backend(format!("a{number}")), address);
        world.addresses.insert(key, held.clone());
        Ok(held)
    }

    async fn release_address(&self, id: &AddressId) -> Result<(), Error> {
        let mut world = self.world();
        let used = world
            .hordes
            .values()
            .filter_map(|rec| rec.asked.as_ref())
            .flat_map(|(_, spec)| &spec.network.ports)
            .any(|port| matches!(&port.external, ExternalAddress::Acquired(held) if held == id));
        if used && !self.bad("address.taken") {
            return Err(error(Kind::Taken, "a door is there"));
        }
        let before = world.addresses.len();
        world.addresses.retain(|_, (held, _)| held != id);
        match before == world.addresses.len() && self.bad("address.release-twice") {
            true => Err(error(Kind::NotFound, "it is not held")),
            false => Ok(()),
        }
    }

    async fn plan(&self, generation: Generation, spec: &HordeSpec) -> Result<HordePlan, Error> {
        if self.bad("plan.makes-nothing") {
            self.call().await?;
        }
        if !self.bad("plan.same-refusals") {
            self.check(generation, spec)?;
        }
        let world = self.world();
        let wanted = self.wanted(spec);
        let rec = world.hordes.get(&spec.name).cloned().unwrap_or_default();
        let well = |ordinal: &u32| {
            rec.containers
                .get(ordinal)
                .is_some_and(|one| one.started && one.dead.is_none())
        };
        let missing = wanted
            .keys()
            .filter(|ordinal| !well(ordinal) || self.bad("plan.empty-when-realised"));
        let skipped = u32::from(self.bad("plan.names-changes")) * 2;
        let step = |ordinal: &u32| PlannedStep {
            action: Action::Start,
            subject: format!("n{ordinal}"),
            reason: "missing".to_owned(),
        };
        Ok(HordePlan {
            steps: missing.skip(skipped as usize).map(step).collect(),
        })
    }

    fn realise<'a>(
        &'a self,
        generation: Generation,
        spec: &'a HordeSpec,
        deadline: Duration,
    ) -> ProgressStream<'a> {
        let work = async move {
            let ended = match tokio::time::timeout(deadline, self.make_so(generation, spec)).await {
                Ok(end) => end,
                Err(_) if self.bad("realise.deadline") => {
                    End::Unknown(error(Kind::DeadlineExceeded, "late"))
                }
                Err(_) => {
                    let late = underverse::Failure {
                        subject: "the pass".to_owned(),
                        error: error(Kind::DeadlineExceeded, "late"),
                    };
                    End::Partial(self.effective_of(&self.world(), &spec.name), vec![late])
                }
            };
            Progress::End(Box::new(ended))
        };
        let ends = stream::once(work);
        if self.bad("realise.one-end") {
            let more = End::Unknown(error(Kind::Bug, "again"));
            return ends
                .chain(stream::iter([Progress::End(Box::new(more))]))
                .boxed();
        }
        ends.boxed()
    }

    async fn running(&self, name: &HordeName) -> Result<Vec<Running>, Error> {
        let world = self.world();
        let Some(rec) = world.hordes.get(name) else {
            return if self.bad("running.unknown") {
                Ok(vec![self.ghost()])
            } else {
                Ok(Vec::new())
            };
        };
        let mut all = Vec::new();
        for (ordinal, one) in &rec.containers {
            let state = match (&one.dead, one.started) {
                (Some(how), _) => RunningState::Failed(how.clone()),
                (None, true) => RunningState::Started,
                (None, false) => RunningState::Waiting,
            };
            let generation = if self.bad("running.generation") {
                Generation::default()
            } else {
                one.generation
            };
            let id = if self.bad("running.ids") {
                format!("c{ordinal}")
            } else {
                one.id.clone()
            };
            all.push(Running {
                id: underverse::ContainerId::from_backend(id),
                ordinal: ordinal + u32::from(self.bad("running.order")),
                label: format!("n{ordinal}"),
                role: one.made.role.clone(),
                server: one.server.clone(),
                address: Some(one.address.into()),
                tags: one.tags.clone(),
                state,
                generation,
                pid: None,
                directory: None,
            });
        }
        Ok(all)
    }

    async fn effective(&self, name: &HordeName) -> Result<Effective, Error> {
        let world = self.world();
        if !world.hordes.contains_key(name) && !self.bad("effective.unknown") {
            return Err(error(Kind::NotFound, "it is not there"));
        }
        Ok(self.effective_of(&world, name))
    }

    fn dissolve<'a>(
        &'a self,
        generation: Generation,
        name: &'a HordeName,
        keep: Keep,
    ) -> ProgressStream<'a> {
        let work = async move {
            let end = match self.unmake(generation, name, keep).await {
                Ok(effective) => End::Done(effective),
                Err(error) => End::Refused(error),
            };
            Progress::End(Box::new(end))
        };
        stream::once(work).boxed()
    }

    fn events(
        &self,
        horde: &HordeName,
        since: Option<EventId>,
    ) -> BoxStream<'static, UnderverseEvent> {
        let state = (self.clone(), horde.clone(), since, false);
        let all = stream::unfold(state, |(model, horde, since, told)| async move {
            loop {
                if !(told && model.bad("events.live")) {
                    let mut fresh: Vec<UnderverseEvent> = {
                        let world = model.world();
                        let events = world
                            .hordes
                            .get(&horde)
                            .map(|rec| rec.events.clone())
                            .unwrap_or_default();
                        let lost = u64::from(model.bad("events.resume") && since.is_some());
                        let after = |event: &UnderverseEvent| {
                            since.is_none_or(|since| event.id.0 > since.0 + lost)
                        };
                        events.into_iter().filter(after).collect()
                    };
                    if model.bad("events.lasting") && model.process > 2 {
                        fresh.clear();
                    }
                    let last = fresh.last().map(|event| event.id);
                    if model.bad("events.order") {
                        fresh.reverse();
                    }
                    if !fresh.is_empty() {
                        return Some((stream::iter(fresh), (model, horde, last.max(since), true)));
                    }
                }
                if model.bad("events.live") {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        all.flatten().boxed()
    }

    async fn answer(&self, horde: &HordeName, event: EventId, reply: Reply) -> Result<(), Error> {
        let mut world = self.world();
        let Some(rec) = world.hordes.get_mut(horde) else {
            return Err(error(Kind::NotFound, "no horde"));
        };
        if rec.events.iter().all(|kept| kept.id != event) && !self.bad("answer.unknown") {
            return Err(error(Kind::NotFound, "no event"));
        }
        let answers = rec.answers.entry(event).or_default();
        if self.bad("answer.repeated") && !answers.is_empty() {
            return Err(error(Kind::Taken, "it is answered"));
        }
        answers.push(reply);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<HordeName>, Error> {
        if self.bad("list.from-below") && self.process > 2 {
            return Ok(Vec::new());
        }
        let world = self.world();
        let whole = |(_, rec): &(&HordeName, &Rec)| {
            !self.bad("list.leftover")
                || rec.containers.values().filter(|one| one.started).count() == 2
        };
        let mut names: Vec<HordeName> = world
            .hordes
            .iter()
            .filter(whole)
            .map(|(name, _)| name.clone())
            .collect();
        if self.bad("list.sorted") {
            names.reverse();
        }
        Ok(names)
    }
}

#[async_trait]
impl UnderverseAdmin for Model {
    async fn expose(&self, exposure: StorageExposure) -> Result<(), Error> {
        let mut world = self.world();
        if exposure.bind != "dir" {
            let named = if self.bad("expose.unknown-scheme") {
                "it"
            } else {
                exposure.bind.as_str()
            };
            return Err(error(Kind::Unsupported, format!("{named} is not known")));
        }
        if exposure.source.ends_with("is-not-there") && !self.bad("expose.probed") {
            return Err(error(Kind::Invalid, "there is no such source"));
        }
        let held = world
            .exposed
            .iter()
            .find(|held| held.server == exposure.server && held.source == exposure.source);
        match held {
            Some(held) if *held == exposure && !self.bad("expose.repeated") => Ok(()),
            Some(_) if !self.bad("expose.repeated") => Err(error(Kind::Taken, "another offer")),
            _ => {
                world.exposed.push(exposure);
                Ok(())
            }
        }
    }

    async fn unexpose(&self, server: &str, source: &str) -> Result<(), Error> {
        let mut world = self.world();
        let found = world
            .exposed
            .iter()
            .any(|held| held.server == server && held.source == source);
        if !found && !self.bad("unexpose.unknown") {
            return Err(error(Kind::NotFound, "it is not offered"));
        }
        if world
            .allotted
            .values()
            .any(|(from, ..)| from.source == source)
            && !self.bad("unexpose.in-use")
        {
            return Err(error(Kind::Taken, "storage on it is allotted"));
        }
        world
            .exposed
            .retain(|held| held.server != server || held.source != source);
        Ok(())
    }

    async fn exposures(&self) -> Result<Vec<Exposed>, Error> {
        let world = self.world();
        let exposed = |held: &StorageExposure| {
            let of = world
                .allotted
                .values()
                .filter(|(from, ..)| from.source == held.source);
            let allotted = of.map(|(_, bytes, _)| bytes).sum::<u64>();
            Exposed {
                exposure: held.clone(),
                capacity: ByteCount::bytes(CAPACITY),
                allotted: ByteCount::bytes(if self.bad("exposures.exact") {
                    allotted / 2
                } else {
                    allotted
                }),
                size: Strength::Enforced,
            }
        };
        Ok(world.exposed.iter().map(exposed).collect())
    }

    async fn tag(&self, server: &str, add: &[Tag], remove: &[Tag]) -> Result<(), Error> {
        let known = self
            .servers()
            .await?
            .iter()
            .any(|known| known.name == server);
        if !known && !self.bad("tag.unknown") {
            return Err(error(Kind::NotFound, "no such server"));
        }
        let mut world = self.world();
        let place = world.places.entry(server.to_owned()).or_default();
        place.tags.retain(|tag| !remove.contains(tag));
        place.tags.extend(add.iter().cloned());
        if self.bad("tag.inherited") {
            let running = world
                .hordes
                .values_mut()
                .flat_map(|rec| rec.containers.values_mut());
            running
                .filter(|one| one.server == server)
                .for_each(|one| one.tags.extend(add.iter().cloned()));
        }
        Ok(())
    }

    async fn change_server(&self, server: &str, change: ServerChange) -> Result<(), Error> {
        let mut world = self.world();
        let names: Vec<HordeName> = world.hordes.keys().cloned().collect();
        for horde in names {
            let mut affected = Vec::new();
            if let Some(rec) = world.hordes.get_mut(&horde) {
                for one in rec
                    .containers
                    .values_mut()
                    .filter(|one| one.server == server)
                {
                    affected.push(one.id.clone());
                    if matches!(change, ServerChange::Reboot | ServerChange::Withdraw) {
                        one.dead = Some("was ended by a signal: its server went".to_owned());
                    }
                }
            }
            let fault = match &change {
                ServerChange::Reboot => "server.rebooted",
                ServerChange::Withdraw => "server.gone",
                ServerChange::Degrade(_) => "server.degraded",
                ServerChange::Maintain { .. } => "server.maintained",
                ServerChange::Restore => "server.restored",
            };
            if self.bad(fault) {
                affected = vec!["nobody".to_owned()];
            }
            let kind = match &change {
                ServerChange::Reboot => EventKind::ServerRebooted { affected },
                ServerChange::Withdraw => EventKind::ServerGone { affected },
                ServerChange::Degrade(reason) => EventKind::ServerDegraded {
                    reason: reason.clone(),
                    affected,
                },
                ServerChange::Maintain { from_unix_ms } => EventKind::MaintenancePlanned {
                    from_unix_ms: *from_unix_ms,
                    affected,
                },
                ServerChange::Restore => EventKind::ServerRestored,
            };
            if !(self.bad("server.restored") && matches!(change, ServerChange::Restore)) {
                self.tell(&mut world, &horde, server, kind);
            }
        }
        let place = world.places.entry(server.to_owned()).or_default();
        match change {
            ServerChange::Reboot => {}
            ServerChange::Withdraw => place.gone = true,
            ServerChange::Degrade(_) => place.degraded = true,
            // By the clock of the test, which may be paused.
            ServerChange::Maintain { from_unix_ms } => {
                let wait = Duration::from_millis(from_unix_ms.saturating_sub(now_ms()));
                place.maintained = Some(tokio::time::Instant::now() + wait);
            }
            ServerChange::Restore => {
                *place = Place {
                    tags: place.tags.clone(),
                    ..Place::default()
                }
            }
        }
        Ok(())
    }
}
