//! The keys behind a flock machine: signs our entries, judges those of others and documents.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crux_core::flock::{Authority, CREDENTIAL_BYTES_MAX, REMEMBERED_MAX};
use crux_core::identity::{ENTRY_CONTEXT, PublicKey, Who};
use crux_core::names::{Label, RnodeId};

use crate::identity::RnodeIdentity;

/// Whether bytes are a document of this generation, signed by someone who may; must not block.
pub type JudgeDocument = Box<dyn FnMut(u64, &[u8]) -> bool + Send>;

/// Certificates in a credential at most.
const CERTIFICATES_MAX: usize = 4;

/// Judges by the rnode's own trust.
pub(crate) struct Keys {
    identity: Arc<RnodeIdentity>,
    namespace: Label,
    admitted: BTreeMap<RnodeId, PublicKey>,
    judge: JudgeDocument,
}

impl Keys {
    pub(crate) fn new(identity: Arc<RnodeIdentity>, judge: JudgeDocument) -> Self {
        let namespace = identity.namespace().clone();
        Self { identity, namespace, admitted: BTreeMap::new(), judge }
    }

    /// Our own enrolment, as others judge it.
    pub(crate) fn credential(identity: &RnodeIdentity) -> Vec<u8> {
        encode(identity.chain())
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Keys({} admitted)", self.admitted.len())
    }
}

impl Authority for Keys {
    fn sign(&mut self, message: &[u8]) -> Vec<u8> {
        self.identity.sign(ENTRY_CONTEXT, message).unwrap_or_else(|error| {
            // An empty signature is refused by everyone, so nothing false spreads.
            tracing::error!(%error, "an entry could not be signed");
            Vec::new()
        })
    }

    fn admit(&mut self, rnode: &RnodeId, credential: &[u8]) -> bool {
        if self.admitted.contains_key(rnode) {
            return true;
        }
        let Some(chain) = decode(credential) else { return false };
        let Ok((principal, key)) = self.identity.trust().verify_signer(&chain) else { return false };
        let is_ours = matches!(
            &principal.who,
            Who::Rnode { namespace, id, .. } if *namespace == self.namespace && id == rnode
        );
        if !is_ours || self.admitted.len() >= REMEMBERED_MAX {
            return false;
        }
        self.admitted.insert(*rnode, key);
        true
    }

    fn verify(&mut self, rnode: &RnodeId, message: &[u8], signature: &[u8]) -> bool {
        let Some(key) = self.admitted.get(rnode) else { return false };
        let mut signed = ENTRY_CONTEXT.to_vec();
        signed.extend_from_slice(message);
        key.verify(&signed, signature).is_ok()
    }

    fn accept_document(&mut self, generation: u64, bytes: &[u8]) -> bool {
        (self.judge)(generation, bytes)
    }
}

/// Number of certificates, then each with its length.
fn encode(chain: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(chain.len()).unwrap_or(u8::MAX)];
    for certificate in chain {
        let length = u16::try_from(certificate.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(certificate);
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    if bytes.len() > CREDENTIAL_BYTES_MAX {
        return None;
    }
    let (count, mut rest) = bytes.split_first()?;
    let count = usize::from(*count);
    if count == 0 || count > CERTIFICATES_MAX {
        return None;
    }
    let mut chain = Vec::with_capacity(count);
    for _ in 0..count {
        let (length, tail) = rest.split_first_chunk::<2>()?;
        let (certificate, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        chain.push(certificate.to_vec());
        rest = tail;
    }
    rest.is_empty().then_some(chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_reads_back_and_a_broken_one_is_refused() {
        let chain = vec![vec![1; 300], vec![2; 5]];
        let bytes = encode(&chain);
        assert_eq!(decode(&bytes), Some(chain));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[9, 0, 0]), None);
        let mut longer = bytes;
        longer.push(0);
        assert_eq!(decode(&longer), None);
    }
}
