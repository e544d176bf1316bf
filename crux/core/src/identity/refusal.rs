//! Why someone is not who they say, or may not do what they ask.

use crate::identity::{Denied, UnixTime, Verb};
use crate::names::{InvitationId, Label, OwnerId, RnodeId};

/// Why a chain, charter, signature or claim is refused. Nothing was changed by asking.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No certificate was shown.
    #[error("verify an identity: no certificate was shown")]
    NoCertificate,
    /// The chain has more than four certificates.
    #[error("verify an identity: the chain has {0} certificates, more than 4")]
    ChainTooLong(usize),
    /// A certificate does not follow our profile; says how.
    #[error("verify an identity: a certificate is not of our profile: {0}")]
    Malformed(&'static str),
    /// A key is not an uncompressed P-256 point.
    #[error("verify an identity: a key is not P-256")]
    NotP256,
    /// A signature does not match its message and key.
    #[error("verify an identity: a signature does not match")]
    BadSignature,
    /// The chain does not end below a root key of our charter.
    #[error("verify an identity: it belongs to another owner than {0}")]
    ForeignOwner(OwnerId),
    /// A certificate of one role was issued by one that may not issue it.
    #[error("verify an identity: a {issuer} may not vouch for a {subject}")]
    RoleNotAllowed {
        /// The role above.
        issuer: &'static str,
        /// The role below.
        subject: &'static str,
    },
    /// A certificate claims verbs that the one above may not grant.
    #[error("verify an identity: a certificate claims more rights than it was given")]
    RightsExtended,
    /// A certificate claims names outside the prefix of the one above.
    #[error("verify an identity: a certificate claims names outside of what it was given")]
    NamesExtended,
    /// A rnode's prefix is not one namespace.
    #[error("verify an identity: a rnode belongs to exactly one namespace")]
    NotOneNamespace,
    /// A rnode took another label than its invitation names.
    #[error("verify an identity: the invitation is for {invited}, not for {taken}")]
    WrongLabel {
        /// The invitation's.
        invited: Label,
        /// The rnode's.
        taken: Label,
    },
    /// A rnode took an ordinal that its invitation does not have.
    #[error(
        "verify an identity: the invitation has {uses} uses, ordinal {ordinal} is not among them"
    )]
    WrongOrdinal {
        /// How many it has.
        uses: u32,
        /// What was taken, from 0.
        ordinal: u32,
    },
    /// The claim was made after the invitation's claim-by.
    #[error("claim an invitation: it was to be claimed by {0}")]
    ClaimedLate(UnixTime),
    /// The invitation was claimed before, by another rnode.
    #[error("verify an identity: invitation {} was claimed by rnode {}, not by {}", invitation.short(), holder.short(), taker.short())]
    AlreadyClaimed {
        /// Which.
        invitation: InvitationId,
        /// Who claimed it first.
        holder: RnodeId,
        /// Who came second.
        taker: RnodeId,
    },
    /// Two claimed the invitation while a split kept them apart, and a verdict lets the other stay.
    #[error("verify an identity: invitation {} was claimed twice, and rnode {} keeps it, not {}", invitation.short(), holder.short(), taker.short())]
    LostClaim {
        /// Which.
        invitation: InvitationId,
        /// Who stays.
        holder: RnodeId,
        /// Who goes.
        taker: RnodeId,
    },
    /// Now is before the certificate's validity.
    #[error("verify an identity: not valid before {0}; do the clocks agree?")]
    NotYetValid(UnixTime),
    /// Now is after the certificate's validity.
    #[error("verify an identity: expired at {0}")]
    Expired(UnixTime),
    /// An operator's grant had ended when it made the invitation.
    #[error("verify an identity: the operator's grant had ended when the invitation was made")]
    InvitedAfterExpiry,
    /// A leaf or a person's grant states a longer validity than allowed.
    #[error("verify an identity: it is valid for {0} seconds, longer than allowed")]
    LifeTooLong(u64),
    /// A key of the chain is denied.
    #[error("verify an identity: {0} is denied")]
    Denied(Denied),
    /// A connection must show a leaf; a document must show the signer's own grant.
    #[error("verify an identity: a {0} may not be shown here")]
    WrongUse(&'static str),
    /// Who it is lacks the verb.
    #[error("do this: it needs the right '{0}'")]
    LacksVerb(Verb),
    /// Who it is holds rights, but not over this name.
    #[error("do this: the rights do not reach {0}")]
    OutOfReach(Label),
    /// It is somebody else than expected.
    #[error("verify an identity: expected {expected}, met {met}")]
    Unexpected {
        /// Whom the caller wanted.
        expected: String,
        /// Who answered.
        met: String,
    },
    /// A charter does not follow its form; says how.
    #[error("read a charter: {0}")]
    Charter(&'static str),
}
