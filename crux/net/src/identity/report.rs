//! What the owner should hear of, as identity finds it out.

use crux_core::digest::Digest;
use crux_core::identity::{Claim, Judged, Notice};
use crux_core::names::{InvitationId, RnodeId};

/// Something that the owner should hear of. Each is reported once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A second rnode came with a claim that another holds; it was refused.
    SecondTaker {
        /// What both took.
        claim: Claim,
        /// Who holds it.
        holder: RnodeId,
        /// Who was refused.
        taker: RnodeId,
    },
    /// The owner, or an operator of its, denied somebody.
    Denied {
        /// What the notice says.
        notice: Notice,
        /// Who signed it, for people.
        signer: String,
    },
    /// The root vouches for whom a denied operator had let in.
    Vouched {
        /// By which invitation.
        invitation: InvitationId,
    },
    /// Of two that came in by one use of an invitation, one stays and the other goes.
    Verdict(Judged),
    /// Another successor of one charter weighs as much as the one held: each rnode keeps its own.
    Rival {
        /// The id of the charter held.
        held: Digest,
        /// That of the other.
        rival: Digest,
    },
    /// Another successor of one charter weighs more than the one held until now, and holds in its place.
    Overturned {
        /// The id of the charter held now.
        held: Digest,
        /// That of the one held until now.
        lost: Digest,
    },
    /// A successor charter was taken over.
    Succeeded {
        /// Its generation.
        generation: u64,
    },
}
