//! A leader's heartbeat, signed so that it may be relayed; and which of two leaders wins when two flocks meet.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::limits::{SUCCESSORS, SUPERSEDED_MAX};
use super::name::FlockId;
use super::wire::short;
use crate::ken::SIGNATURE_BYTES_MAX;
use crate::ken::codec::{Malformed, Put, Reader};
use crate::names::{NamespaceId, RnodeId};

/// Most bytes of an encoded heartbeat.
pub(crate) const BEACON_BYTES_MAX: usize = 1024;
/// Most bytes of what a heartbeat's signature covers.
const BODY_BYTES_MAX: usize = BEACON_BYTES_MAX - SIGNATURE_BYTES_MAX - 4;
const CONTEXT: &[u8] = b"radix-flock-heartbeat/1\0";
const VERSION: u8 = 1;
const LATCHED: u8 = 1;

/// A lead that was ended by a later one: its term, and the start of its leader's name.
pub(crate) type Ballot = (u64, [u8; 8]);

/// What a heartbeat says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) flock: FlockId,
    pub(crate) term: u64,
    pub(crate) sequence: u64,
    pub(crate) leader: RnodeId,
    pub(crate) incarnation: u64,
    pub(crate) tenure: Duration,
    pub(crate) latched: bool,
    pub(crate) size: u16,
    pub(crate) fingerprint: u64,
    /// Who would lead next, in order.
    pub(crate) successors: Vec<[u8; 8]>,
    /// The leads that this one ended.
    pub(crate) superseded: Vec<Ballot>,
}

/// A heartbeat as its leader signed it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Beacon {
    raw: Arc<[u8]>,
    claim: Claim,
}

impl Claim {
    pub(crate) fn ballot(&self) -> Ballot {
        (self.term, short(self.leader.as_bytes()))
    }

    fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(256);
        body.put_u8(VERSION)
            .put_u8(if self.latched { LATCHED } else { 0 });
        body.put(self.flock.as_bytes())
            .put_u64(self.term)
            .put_u64(self.sequence);
        body.put(self.leader.as_bytes()).put_u64(self.incarnation);
        body.put_u64(u64::try_from(self.tenure.as_millis()).unwrap_or(u64::MAX));
        body.put_u16(self.size).put_u64(self.fingerprint);
        let successors = &self.successors[..self.successors.len().min(SUCCESSORS)];
        body.put_u8(u8::try_from(successors.len()).unwrap_or(0))
            .put(&successors.concat());
        let superseded = &self.superseded[..self.superseded.len().min(SUPERSEDED_MAX)];
        body.put_u8(u8::try_from(superseded.len()).unwrap_or(0));
        for (term, leader) in superseded {
            body.put_u64(*term).put(leader);
        }
        body
    }

    pub(crate) fn sign(
        &self,
        namespace: &NamespaceId,
        sign: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> Result<Beacon, Malformed> {
        let body = self.body();
        let signature = sign(&signed_bytes(namespace, &body));
        let mut raw = Vec::with_capacity(body.len() + signature.len() + 4);
        raw.put_bytes16(&body).put_bytes16(&signature);
        Beacon::read(&mut Reader::new(&raw))
    }

    /// What decides between two flocks that meet: the larger size class, then a leader long in office, then the smaller
    /// flock and the smaller leader. Nothing of it depends on who compares, or when.
    fn weight(&self) -> impl Ord {
        let class = self.size.max(1).ilog2();
        (
            class,
            self.latched,
            Reverse(self.flock),
            Reverse(self.leader),
        )
    }

    /// Whether this lead wins over `other` when their flocks meet. Of two different ones exactly one does.
    ///
    /// Source: anchors/membership.md §3.5; the birth there is a time, for which the tenure latch stands here.
    pub(crate) fn wins_over(&self, other: &Self) -> bool {
        self.weight() > other.weight()
    }
}

fn signed_bytes(namespace: &NamespaceId, body: &[u8]) -> Vec<u8> {
    [CONTEXT, namespace.as_bytes(), body].concat()
}

impl Beacon {
    /// Reads a heartbeat; the signature is not checked here.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let body = reader.bytes16(BODY_BYTES_MAX)?;
        let signature = reader.bytes16(SIGNATURE_BYTES_MAX)?;
        let mut raw = Vec::with_capacity(body.len() + signature.len() + 4);
        raw.put_bytes16(body).put_bytes16(signature);
        let mut fields = Reader::new(body);
        let claim = read_claim(&mut fields)?;
        Ok(Self {
            raw: raw.into(),
            claim,
        })
    }

    pub(crate) fn raw(&self) -> &[u8] {
        &self.raw
    }

    pub(crate) const fn claim(&self) -> &Claim {
        &self.claim
    }

    fn body(&self) -> &[u8] {
        Reader::new(&self.raw)
            .bytes16(BODY_BYTES_MAX)
            .unwrap_or_default()
    }

    pub(crate) fn signature(&self) -> &[u8] {
        let start = 2 + self.body().len() + 2;
        self.raw.get(start..).unwrap_or_default()
    }

    pub(crate) fn signed_bytes(&self, namespace: &NamespaceId) -> Vec<u8> {
        signed_bytes(namespace, self.body())
    }
}

fn read_claim(fields: &mut Reader<'_>) -> Result<Claim, Malformed> {
    let (version, flags) = (fields.u8()?, fields.u8()?);
    if version == 0 {
        return Err(Malformed::Value);
    }
    let mut claim = Claim {
        flock: FlockId::from_bytes(fields.array()?),
        term: fields.u64()?,
        sequence: fields.u64()?,
        leader: RnodeId::from_bytes(fields.array()?),
        incarnation: fields.u64()?,
        tenure: Duration::from_millis(fields.u64()?),
        latched: flags & LATCHED != 0,
        size: fields.u16()?,
        fingerprint: fields.u64()?,
        successors: Vec::new(),
        superseded: Vec::new(),
    };
    for _ in 0..fields.u8()? {
        claim.successors.push(fields.array()?);
    }
    for _ in 0..fields.u8()? {
        claim.superseded.push((fields.u64()?, fields.array()?));
    }
    Ok(claim)
}

impl fmt::Debug for Beacon {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Claim {
            term,
            sequence,
            leader,
            size,
            ..
        } = &self.claim;
        write!(
            formatter,
            "Beacon({} term {term} sequence {sequence} size {size})",
            leader.short()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn claim(leader: u8, size: u16, latched: bool) -> Claim {
        Claim {
            flock: FlockId::from_bytes([leader; 16]),
            term: 3,
            sequence: 4,
            leader: RnodeId::from_bytes([leader; 32]),
            incarnation: 5,
            tenure: Duration::from_secs(6),
            latched,
            size,
            fingerprint: 7,
            successors: vec![[1; 8], [2; 8]],
            superseded: vec![(2, [9; 8])],
        }
    }

    #[test]
    fn a_heartbeat_reads_back_what_was_signed() {
        let namespace = NamespaceId::from_bytes([1; 32]);
        let mut signed = Vec::new();
        let beacon = claim(1, 2, true).sign(&namespace, |bytes| {
            signed = bytes.to_vec();
            vec![8; 72]
        });
        let beacon = beacon.expect("within the limits");
        let again = Beacon::read(&mut Reader::new(beacon.raw())).expect("what was written");
        assert_eq!(again.claim(), &claim(1, 2, true));
        assert_eq!(
            (again.signed_bytes(&namespace), again.signature()),
            (signed, &[8; 72][..])
        );
    }

    #[test]
    fn of_two_flocks_exactly_one_wins_whoever_asks() {
        let claims = [
            claim(1, 1, false),
            claim(2, 1, false),
            claim(3, 1, true),
            claim(4, 9, false),
            claim(5, 8, true),
        ];
        for (at, one) in claims.iter().enumerate() {
            for other in &claims[at + 1..] {
                assert_ne!(one.wins_over(other), other.wins_over(one));
            }
        }
        assert!(claims[0].wins_over(&claims[1]) && claims[2].wins_over(&claims[0]));
        assert!(claims[3].wins_over(&claims[2]) && claims[4].wins_over(&claims[3]));
    }
}
