//! How a horde is on the network: on this machine's own, or on a switch apart from it. Pure; drawn in docs/design/network.md.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use underverse::NetworkSpec;

use crate::layout::Home;

/// Address of a switch's own end, from which doors connect and to which what goes out is sent.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 18, 255, 254);
/// Port of names.
const NAMES_PORT: u16 = 53;
/// Highest number of a horde on a switch; the ones above are the trial's and the switch's own.
const NUMBER_MAX: u8 = 253;
/// Most connections out that a probe opens; the limit of a horde that allows more is not tried to its end.
pub(crate) const OUTBOUND_TRIED_MAX: u32 = 64;

/// What this machine grants, found out by trying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// Why there can be no switch; `None` if there can.
    pub switch: Option<String>,
    /// Why nothing can go out of one; `None` if it can.
    pub outbound: Option<String>,
}

impl Default for Granted {
    /// Nothing, since nothing was tried.
    fn default() -> Self {
        let untried = || Some("it was not tried".to_owned());
        Self {
            switch: untried(),
            outbound: untried(),
        }
    }
}

/// What was found when a horde's network was tried; `true` is a connection that came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeFound {
    /// From one member to another, or to itself where there is one only.
    pub members: bool,
    /// From this machine's network, over its own links only.
    pub outside: bool,
    /// Connections out that came about, all held at once.
    pub outbound: u32,
    /// The connection after those failed.
    pub outbound_ended: bool,
}

/// What is tried on a horde.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeAsk {
    /// The `radix` that tries it.
    pub radix: PathBuf,
    /// Where the switch is held.
    pub switch: PathBuf,
    /// A member that connects.
    pub from: Ipv4Addr,
    /// A member that is connected to.
    pub to: Ipv4Addr,
    /// Connections out to try.
    pub outbound: u32,
}

/// Whose a switch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The horde's alone.
    Horde,
    /// Shared by the owner's flock-private hordes.
    Flock,
}

/// The switch a horde is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OnSwitch {
    /// Whose it is.
    pub scope: Scope,
    /// Number of the horde: the third byte of its addresses.
    pub number: u8,
}

/// What a door carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Carries {
    /// Connections.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

/// What tells a door from all others of this machine: where it is and what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub(crate) listen: SocketAddr,
    pub(crate) carries: Carries,
}

impl fmt::Display for At {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.carries {
            Carries::Tcp => "",
            Carries::Udp => "/udp",
        };
        write!(formatter, "{}{kind}", self.listen)
    }
}

/// Which way a door leads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// To members on this machine's own network.
    #[default]
    Here,
    /// Into a switch.
    Into(OnSwitch),
    /// Out of a switch, for so many connections at once.
    OutOf(OnSwitch, Option<u32>),
    /// To nobody: who is there answers for the names of those on a switch.
    Names(OnSwitch),
}

impl Way {
    /// Whether it leads in from outside, as whoever asked for a door means.
    pub(crate) const fn leads_in(self) -> bool {
        matches!(self, Self::Here | Self::Into(_))
    }
}

impl OnSwitch {
    /// The switch for what is asked; `None` for the machine's own network.
    ///
    /// A horde that has a number keeps it; else it is the first not in `taken`.
    pub(crate) fn choose(
        asked: &NetworkSpec,
        held: Option<Self>,
        taken: &dyn Fn() -> BTreeSet<u8>,
    ) -> Option<Self> {
        let limited = asked.external_connections_max.is_some();
        if !asked.horde_private && !asked.flock_private && !limited {
            return None;
        }
        let scope = match asked.horde_private {
            true => Scope::Horde,
            false => Scope::Flock,
        };
        let free = || {
            let taken = taken();
            (1..=NUMBER_MAX).find(|number| !taken.contains(number))
        };
        let number = held.map(|held| held.number).or_else(free)?;
        Some(Self { scope, number })
    }

    /// Where the switch of `horde` is held.
    pub(crate) fn dir(self, home: &Home, horde: &str) -> PathBuf {
        match self.scope {
            Scope::Horde => home.horde(horde).join("switch"),
            Scope::Flock => home.flock_switch(),
        }
    }

    /// The address of a member, for ever; `None` for more members than a number has addresses.
    pub(crate) fn address(self, ordinal: u32) -> Option<Ipv4Addr> {
        let [a, b, ..] = GATEWAY.octets();
        let member = u8::try_from(ordinal)
            .ok()
            .filter(|member| (1..255).contains(member))?;
        Some(Ipv4Addr::new(a, b, self.number, member))
    }

    /// Where the names of the horde are asked for: an address of the switch's own end.
    pub(crate) const fn names(self) -> std::net::SocketAddr {
        let [a, b, c, _] = GATEWAY.octets();
        std::net::SocketAddr::V4(std::net::SocketAddrV4::new(
            Ipv4Addr::new(a, b, c, self.number),
            NAMES_PORT,
        ))
    }

    /// What tells the door out of it from others.
    pub(crate) const fn out_at(self) -> At {
        At {
            listen: self.out(),
            carries: Carries::Tcp,
        }
    }

    /// What stands for the door out of it among the doors: no address of this machine.
    pub(crate) const fn out(self) -> std::net::SocketAddr {
        std::net::SocketAddr::V4(std::net::SocketAddrV4::new(
            GATEWAY,
            20_000 + self.number as u16,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(horde_private: bool, flock_private: bool, limit: Option<u32>) -> NetworkSpec {
        NetworkSpec {
            horde_private,
            flock_private,
            external_connections_max: limit,
            ..NetworkSpec::default()
        }
    }

    #[test]
    fn a_horde_is_on_a_switch_if_it_asks_for_anything_and_on_its_own_if_it_is_private() {
        let scope = |spec: &NetworkSpec| {
            let chosen = OnSwitch::choose(spec, None, &BTreeSet::new);
            chosen.map(|chosen| chosen.scope)
        };
        assert_eq!(scope(&asked(false, false, None)), None);
        assert_eq!(scope(&asked(false, false, Some(2))), Some(Scope::Flock));
        assert_eq!(scope(&asked(false, true, None)), Some(Scope::Flock));
        assert_eq!(scope(&asked(true, false, Some(0))), Some(Scope::Horde));
        assert_eq!(scope(&asked(true, true, None)), Some(Scope::Horde));
    }

    #[test]
    fn a_number_is_kept_else_the_first_free_one_while_there_is_one() {
        let spec = asked(true, false, None);
        let taken: BTreeSet<u8> = BTreeSet::from([1, 2]);
        let first = OnSwitch::choose(&spec, None, &|| taken.clone()).unwrap();
        assert_eq!(first.number, 3);
        assert_eq!(first.address(7), Some(Ipv4Addr::new(198, 18, 3, 7)));
        assert_eq!((first.address(0), first.address(255)), (None, None));
        let held = OnSwitch { number: 2, ..first };
        assert_eq!(
            OnSwitch::choose(&spec, Some(held), &|| taken.clone()),
            Some(held)
        );
        let all = || (1..=NUMBER_MAX).collect::<BTreeSet<u8>>();
        assert_eq!(OnSwitch::choose(&spec, None, &all), None);
    }
}
