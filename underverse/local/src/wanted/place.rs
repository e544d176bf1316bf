//! Chooses a server for each container, and on it the storage that the container asks for. Pure.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};

use underverse::{
    Error, Execable, HordeSpec, Kind, Mount, MountSource, Program, StorageRequest, Tag,
    first_broken,
};

use super::{Facts, WantedProgram, WantedRnode};
use crate::config::RnodeMount;
use crate::groups::Group;
use crate::label::rnode_label;
use crate::record::ContainerRecord;
use crate::servers::{Standing, Tagging};
use crate::settings::VirtualServer;
use crate::storage::{Allotment, Exposure, SHARED, Shape};

/// Where everything goes.
#[derive(Debug, Default)]
pub(super) struct Placed {
    pub(super) rnodes: Vec<WantedRnode>,
    pub(super) unplaced: Vec<(u32, String)>,
    pub(super) allotments: Vec<Allotment>,
}

/// A server as it is now.
#[derive(Debug)]
struct Host {
    name: String,
    /// As declared.
    own_tags: BTreeSet<String>,
    /// As changed since.
    tagging: Tagging,
    standing: Standing,
}

impl Host {
    fn new(server: &VirtualServer, facts: &Facts<'_>) -> Self {
        Self {
            name: server.name.clone(),
            own_tags: server.tags.iter().map(ToString::to_string).collect(),
            tagging: facts.said.tagging(&server.name),
            standing: facts.said.standing(&server.name),
        }
    }

    /// As declared, as the machine is found, and as changed since.
    fn tags(&self, found: &BTreeSet<String>) -> BTreeSet<Tag> {
        let tagging = self.tagging.clone().and(found);
        let tags = tagging.apply(self.own_tags.iter().cloned()).into_iter();
        tags.filter_map(|tag| Tag::new(tag).ok()).collect()
    }
}

/// Places every container of `spec`; the error names the tag, or the mount and the request, that cannot be had.
pub(super) fn place(
    spec: &HordeSpec,
    servers: &[VirtualServer],
    facts: &Facts<'_>,
) -> Result<Placed, Error> {
    let hosts: Vec<Host> = servers
        .iter()
        .map(|server| Host::new(server, facts))
        .collect();
    let found = LazyCell::new(facts.found);
    let mut load: BTreeMap<&str, u32> = BTreeMap::new();
    let mut room = Room::new(spec, facts);
    let mut placed = Placed::default();
    let mut ordinal = 0_u32;
    for execable in &spec.execables {
        let fitting = fitting_servers(execable, &hosts, &found)?;
        for _ in 0..execable.count {
            ordinal += 1;
            let held = facts
                .record
                .and_then(|record| record.containers.get(&ordinal));
            let leaves = facts.leaving.contains(&ordinal);
            let order = in_order(&fitting, &load, (held, leaves));
            if order.is_empty() {
                room.leave(ordinal);
                let names: Vec<&str> = fitting.iter().map(|host| host.name.as_str()).collect();
                let why = format!(
                    "none of the servers that fit takes containers now: {}",
                    names.join(" ")
                );
                placed.unplaced.push((ordinal, why));
                continue;
            }
            let (host, storage) = room.first_that_holds(execable, ordinal, &order)?;
            *load.entry(host.name.as_str()).or_default() += 1;
            let gone = held.is_some_and(|held| {
                hosts
                    .iter()
                    .any(|host| host.name == held.server && host.standing == Standing::Gone)
            });
            placed.rnodes.push(WantedRnode {
                urgent: leaves || gone,
                groups: groups(spec, execable, ordinal, facts),
                ..rnode(execable, ordinal, (host, held), &storage)
            });
        }
    }
    placed.allotments = room.chosen;
    Ok(placed)
}

/// The control groups that keep a container's limits; their names are nobody else's on this machine.
fn groups(spec: &HordeSpec, execable: &Execable, ordinal: u32, facts: &Facts<'_>) -> Vec<Group> {
    let (home, label) = (facts.settings.home.short(), rnode_label(ordinal));
    let name = format!("radix-{home}-{}-{label}", spec.name);
    facts.settings.groups.of(&name, &execable.limits)
}

fn rnode(
    execable: &Execable,
    ordinal: u32,
    (host, held): (&Host, Option<&ContainerRecord>),
    storage: &[Allotment],
) -> WantedRnode {
    let stays = held.filter(|held| held.server == host.name);
    let kept = stays.map_or(&host.tagging, |held| &held.tagging);
    let rnode = WantedRnode {
        ordinal,
        role: execable.role.to_string(),
        program: match &execable.program {
            Program::Fulcrum(_) => WantedProgram::Fulcrum,
            Program::Command(words) => WantedProgram::Command(words.clone()),
        },
        server: host.name.clone(),
        declared: host.own_tags.clone(),
        added: execable.added.iter().map(ToString::to_string).collect(),
        tagging: host.tagging.clone(),
        kept_tags: Vec::new(),
        urgent: false,
        mounts: mounts(execable, storage),
        env: execable
            .env
            .iter()
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect(),
        limits: execable.limits,
        groups: Vec::new(),
    };
    WantedRnode {
        kept_tags: rnode.tags(kept),
        ..rnode
    }
}

/// The mounts of a role whose storage is `storage`; storage that is not there is left out.
pub(crate) fn mounts(execable: &Execable, storage: &[Allotment]) -> Vec<RnodeMount> {
    let made = |mount: &Mount| -> Option<RnodeMount> {
        let (host, writable) = match &mount.source {
            MountSource::Host(path) => (path.clone(), false),
            MountSource::Storage(id) => {
                let own = storage.iter().find(|one| one.id == id.as_str())?;
                (own.path(), true)
            }
        };
        Some(RnodeMount {
            host,
            target: mount.target.clone(),
            writable,
        })
    };
    execable.mounts.iter().filter_map(made).collect()
}

/// The servers on which every required tag holds; the error names what no server has.
///
/// What the machine has is looked up only for a role that requires something.
fn fitting_servers<'a>(
    execable: &Execable,
    hosts: &'a [Host],
    found: &LazyCell<BTreeSet<String>, &dyn Fn() -> BTreeSet<String>>,
) -> Result<Vec<&'a Host>, Error> {
    if execable.required.is_empty() {
        return Ok(hosts.iter().collect());
    }
    let broken = |host: &Host| first_broken(&execable.required, &host.tags(found));
    let fits = |host: &&Host| broken(host).is_none();
    let fitting: Vec<_> = hosts.iter().filter(fits).collect();
    if !fitting.is_empty() || execable.count == 0 {
        return Ok(fitting);
    }
    let broken: BTreeSet<String> = hosts
        .iter()
        .filter_map(broken)
        .map(ToString::to_string)
        .collect();
    let broken = broken.into_iter().collect::<Vec<_>>().join(" ");
    Err(Error::new(
        Kind::Unsatisfiable,
        "place a role on this machine",
        format!("no server satisfies {broken}"),
    )
    .with("role", &execable.role))
}

/// The servers in the order in which they are tried: the one it is on, then whole ones with the fewest, first by name.
///
/// Nothing new goes to a server that is maintained, and what is on it stays until it may leave and there is another.
fn in_order<'a>(
    fitting: &[&'a Host],
    load: &BTreeMap<&str, u32>,
    (held, leaves): (Option<&ContainerRecord>, bool),
) -> Vec<&'a Host> {
    let own = held.and_then(|held| {
        fitting
            .iter()
            .find(|host| host.name == held.server)
            .copied()
    });
    let own = own.filter(|host| host.standing != Standing::Gone);
    let maintained = own.filter(|host| host.standing == Standing::Maintained);
    if let Some(own) = maintained
        && !leaves
    {
        return vec![own];
    }
    let takes = |host: &&&Host| matches!(host.standing, Standing::Up | Standing::Degraded);
    let mut order: Vec<&Host> = fitting.iter().filter(takes).copied().collect();
    if order.is_empty() {
        order.extend(maintained);
    }
    let of = |host: &Host| load.get(host.name.as_str()).copied().unwrap_or(0);
    order.sort_by_key(|host| {
        let away = own.is_none_or(|own| own.name != host.name);
        let weak = away && host.standing == Standing::Degraded;
        (away, weak, of(host), host.name.clone())
    });
    order
}

/// What is left of every exposure while storage is chosen.
#[derive(Debug, Clone)]
struct Room<'a> {
    spec: &'a HordeSpec,
    /// The short id of the state directory.
    home: String,
    exposures: Vec<(&'a Exposure, u64)>,
    /// Storage that this horde has already.
    held: Vec<&'a Allotment>,
    chosen: Vec<Allotment>,
}

impl<'a> Room<'a> {
    fn new(spec: &'a HordeSpec, facts: &Facts<'a>) -> Self {
        let store = facts.store;
        let left = |one: &'a Exposure| (one, one.capacity.saturating_sub(store.allotted(one)));
        let mut exposures: Vec<_> = store.exposures.iter().map(left).collect();
        // What keeps its promises is taken before what only counts them.
        exposures.sort_by_key(|(one, _)| (one.thin, one.server.clone(), one.source.clone()));
        let own = |one: &&Allotment| one.horde == spec.name.as_str();
        Self {
            spec,
            home: facts.settings.home.short(),
            exposures,
            held: store.allotments.iter().filter(own).collect(),
            chosen: Vec::new(),
        }
    }

    /// Leaves a container that has no server what it has.
    fn leave(&mut self, ordinal: u32) {
        let own = self
            .held
            .iter()
            .filter(|one| one.container == Some(ordinal));
        self.chosen.extend(own.map(|one| (*one).clone()));
    }

    /// The first server on which all storage of the container can be had, and that storage.
    fn first_that_holds<'s>(
        &mut self,
        execable: &Execable,
        ordinal: u32,
        order: &[&'s Host],
    ) -> Result<(&'s Host, Vec<Allotment>), Error> {
        let mut why: Option<Error> = None;
        for server in order {
            let mut trial = self.clone();
            match trial.all(execable, ordinal, &server.name, order) {
                Ok(storage) => {
                    *self = trial;
                    return Ok((server, storage));
                }
                // Where there is too little room is nearer to the answer than where there is none at all.
                Err(error) if why.is_none() || error.kind() == Kind::Limit => why = Some(error),
                Err(_) => {}
            }
        }
        Err(why.expect("at least one server fits, which the caller has checked"))
    }

    fn all(
        &mut self,
        execable: &Execable,
        ordinal: u32,
        server: &str,
        order: &[&Host],
    ) -> Result<Vec<Allotment>, Error> {
        let mut storage: Vec<Allotment> = Vec::new();
        for mount in &execable.mounts {
            let MountSource::Storage(id) = &mount.source else {
                continue;
            };
            let request = self.spec.storage.iter().find(|request| request.id == *id);
            let request = request.expect("the spec was validated: its mounts name its requests");
            if storage.iter().any(|one| one.id == id.as_str()) {
                continue;
            }
            let one = self
                .one(request, ordinal, server, order)
                .map_err(|(kind, why)| {
                    let target = mount.target.display();
                    let message = format!("mount {target} asks for {id}, a {request}: {why}");
                    Error::new(kind, "bind storage on this machine", message)
                        .with("horde", &self.spec.name)
                        .with("role", &execable.role)
                })?;
            storage.push(one);
        }
        Ok(storage)
    }

    fn one(
        &mut self,
        request: &StorageRequest,
        ordinal: u32,
        server: &str,
        order: &[&Host],
    ) -> Result<Allotment, (Kind, String)> {
        let shared = request.properties.contains(SHARED);
        let wanted = Allotment {
            horde: self.spec.name.to_string(),
            id: request.id.to_string(),
            container: (!shared).then_some(ordinal),
            server: server.to_owned(),
            source: String::new(),
            kind: request.kind.into(),
            capacity: request.capacity.get(),
            thin: false,
            home: self.home.clone(),
        };
        if let Some(chosen) = self.chosen.iter().find(|one| one.same(&wanted)) {
            return Ok(chosen.clone());
        }
        let held = self.held.iter().find(|one| one.same(&wanted)).copied();
        let chosen = match held {
            Some(held) => self.keep(held, &wanted, order)?,
            None => self.take(request, wanted)?,
        };
        self.chosen.push(chosen.clone());
        Ok(chosen)
    }

    /// Keeps what the container has, at the size that is asked for now; it may be used from elsewhere on this machine.
    fn keep(
        &mut self,
        held: &Allotment,
        wanted: &Allotment,
        order: &[&Host],
    ) -> Result<Allotment, (Kind, String)> {
        let could = order.iter().any(|server| server.name == held.server);
        if held.container.is_some() && could && held.server != wanted.server {
            return Err((
                Kind::Unsatisfiable,
                format!("it lies on server {}", held.server),
            ));
        }
        if held.kind != wanted.kind {
            let why = "what is kept under that name has another shape".to_owned();
            return Err((Kind::Invalid, why));
        }
        if held.kind == Shape::Volume && held.capacity > wanted.capacity {
            let why = format!(
                "it has {} bytes, and a volume is not made smaller",
                held.capacity
            );
            return Err((Kind::Invalid, why));
        }
        let more = wanted.capacity.saturating_sub(held.capacity);
        let of = |(one, _): &&mut (&Exposure, u64)| {
            one.server == held.server && one.source == held.source
        };
        if let Some((exposure, left)) = self.exposures.iter_mut().find(of) {
            if !exposure.thin && more > *left {
                return Err((Kind::Limit, short(exposure, *left)));
            }
            *left = left.saturating_sub(more) + held.capacity.saturating_sub(wanted.capacity);
        }
        Ok(Allotment {
            capacity: wanted.capacity,
            ..held.clone()
        })
    }

    fn take(
        &mut self,
        request: &StorageRequest,
        wanted: Allotment,
    ) -> Result<Allotment, (Kind, String)> {
        let asked = || {
            request
                .properties
                .iter()
                .filter(|property| *property != SHARED)
        };
        let fits = |one: &Exposure| {
            one.server == wanted.server
                && one.kind == wanted.kind
                && asked().all(|property| one.tags.contains(property))
        };
        let mut short_of = None;
        for (exposure, left) in self.exposures.iter_mut().filter(|(one, _)| fits(one)) {
            if exposure.thin || wanted.capacity <= *left {
                *left = left.saturating_sub(wanted.capacity);
                return Ok(Allotment {
                    source: exposure.source.clone(),
                    thin: exposure.thin,
                    ..wanted
                });
            }
            short_of.get_or_insert_with(|| short(exposure, *left));
        }
        match short_of {
            Some(why) => Err((Kind::Limit, why)),
            None => {
                let words: Vec<&str> = asked().map(String::as_str).collect();
                let words = words.join(" ");
                let what = if words.is_empty() {
                    "of that shape"
                } else {
                    &words
                };
                Err((
                    Kind::Unsatisfiable,
                    format!("no storage {what} is exposed on server {}", wanted.server),
                ))
            }
        }
    }
}

fn short(exposure: &Exposure, left: u64) -> String {
    format!(
        "{} of {} bytes are left in {} on server {}",
        left, exposure.capacity, exposure.source, exposure.server
    )
}
