//! The address of the machine's base rnode: the low end of the user's blocks, which hordes leave free.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use crate::address;

/// Finds an address for the base rnode of `uid` on which both fixed ports are free.
///
/// Several bases of one user (several state directories) get an address each.
/// Where the fixed ports are free nowhere, the first address: its agent then takes ephemeral ports.
///
/// # Errors
/// Those of binding that are not about taken ports.
pub fn base_host(uid: u32) -> io::Result<IpAddr> {
    let first = address::base_candidates(uid)
        .next()
        .unwrap_or(Ipv4Addr::LOCALHOST);
    let free = address::base_candidates(uid)
        .find(|host| address::probe(*host, address::PORT, address::PORT).is_ok());
    Ok(IpAddr::V4(free.unwrap_or(first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_never_takes_an_address_of_a_horde() {
        for uid in [0, 1000, u32::MAX] {
            let hordes: Vec<_> = address::candidates(uid).collect();
            assert!(address::base_candidates(uid).count() > 1);
            assert!(address::base_candidates(uid).all(|host| !hordes.contains(&host)));
        }
    }
}
