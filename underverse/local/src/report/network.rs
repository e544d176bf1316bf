//! What is told of a horde's network: from what was found when it was tried. Pure.

use underverse::{
    Capabilities, Capability, EffectiveNetwork, EffectivePort, NetworkProbe, Obtained, Strength,
    Weaker,
};

use crate::base::Abilities;
use crate::config::Isolation;
use crate::label::rnode_label;
use crate::network::{OUTBOUND_TRIED_MAX, OnSwitch, ProbeFound, Scope};
use crate::record::{NetworkRecord, Probed, Record};
use crate::settings::Settings;
use crate::wanted::{FLOCK_PRIVATE, NO_NETWORK_ISOLATION};

/// The network as it is, and what of it is weaker than asked beyond what was known before it was made.
pub(super) fn network(
    record: Option<&Record>,
    ports: Vec<EffectivePort>,
) -> (EffectiveNetwork, Vec<Weaker>) {
    let asked = record
        .map(|record| record.network.clone())
        .unwrap_or_default();
    let Some((record, on)) = record.and_then(|record| Some((record, record.switch?))) else {
        return (on_this_network(&asked, ports), Vec::new());
    };
    let network = on_switch(record, on, ports);
    let weaker = weaker(&asked, &network);
    (network, weaker)
}

fn on_this_network(asked: &NetworkRecord, ports: Vec<EffectivePort>) -> EffectiveNetwork {
    let absent = || Strength::Absent(NO_NETWORK_ISOLATION.to_owned());
    let flock_private = match asked.flock_private {
        true => Strength::Weak(FLOCK_PRIVATE.to_owned()),
        false => absent(),
    };
    EffectiveNetwork {
        horde_private: obtained(false, absent()),
        flock_private: obtained(asked.flock_private, flock_private),
        horde_connected: obtained(true, Strength::Enforced),
        external_connections_max: obtained(None, absent()),
        ports,
        probes: Vec::new(),
    }
}

const fn obtained<T>(value: T, strength: Strength) -> Obtained<T> {
    Obtained { value, strength }
}

fn on_switch(record: &Record, on: OnSwitch, ports: Vec<EffectivePort>) -> EffectiveNetwork {
    let probed = record
        .probed
        .as_ref()
        .filter(|probed| probed.of.switch == on);
    let found = match probed.map(|probed| &probed.found) {
        Some(Ok(found)) => Ok(*found),
        Some(Err(reason)) => Err(format!("it could not be tried: {reason}")),
        None => Err("it was not tried yet".to_owned()),
    };
    let judge = |holds: &dyn Fn(&ProbeFound) -> Result<(), &'static str>| match &found {
        Err(reason) => Strength::Weak(reason.clone()),
        Ok(found) => match holds(found) {
            Ok(()) => Strength::Enforced,
            Err(reason) => Strength::Absent(reason.to_owned()),
        },
    };
    let private = judge(&|found| match found.outside {
        false => Ok(()),
        true => Err("a connection from this machine's own network came about"),
    });
    let horde_private = match on.scope {
        Scope::Horde => private.clone(),
        Scope::Flock => Strength::Absent("the flock shares its switch".to_owned()),
    };
    let connected = judge(&|found| match found.members {
        true => Ok(()),
        false => Err("a connection from one member to another did not come about"),
    });
    let way_out = record.doors.iter().find(|door| door.listen == on.out());
    let limit = way_out.map_or(Some(0), |_| record.network.external_connections_max);
    let limited = match limit {
        None => judge(&|found| match found.outbound {
            0 => Err("no connection out came about"),
            _ => Ok(()),
        }),
        Some(limit) if limit >= OUTBOUND_TRIED_MAX => {
            Strength::Weak(format!("no more than {OUTBOUND_TRIED_MAX} are tried"))
        }
        Some(limit) => judge(
            &|found| match found.outbound <= limit && found.outbound_ended {
                true => Ok(()),
                false => Err("more connections out came about"),
            },
        ),
    };
    EffectiveNetwork {
        horde_private: obtained(
            on.scope == Scope::Horde && private.is_present(),
            horde_private,
        ),
        flock_private: obtained(private.is_present(), private),
        horde_connected: obtained(connected.is_present(), connected),
        external_connections_max: obtained(limit, limited),
        ports,
        probes: probed.map_or_else(Vec::new, probes),
    }
}

fn probes(probed: &Probed) -> Vec<NetworkProbe> {
    let Ok(found) = &probed.found else {
        return Vec::new();
    };
    let probe = |tried: String, connected, how: &str| NetworkProbe {
        tried,
        connected,
        how: how.to_owned(),
    };
    let (from, to) = (rnode_label(probed.of.from), rnode_label(probed.of.to));
    vec![
        probe(
            format!("{from} to {to}"),
            found.members,
            "TCP between sockets made in their network namespaces",
        ),
        probe(
            format!("this machine to {to}"),
            found.outside,
            "TCP from a socket of the machine's network, over its own links only",
        ),
        probe(
            format!("{from} to the internet"),
            found.outbound > 0,
            &format!(
                "TCP to an address kept for documents, which the way out answers: {} of {} were let in",
                found.outbound,
                found.outbound + u32::from(found.outbound_ended),
            ),
        ),
    ]
}

/// What was asked and, when tried, did not hold.
fn weaker(asked: &NetworkRecord, network: &EffectiveNetwork) -> Vec<Weaker> {
    let all = [
        (
            asked.horde_private,
            "horde-private network",
            &network.horde_private.strength,
        ),
        (
            asked.flock_private && !asked.horde_private,
            "flock-private network",
            &network.flock_private.strength,
        ),
        (
            asked.horde_connected,
            "connected horde",
            &network.horde_connected.strength,
        ),
        (
            asked.external_connections_max.is_some(),
            "limit on connections to the internet",
            &network.external_connections_max.strength,
        ),
    ];
    let weak = all.into_iter().filter(|(asked, ..)| *asked);
    weak.filter_map(|(_, asked, strength)| {
        Some(Weaker {
            asked: asked.to_owned(),
            obtained: strength.reason()?.to_owned(),
        })
    })
    .collect()
}

/// What the network of a horde can do here; a horde of rnodes gets less, and is told so.
pub(super) fn capabilities(settings: &Settings, abilities: &Abilities) -> Capabilities {
    use Capability as C;
    let granted = &settings.granted;
    let refused = match (&abilities.commands, settings.isolation, &granted.switch) {
        (Strength::Absent(_), ..) => Some(NO_NETWORK_ISOLATION.to_owned()),
        (_, Isolation::None, _) => Some("containers are not isolated from this machine".to_owned()),
        (.., Some(reason)) => Some(format!(
            "this machine grants no network of its own: {reason}"
        )),
        (.., None) => None,
    };
    let names = match (&abilities.commands, settings.isolation) {
        (Strength::Absent(_), _) => Strength::Absent("services are found by handles".to_owned()),
        (_, Isolation::None) => Strength::Absent("it needs a mount namespace".to_owned()),
        (_, Isolation::PidMount) => {
            Strength::Weak("in /etc/hosts of each container; there is no name server".to_owned())
        }
    };
    if let Some(reason) = refused {
        let absent = || Strength::Absent(reason.clone());
        return Capabilities::new()
            .with(C::NetworkIsolation, absent())
            .with(C::HordePrivate, absent())
            .with(C::FlockPrivate, Strength::Weak(FLOCK_PRIVATE.to_owned()))
            .with(C::ExternalConnectionLimit, absent())
            .with(C::Outbound, Strength::Enforced)
            .with(C::Names, names);
    }
    let (outbound, limit) = match &granted.outbound {
        None => (
            Strength::Weak("TCP only for hordes on a switch".to_owned()),
            Strength::Enforced,
        ),
        Some(reason) => (
            Strength::Absent(format!("nothing goes out of a switch here: {reason}")),
            Strength::Weak(format!(
                "0 is enforced, and any other limit is 0 too: {reason}"
            )),
        ),
    };
    Capabilities::new()
        .enforced(&[C::NetworkIsolation, C::HordePrivate, C::FlockPrivate])
        .with(C::ExternalConnectionLimit, limit)
        .with(C::Outbound, outbound)
        .with(C::Names, Strength::Enforced)
}
