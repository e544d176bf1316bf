//! How the model makes a horde be as asked, and unmakes it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use underverse::{
    Effect, Effective, End, Error, EventKind, Execable, ExternalAddress, Failure, Generation,
    HordeName, HordeSpec, Keep, Kind, MaintenancePolicy, MountSource, Reply, Running, RunningState,
    StorageRequest, Tag, first_broken,
};

use crate::model::{CAPACITY, Container, Files, Model, Rec, World, error, now_ms};

impl Model {
    /// What each ordinal is made from.
    pub(crate) fn wanted(&self, spec: &HordeSpec) -> BTreeMap<u32, Execable> {
        let each = spec.execables.iter().flat_map(|one| {
            let count = if self.bad("realise.counts") && one.count > 1 {
                1
            } else {
                one.count
            };
            vec![
                Execable {
                    count: 1,
                    ..one.clone()
                };
                count.min(2_000) as usize
            ]
        });
        (1..).zip(each).collect()
    }

    pub(crate) fn ghost(&self) -> Running {
        Running {
            id: underverse::ContainerId::from_backend("ghost"),
            ordinal: 1,
            label: "n1".to_owned(),
            role: "ghost".parse().expect("a name"),
            server: "east".to_owned(),
            address: None,
            tags: BTreeSet::new(),
            state: RunningState::Started,
            generation: Generation::default(),
            pid: None,
            directory: None,
        }
    }

    /// The tags of a server, as declared and as an administrator changed them.
    pub(crate) fn tags_of(
        &self,
        world: &World,
        server: &str,
        spec: Option<&HordeSpec>,
    ) -> BTreeSet<Tag> {
        let mut tags: BTreeSet<Tag> = world
            .places
            .get(server)
            .map(|place| place.tags.clone())
            .unwrap_or_default();
        if server == "east" || server == "west" {
            tags.insert(Tag::new(server).expect("a tag"));
        }
        let declared = world
            .hordes
            .values()
            .filter_map(|rec| rec.asked.as_ref())
            .map(|(_, spec)| spec)
            .chain(spec);
        for one in declared
            .flat_map(|spec| &spec.servers)
            .filter(|one| one.name == server)
        {
            tags.extend(one.tags.iter().cloned());
        }
        tags
    }

    fn servers_for(
        &self,
        world: &World,
        spec: &HordeSpec,
        one: &Execable,
    ) -> Result<Vec<String>, Error> {
        let declared: Vec<String> = spec
            .servers
            .iter()
            .map(|server| server.name.clone())
            .collect();
        let all = if declared.is_empty() {
            ["east", "west"].map(str::to_owned).to_vec()
        } else {
            declared
        };
        if self.bad("realise.tags") {
            return Ok(all);
        }
        let mut broken = None;
        let mut fit: Vec<String> = Vec::new();
        for server in all {
            match first_broken(&one.required, &self.tags_of(world, &server, Some(spec))) {
                None => fit.push(server),
                Some(rule) => broken = Some(rule.to_string()),
            }
        }
        match (fit.is_empty(), broken) {
            (true, Some(rule)) => {
                let named = if self.bad("realise.tags-unsatisfiable") {
                    "a tag".to_owned()
                } else {
                    rule
                };
                Err(error(Kind::Unsatisfiable, format!("no server has {named}")))
            }
            _ => Ok(fit),
        }
    }

    /// The refusals.
    pub(crate) fn check(&self, generation: Generation, spec: &HordeSpec) -> Result<(), Error> {
        if !self.bad("realise.invalid") {
            spec.validate()?;
        }
        let world = self.world();
        self.stale(&world, generation, &spec.name)?;
        if spec.count() > 1_000 {
            let kind = if self.bad("realise.shortfall") {
                Kind::Invalid
            } else {
                Kind::Limit
            };
            return Err(error(kind, "too many"));
        }
        for one in &spec.execables {
            if one.image.is_some() && self.lean && !self.bad("capabilities.absent-refuses") {
                return Err(error(Kind::Unsupported, "no images"));
            }
            if !one.limits.is_none() && self.bad("capabilities.probed") {
                return Err(error(Kind::Unsupported, "no limits after all"));
            }
            for mount in &one.mounts {
                match &mount.source {
                    MountSource::Host(path) if path.starts_with("/no/such") => {
                        let named = if self.bad("realise.mount-missing") {
                            "it".to_owned()
                        } else {
                            path.display().to_string()
                        };
                        return Err(error(Kind::Invalid, format!("{named} is not there")));
                    }
                    MountSource::Host(_) => {}
                    MountSource::Storage(id) => {
                        let request = spec.storage.iter().find(|request| request.id == *id);
                        let Some(request) = request else {
                            return Err(error(Kind::Invalid, "no such request"));
                        };
                        self.room(&world, spec, request, &mount.target.display().to_string())?;
                    }
                }
            }
            self.servers_for(&world, spec, one)?;
        }
        Ok(())
    }

    fn stale(&self, world: &World, generation: Generation, name: &HordeName) -> Result<(), Error> {
        let seen = world.seen.get(name).copied().unwrap_or_default();
        let forgiven = self.bad("realise.lower-generation")
            || (self.bad("realise.lower-after-restart") && self.process > 2)
            || (self.bad("realise.lower-after-dissolve") && !world.hordes.contains_key(name));
        if generation < seen && !forgiven {
            return Err(error(Kind::Stale, "a newer one was seen"));
        }
        Ok(())
    }

    /// The exposure that a request is served from.
    fn room(
        &self,
        world: &World,
        spec: &HordeSpec,
        request: &StorageRequest,
        mount: &str,
    ) -> Result<underverse::StorageExposure, Error> {
        let fits = |held: &&underverse::StorageExposure| {
            request.properties.is_subset(&held.tags) || self.bad("storage.properties")
        };
        let held = world
            .allotted
            .keys()
            .any(|(horde, key)| *horde == spec.name && key.starts_with(request.id.as_str()));
        let enough =
            |held: &&underverse::StorageExposure| held.thin || request.capacity.get() <= CAPACITY;
        let named = |message: &str| {
            if self.bad("realise.storage") || self.bad("storage.exhausted") {
                message.to_owned()
            } else {
                format!("{message} for {} at {mount}", request.id)
            }
        };
        match world.exposed.iter().filter(fits).find(enough) {
            Some(found) => Ok(found.clone()),
            None if held => Err(error(Kind::Bug, "lost")),
            None => Err(error(Kind::Limit, named("there is no room"))),
        }
    }

    pub(crate) async fn make_so(&self, generation: Generation, spec: &HordeSpec) -> End {
        let gate = std::sync::Arc::clone(&self.gate);
        let _one_pass = if self.bad("realise.concurrent") {
            None
        } else {
            Some(gate.lock().await)
        };
        if let Err(error) = self.check(generation, spec) {
            return End::Refused(error);
        }
        let mut failures = Vec::new();
        if let Err(error) = self.note(generation, spec).await {
            return End::Unknown(error.effect(Effect::Unknown));
        }
        if self.bad("realise.unchanged") {
            let _ = self.call().await;
        }
        if self.bad("life.cycle") && self.process > 2 {
            let _ = self.call().await;
        }
        let wanted = self.wanted(spec);
        let moved = self.to_move(&spec.name);
        let existing = self.rec(&spec.name).containers;
        let all_touched = (self.bad("realise.heals-only")
            && existing.values().any(|one| one.dead.is_some()))
            || (self.bad("realise.resize") && existing.len() < wanted.len())
            || (self.bad("realise.shrink") && existing.len() > wanted.len())
            || (self.bad("realise.adopts") && self.process > 2)
            || (self.bad("realise.partial-completed")
                && !existing.is_empty()
                && existing.len() < wanted.len());
        for (ordinal, one) in existing {
            let changed = wanted.get(&ordinal) != Some(&one.made);
            let ignored = (self.bad("realise.changed") || self.bad("command.changed"))
                && wanted.contains_key(&ordinal)
                || (self.bad("realise.none") && wanted.is_empty() && ordinal == 1)
                || (self.bad("realise.heals") && one.dead.is_some());
            let ill = (changed && !ignored)
                || (one.dead.is_some() && !self.bad("realise.heals"))
                || moved.contains(&one.id)
                || all_touched;
            if ill {
                failures.extend(
                    self.end(&spec.name, ordinal)
                        .await
                        .err()
                        .map(|error| Failure {
                            subject: format!("n{ordinal}"),
                            error,
                        }),
                );
            }
        }
        for (ordinal, made) in &wanted {
            let there = self
                .rec(&spec.name)
                .containers
                .get(ordinal)
                .is_some_and(|one| one.started);
            if !there && let Err(error) = self.start(generation, spec, *ordinal, made).await {
                let subject = if self.bad("realise.partial") {
                    String::new()
                } else {
                    format!("n{ordinal}")
                };
                failures.push(Failure { subject, error });
            }
        }
        failures.extend(self.doors(spec).await.err().map(|error| Failure {
            subject: "a door".to_owned(),
            error,
        }));
        self.free(spec, &wanted);
        let effective = self.effective_of(&self.world(), &spec.name);
        if failures.is_empty() {
            End::Done(effective)
        } else {
            End::Partial(effective, failures)
        }
    }

    pub(crate) fn rec(&self, name: &HordeName) -> Rec {
        self.world().hordes.get(name).cloned().unwrap_or_default()
    }

    async fn note(&self, generation: Generation, spec: &HordeSpec) -> Result<(), Error> {
        let asked = Some((generation, spec.clone()));
        if self.rec(&spec.name).asked == asked {
            return Ok(());
        }
        self.call().await?;
        let mut world = self.world();
        world.seen.insert(spec.name.clone(), generation);
        world.hordes.entry(spec.name.clone()).or_default().asked = asked;
        Ok(())
    }

    /// Ends a container and removes it.
    async fn end(&self, horde: &HordeName, ordinal: u32) -> Result<(), Error> {
        self.call().await?;
        let mut world = self.world();
        let one = world
            .hordes
            .get_mut(horde)
            .and_then(|rec| rec.containers.remove(&ordinal));
        if let Some(Container {
            id,
            dead: Some(reason),
            ..
        }) = one
        {
            let reason = if self.bad("events.exit") {
                "it is gone".to_owned()
            } else {
                reason
            };
            self.tell(
                &mut world,
                horde,
                &format!("n{ordinal}"),
                EventKind::ContainerFailed {
                    container: id,
                    reason,
                },
            );
        }
        Ok(())
    }

    async fn start(
        &self,
        generation: Generation,
        spec: &HordeSpec,
        ordinal: u32,
        made: &Execable,
    ) -> Result<(), Error> {
        let label = format!("n{ordinal}");
        self.call().await?;
        {
            let mut world = self.world();
            if self.bad("realise.interrupted") {
                world.junk += u64::from(
                    world
                        .hordes
                        .get(&spec.name)
                        .is_some_and(|rec| rec.containers.contains_key(&ordinal)),
                );
            }
            let one = self.container(&mut world, generation, spec, (ordinal, made))?;
            let rec = world.hordes.entry(spec.name.clone()).or_default();
            rec.containers.entry(ordinal).or_insert(one);
        }
        if self.bad("realise.concurrent") {
            tokio::task::yield_now().await;
            self.world().junk += 1;
        }
        self.call().await?;
        let mut world = self.world();
        let rec = world.hordes.entry(spec.name.clone()).or_default();
        let before = rec.events.iter().rev().find_map(|event| match &event.kind {
            EventKind::ContainerFailed { container, .. }
            | EventKind::ContainerStarted { container, .. }
                if event.subject == label =>
            {
                Some(container.clone())
            }
            _ => None,
        });
        let Some(one) = rec.containers.get_mut(&ordinal) else {
            return Err(error(Kind::Bug, "lost"));
        };
        one.started = true;
        let container = one.id.clone();
        let replaces = before.filter(|_| !self.bad("events.failed-started"));
        self.tell(
            &mut world,
            &spec.name,
            &label,
            EventKind::ContainerStarted {
                container,
                replaces,
            },
        );
        if self.bad("life.beside") {
            let others = world
                .hordes
                .iter_mut()
                .filter(|(name, _)| **name != spec.name);
            others
                .flat_map(|(_, rec)| rec.containers.values_mut())
                .for_each(|one| one.id.push('x'));
        }
        Ok(())
    }

    /// A container that is made, on the server that has fewest of its horde.
    fn container(
        &self,
        world: &mut World,
        generation: Generation,
        spec: &HordeSpec,
        (ordinal, made): (u32, &Execable),
    ) -> Result<Container, Error> {
        let (mut servers, mut source) = (self.servers_for(world, spec, made)?, None);
        let label = format!("n{ordinal}");
        for mount in &made.mounts {
            let MountSource::Storage(id) = &mount.source else {
                continue;
            };
            let Some(request) = spec.storage.iter().find(|request| request.id == *id) else {
                continue;
            };
            let from = self.room(world, spec, request, &mount.target.display().to_string())?;
            let shared = request.properties.contains("shared") && !self.bad("storage.shared");
            let key = if shared || self.bad("storage.mounted") {
                id.to_string()
            } else {
                format!("{id}@{label}")
            };
            let bytes = request.capacity.get() + u64::from(self.bad("storage.nothing-before"));
            let kept = world
                .allotted
                .entry((spec.name.clone(), key))
                .or_insert_with(|| (from.clone(), bytes, Files::new()));
            if self.bad("storage.persists") || self.bad("storage.kept") {
                kept.2.clear();
            }
            source = Some(from.server.clone());
        }
        if let Some(server) = source {
            servers = vec![server];
        }
        let rec = world.hordes.get(&spec.name).cloned().unwrap_or_default();
        let load = |server: &String| {
            rec.containers
                .values()
                .filter(|one| one.server == *server)
                .count()
        };
        let place = |server: &String| world.places.get(server).cloned().unwrap_or_default();
        let well = |server: &&String| {
            let place = place(server);
            !place.gone && place.maintained.is_none() && !place.degraded
        };
        let mut fit: Vec<String> = servers.iter().filter(well).cloned().collect();
        if fit.is_empty() || self.bad("server.degraded") {
            fit = servers
                .iter()
                .filter(|server| !place(server).gone)
                .cloned()
                .collect();
        }
        if self.bad("realise.spread") {
            fit.truncate(1);
        }
        let server = fit
            .into_iter()
            .min_by_key(load)
            .ok_or_else(|| error(Kind::Unsatisfiable, "no server is left"))?;
        world.serial += 1;
        let reused = (self.bad("running.never-again") && rec.events.is_empty())
            || self.bad("realise.heals-id");
        let id = if reused {
            format!("{}-{ordinal}", spec.name)
        } else {
            format!("{}-{}", spec.name, world.serial)
        };
        let mut tags = if self.bad("servers.tags-inherited") {
            BTreeSet::new()
        } else {
            self.tags_of(world, &server, Some(spec))
        };
        if !self.bad("servers.tags-added") {
            tags.extend(made.added.iter().cloned());
        }
        let base = spec.name.as_str().bytes().fold(0_u8, u8::wrapping_add);
        let last = if self.bad("network.healed") {
            u8::try_from(world.serial % 250).unwrap_or(1)
        } else {
            u8::try_from(ordinal % 250).unwrap_or(1)
        };
        Ok(Container {
            id,
            made: made.clone(),
            server,
            tags,
            generation,
            address: Ipv4Addr::new(10, 0, base, last),
            started: false,
            dead: None,
        })
    }

    /// The ids of containers that maintenance moves now.
    fn to_move(&self, name: &HordeName) -> Vec<String> {
        let mut world = self.world();
        let Some(rec) = world.hordes.get(name).cloned() else {
            return Vec::new();
        };
        let mut moved = Vec::new();
        for (server, place) in &mut world.places {
            if place
                .maintained
                .is_none_or(|from| from > tokio::time::Instant::now())
            {
                continue;
            }
            let event = rec.events.iter().rev().find(|event| {
                event.subject == *server
                    && matches!(event.kind, EventKind::MaintenancePlanned { .. })
            });
            let answers = event
                .and_then(|event| rec.answers.get(&event.id))
                .cloned()
                .unwrap_or_default();
            let here: Vec<String> = rec
                .containers
                .values()
                .filter(|one| one.server == *server)
                .map(|one| one.id.clone())
                .collect();
            let all = here.len();
            let affected = match event.map(|event| &event.kind) {
                Some(EventKind::MaintenancePlanned { affected, .. }) => affected.len(),
                _ => 0,
            };
            let count = match answers.last() {
                Some(Reply::Maintenance(MaintenancePolicy::Rolling { at_once, .. }))
                    if !self.bad("answer.rolling") =>
                {
                    *at_once as usize
                }
                Some(Reply::Maintenance(MaintenancePolicy::Staged))
                    if !self.bad("answer.staged") =>
                {
                    usize::from(all == affected)
                }
                Some(Reply::Maintenance(MaintenancePolicy::DenyUntil { unix_ms }))
                    if *unix_ms > now_ms() && !self.bad("answer.deny-until") =>
                {
                    0
                }
                _ => all,
            };
            let apart = match answers.last() {
                Some(Reply::Maintenance(MaintenancePolicy::Rolling { apart, .. }))
                    if !self.bad("answer.rolling") =>
                {
                    *apart
                }
                _ => std::time::Duration::ZERO,
            };
            if here.is_empty() || place.last_move.is_some_and(|last| last.elapsed() < apart) {
                continue;
            }
            place.last_move = Some(tokio::time::Instant::now());
            moved.extend(here.into_iter().take(count));
        }
        moved
    }

    async fn doors(&self, spec: &HordeSpec) -> Result<(), Error> {
        let mut wanted = BTreeMap::new();
        for (at, port) in spec.network.ports.iter().enumerate() {
            let host = match &port.external {
                ExternalAddress::Default => Ipv4Addr::LOCALHOST.into(),
                ExternalAddress::Host(host) => *host,
                ExternalAddress::Acquired(id) => {
                    let number = id.as_str().trim_start_matches('a').parse().unwrap_or(1);
                    if self.bad("network.door-address") {
                        Ipv4Addr::LOCALHOST.into()
                    } else {
                        Ipv4Addr::new(198, 51, 100, number).into()
                    }
                }
            };
            let address = SocketAddr::new(host, port.external_port);
            if self.bad("network.door-both") {
                wanted.retain(|(other, _), _| *other != address);
            }
            wanted.insert((address, port.protocol), at);
        }
        if self.rec(&spec.name).doors != wanted {
            self.call().await?;
            self.world()
                .hordes
                .entry(spec.name.clone())
                .or_default()
                .doors = wanted;
        }
        Ok(())
    }

    /// Frees what containers that are gone held.
    fn free(&self, spec: &HordeSpec, wanted: &BTreeMap<u32, Execable>) {
        if self.bad("storage.resized") {
            return;
        }
        let held = |key: &str| {
            key.split_once("@n").is_none_or(|(_, ordinal)| {
                ordinal
                    .parse()
                    .is_ok_and(|ordinal: u32| wanted.contains_key(&ordinal))
            })
        };
        self.world()
            .allotted
            .retain(|(horde, key), _| *horde != spec.name || held(key));
    }

    pub(crate) async fn unmake(
        &self,
        generation: Generation,
        name: &HordeName,
        keep: Keep,
    ) -> Result<Effective, Error> {
        let gate = std::sync::Arc::clone(&self.gate);
        let _one_pass = gate.lock().await;
        if !self.bad("dissolve.lower-generation") {
            self.stale(&self.world(), generation, name)?;
        }
        if !self.world().hordes.contains_key(name) {
            return if self.bad("dissolve.unknown") {
                Err(error(Kind::NotFound, "it is not there"))
            } else {
                Ok(self.effective_of(&self.world(), name))
            };
        }
        let seen = self.world().seen.get(name).copied().unwrap_or_default();
        self.world().seen.insert(name.clone(), generation.max(seen));
        let first = self.rec(name).containers.len() as u32;
        for ordinal in self.rec(name).containers.into_keys() {
            self.end(name, ordinal).await?;
            if self.bad("dissolve.interrupted") && first > 1 {
                self.world().junk = 1;
            }
        }
        let spared = (self.bad("dissolve.nothing-left"))
            || (self.bad("dissolve.adopted") && self.process > 2);
        self.call().await?;
        let mut world = self.world();
        if !(keep == Keep::Storage || self.bad("storage.freed")) {
            world.allotted.retain(|(horde, _), _| horde != name);
        }
        world.hordes.remove(name);
        world.junk = u64::from(spared);
        if self.bad("dissolve.interrupted") && first <= 1 {
            world.junk = 1;
        }
        Ok(self.effective_of(&world, name))
    }
}
