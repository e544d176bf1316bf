//! External addresses by id: a pool of loopback addresses of the user's own, given out until they are released.
//!
//! `external.json` in the state directory holds all of them, under a lock; a request that is repeated gets what it got.

use std::fs;
use std::io;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use underverse::{AddressId, HordeName};

use crate::durable;
use crate::layout::Home;

/// How many external addresses one user has.
pub(crate) const EXTERNAL_MAX: u8 = 32;

/// An address that was given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct External {
    /// Never used again.
    pub(crate) id: String,
    pub(crate) host: Ipv4Addr,
    pub(crate) horde: String,
    pub(crate) request: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    /// Number of the last id.
    last: u64,
    given: Vec<External>,
}

/// The pool of `uid`: 127.32.0.1 first for root.
pub(crate) fn pool(uid: u32) -> impl Iterator<Item = Ipv4Addr> {
    let [_, _, high, low] = uid.to_be_bytes();
    (1..=EXTERNAL_MAX).map(move |host| Ipv4Addr::new(127, 32 + high % 32, low, host))
}

/// All that are given out.
pub(crate) fn read(home: &Home) -> io::Result<Vec<External>> {
    Ok(load(home)?.given)
}

/// Gives one out, the same one for the same request; `None` if there is none left.
pub(crate) fn acquire(
    home: &Home,
    uid: u32,
    (horde, request): (&HordeName, &str),
) -> io::Result<Option<External>> {
    let _lock = lock(home)?;
    let mut file = load(home)?;
    let same = |given: &&External| given.horde == horde.as_str() && given.request == request;
    if let Some(held) = file.given.iter().find(same) {
        return Ok(Some(held.clone()));
    }
    let free = pool(uid).find(|host| file.given.iter().all(|given| given.host != *host));
    let Some(host) = free else { return Ok(None) };
    file.last += 1;
    let given = External {
        id: format!("address-{}", file.last),
        host,
        horde: horde.to_string(),
        request: request.to_owned(),
    };
    file.given.push(given.clone());
    durable::write_json(&home.external(), &file)?;
    Ok(Some(given))
}

/// Takes one back unless `used` says that it is in use; says whether it did. What was not given out is taken back too.
pub(crate) fn release(
    home: &Home,
    id: &AddressId,
    used: impl FnOnce(Ipv4Addr) -> bool,
) -> io::Result<bool> {
    let _lock = lock(home)?;
    let mut file = load(home)?;
    let Some(at) = file.given.iter().position(|given| given.id == id.as_str()) else {
        return Ok(true);
    };
    if used(file.given[at].host) {
        return Ok(false);
    }
    file.given.remove(at);
    durable::write_json(&home.external(), &file)?;
    Ok(true)
}

fn load(home: &Home) -> io::Result<File> {
    Ok(durable::read_json(&home.external())?.unwrap_or_default())
}

/// Waits for the pool; it is given back when the file is dropped.
fn lock(home: &Home) -> io::Result<fs::File> {
    durable::create_dir(home.path())?;
    let mut options = fs::OpenOptions::new();
    let path = home.path().join("external.lock");
    let file = options
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_user_has_a_pool_apart_from_what_rnodes_lease() {
        for uid in [0, 1000, 65_534, u32::MAX] {
            let all: BTreeSet<_> = pool(uid).collect();
            assert_eq!(all.len(), usize::from(EXTERNAL_MAX));
            assert!(all.iter().all(|host| (32..64).contains(&host.octets()[1])));
        }
        assert_eq!(pool(0).next(), Some(Ipv4Addr::new(127, 32, 0, 1)));
    }
}
