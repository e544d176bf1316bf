//! Invitations that the root signed again, so that whom a denied operator let in may stay.
//!
//! A voucher stands in a chain in the place of the invitation with the same throwaway key, and of all above it.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::identity::{
    Charter, Denies, Enrols, Grant, Moment, Novelty, Principal, PublicKey, Refusal, Role, Signed,
    verify, verify_signed,
};
use crate::names::InvitationId;

/// Most vouchers kept.
pub const VOUCHERS_MAX: usize = 256;

/// The vouchers one holder knows: a set that is merged by union.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vouchers(BTreeMap<Digest, (InvitationId, Vec<u8>)>);

impl Vouchers {
    /// Judges a voucher and keeps it.
    ///
    /// # Errors
    /// Why it does not count: not of a root, not an invitation of rnodes, or there are too many. Nothing changes then.
    pub fn add(&mut self, der: &[u8], charter: &Charter) -> Result<Novelty, Refusal> {
        let id = Digest::of(der);
        if self.0.contains_key(&id) {
            return Ok(Novelty::Known);
        }
        let grant = Grant::of_certificate(der)?;
        let invites_rnodes = matches!(
            grant.role,
            Role::Invitation {
                enrols: Enrols::Rnode,
                ..
            }
        );
        if !invites_rnodes {
            return Err(Refusal::WrongUse(grant.role.name()));
        }
        if !charter.vouches_for(der) {
            return Err(Refusal::ForeignOwner(charter.owner()));
        }
        if self.0.len() >= VOUCHERS_MAX {
            return Err(Refusal::Malformed("the list of vouchers is full"));
        }
        let invitation = PublicKey::of_certificate(der)?.invitation_id();
        self.0.insert(id, (invitation, der.to_vec()));
        Ok(Novelty::New)
    }

    /// Drops what no longer counts after a new charter.
    pub fn settle(&mut self, charter: &Charter) {
        self.0.retain(|_, (_, der)| charter.vouches_for(der));
    }

    /// The same chain below each voucher that fits it; none fits most.
    pub fn below<C: AsRef<[u8]>>(&self, chain: &[C]) -> Vec<Vec<Vec<u8>>> {
        let above = chain.iter().enumerate().skip(1);
        let fitting = above.flat_map(|(at, link)| {
            let key = PublicKey::of_certificate(link.as_ref()).ok();
            let invitation = key.map(|key| key.invitation_id());
            let vouchers = self.0.values();
            let same = vouchers.filter(move |(of, _)| Some(*of) == invitation);
            same.map(move |(_, der)| (at, der))
        });
        fitting
            .map(|(at, der)| {
                let mut whole: Vec<Vec<u8>> = chain[..at]
                    .iter()
                    .map(|link| link.as_ref().to_vec())
                    .collect();
                whole.push(der.clone());
                whole
            })
            .collect()
    }

    /// Judges a chain shown on a connection as it is and, if a denial breaks it, below each voucher that fits.
    ///
    /// # Errors
    /// As [`verify`](crate::identity::verify), of the chain as it is.
    pub fn verify<C: AsRef<[u8]>>(
        &self,
        chain: &[C],
        charter: &Charter,
        denies: &Denies,
        moment: Moment,
    ) -> Result<Principal, Refusal> {
        self.or_below(chain, verify(chain, charter, denies, moment), |vouched| {
            verify(vouched, charter, denies, moment)
        })
    }

    /// The same for what stands beside a signature.
    ///
    /// # Errors
    /// As [`verify_signed`](crate::identity::verify_signed), of the chain as it is.
    pub fn verify_signed<C: AsRef<[u8]>>(
        &self,
        signed: &Signed<'_, C>,
        charter: &Charter,
        denies: &Denies,
        moment: Moment,
    ) -> Result<Principal, Refusal> {
        let judged = verify_signed(signed, charter, denies, moment);
        self.or_below(signed.chain, judged, |chain| {
            let signed = Signed {
                context: signed.context,
                payload: signed.payload,
                signature: signed.signature,
                chain,
            };
            verify_signed(&signed, charter, denies, moment)
        })
    }

    fn or_below<C: AsRef<[u8]>>(
        &self,
        chain: &[C],
        judged: Result<Principal, Refusal>,
        judge: impl Fn(&[Vec<u8>]) -> Result<Principal, Refusal>,
    ) -> Result<Principal, Refusal> {
        let Err(Refusal::Denied(_)) = judged else {
            return judged;
        };
        let vouched = self.below(chain).into_iter();
        let mut vouched = vouched.filter_map(|chain| judge(&chain).ok());
        vouched.next().map_or(judged, Ok)
    }

    /// All of them, in the order of their digests.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.values().map(|(_, der)| der.as_slice())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `of` with a mark of what is held: unchanged when that is nothing.
    #[must_use]
    pub fn mark(&self, of: Digest) -> Digest {
        if self.is_empty() {
            return of;
        }
        let ids = std::iter::once(&of).chain(self.0.keys());
        Digest::of(&ids.flat_map(Digest::as_bytes).copied().collect::<Vec<u8>>())
    }
}
