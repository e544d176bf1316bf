//! Signatures without cryptography: a keyed hash that only the simulator's own rnodes make.

use std::collections::BTreeSet;

use crux_core::flock::Authority;
use crux_core::names::RnodeId;

const SECRET: &str = "radix simulator signatures";

/// Signs as one rnode and knows whom it admitted.
#[derive(Debug)]
pub(crate) struct SimAuthority {
    pub(crate) id: RnodeId,
    admitted: BTreeSet<RnodeId>,
}

impl SimAuthority {
    pub(crate) fn new(id: RnodeId) -> Self {
        Self {
            id,
            admitted: BTreeSet::from([id]),
        }
    }

    pub(crate) fn credential(id: &RnodeId) -> Vec<u8> {
        signature(id, b"credential")
    }
}

fn signature(id: &RnodeId, message: &[u8]) -> Vec<u8> {
    let key = blake3::derive_key(SECRET, id.as_bytes());
    blake3::keyed_hash(&key, message).as_bytes().to_vec()
}

impl Authority for SimAuthority {
    fn sign(&mut self, message: &[u8]) -> Vec<u8> {
        signature(&self.id, message)
    }

    fn admit(&mut self, rnode: &RnodeId, credential: &[u8]) -> bool {
        let admitted = credential == Self::credential(rnode);
        if admitted {
            self.admitted.insert(*rnode);
        }
        admitted
    }

    fn verify(&mut self, rnode: &RnodeId, message: &[u8], given: &[u8]) -> bool {
        self.admitted.contains(rnode) && signature(rnode, message) == given
    }

    fn accept_document(&mut self, _generation: u64, bytes: &[u8]) -> bool {
        bytes.starts_with(b"signed:")
    }
}
