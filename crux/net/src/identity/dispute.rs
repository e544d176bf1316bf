//! Claims that two made of whom one process met both: what a verdict needs.

use crux_core::identity::{Claim, Grant, Role, Verdict, Weight};
use crux_core::names::{OwnerId, RnodeId};

/// Most claims of which both takers are remembered until a verdict; of others only the first stays, as ever.
pub(crate) const DISPUTES_MAX: usize = 32;

/// Two took one use of an invitation, and this process met both: the first, and then the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispute {
    /// What both took.
    pub claim: Claim,
    /// Whom we met first.
    pub holder: RnodeId,
    /// Whom we refuse.
    pub rival: RnodeId,
    /// Their chains, each an enrolment first; the holder's once it was met since.
    pub(crate) chains: (Option<Vec<Vec<u8>>>, Vec<Vec<u8>>),
}

impl Dispute {
    /// What to sign so that the holder stays; `None`: its enrolment is not at hand.
    pub(crate) fn verdict(&self, owner: OwnerId, weight: Weight) -> Option<Verdict> {
        Some(Verdict {
            owner,
            weight,
            holder: self.chains.0.clone()?,
            rival: self.chains.1.first()?.clone(),
        })
    }
}

/// The part of a rnode's or its process's chain that its claim rests on, the enrolment first.
pub(crate) fn enrolled_part<C: AsRef<[u8]>>(chain: &[C]) -> Vec<Vec<u8>> {
    let enrolled = chain.iter().position(|der| {
        let grant = Grant::of_certificate(der.as_ref());
        grant.is_ok_and(|grant| matches!(grant.role, Role::Rnode { .. }))
    });
    let part = chain.iter().skip(enrolled.unwrap_or(chain.len()));
    part.map(|der| der.as_ref().to_vec()).collect()
}
