//! The one rule of a switch: connections of a horde to anything outside go to the uplink's listener.
//!
//! ```text
//! table ip horde-K { chain out { type nat hook prerouting priority dstnat
//!     ip saddr 198.18.K.0/24 ip daddr != 198.18.0.0/16 meta l4proto tcp redirect to :PORT } }
//! ```
//! Spec: linux/netfilter/nf_tables.h; all numbers there are big-endian.

use std::io;

use nix::sys::socket::SockProtocol;

use super::GATEWAY;
use super::netlink::{ACK, Attributes, CREATE, Netlink, message};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NF_TABLES: u16 = 10;
const NEW_TABLE: u16 = NF_TABLES << 8;
const DELETE_TABLE: u16 = (NF_TABLES << 8) | 2;
const NEW_CHAIN: u16 = (NF_TABLES << 8) | 3;
const NEW_RULE: u16 = (NF_TABLES << 8) | 6;
const IPV4: u8 = 2;
/// Makes it, or finds it there.
const ENSURE: u16 = 0x400;
/// At the end of the chain.
const APPEND: u16 = 0x800 | 0x400;

/// Name of a chain, and what is in it.
const CHAIN: &str = "out";
/// The register that values go through.
const REGISTER: u32 = 1;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const TCP: u8 = 6;
/// `NFT_META_L4PROTO`.
const META_PROTOCOL: u32 = 16;
/// `NFT_PAYLOAD_NETWORK_HEADER`, and where the addresses stand in it.
const NETWORK_HEADER: u32 = 1;
const SOURCE_AT: u32 = 12;
const DESTINATION_AT: u32 = 16;
/// Where destinations are changed.
const PREROUTING: u32 = 0;
const DESTINATIONS: i32 = -100;

/// Sends what horde `number` connects to outside to `port` of the switch; replaces an earlier rule for it.
pub(super) fn redirect(number: u8, port: u16) -> io::Result<()> {
    let table = format!("horde-{number}");
    let name = || family(IPV4).with_text(1, &table);
    let batch = |kind| message(kind, 0, Attributes::after(vec![0, 0, 0, NF_TABLES_LOW]));
    let hook = Attributes::new()
        .with(1, &PREROUTING.to_be_bytes())
        .with(2, &DESTINATIONS.to_be_bytes());
    let chain = name()
        .with_text(3, CHAIN)
        .with_nested(4, &hook)
        .with_text(7, "nat");
    let rule = name()
        .with_text(2, CHAIN)
        .with_nested(4, &expressions(number, port));
    // All of it comes into force at once, or none.
    let messages = [
        batch(BATCH_BEGIN),
        message(NEW_TABLE, ACK | ENSURE, name()),
        message(DELETE_TABLE, ACK, name()),
        message(NEW_TABLE, ACK | CREATE, name()),
        message(NEW_CHAIN, ACK | CREATE, chain),
        message(NEW_RULE, ACK | APPEND, rule),
        batch(BATCH_END),
    ];
    Netlink::open(SockProtocol::NetlinkNetFilter)?.ask(&messages.concat(), 5)
}

/// The subsystem, as it stands in the header of a batch.
const NF_TABLES_LOW: u8 = 10;

/// The header of every message of netfilter.
fn family(family: u8) -> Attributes {
    Attributes::after(vec![family, 0, 0, 0])
}

fn expressions(number: u8, port: u16) -> Attributes {
    let [a, b, ..] = GATEWAY.octets();
    let load = |at: u32| {
        let data = Attributes::new()
            .with(1, &REGISTER.to_be_bytes())
            .with(2, &NETWORK_HEADER.to_be_bytes())
            .with(3, &at.to_be_bytes())
            .with(4, &4_u32.to_be_bytes());
        expression("payload", &data)
    };
    let protocol = Attributes::new()
        .with(1, &REGISTER.to_be_bytes())
        .with(2, &META_PROTOCOL.to_be_bytes());
    let port_value = Attributes::new()
        .with(1, &REGISTER.to_be_bytes())
        .with_nested(2, &Attributes::new().with(1, &port.to_be_bytes()));
    let all = [
        load(SOURCE_AT),
        mask([255, 255, 255, 0]),
        compare(EQUAL, &[a, b, number, 0]),
        load(DESTINATION_AT),
        mask([255, 255, 0, 0]),
        compare(NOT_EQUAL, &[a, b, 0, 0]),
        expression("meta", &protocol),
        compare(EQUAL, &[TCP]),
        expression("immediate", &port_value),
        expression("redir", &Attributes::new().with(1, &REGISTER.to_be_bytes())),
    ];
    all.into_iter()
        .fold(Attributes::new(), |list, one| list.with_nested(1, &one))
}

fn expression(name: &str, data: &Attributes) -> Attributes {
    Attributes::new().with_text(1, name).with_nested(2, data)
}

fn mask(mask: [u8; 4]) -> Attributes {
    let value = |bytes: &[u8]| Attributes::new().with(1, bytes);
    let data = Attributes::new()
        .with(1, &REGISTER.to_be_bytes())
        .with(2, &REGISTER.to_be_bytes())
        .with(3, &4_u32.to_be_bytes())
        .with_nested(4, &value(&mask))
        .with_nested(5, &value(&[0; 4]));
    expression("bitwise", &data)
}

fn compare(how: u32, with: &[u8]) -> Attributes {
    let data = Attributes::new()
        .with(1, &REGISTER.to_be_bytes())
        .with(2, &how.to_be_bytes())
        .with_nested(3, &Attributes::new().with(1, with));
    expression("cmp", &data)
}
