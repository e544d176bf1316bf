//! From what is asked to what this backend will make: capabilities checked, servers chosen, doors resolved. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use underverse::{
    ByteCount, Error, Execable, ExternalAddress, Generation, HordeSpec, Kind, Limits, Members,
    MountSource, PortConnect, Program, Protocol, Strength, UserSource,
};

use crate::base::Abilities;
use crate::config::{Isolation, RnodeMount};
use crate::external::External;
use crate::groups::{Controller, Group, Groups};
use crate::limits::Room;
use crate::network::{Carries, OnSwitch, Way};
use crate::record::{Door, NetworkRecord, Record, RoleRecord};
use crate::servers::{Servers, Tagging};
use crate::settings::{Settings, VirtualServer};
use crate::storage::{Allotment, Store};

mod place;

pub(crate) use place::mounts;
use place::{Placed, place};

/// First uid that is leased to nested rnodes.
const USER_RANGE_FIRST: u32 = 2_000_000_000;
/// Uids of one horde.
const USERS_PER_HORDE: u32 = 4096;
/// Uids of one rnode.
pub(crate) const USERS_PER_RNODE: u32 = 16;
/// How many hordes' ranges there are to choose from.
const USER_RANGES: u32 = 4096;

/// A horde as this backend will make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) namespace: String,
    pub(crate) generation: (u64, u64),
    pub(crate) roles: Vec<RoleRecord>,
    /// By ordinal, 1 first, without gaps but those in `unplaced`.
    pub(crate) rnodes: Vec<WantedRnode>,
    /// Those for which there is no server now, with the reason.
    pub(crate) unplaced: Vec<(u32, String)>,
    /// How many of those that are missing can be started now; `None`: all.
    pub(crate) room: Option<Room>,
    /// Number of the last change of any server.
    pub(crate) servers_serial: u64,
    pub(crate) network: NetworkRecord,
    pub(crate) doors: Vec<Door>,
    pub(crate) weaker: Vec<(String, String)>,
    /// Storage of all containers.
    pub(crate) allotments: Vec<Allotment>,
    pub(crate) user_range_start: Option<u32>,
    pub(crate) isolation: Isolation,
    /// What each rnode may keep; `None`: what the disk has.
    pub(crate) quota_bytes: Option<u64>,
    /// `None`: this machine's own network.
    pub(crate) switch: Option<WantedSwitch>,
}

/// The switch a horde is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WantedSwitch {
    pub(crate) on: OnSwitch,
    /// Where it is held.
    pub(crate) dir: PathBuf,
}

/// A rnode as this backend will make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WantedRnode {
    pub(crate) ordinal: u32,
    pub(crate) role: String,
    pub(crate) program: WantedProgram,
    pub(crate) server: String,
    /// Tags declared of its server.
    pub(crate) declared: BTreeSet<String>,
    /// Tags added by its role.
    pub(crate) added: BTreeSet<String>,
    /// What an administrator gave its server and took from it; what the machine is found to have is asked at its start.
    pub(crate) tagging: Tagging,
    /// Its tags if it runs and is left alone: those it was started with, as far as the server goes.
    pub(crate) kept_tags: Vec<String>,
    /// It leaves its server whatever becomes of the others.
    pub(crate) urgent: bool,
    pub(crate) mounts: Vec<RnodeMount>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) limits: Limits,
    /// Control groups that keep them.
    pub(crate) groups: Vec<Group>,
}

impl WantedRnode {
    /// Its tags where `tagging` was said of its server: inherited and added, sorted.
    pub(crate) fn tags(&self, tagging: &Tagging) -> Vec<String> {
        let inherited = tagging.apply(self.declared.iter().cloned());
        let all: BTreeSet<&String> = inherited.iter().chain(&self.added).collect();
        all.into_iter().cloned().collect()
    }
}

impl Wanted {
    /// How many containers are asked for in all.
    pub(crate) fn count(&self) -> u32 {
        self.roles.iter().map(|role| role.count).sum()
    }
}

/// What runs in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WantedProgram {
    Fulcrum,
    Command(Vec<String>),
}

/// Facts of the machine that the checks need.
pub(crate) struct Facts<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) abilities: &'a Abilities,
    pub(crate) uid: u32,
    pub(crate) exists: &'a dyn Fn(&Path) -> bool,
    /// What is exposed, and what is allotted of it to anybody.
    pub(crate) store: &'a Store,
    /// What was said of the servers.
    pub(crate) said: &'a Servers,
    /// Looks which tags the machine has.
    pub(crate) found: &'a dyn Fn() -> BTreeSet<String>,
    /// Containers that may leave a server that is maintained.
    pub(crate) leaving: &'a BTreeSet<u32>,
    /// What is kept of this horde.
    pub(crate) record: Option<&'a Record>,
    /// Reads the user ranges of other hordes.
    pub(crate) user_ranges_taken: &'a dyn Fn() -> BTreeSet<u32>,
    /// Reads the numbers of other hordes on switches.
    pub(crate) numbers_taken: &'a dyn Fn() -> BTreeSet<u8>,
    /// External addresses that are given out.
    pub(crate) externals: &'a [External],
}

/// Works out what to make, or why it cannot be.
pub(crate) fn wanted(
    generation: Generation,
    spec: &HordeSpec,
    facts: &Facts<'_>,
) -> Result<Wanted, Error> {
    spec.validate()?;
    for execable in &spec.execables {
        check_execable(spec, execable, facts)?;
    }
    let (isolation, quota_bytes) = asked(spec, facts)?;
    let on = switch(spec, isolation, facts);
    let way = on.map_or(Way::Here, Way::Into);
    let mut doors = spec
        .network
        .ports
        .iter()
        .map(|port| door(port, way, facts))
        .collect::<Result<Vec<_>, _>>()?;
    doors.extend(on.and_then(|on| door_out(on, spec, facts)));
    doors.extend(on.map(door_names));
    let Placed {
        mut rnodes,
        unplaced,
        allotments,
    } = place(spec, &servers(spec, facts), facts)?;
    let commands = spec.execables.iter().all(is_command);
    if commands && isolation == Isolation::PidMount && (facts.exists)(Path::new(HOSTS)) {
        let home = &facts.settings.home;
        let asked = on.filter(|_| (facts.exists)(Path::new(RESOLVER)));
        for rnode in &mut rnodes {
            shown(rnode, home.hosts(spec.name.as_str()), HOSTS);
            if asked.is_some() {
                shown(rnode, home.resolver(spec.name.as_str()), RESOLVER);
            }
        }
    }
    let user_range_start = user_range(spec, facts);
    Ok(Wanted {
        namespace: spec.name.to_string(),
        generation: (generation.document, generation.term),
        roles: spec
            .execables
            .iter()
            .map(|execable| RoleRecord {
                role: execable.role.to_string(),
                count: execable.count,
            })
            .collect(),
        rnodes,
        unplaced,
        room: None,
        servers_serial: facts.said.serial,
        network: NetworkRecord::of(&spec.network),
        doors,
        weaker: weaker(spec, (isolation, on, &allotments), facts),
        allotments,
        user_range_start,
        isolation,
        quota_bytes,
        switch: on.map(|on| WantedSwitch {
            on,
            dir: on.dir(&facts.settings.home, spec.name.as_str()),
        }),
    })
}

const fn is_command(execable: &Execable) -> bool {
    matches!(execable.program, Program::Command(_))
}

/// The switch the horde will be on; `None` for this machine's own network.
fn switch(spec: &HordeSpec, isolation: Isolation, facts: &Facts<'_>) -> Option<OnSwitch> {
    let can = facts.settings.granted.switch.is_none() && isolation == Isolation::PidMount;
    if !can || !spec.execables.iter().all(is_command) {
        return None;
    }
    let held = facts.record.and_then(|record| record.switch);
    // Running containers are not replaced because a number has become free.
    let stays = |record: &&Record| {
        !record.containers.is_empty() && record.network == NetworkRecord::of(&spec.network)
    };
    if held.is_none() && facts.record.filter(stays).is_some() {
        return None;
    }
    OnSwitch::choose(&spec.network, held, facts.numbers_taken)
}

/// The door out of a switch, unless none is asked for or there can be none.
fn door_out(on: OnSwitch, spec: &HordeSpec, facts: &Facts<'_>) -> Option<Door> {
    let limit = spec.network.external_connections_max;
    let can = facts.settings.granted.outbound.is_none();
    (can && limit != Some(0)).then(|| Door {
        listen: on.out(),
        class: String::new(),
        port: 0,
        way: Way::OutOf(on, limit),
        carries: Carries::Tcp,
    })
}

/// Who answers for the names of a horde on a switch.
fn door_names(on: OnSwitch) -> Door {
    Door {
        listen: on.names(),
        class: String::new(),
        port: 0,
        way: Way::Names(on),
        carries: Carries::Udp,
    }
}

/// Shows a container a file of the horde's, unless the spec itself shows it something there.
fn shown(rnode: &mut WantedRnode, host: PathBuf, target: &str) {
    let target = PathBuf::from(target);
    if rnode.mounts.iter().all(|mount| mount.target != target) {
        rnode.mounts.push(RnodeMount {
            host,
            target,
            writable: false,
        });
    }
}

fn check_execable(spec: &HordeSpec, execable: &Execable, facts: &Facts<'_>) -> Result<(), Error> {
    let refuse = |kind, message: String| {
        Err(Error::new(kind, "realise on backend local", message)
            .with("horde", &spec.name)
            .with("role", &execable.role))
    };
    let unsupported = |message: &str| refuse(Kind::Unsupported, message.to_owned());
    let words = execable.program.words().join(" ");
    let able = match &execable.program {
        Program::Fulcrum(_) => &facts.abilities.fulcrums,
        Program::Command(_) => &facts.abilities.commands,
    };
    if let Strength::Absent(reason) = able {
        let message = format!("{words:?} cannot run here: {reason}");
        return refuse(Kind::Unsupported, message);
    }
    if let Some(image) = &execable.image {
        return refuse(
            Kind::Unsupported,
            format!("it has no images, and {image} is asked for"),
        );
    }
    let rnode = matches!(execable.program, Program::Fulcrum(_));
    if rnode && !execable.limits.is_none() {
        return unsupported("it does not limit memory, processors or processes of a rnode yet");
    }
    for mount in &execable.mounts {
        let target = mount.target.display();
        match &mount.source {
            MountSource::Host(path) if !(facts.exists)(path) => {
                return refuse(
                    Kind::Invalid,
                    format!(
                        "mount {target}: {} does not exist on this machine",
                        path.display()
                    ),
                );
            }
            MountSource::Host(_) => {}
            // Placing finds out what can be had where.
            MountSource::Storage(_) => {}
        }
    }
    Ok(())
}

fn door(port: &PortConnect, way: Way, facts: &Facts<'_>) -> Result<Door, Error> {
    let refuse = |message: String| Err(Error::unsupported("open a port on backend local", message));
    let host = match &port.external {
        ExternalAddress::Default => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ExternalAddress::Host(host) => *host,
        ExternalAddress::Acquired(id) => {
            let given = facts.externals.iter().find(|given| given.id == id.as_str());
            let Some(given) = given else {
                let message = format!("{id} is no external address that was given out");
                return Err(Error::new(
                    Kind::NotFound,
                    "open a port on backend local",
                    message,
                ));
            };
            IpAddr::V4(given.host)
        }
    };
    let carries = match port.protocol {
        Protocol::Tcp => Carries::Tcp,
        Protocol::Udp => Carries::Udp,
    };
    let class = match (&port.members, &facts.abilities.class_doors) {
        (Members::All, _) => String::new(),
        (Members::Class(class), Strength::Absent(reason)) => {
            let port = port.external_port;
            return refuse(format!("port {port} leads to class {class}: {reason}"));
        }
        (Members::Class(class), _) => class.clone(),
    };
    Ok(Door {
        listen: SocketAddr::new(host, port.external_port),
        class,
        port: port.internal_port,
        way,
        carries,
    })
}

/// The isolation asked for, or the strongest this machine grants; and the quota of each rnode.
fn asked(spec: &HordeSpec, facts: &Facts<'_>) -> Result<(Isolation, Option<u64>), Error> {
    let unknown = |what: String| {
        Err(
            Error::new(Kind::Invalid, "read the settings of backend local", what)
                .with("horde", &spec.name),
        )
    };
    let (mut isolation, mut quota) = (facts.settings.isolation, None);
    for (key, words) in &spec.settings {
        match (key.as_str(), words.join(",").as_str()) {
            ("isolation", "none") => isolation = Isolation::None,
            ("isolation", "pid,mount") => {}
            ("isolation", other) => {
                return unknown(format!(
                    "isolation {other} is neither `none` nor `pid,mount`"
                ));
            }
            ("quota", text) => match text.parse::<ByteCount>() {
                Ok(bytes) if bytes.get() > 0 => quota = Some(bytes.get()),
                _ => {
                    return unknown(format!(
                        "quota {text} is no number of bytes; write 20G, 500M, or bytes in digits"
                    ));
                }
            },
            (other, _) => return unknown(format!("it has no setting {other}")),
        }
    }
    Ok((isolation, quota))
}

/// The servers that the spec declares, else those of the settings.
fn servers(spec: &HordeSpec, facts: &Facts<'_>) -> Vec<VirtualServer> {
    let declared = spec.servers.iter();
    let declared: Vec<VirtualServer> = declared
        .map(|server| VirtualServer {
            name: server.name.clone(),
            tags: server.tags.clone(),
        })
        .collect();
    if declared.is_empty() {
        facts.settings.servers.clone()
    } else {
        declared
    }
}

/// A range of uids for the horde, if it asks for one and we may give it: the one it has, else the first free.
fn user_range(spec: &HordeSpec, facts: &Facts<'_>) -> Option<u32> {
    let asked = spec
        .users
        .iter()
        .any(|user| user.source == UserSource::Auto);
    if !asked || facts.uid != 0 {
        return None;
    }
    let held = facts.record.and_then(|record| record.user_range_start);
    held.or_else(|| {
        let taken = (facts.user_ranges_taken)();
        let mut ranges = (0..USER_RANGES).map(|index| USER_RANGE_FIRST + index * USERS_PER_HORDE);
        ranges.find(|start| !taken.contains(start))
    })
}

fn weaker(
    spec: &HordeSpec,
    (isolation, on, allotments): (Isolation, Option<OnSwitch>, &[Allotment]),
    facts: &Facts<'_>,
) -> Vec<(String, String)> {
    let mut weaker = Vec::new();
    let mut add = |asked: String, obtained: &str| weaker.push((asked, obtained.to_owned()));
    for user in spec
        .users
        .iter()
        .filter(|user| user.source == UserSource::Auto)
    {
        if facts.uid != 0 {
            let obtained = "runs as the user who started it: only root can lease users";
            add(format!("user {} = auto", user.name), obtained);
        }
    }
    for request in &spec.storage {
        let mine = |one: &&Allotment| one.id == request.id.as_str();
        let sizes = allotments.iter().filter(mine);
        let sizes: BTreeSet<Strength> = sizes.map(|one| one.kind.size(one.thin)).collect();
        for size in sizes {
            if let Some(reason) = size.reason() {
                add(format!("{}, a {request}", request.id), reason);
            }
        }
    }
    for execable in &spec.execables {
        for (asked, obtained) in unlimited(execable, &facts.settings.groups) {
            add(asked, obtained);
        }
    }
    let network = &spec.network;
    let limit = network.external_connections_max;
    let asked_limit = |limit: u32| format!("at most {limit} connections to the internet");
    match (on, &facts.settings.granted.outbound) {
        (Some(_), None) => {}
        (Some(_), Some(_)) if limit == Some(0) => {}
        (Some(_), Some(reason)) => {
            let asked = limit.map_or_else(|| "connections to the internet".to_owned(), asked_limit);
            add(asked, &format!("none: {reason}"));
        }
        (None, _) => {
            let why = on_this_network(spec, isolation, facts);
            if network.horde_private {
                add("horde-private network".to_owned(), &why);
            }
            if network.flock_private {
                add(
                    "flock-private network".to_owned(),
                    &format!("{FLOCK_PRIVATE}: {why}"),
                );
            }
            if let Some(limit) = limit {
                add(asked_limit(limit), &format!("no limit: {why}"));
            }
        }
    }
    if isolation == Isolation::None {
        let obtained = "none here: a rnode's processes are found by the mark in their environment";
        add("process isolation".to_owned(), obtained);
        if spec
            .execables
            .iter()
            .any(|execable| !execable.mounts.is_empty())
        {
            let obtained = "no mount namespace here: only values typed as paths are rewritten";
            add("mounts".to_owned(), obtained);
        }
    }
    weaker
}

/// The limits of a role that no control group keeps here, with what is done instead.
fn unlimited(execable: &Execable, groups: &Groups) -> Vec<(String, &'static str)> {
    let (limits, role) = (&execable.limits, &execable.role);
    let missing = |controller| !groups.has(controller);
    let mut found = Vec::new();
    if let Some(memory) = limits.memory.filter(|_| missing(Controller::Memory)) {
        let asked = format!("at most {memory} of memory for role {role}");
        found.push((asked, ADDRESS_SPACE));
    }
    if let Some(cpu) = limits.cpu_thousandths.filter(|_| missing(Controller::Cpu)) {
        let asked = format!("at most {cpu} thousandths of a processor for role {role}");
        found.push((asked, NO_GROUP));
    }
    if let Some(processes) = limits.processes.filter(|_| missing(Controller::Pids)) {
        let asked = format!("at most {processes} processes for role {role}");
        found.push((asked, NO_GROUP));
    }
    found
}

/// What limits memory where no control group does.
const ADDRESS_SPACE: &str =
    "the address space of each process, since no control group for memory can be made here";
/// Why something is not limited.
const NO_GROUP: &str = "not limited: no control group for it can be made here";
/// Why a horde is on this machine's own network.
fn on_this_network(spec: &HordeSpec, isolation: Isolation, facts: &Facts<'_>) -> String {
    if !spec.execables.iter().all(is_command) {
        return NO_NETWORK_ISOLATION.to_owned();
    }
    if let Some(reason) = &facts.settings.granted.switch {
        return format!("this machine grants no network of its own: {reason}");
    }
    match isolation {
        Isolation::None => "containers are not isolated from this machine".to_owned(),
        Isolation::PidMount => "every number of a horde on a switch is taken".to_owned(),
    }
}

/// Where names are looked up before anybody is asked.
pub(crate) const HOSTS: &str = "/etc/hosts";
/// Who is asked for names.
pub(crate) const RESOLVER: &str = "/etc/resolv.conf";
/// Why hordes on this machine are not private.
pub(crate) const NO_NETWORK_ISOLATION: &str =
    "rnodes share this machine's loopback network, which every local process can reach";
/// How far the flock is private.
pub(crate) const FLOCK_PRIVATE: &str =
    "services of Radix admit members only; what applications open, any process here can reach";
