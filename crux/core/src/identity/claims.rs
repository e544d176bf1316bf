//! Who took which invitation: the first claim seen stays.

use std::collections::BTreeMap;

use crate::identity::codec::Reader;
use crate::identity::{Claim, Enrolment, Principal, Refusal};
use crate::names::{InvitationId, RnodeId};

/// Most claims a table keeps. 65 536: far above the rnodes of one namespace; beyond it new ones are refused.
const CLAIMS_MAX: usize = 65_536;
const MALFORMED: Refusal = Refusal::Malformed("its table of claims cannot be read");

/// Whether a claim was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Novelty {
    /// Seen for the first time, and kept.
    New,
    /// Known, by the same rnode.
    Known,
}

/// The claims one rnode has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClaimTable(BTreeMap<Claim, RnodeId>);

impl ClaimTable {
    /// Takes note of the claim by which someone verified came in, or the rnode that vouches for them.
    ///
    /// # Errors
    /// [`Refusal::AlreadyClaimed`] for a second taker; the table is unchanged.
    pub fn observe(&mut self, principal: &Principal) -> Result<Novelty, Refusal> {
        match principal.enrolment {
            Some(Enrolment { claim, taker }) => self.take(claim, taker),
            None => Ok(Novelty::Known),
        }
    }

    /// Takes note that `taker` made `claim`.
    ///
    /// # Errors
    /// [`Refusal::AlreadyClaimed`] for a second taker; the table is unchanged.
    pub fn take(&mut self, claim: Claim, taker: RnodeId) -> Result<Novelty, Refusal> {
        match self.0.get(&claim) {
            Some(holder) if *holder == taker => Ok(Novelty::Known),
            Some(holder) => Err(Refusal::AlreadyClaimed {
                invitation: claim.invitation,
                holder: *holder,
                taker,
            }),
            None if self.0.len() >= CLAIMS_MAX => {
                Err(Refusal::Malformed("the table of claims is full"))
            }
            None => {
                self.0.insert(claim, taker);
                Ok(Novelty::New)
            }
        }
    }

    /// Gives `claim` to `holder`, whoever had it: a verdict says so. One that nobody is known to have stays so, for what
    /// stands here was met by ourselves.
    pub fn settle(&mut self, claim: Claim, holder: RnodeId) {
        if let Some(known) = self.0.get_mut(&claim) {
            *known = holder;
        }
    }

    /// Takes over what `other` knows of claims that this one knows nothing of.
    pub fn learn(&mut self, other: &Self) {
        for (claim, holder) in &other.0 {
            self.0.entry(*claim).or_insert(*holder);
        }
    }

    /// Who holds `claim`.
    #[must_use]
    pub fn holder(&self, claim: &Claim) -> Option<RnodeId> {
        self.0.get(claim).copied()
    }

    /// All claims with their holders, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (&Claim, &RnodeId)> {
        self.0.iter()
    }

    /// The form it is kept in: {invitation 32, ordinal u32, rnode 32} each, ascending.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.len() * 68);
        for (claim, holder) in &self.0 {
            out.extend_from_slice(claim.invitation.as_bytes());
            out.extend_from_slice(&claim.ordinal.to_be_bytes());
            out.extend_from_slice(holder.as_bytes());
        }
        out
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > CLAIMS_MAX * 68 || !bytes.len().is_multiple_of(68) {
            return Err(MALFORMED);
        }
        let mut reader = Reader::new(bytes, MALFORMED);
        let mut table = Self::default();
        for _ in 0..bytes.len() / 68 {
            let invitation = InvitationId::from_bytes(reader.array()?);
            let claim = Claim {
                invitation,
                ordinal: reader.u32()?,
            };
            table.take(claim, RnodeId::from_bytes(reader.array()?))?;
        }
        reader.end()?;
        Ok(table)
    }
}
