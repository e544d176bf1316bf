//! The network of a horde: who reaches whom, and through which doors.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use underverse::{
    Capability as C, ExternalAddress, HordeSpec, Kind, PortConnect, Protocol, Running,
};

use crate::bed::{Bed, dissolved, healed, horde, listed, realise, realised, refused, started};
use crate::case::{Case, Judged, Stop, case, ensure, skip};
use crate::fixture::{Opened, Vantage};
use crate::refusal::{INNER_PORT, door};

/// Looks before a connection that must come about counts as refused: a listener needs time to listen.
const LOOKS_MAX: u32 = 200;
/// Time between two looks at what is awaited.
const LOOK: Duration = Duration::from_millis(25);
/// Longest time for which an answer about a name is called current.
const KEEP_MAX: Duration = Duration::from_secs(60);
/// Connections made through a door.
const CALLS: usize = 12;

pub(super) const CASES: &[Case] = &[
    case("network.connected", &[C::HordeConnected], |bed| {
        Box::pin(connected(bed))
    }),
    case("network.horde-private", &[C::HordePrivate], |bed| {
        Box::pin(horde_private(bed))
    }),
    case("network.flock-private", &[C::FlockPrivate], |bed| {
        Box::pin(flock_private(bed))
    }),
    case("network.open", &[], |bed| Box::pin(open(bed))),
    case("network.private-wins", &[C::HordePrivate], |bed| {
        Box::pin(private_wins(bed))
    }),
    case("network.outbound", &[C::Outbound], |bed| {
        Box::pin(outbound(bed))
    }),
    case(
        "network.outbound-none",
        &[C::ExternalConnectionLimit],
        |bed| Box::pin(outbound_none(bed)),
    ),
    case(
        "network.outbound-limit",
        &[C::ExternalConnectionLimit],
        |bed| Box::pin(outbound_limit(bed)),
    ),
    case("network.door", &[C::ExposeTcp], |bed| {
        Box::pin(door_shares(bed))
    }),
    case(
        "network.door-private",
        &[C::ExposeTcp, C::HordePrivate],
        |bed| Box::pin(door_private(bed)),
    ),
    case(
        "network.door-address",
        &[C::ExposeTcp, C::ExternalAddresses],
        |bed| Box::pin(door_address(bed)),
    ),
    case("network.door-udp", &[C::ExposeUdp], |bed| {
        Box::pin(door_udp(bed))
    }),
    case("network.door-both", &[C::ExposeTcp, C::ExposeUdp], |bed| {
        Box::pin(door_both(bed))
    }),
    case("network.names", &[C::Names], |bed| Box::pin(names(bed))),
    case("network.names-current", &[C::Names], |bed| {
        Box::pin(names_current(bed))
    }),
    case("network.healed", &[C::HordeConnected, C::Heal], |bed| {
        Box::pin(after_healing(bed))
    }),
    case("network.resized", &[C::ExposeTcp, C::Resize], |bed| {
        Box::pin(after_resizing(bed))
    }),
    case("network.requested-effective", &[], |bed| {
        Box::pin(requested_effective(bed))
    }),
    case("network.probed", &[], |bed| Box::pin(probed(bed))),
];

/// A horde whose members listen.
fn listening(bed: &Bed<'_>, name: &str, count: u32) -> Result<HordeSpec, Stop> {
    let Some(program) = bed.fixture().listener(INNER_PORT) else {
        return skip("this fixture has no program that listens");
    };
    let mut spec = bed.spec_named(name, count)?;
    spec.execables[0].program = program;
    Ok(spec)
}

fn address(of: &Running) -> Result<SocketAddr, Stop> {
    match of.address {
        Some(address) => Ok(SocketAddr::new(address, INNER_PORT)),
        None => skip("containers have no address of their own"),
    }
}

async fn up(opened: &Opened, generation: u64, spec: &HordeSpec) -> Result<Vec<Running>, Stop> {
    realised(opened, generation, spec).await?;
    started(&*opened.underverse, &spec.name, spec.count() as usize).await
}

/// Tries until the connection comes about; returns what was answered.
async fn reaches(bed: &Bed<'_>, from: Vantage<'_>, to: SocketAddr) -> Result<String, Stop> {
    for _ in 0..LOOKS_MAX {
        if let Some(answer) = bed.ground.reach(from, to).await? {
            return Ok(answer);
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Stop::Failed(format!("{to} is not reached")))
}

async fn never(bed: &Bed<'_>, from: Vantage<'_>, to: SocketAddr) -> Judged {
    let answer = bed.ground.reach(from, to).await?;
    ensure(answer.is_none(), || {
        format!("{to} is reached, and should not be")
    })
}

async fn connected(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let running = up(&opened, 1, &listening(bed, "suite", 3)?).await?;
    for from in &running {
        for to in &running {
            let answer = reaches(bed, Vantage::Inside(from), address(to)?).await?;
            ensure(answer == to.label, || {
                format!("{answer} answers at the address of {}", to.label)
            })?;
        }
    }
    Ok(())
}

/// Brings up a private horde and another one; returns a member of each.
async fn two_hordes(
    bed: &Bed<'_>,
    horde_private: bool,
    flock_private: bool,
) -> Result<(Opened, [Running; 2], Running), Stop> {
    let opened = bed.open().await?;
    let mut spec = listening(bed, "suite", 2)?;
    spec.network.horde_private = horde_private;
    spec.network.flock_private = flock_private;
    let mut other = listening(bed, "beside", 1)?;
    other.network.flock_private = flock_private;
    let mut members = up(&opened, 1, &spec).await?.into_iter();
    let mut others = up(&opened, 1, &other).await?.into_iter();
    let (Some(one), Some(two), Some(beside)) = (members.next(), members.next(), others.next())
    else {
        return Err(Stop::Failed("containers are missing".to_owned()));
    };
    reaches(bed, Vantage::Inside(&one), address(&two)?).await?;
    Ok((opened, [one, two], beside))
}

async fn horde_private(bed: &Bed<'_>) -> Judged {
    if !bed.enforced(C::HordePrivate) {
        return skip("it is weak here; `realise.weaker` shows that this is told");
    }
    let (opened, members, beside) = two_hordes(bed, true, false).await?;
    let mut flock = listening(bed, "flock", 1)?;
    flock.network.flock_private = true;
    let flock = up(&opened, 1, &flock).await?;
    for foreign in [&beside, &flock[0]] {
        never(bed, Vantage::Inside(foreign), address(&members[0])?).await?;
    }
    never(bed, Vantage::Outside, address(&members[0])?).await
}

async fn flock_private(bed: &Bed<'_>) -> Judged {
    if !bed.enforced(C::FlockPrivate) {
        return skip("it is weak here; `realise.weaker` shows that this is told");
    }
    let (_opened, members, beside) = two_hordes(bed, false, true).await?;
    reaches(bed, Vantage::Inside(&beside), address(&members[0])?).await?;
    never(bed, Vantage::Outside, address(&members[0])?).await
}

async fn open(bed: &Bed<'_>) -> Judged {
    let (_opened, members, beside) = two_hordes(bed, false, false).await?;
    reaches(bed, Vantage::Inside(&beside), address(&members[0])?).await?;
    reaches(bed, Vantage::Outside, address(&members[0])?)
        .await
        .map(drop)
}

async fn private_wins(bed: &Bed<'_>) -> Judged {
    if !bed.enforced(C::HordePrivate) {
        return skip("it is weak here; `realise.weaker` shows that this is told");
    }
    let (_opened, members, beside) = two_hordes(bed, true, true).await?;
    never(bed, Vantage::Inside(&beside), address(&members[0])?).await
}

/// The address that stands for the internet.
fn internet(bed: &Bed<'_>) -> Result<SocketAddr, Stop> {
    let found = bed.ground.internet();
    found.map_or_else(
        || skip("nothing stands for the internet on this ground"),
        Ok,
    )
}

async fn outbound(bed: &Bed<'_>) -> Judged {
    let internet = internet(bed)?;
    let opened = bed.open().await?;
    let mut spec = listening(bed, "suite", 1)?;
    spec.network.flock_private = true;
    let running = up(&opened, 1, &spec).await?;
    reaches(bed, Vantage::Inside(&running[0]), internet)
        .await
        .map(drop)
}

async fn limited(bed: &Bed<'_>, limit: u32) -> Result<(Opened, Vec<Running>), Stop> {
    if !bed.enforced(C::ExternalConnectionLimit) {
        return skip("it is weak here; `realise.weaker` shows that this is told");
    }
    let opened = bed.open().await?;
    let mut spec = listening(bed, "suite", 2)?;
    spec.network.external_connections_max = Some(limit);
    let running = up(&opened, 1, &spec).await?;
    Ok((opened, running))
}

async fn outbound_none(bed: &Bed<'_>) -> Judged {
    let internet = internet(bed)?;
    let (_opened, running) = limited(bed, 0).await?;
    reaches(bed, Vantage::Inside(&running[0]), address(&running[1])?).await?;
    never(bed, Vantage::Inside(&running[0]), internet).await
}

/// One more than may be is tried from two members in turn, all kept at once; when they have ended, another comes about.
async fn outbound_limit(bed: &Bed<'_>) -> Judged {
    let internet = internet(bed)?;
    let (opened, running) = limited(bed, 2).await?;
    reaches(bed, Vantage::Inside(&running[0]), internet).await?;
    let from = [0, 1, 0, 1].map(|at: usize| &running[at]);
    let mut held = 0;
    // What was tried before may not have ended yet.
    for _ in 0..LOOKS_MAX {
        held = bed.ground.hold(&from, internet).await?;
        if held >= 2 {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    ensure(held == 2, || {
        format!("{held} connections at once, and 2 may be")
    })?;
    reaches(bed, Vantage::Inside(&running[1]), internet).await?;
    let effective = opened.underverse.effective(&horde()?).await?;
    let told = effective.network.external_connections_max.value;
    ensure(told == Some(2), || {
        format!("a limit of 2 is told as {told:?}")
    })
}

/// A horde with a door; returns its address as told.
async fn with_door(bed: &Bed<'_>, count: u32) -> Result<(Opened, HordeSpec, SocketAddr), Stop> {
    let opened = bed.open().await?;
    let mut spec = listening(bed, "suite", count)?;
    spec.network.ports.push(door(Protocol::Tcp)?);
    up(&opened, 1, &spec).await?;
    let effective = opened.underverse.effective(&horde()?).await?;
    let port = effective
        .network
        .ports
        .first()
        .ok_or_else(|| Stop::Failed("the door is not told".to_owned()))?;
    Ok((opened, spec, port.address))
}

async fn door_shares(bed: &Bed<'_>) -> Judged {
    let (_opened, _, at) = with_door(bed, 3).await?;
    in_turn(bed, at, 3).await?;
    let mut answers: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..CALLS {
        *answers
            .entry(reaches(bed, Vantage::Outside, at).await?)
            .or_default() += 1;
    }
    let even = answers.len() == 3
        && answers
            .values()
            .all(|&count| count.abs_diff(CALLS / 3) <= 1);
    ensure(even, || format!("of {CALLS}: {answers:?}"))
}

/// Waits until so many members answer one after the other: who starts listening late has been passed over until then.
async fn in_turn(bed: &Bed<'_>, at: SocketAddr, members: usize) -> Judged {
    let mut last: VecDeque<String> = VecDeque::new();
    for _ in 0..LOOKS_MAX {
        last.push_back(reaches(bed, Vantage::Outside, at).await?);
        if last.len() > members {
            last.pop_front();
        }
        let distinct: BTreeSet<&String> = last.iter().collect();
        if distinct.len() == members {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Stop::Failed(format!(
        "{members} members never answer in turn: {last:?}"
    )))
}

async fn door_private(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let mut spec = listening(bed, "suite", 1)?;
    spec.network.horde_private = true;
    spec.network.ports.push(door(Protocol::Tcp)?);
    up(&opened, 1, &spec).await?;
    let effective = opened.underverse.effective(&horde()?).await?;
    let port = effective
        .network
        .ports
        .first()
        .ok_or_else(|| Stop::Failed("the door is not told".to_owned()))?;
    reaches(bed, Vantage::Outside, port.address).await.map(drop)
}

async fn door_address(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let (id, external) = opened.underverse.acquire_address(&horde()?, "door").await?;
    let mut spec = listening(bed, "suite", 1)?;
    let mut port = door(Protocol::Tcp)?;
    port.external = ExternalAddress::Acquired(id);
    let number = port.external_port;
    spec.network.ports.push(port);
    up(&opened, 1, &spec).await?;
    reaches(bed, Vantage::Outside, SocketAddr::new(external, number)).await?;
    let mut elsewhere = bed.ground.other_addresses();
    elsewhere.push(std::net::Ipv4Addr::LOCALHOST.into());
    for other in elsewhere {
        never(bed, Vantage::Outside, SocketAddr::new(other, number)).await?;
    }
    Ok(())
}

/// Sends datagrams through a door until one is answered; returns who answered, once what it answered with is what was sent.
async fn echoed(bed: &Bed<'_>, to: SocketAddr, text: &str) -> Result<String, Stop> {
    for _ in 0..LOOKS_MAX {
        let Some(answer) = bed.ground.exchange(Vantage::Outside, to, text).await? else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        return match answer.split_once(' ') {
            Some((label, echo)) if echo == text => Ok(label.to_owned()),
            _ => Err(Stop::Failed(format!("to {text:?} came {answer:?}"))),
        };
    }
    Err(Stop::Failed(format!("no datagram comes back from {to}")))
}

async fn door_udp(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let mut spec = listening(bed, "suite", 3)?;
    spec.execables.push(bed.execable("deaf", 1)?);
    spec.network.flock_private = true;
    spec.network.ports.push(door(Protocol::Udp)?);
    up(&opened, 1, &spec).await?;
    let effective = opened.underverse.effective(&horde()?).await?;
    let ports = &effective.network.ports;
    let open = ports
        .iter()
        .find(|port| port.state == underverse::PortState::Open);
    let Some(at) = open.map(|port| port.address) else {
        return Err(Stop::Failed(format!("told as {ports:?}")));
    };
    let mut answers: BTreeMap<String, usize> = BTreeMap::new();
    for number in 0..CALLS {
        // As long as it may be without being taken apart on most links.
        let text = format!("{number}{}", ".".repeat(number * 100));
        *answers.entry(echoed(bed, at, &text).await?).or_default() += 1;
    }
    // Those that are asked in place of the deaf one get more.
    let shared = answers.len() == 3 && answers.values().all(|&count| count >= CALLS / 6);
    ensure(shared, || format!("of {CALLS}: {answers:?}"))
}

/// One address, and what comes as a connection and as a datagram goes different ways; the one goes and the other stays.
async fn door_both(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let mut spec = listening(bed, "suite", 2)?;
    let tcp = door(Protocol::Tcp)?;
    let udp = PortConnect {
        protocol: Protocol::Udp,
        ..tcp.clone()
    };
    spec.network.ports.extend([udp, tcp]);
    up(&opened, 1, &spec).await?;
    let effective = opened.underverse.effective(&horde()?).await?;
    let ports = &effective.network.ports;
    let [datagrams, connections] = ports.as_slice() else {
        return Err(Stop::Failed(format!("told as {ports:?}")));
    };
    let told = (datagrams.protocol, connections.protocol);
    ensure(
        told == (Protocol::Udp, Protocol::Tcp) && datagrams.address == connections.address,
        || format!("told as {ports:?}"),
    )?;
    let at = connections.address;
    reaches(bed, Vantage::Outside, at).await?;
    echoed(bed, at, "both").await?;
    spec.network.ports.remove(0);
    up(&opened, 2, &spec).await?;
    reaches(bed, Vantage::Outside, at).await?;
    let left = bed.ground.exchange(Vantage::Outside, at, "one").await?;
    ensure(left.is_none(), || {
        "the door for datagrams is still there".to_owned()
    })
}

async fn names(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let running = up(&opened, 1, &listening(bed, "suite", 2)?).await?;
    let hosts = bed
        .ground
        .read_inside(&running[0], "/etc/hosts")
        .await?
        .unwrap_or_default();
    for one in &running {
        let Some(address) = one.address else {
            return skip("containers have no address of their own");
        };
        let named = hosts.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(address.to_string().as_str())
                && words.any(|word| word == one.label)
        });
        ensure(named, || format!("{} is not named {address}", one.label))?;
    }
    Ok(())
}

/// Asks until the name has as many addresses as expected; returns them and how long they may be kept.
async fn resolved(
    bed: &Bed<'_>,
    (from, name): (&Running, &str),
    expected: &[&Running],
) -> Result<Duration, Stop> {
    let mut wanted = Vec::new();
    for one in expected {
        wanted.push(address(one)?.ip());
    }
    let mut told = Vec::new();
    for _ in 0..LOOKS_MAX {
        told = bed.ground.resolve(from, name).await?;
        told.sort();
        if told
            .iter()
            .map(|one| one.address)
            .eq(wanted.iter().copied())
        {
            return Ok(told.iter().map(|one| one.keep).max().unwrap_or_default());
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Stop::Failed(format!(
        "{name} is {told:?} and should be {}",
        listed(&wanted)
    )))
}

/// As [`resolved`], asked once: what is told now must be right.
async fn tells(bed: &Bed<'_>, (from, name): (&Running, &str), expected: &Running) -> Judged {
    let told = bed.ground.resolve(from, name).await?;
    let right = told.len() == 1 && told[0].address == address(expected)?.ip();
    ensure(right, || {
        format!("{name} is {told:?} and should be {:?}", expected.address)
    })
}

/// Requirement NET-09: a container is moved, here by another horde that takes the place of its own before it comes back.
async fn names_current(bed: &Bed<'_>) -> Judged {
    if !bed.enforced(C::Names) {
        return skip("it is weak here; `network.names` shows what there is");
    }
    let opened = bed.open().await?;
    let private = |name, count| -> Result<HordeSpec, Stop> {
        let mut spec = listening(bed, name, count)?;
        spec.network.flock_private = true;
        Ok(spec)
    };
    let (mut spec, other) = (private("suite", 2)?, private("beside", 1)?);
    let members = up(&opened, 1, &spec).await?;
    let moved = up(&opened, 1, &other).await?;
    let asker = &members[0];
    for one in &members {
        resolved(bed, (asker, &one.label), &[one]).await?;
    }
    resolved(bed, (asker, "hobbit"), &[&members[0], &members[1]]).await?;
    let keep = resolved(bed, (asker, "n1.beside"), &[&moved[0]]).await?;
    ensure(keep > Duration::ZERO && keep <= KEEP_MAX, || {
        format!("an answer may be kept for {keep:?}")
    })?;
    dissolved(&opened, 2, &other.name).await?;
    up(&opened, 1, &private("between", 1)?).await?;
    let moved = up(&opened, 3, &other).await?;
    spec.execables[0].count = 1;
    up(&opened, 2, &spec).await?;
    tokio::time::sleep(keep).await;
    tells(bed, (asker, "n1.beside"), &moved[0]).await?;
    tells(bed, (asker, "hobbit"), asker).await
}

async fn after_healing(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let spec = listening(bed, "suite", 2)?;
    let before = up(&opened, 1, &spec).await?;
    address(&before[1])?;
    bed.ground.remove(&before[1]).await?;
    let after = healed(&opened, 1, &spec, &before[1]).await?;
    let same = after[1].address == before[1].address;
    ensure(same, || {
        format!("{:?} became {:?}", before[1].address, after[1].address)
    })?;
    reaches(bed, Vantage::Inside(&after[0]), address(&after[1])?)
        .await
        .map(drop)
}

async fn after_resizing(bed: &Bed<'_>) -> Judged {
    let (opened, mut spec, at) = with_door(bed, 1).await?;
    reaches(bed, Vantage::Outside, at).await?;
    spec.execables[0].count = 3;
    up(&opened, 2, &spec).await?;
    for _ in 0..LOOKS_MAX {
        let mut answers = BTreeSet::new();
        for _ in 0..CALLS {
            answers.insert(reaches(bed, Vantage::Outside, at).await?);
        }
        if answers.len() == 3 {
            spec.execables[0].count = 1;
            up(&opened, 3, &spec).await?;
            return only_first(bed, at).await;
        }
    }
    Err(Stop::Failed(
        "the door does not lead to members that were added".to_owned(),
    ))
}

async fn only_first(bed: &Bed<'_>, at: SocketAddr) -> Judged {
    let mut answers = BTreeSet::new();
    for _ in 0..CALLS {
        answers.insert(reaches(bed, Vantage::Outside, at).await?);
    }
    ensure(answers.len() == 1, || {
        format!("members that left answer: {}", listed(&answers))
    })
}

// Requirement NET-06: what was obtained stands beside what was asked, and weaker is said to be weaker.
async fn requested_effective(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let mut spec = bed.spec(1)?;
    spec.network.horde_private = true;
    spec.network.flock_private = true;
    spec.network.external_connections_max = Some(0);
    let effective = realised(&opened, 1, &spec).await?;
    let told = opened.underverse.effective(&horde()?).await?;
    ensure(told.network == effective.network, || {
        "realise and effective tell different networks".to_owned()
    })?;
    let network = &effective.network;
    let short = [
        (
            C::HordePrivate,
            network.horde_private.value && network.horde_private.strength.reason().is_none(),
        ),
        (
            C::FlockPrivate,
            network.flock_private.value && network.flock_private.strength.reason().is_none(),
        ),
        (
            C::ExternalConnectionLimit,
            network.external_connections_max.value == Some(0)
                && network.external_connections_max.strength.reason().is_none(),
        ),
    ];
    let weaker = short.iter().filter(|(_, obtained)| !obtained).count();
    ensure(effective.weaker.len() >= weaker, || {
        format!(
            "{weaker} weaker than asked, and told: {}",
            listed(&effective.weaker)
        )
    })?;
    for (capability, obtained) in short {
        let stated = bed.enforced(capability);
        ensure(stated || !obtained, || {
            format!("{capability} is told as enforced, which the record does not state")
        })?;
        ensure(obtained || !stated || !network.probes.is_empty(), || {
            format!("{capability} is stated and not obtained, without a probe")
        })?;
    }
    let silent = effective
        .weaker
        .iter()
        .find(|weaker| weaker.obtained.trim().is_empty());
    ensure(silent.is_none(), || "weaker, without saying why".to_owned())
}

async fn probed(bed: &Bed<'_>) -> Judged {
    let opened = bed.open().await?;
    let mut spec = bed.spec(2)?;
    spec.network.horde_private = true;
    realised(&opened, 1, &spec).await?;
    started(&*opened.underverse, &horde()?, 2).await?;
    realised(&opened, 1, &spec).await?;
    let network = opened.underverse.effective(&horde()?).await?.network;
    let claimed = network.horde_private.value && network.horde_private.strength.reason().is_none();
    ensure(!claimed || !network.probes.is_empty(), || {
        "called enforced without having been tried".to_owned()
    })?;
    let mute = network
        .probes
        .iter()
        .find(|probe| probe.how.trim().is_empty());
    ensure(mute.is_none(), || "a probe does not say how".to_owned())?;
    match refused(realise(&opened, 0, &spec).await, Kind::Stale) {
        Ok(_) => Ok(()),
        Err(stop) => Err(stop),
    }
}
