//! Bridges, cables, addresses and routes, in the network namespace this process is in.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::net::if_::if_nametoindex;

use super::netlink::{ACK, Attributes, CREATE, Netlink, attribute, message};

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const INET: u8 = 2;
/// Attributes of a link.
const LINK_ADDRESS: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_MASTER: u16 = 10;
const LINK_STATE: u16 = 16;
const LINK_INFO: u16 = 18;
const LINK_FAMILIES: u16 = 26;
const LINK_NAMESPACE: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
/// Within `LINK_FAMILIES`, of IPv4: settings by number, of which one is forwarding.
const INET_SETTINGS: u16 = 1;
const INET_FORWARDING: u16 = 1;
/// Value of `LINK_STATE`: up, and whatever is at its other end too.
const CARRYING: u8 = 6;
const LINK_HEADER_BYTES: usize = 16;
/// Attributes of an address and of a route.
const ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ROUTE_GATEWAY: u16 = 5;
/// How often a cable is looked at until its carrier is there: 10 s in all, though it takes milliseconds.
const CARRIER_LOOKS: u32 = 5000;
/// Between two such looks.
const CARRIER_PAUSE: Duration = Duration::from_millis(2);
/// The table that is looked into by default, and who put the route there: an administrator.
const TABLE_MAIN: u8 = 254;
const BY_ADMINISTRATOR: u8 = 4;
const UNICAST: u8 = 1;
const UNREACHABLE: u8 = 7;

/// Six bytes that no maker of hardware uses, the same for the same address: neighbours need not learn it anew.
pub(super) fn hardware(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [2, 0, a, b, c, d]
}

fn link(index: u32, up: bool) -> Vec<u8> {
    let flags = u32::from(up);
    let mut header = vec![0; 4];
    header.extend(index.to_ne_bytes());
    header.extend(flags.to_ne_bytes());
    header.extend(flags.to_ne_bytes());
    header
}

fn index(name: &str) -> io::Result<u32> {
    Ok(if_nametoindex(name)?)
}

fn ask(kind: u16, flags: u16, body: Attributes) -> io::Result<()> {
    Netlink::routes()?.ask(&message(kind, ACK | flags, body), 1)
}

/// Makes a bridge that is up and answers for what it has no way to.
pub(super) fn add_bridge(name: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    let kind = Attributes::new().with_text(INFO_KIND, "bridge");
    let made = Attributes::after(link(0, true))
        .with_text(LINK_NAME, name)
        // Given, since else it would be the lowest of its ports' and change with them.
        .with(LINK_ADDRESS, &hardware(address))
        .with_nested(LINK_INFO, &kind);
    ask(NEW_LINK, CREATE, made)?;
    add_address(name, address, prefix)?;
    let settings = Attributes::new().with(INET_FORWARDING, &1_u32.to_ne_bytes());
    let inet = Attributes::new().with_nested(INET_SETTINGS, &settings);
    let families = Attributes::new().with_nested(u16::from(INET), &inet);
    // Forwarding makes the kernel say that there is no way, where it would else say nothing.
    ask(
        NEW_LINK,
        0,
        Attributes::after(link(index(name)?, true)).with_nested(LINK_FAMILIES, &families),
    )?;
    let nowhere = vec![
        INET,
        0,
        0,
        0,
        TABLE_MAIN,
        BY_ADMINISTRATOR,
        0,
        UNREACHABLE,
        0,
        0,
        0,
        0,
    ];
    ask(NEW_ROUTE, CREATE, Attributes::after(nowhere))
}

/// Lays a cable from `bridge` to the network namespace `there`, where its end is called `eth0` and is down.
pub(super) fn add_cable(
    bridge: &str,
    name: &str,
    there: BorrowedFd<'_>,
    hardware: [u8; 6],
) -> io::Result<()> {
    let namespace = there.as_raw_fd().cast_unsigned();
    let peer = Attributes::after(link(0, false))
        .with_text(LINK_NAME, CONTAINER_LINK)
        .with(LINK_ADDRESS, &hardware)
        .with(LINK_NAMESPACE, &namespace.to_ne_bytes());
    let info = Attributes::new()
        .with_text(INFO_KIND, "veth")
        .with_nested(INFO_DATA, &Attributes::new().with_nested(VETH_PEER, &peer));
    let cable = Attributes::after(link(0, true))
        .with_text(LINK_NAME, name)
        .with(LINK_MASTER, &index(bridge)?.to_ne_bytes())
        .with_nested(LINK_INFO, &info);
    ask(NEW_LINK, CREATE, cable)
}

/// Returns when the kernel has taken note that the link carries: what is sent before is lost.
///
/// It does so a moment after both ends are up.
pub(super) fn until_carrying(name: &str) -> io::Result<()> {
    let wanted = message(GET_LINK, ACK, Attributes::after(link(index(name)?, false)));
    for _ in 0..CARRIER_LOOKS {
        let said = Netlink::routes()?.fetch(&wanted, 1)?;
        if attribute(&said, LINK_HEADER_BYTES, LINK_STATE) == Some(&[CARRYING]) {
            return Ok(());
        }
        std::thread::sleep(CARRIER_PAUSE);
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Removes a cable, both ends; it is no error that there is none.
pub(super) fn remove_link(name: &str) -> io::Result<()> {
    match index(name) {
        Ok(index) => ask(DELETE_LINK, 0, Attributes::after(link(index, false))),
        Err(_) => Ok(()),
    }
}

/// Name of the link in a container.
pub(super) const CONTAINER_LINK: &str = "eth0";

/// Takes a link up.
pub(super) fn up(name: &str) -> io::Result<()> {
    ask(NEW_LINK, 0, Attributes::after(link(index(name)?, true)))
}

pub(super) fn add_address(name: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    let mut header = vec![INET, prefix, 0, 0];
    header.extend(index(name)?.to_ne_bytes());
    let octets = address.octets();
    let body = Attributes::after(header)
        .with(ADDRESS_LOCAL, &octets)
        .with(ADDRESS, &octets);
    ask(NEW_ADDRESS, CREATE, body)
}

/// Everything that is nowhere else is sent to `gateway`.
pub(super) fn add_default_route(gateway: Ipv4Addr) -> io::Result<()> {
    let header = vec![
        INET,
        0,
        0,
        0,
        TABLE_MAIN,
        BY_ADMINISTRATOR,
        0,
        UNICAST,
        0,
        0,
        0,
        0,
    ];
    let body = Attributes::after(header).with(ROUTE_GATEWAY, &gateway.octets());
    ask(NEW_ROUTE, CREATE, body)
}
