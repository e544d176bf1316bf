//! What each rnode says of itself, as the entry [`RECORD_KEY`] that it signs: vote, addresses, whether it has left.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::limits::ADDRESSES_MAX;
use crate::ken::codec::{Malformed, Put, Reader};

/// The key of a rnode's own record.
pub(crate) const RECORD_KEY: &str = "flock/record";
/// The key of what shows that a rnode is enrolled.
pub(crate) const CREDENTIAL_KEY: &str = "flock/credential";

const VERSION: u8 = 1;
const LEFT: u8 = 1;
/// The only scope of an address so far: reachable by whoever can reach it.
const SCOPE_ANY: u8 = 0;

/// A rnode's word about itself.
///
/// ```text
/// version u8, flags u8 (1 left), vote u32, floor u64 (lower sequences of its owner are void),
/// count u8, of addresses: scope u8, family u8 (4 or 6), 4 or 16 bytes, port u16; fields of later versions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Record {
    pub(crate) left: bool,
    pub(crate) vote: u32,
    pub(crate) floor: u64,
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Record {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32);
        bytes
            .put_u8(VERSION)
            .put_u8(if self.left { LEFT } else { 0 });
        bytes.put_u32(self.vote).put_u64(self.floor);
        let addresses = &self.addresses[..self.addresses.len().min(ADDRESSES_MAX)];
        bytes.put_u8(u8::try_from(addresses.len()).unwrap_or(0));
        for address in addresses {
            bytes.put_u8(SCOPE_ANY);
            match address.ip() {
                IpAddr::V4(ip) => bytes.put_u8(4).put(&ip.octets()),
                IpAddr::V6(ip) => bytes.put_u8(6).put(&ip.octets()),
            };
            bytes.put_u16(address.port());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Reader::new(bytes);
        let (version, flags) = (fields.u8()?, fields.u8()?);
        let (vote, floor, count) = (fields.u32()?, fields.u64()?, fields.u8()?);
        if version == 0 || usize::from(count) > ADDRESSES_MAX {
            return Err(Malformed::Value);
        }
        let addresses = (0..count)
            .map(|_| address(&mut fields))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            left: flags & LEFT != 0,
            vote,
            floor,
            addresses,
        })
    }
}

fn address(fields: &mut Reader<'_>) -> Result<SocketAddr, Malformed> {
    let _scope = fields.u8()?;
    let ip = match fields.u8()? {
        4 => IpAddr::from(Ipv4Addr::from(fields.array::<4>()?)),
        6 => IpAddr::from(Ipv6Addr::from(fields.array::<16>()?)),
        _ => return Err(Malformed::Value),
    };
    Ok(SocketAddr::new(ip, fields.u16()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_what_was_written_and_ignores_what_it_does_not_know() {
        let addresses = vec![
            "127.3.4.5:7400".parse().expect("an address"),
            "[::1]:9".parse().expect("an address"),
        ];
        let record = Record {
            left: true,
            vote: 70_000,
            floor: 9,
            addresses,
        };
        let mut bytes = record.encode();
        assert_eq!(Record::decode(&bytes), Ok(record.clone()));
        bytes.extend_from_slice(b"later");
        assert_eq!(Record::decode(&bytes), Ok(record));
        assert_eq!(Record::decode(&bytes[..12]), Err(Malformed::Short));
    }
}
