//! Keys behind the flock machine: signs as this rnode, and judges others' credentials, entries and documents.
//!
//! A rnode shows its enrolment once, as a *credential*; from then on its entries are checked with its key alone.
//!
//! ```text
//! credential: version u8 = 1, public key 65, signature u8+bytes over CONTEXT + the rnode's name,
//!             chain: count u8, of certificates: u16+bytes, the enrolment first
//! ```

use std::collections::BTreeMap;

use crux_core::flock::Authority;
use crux_core::identity::{DOCUMENT_CONTEXT, ENTRY_CONTEXT, PublicKey, Signed, Verb, Who};
use crux_core::names::{Label, RnodeId};
use crux_wire::document::v1::{Document, SignedDocument};
use prost::Message;

use super::{DocumentJudge, Error};
use crate::identity::{Acceptance, RnodeIdentity};

const VERSION: u8 = 1;
const CONTEXT: &[u8] = b"radix-flock-credential/1\n";
const POINT_BYTES: usize = 65;
/// Most certificates in a credential: the longest chain there is.
const CHAIN_MAX: usize = 4;

/// The keys of one rnode, and those of all it has admitted.
pub(super) struct Keys {
    identity: RnodeIdentity,
    judge: DocumentJudge,
    admitted: BTreeMap<RnodeId, PublicKey>,
}

impl Keys {
    pub(super) fn new(identity: RnodeIdentity, judge: DocumentJudge) -> Self {
        let own = (identity.id(), *identity.public_key());
        Self {
            identity,
            judge,
            admitted: BTreeMap::from([own]),
        }
    }

    /// What shows others that this rnode is enrolled.
    pub(super) fn credential(&self) -> Result<Vec<u8>, Error> {
        let signature = self.identity.sign(CONTEXT, self.identity.id().as_bytes())?;
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(self.identity.public_key().point());
        bytes.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(&signature);
        let chain = self.identity.chain();
        bytes.push(u8::try_from(chain.len()).unwrap_or(u8::MAX));
        for certificate in chain {
            bytes.extend_from_slice(
                &u16::try_from(certificate.len())
                    .unwrap_or(u16::MAX)
                    .to_be_bytes(),
            );
            bytes.extend_from_slice(certificate);
        }
        Ok(bytes)
    }

    /// The key of `rnode`, if `credential` shows that it is enrolled in our namespace.
    fn judge_credential(&self, rnode: &RnodeId, credential: &[u8]) -> Option<PublicKey> {
        let (point, signature, chain) = parse(credential)?;
        let key = PublicKey::from_point(point)
            .ok()
            .filter(|key| key.rnode_id() == *rnode)?;
        let shown = Signed {
            context: CONTEXT,
            payload: rnode.as_bytes(),
            signature,
            chain: &chain,
        };
        let principal = self
            .identity
            .trust()
            .verify_signed(&shown, Acceptance::Kept)
            .ok()?;
        let ours = principal.namespace_id() == Some(self.identity.namespace_id())
            && principal.may(Verb::Peer, self.identity.namespace()).is_ok();
        matches!(principal.who, Who::Rnode { id, .. } if id == *rnode && ours).then_some(key)
    }
}

fn split(bytes: &[u8], count: usize) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(count)
}

type Parts<'a> = (&'a [u8], &'a [u8], Vec<&'a [u8]>);

fn parse(bytes: &[u8]) -> Option<Parts<'_>> {
    let (version, rest) = bytes.split_first()?;
    let (point, rest) = split(rest, POINT_BYTES)?;
    let (length, rest) = rest.split_first()?;
    let (signature, rest) = split(rest, usize::from(*length))?;
    let (count, mut rest) = rest.split_first()?;
    if *version != VERSION || usize::from(*count) > CHAIN_MAX {
        return None;
    }
    let mut chain = Vec::new();
    for _ in 0..*count {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (certificate, after) = split(after, usize::from(u16::from_be_bytes(*length)))?;
        chain.push(certificate);
        rest = after;
    }
    Some((point, signature, chain))
}

impl Authority for Keys {
    fn sign(&mut self, message: &[u8]) -> Vec<u8> {
        // An empty signature convinces nobody, so a failure here silences us and harms no one else.
        self.identity
            .sign(ENTRY_CONTEXT, message)
            .unwrap_or_default()
    }

    fn admit(&mut self, rnode: &RnodeId, credential: &[u8]) -> bool {
        let Some(key) = self.judge_credential(rnode, credential) else {
            tracing::warn!(rnode = %rnode.short(), "a rnode's enrolment was not accepted");
            self.admitted.remove(rnode);
            return false;
        };
        self.admitted.insert(*rnode, key);
        true
    }

    fn verify(&mut self, rnode: &RnodeId, message: &[u8], signature: &[u8]) -> bool {
        let Some(key) = self.admitted.get(rnode) else {
            return false;
        };
        key.verify(&[ENTRY_CONTEXT, message].concat(), signature)
            .is_ok()
    }

    fn accept_document(&mut self, generation: u64, bytes: &[u8]) -> bool {
        (self.judge)(generation, bytes)
    }
}

/// The usual judge: an encoded `SignedDocument` of that generation, for our namespace, by someone who may.
pub(super) fn signed_documents(identity: &RnodeIdentity) -> DocumentJudge {
    let (trust, own) = (identity.trust().clone(), identity.namespace().clone());
    Box::new(move |generation, bytes| {
        let judge = || -> Option<bool> {
            let signed = SignedDocument::decode(bytes).ok()?;
            let document = Document::decode(signed.payload.as_slice()).ok()?;
            let namespace = Label::new(&document.namespace).ok()?;
            let thing = Signed {
                context: DOCUMENT_CONTEXT,
                payload: &signed.payload,
                signature: &signed.signature,
                chain: &signed.chain,
            };
            // Whoever took it first judged it with the clock; here only charter and denies count.
            let signer = trust.verify_signed(&thing, Acceptance::Kept).ok()?;
            let may = match &signer.who {
                Who::Operator { .. } => signer.may(Verb::Operator, &namespace).is_ok(),
                Who::Tool { .. } => signer.may(Verb::Tool, &namespace).is_ok(),
                _ => false,
            };
            Some(may && namespace == own && document.generation == generation)
        };
        judge().unwrap_or(false)
    })
}
