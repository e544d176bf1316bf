//! Loopback addresses of nested rnodes: a block derived from the user, leases kept on disk.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use underverse::{Error, Kind};

use crate::durable;
use crate::layout::Home;

/// Port of fulcrum, rexec and fileio, and of the flock, where it is free.
pub(crate) const PORT: u16 = 7400;
/// First host number leased; those below are left to base rnodes.
const FIRST_HOST: u8 = 16;
/// Last host number leased.
const LAST_HOST: u8 = 254;
/// How many blocks of 239 addresses a user has.
const BLOCKS: u8 = 4;

/// How many addresses one user can lease in all.
pub(crate) const ADDRESSES_MAX: u32 = (LAST_HOST - FIRST_HOST + 1) as u32 * BLOCKS as u32;

/// An address given to one rnode until it is released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) ordinal: u32,
    pub(crate) host: Ipv4Addr,
    pub(crate) tcp_port: u16,
    pub(crate) flock_port: u16,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    leases: Vec<Lease>,
}

/// The addresses `uid` may lease, in the order they are tried: 127.64.0.16 first for root.
pub(crate) fn candidates(uid: u32) -> impl Iterator<Item = Ipv4Addr> {
    let [_, _, high, low] = uid.to_be_bytes();
    let blocks = (0..BLOCKS).map(move |block| (64 + high % 32 + block * 32, low));
    blocks.flat_map(|(second, third)| {
        (FIRST_HOST..=LAST_HOST).map(move |host| Ipv4Addr::new(127, second, third, host))
    })
}

/// An address for a base rnode of `uid`: the first whose fixed ports are free, below those of nested rnodes.
///
/// # Errors
/// `Limit` if the ports are taken on all of them.
pub fn base_host(uid: u32) -> Result<IpAddr, Error> {
    let [_, _, high, low] = uid.to_be_bytes();
    let hosts = (1..FIRST_HOST).map(|host| Ipv4Addr::new(127, 64 + high % 32, low, host));
    let mut free = hosts.filter(|host| probe(*host, PORT, PORT).is_ok());
    free.next().map(IpAddr::V4).ok_or_else(|| {
        let message = format!("port {PORT} is taken on every address of this user");
        Error::new(Kind::Limit, "find an address for the base", message)
    })
}

/// The leases of one horde.
pub(crate) fn read(home: &Home, namespace: &str) -> io::Result<Vec<Lease>> {
    let file: Option<File> = durable::read_json(&home.addresses(namespace))?;
    Ok(file.unwrap_or_default().leases)
}

/// The leases in the text of such a file; `None` if it is torn.
pub(crate) fn parse(text: &[u8]) -> Option<Vec<Lease>> {
    let file: File = serde_json::from_slice(text).ok()?;
    Some(file.leases)
}

/// Writes the leases of one horde durably.
pub(crate) fn write(home: &Home, namespace: &str, leases: &[Lease]) -> io::Result<()> {
    durable::write_json(
        &home.addresses(namespace),
        &File {
            leases: leases.to_vec(),
        },
    )
}

/// Addresses leased by any horde of `home` but `namespace`.
pub(crate) fn leased_elsewhere(home: &Home, namespace: &str) -> io::Result<BTreeSet<Ipv4Addr>> {
    let mut taken = BTreeSet::new();
    let entries = match std::fs::read_dir(home.hordes()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(taken),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let name = entry?.file_name();
        let Some(other) = name.to_str().filter(|other| *other != namespace) else {
            continue;
        };
        taken.extend(read(home, other)?.into_iter().map(|lease| lease.host));
    }
    Ok(taken)
}

/// Finds an address for `ordinal` that is not in `taken` and whose ports `probe` finds free.
///
/// Fixed ports first; ephemeral ones on the first address not taken, if the fixed ones are free nowhere.
pub(crate) fn lease(
    ordinal: u32,
    candidates: &[Ipv4Addr],
    taken: &BTreeSet<Ipv4Addr>,
    probe: &dyn Fn(Ipv4Addr, u16, u16) -> io::Result<(u16, u16)>,
) -> Option<Lease> {
    let free = || {
        candidates
            .iter()
            .copied()
            .filter(|host| !taken.contains(host))
    };
    let found = |host, (tcp_port, flock_port)| Lease {
        ordinal,
        host,
        tcp_port,
        flock_port,
    };
    let fixed = free().find_map(|host| Some(found(host, probe(host, PORT, PORT).ok()?)));
    fixed.or_else(|| free().find_map(|host| Some(found(host, probe(host, 0, 0).ok()?))))
}

/// Binds both ports, says which they are, and lets go of them.
///
/// # Errors
/// What binding says, `AddrInUse` above all.
pub(crate) fn probe(host: Ipv4Addr, tcp_port: u16, flock_port: u16) -> io::Result<(u16, u16)> {
    let tcp = std::net::TcpListener::bind((host, tcp_port))?;
    let udp = std::net::UdpSocket::bind((host, flock_port))?;
    Ok((tcp.local_addr()?.port(), udp.local_addr()?.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_has_loopback_addresses_of_its_own_to_try() {
        for uid in [0, 1000, 65_534, u32::MAX] {
            let all: Vec<_> = candidates(uid).collect();
            let count = u32::try_from(all.len()).unwrap();
            assert_eq!(count, ADDRESSES_MAX);
            assert!(
                all.iter()
                    .all(|host| host.is_loopback() && host.octets()[1] >= 64)
            );
            assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        }
        assert_eq!(candidates(0).next(), Some(Ipv4Addr::new(127, 64, 0, 16)));
        assert_ne!(candidates(1000).next(), candidates(1001).next());
    }

    #[test]
    fn a_taken_address_is_passed_over_and_taken_ports_become_ephemeral() {
        let candidates: Vec<_> = candidates(0).take(3).collect();
        let taken = BTreeSet::from([candidates[0]]);
        let second_busy = |host: Ipv4Addr, tcp: u16, udp: u16| match (host, tcp) {
            (host, 7400) if host == candidates[1] => Err(io::ErrorKind::AddrInUse.into()),
            _ => Ok((tcp, udp)),
        };
        let got = lease(1, &candidates, &taken, &second_busy).unwrap();
        assert_eq!((got.host, got.tcp_port), (candidates[2], 7400));
        let all_busy = |_, tcp: u16, _| match tcp {
            7400 => Err(io::ErrorKind::AddrInUse.into()),
            _ => Ok((40_000, 40_001)),
        };
        let got = lease(1, &candidates, &taken, &all_busy).unwrap();
        assert_eq!(
            (got.host, got.tcp_port, got.flock_port),
            (candidates[1], 40_000, 40_001)
        );
        assert_eq!(lease(1, &candidates[..1], &taken, &all_busy), None);
    }

    #[test]
    fn probing_sees_a_port_that_another_process_holds() {
        let host = Ipv4Addr::new(127, 0, 0, 1);
        let (tcp, udp) = probe(host, 0, 0).unwrap();
        let held = std::net::UdpSocket::bind((host, udp)).unwrap();
        assert_eq!(
            probe(host, tcp, udp).map_err(|e| e.kind()),
            Err(io::ErrorKind::AddrInUse)
        );
        drop(held);
    }
}
