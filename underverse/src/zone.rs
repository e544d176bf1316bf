//! Whose an address is, and whom a network as asked for lets in. Pure and total.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::spec::NetworkSpec;

/// Whose an address is, seen from one horde: three nested sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Zone {
    /// A member of the horde.
    Horde,
    /// Another member of the flock: of another horde of the same owner.
    Flock,
    /// Everybody else.
    Internet,
}

impl Zone {
    /// Every zone, from the inside out.
    pub const ALL: [Self; 3] = [Self::Horde, Self::Flock, Self::Internet];

    /// The zone of `address`, seen from the horde whose members have the addresses `horde`.
    ///
    /// Total: what is in neither set is the internet. A member of the horde is one of the flock whether `flock` has it or not.
    /// An IPv4 address mapped into IPv6 is the IPv4 address.
    #[must_use]
    pub fn of(address: IpAddr, horde: &BTreeSet<IpAddr>, flock: &BTreeSet<IpAddr>) -> Self {
        let address = address.to_canonical();
        let in_set = |set: &BTreeSet<IpAddr>| set.iter().any(|one| one.to_canonical() == address);
        if in_set(horde) {
            Self::Horde
        } else if in_set(flock) {
            Self::Flock
        } else {
            Self::Internet
        }
    }
}

impl NetworkSpec {
    /// Whether somebody in `zone` may open a connection to a member, other than through a door.
    ///
    /// `horde_private` is the narrower one and wins. Members are never kept from each other.
    #[must_use]
    pub const fn admits(&self, zone: Zone) -> bool {
        match zone {
            Zone::Horde => true,
            Zone::Flock => !self.horde_private,
            Zone::Internet => !self.horde_private && !self.flock_private,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    // Shows: NET-01
    #[test]
    fn every_address_is_in_exactly_one_zone() {
        let horde = set(&["198.18.1.1", "198.18.1.2", "fd00::1"]);
        let flock = set(&["198.18.2.1", "198.18.1.2"]);
        let check = |text: &str, expected| {
            assert_eq!(
                Zone::of(text.parse().unwrap(), &horde, &flock),
                expected,
                "{text}"
            );
        };
        check("198.18.1.1", Zone::Horde);
        check("198.18.1.2", Zone::Horde);
        check("::ffff:198.18.1.1", Zone::Horde);
        check("fd00::1", Zone::Horde);
        check("198.18.2.1", Zone::Flock);
        check("198.18.3.1", Zone::Internet);
        for text in ["0.0.0.0", "255.255.255.255", "127.0.0.1", "::", "::1"] {
            check(text, Zone::Internet);
        }
        let nobody = BTreeSet::new();
        for text in ["198.18.1.1", "::"] {
            assert_eq!(
                Zone::of(text.parse().unwrap(), &nobody, &nobody),
                Zone::Internet
            );
        }
    }

    #[test]
    fn whom_a_network_admits_is_a_table() {
        let table = [
            (false, false, [true, true, true]),
            (false, true, [true, true, false]),
            (true, false, [true, false, false]),
            (true, true, [true, false, false]),
        ];
        for (horde_private, flock_private, expected) in table {
            let spec = NetworkSpec {
                horde_private,
                flock_private,
                ..NetworkSpec::default()
            };
            assert_eq!(Zone::ALL.map(|zone| spec.admits(zone)), expected);
        }
    }
}
