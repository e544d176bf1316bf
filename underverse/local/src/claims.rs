//! Which loopback addresses are ours alone, also before anything listens there.
//!
//! Two state directories of one machine look for free addresses without knowing of each other. A lease on disk says
//! nothing to the other, and a port that nobody has bound yet looks free to both. So an address is claimed before it
//! is leased, and stays claimed while the backend lives: by the name of a socket, which the kernel gives to one only,
//! takes back from the dead, and keeps in no directory. While the backend is dead, the ports of its rnodes speak for it,
//! and the cells of its commands, each of which holds another such name (`fulcrum`'s `cell/command.rs`).

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, MutexGuard, PoisonError};

use underverse::HordeName;

/// An address that nobody else can claim until this is dropped.
pub struct Claim(#[expect(dead_code, reason = "held until dropped")] Box<dyn Any + Send + Sync>);

impl Claim {
    /// A claim that lasts as long as `token` is held.
    #[must_use]
    pub fn new(token: impl Any + Send + Sync) -> Self {
        Self(Box::new(token))
    }

    /// Claims an address of this machine, in its network namespace.
    ///
    /// # Errors
    /// `AddrInUse` while another process holds it.
    pub(crate) fn take(host: Ipv4Addr) -> io::Result<Self> {
        let name = SocketAddr::from_abstract_name(format!("radix/lease/{host}"))?;
        UnixDatagram::bind_addr(&name).map(Self::new)
    }
}

/// Whether no container that runs was given this address.
///
/// # Errors
/// `AddrInUse` while one was.
pub(crate) fn unheld(host: Ipv4Addr) -> io::Result<()> {
    let name = SocketAddr::from_abstract_name(format!("radix/held/{host}"))?;
    UnixDatagram::bind_addr(&name).map(drop)
}

impl fmt::Debug for Claim {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Claim")
    }
}

/// The claims of one backend.
#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<BTreeMap<Ipv4Addr, (HordeName, Claim)>>);

impl Claims {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Ipv4Addr, (HordeName, Claim)>> {
        // Only whole claims are put in.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims `host` for a horde; says whether it is new.
    ///
    /// # Errors
    /// `AddrInUse` while another horde or process has it; else what `take` says.
    pub(crate) fn claim(
        &self,
        horde: &HordeName,
        host: Ipv4Addr,
        take: impl FnOnce(Ipv4Addr) -> io::Result<Claim>,
    ) -> io::Result<bool> {
        let mut held = self.lock();
        match held.get(&host) {
            Some((holder, _)) if holder == horde => Ok(false),
            Some(_) => Err(io::ErrorKind::AddrInUse.into()),
            None => {
                held.insert(host, (horde.clone(), take(host)?));
                Ok(true)
            }
        }
    }

    /// Lets go of every claim of a horde but those on `kept`.
    pub(crate) fn keep_only(&self, horde: &HordeName, kept: &BTreeSet<Ipv4Addr>) {
        self.lock()
            .retain(|host, (holder, _)| holder != horde || kept.contains(host));
    }

    /// Lets go of one claim.
    pub(crate) fn release(&self, horde: &HordeName, host: Ipv4Addr) {
        self.lock()
            .retain(|held, (holder, _)| *held != host || holder != horde);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_claimed_by_one_horde_of_one_process_until_it_lets_go() {
        let horde = |name: &str| HordeName::new(name).unwrap();
        // An address that no lease is ever made of.
        let host = Ipv4Addr::new(127, 255, 255, 254);
        let (ours, theirs) = (Claims::default(), Claims::default());
        let claim = |claims: &Claims, name: &str| claims.claim(&horde(name), host, Claim::take);
        let in_use = |result: io::Result<bool>| result.unwrap_err().kind();
        assert!(claim(&ours, "stix").unwrap());
        assert!(!claim(&ours, "stix").unwrap(), "once is enough");
        assert_eq!(in_use(claim(&ours, "shire")), io::ErrorKind::AddrInUse);
        assert_eq!(in_use(claim(&theirs, "stix")), io::ErrorKind::AddrInUse);
        ours.keep_only(&horde("stix"), &BTreeSet::from([host]));
        ours.release(&horde("shire"), host);
        assert_eq!(in_use(claim(&theirs, "stix")), io::ErrorKind::AddrInUse);
        ours.keep_only(&horde("stix"), &BTreeSet::new());
        assert!(claim(&theirs, "stix").unwrap());
        drop(theirs);
        assert!(claim(&ours, "shire").unwrap(), "the dead hold nothing");
    }
}
