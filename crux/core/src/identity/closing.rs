//! A closing: an invitation that counts for those who came in by it, and for nobody else any more.

use std::collections::BTreeMap;
use std::fmt;

use crate::identity::codec::Reader;
use crate::identity::{Claim, Refusal};
use crate::names::{InvitationId, RnodeId};

/// Most claims that a closed invitation keeps.
pub const CLOSING_CLAIMS_MAX: usize = 1_024;

const MALFORMED: Refusal = Refusal::Malformed("a closing of an invitation cannot be read");

/// One invitation, denied but for these claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// Which.
    pub invitation: InvitationId,
    /// Who holds which ordinal of it: at most [`CLOSING_CLAIMS_MAX`].
    pub claims: BTreeMap<u32, RnodeId>,
}

impl Closing {
    /// Whether it lets `taker` have `claim`; claims of other invitations are none of its business.
    #[must_use]
    pub fn allows(&self, claim: &Claim, taker: RnodeId) -> bool {
        claim.invitation != self.invitation || self.claims.get(&claim.ordinal) == Some(&taker)
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.invitation.as_bytes());
        let count = u16::try_from(self.claims.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        for (ordinal, rnode) in &self.claims {
            out.extend_from_slice(&ordinal.to_be_bytes());
            out.extend_from_slice(rnode.as_bytes());
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Refusal> {
        let invitation = InvitationId::from_bytes(reader.array()?);
        let count = usize::from(reader.u16()?);
        if count > CLOSING_CLAIMS_MAX {
            return Err(MALFORMED);
        }
        let mut claims = BTreeMap::new();
        for _ in 0..count {
            let ordinal = reader.u32()?;
            // One value has one encoding: ascending, none twice.
            if claims
                .last_key_value()
                .is_some_and(|(last, _)| *last >= ordinal)
            {
                return Err(MALFORMED);
            }
            claims.insert(ordinal, RnodeId::from_bytes(reader.array()?));
        }
        Ok(Self { invitation, claims })
    }
}

impl fmt::Display for Closing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.claims.len();
        write!(formatter, "invitation {}", self.invitation)?;
        write!(formatter, " but for {count} who came in by it")
    }
}
