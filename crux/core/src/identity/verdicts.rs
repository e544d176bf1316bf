//! Verdicts: of two rnodes that both came in by one use of an invitation, which stays.
//!
//! A member that is neither signs one when flocks meet that a split had kept apart. It shows both enrolments, so that nobody
//! can make a rival up, and says how much its flock weighed. Of several verdicts on a claim the one of the heaviest flock
//! counts: what is held is a function of the set that was seen, whatever the order. Next: `identity/claims.rs`.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::identity::chain::verify_signer;
use crate::identity::codec::Reader;
use crate::identity::{
    CERTIFICATE_BYTES_MAX, CHAIN_LENGTH_MAX, Charter, Claim, ClaimTable, Denied, Denies, Enrolment,
    Moment, Novelty, Refusal, Signed, Verb, Vouchers, Who,
};
use crate::names::{Label, OwnerId, RnodeId};

/// Stands before a verdict's payload in what is signed.
pub const VERDICT_CONTEXT: &[u8] = b"radix-verdict/1\n";
/// Most claims on which verdicts are kept. 32: each is a theft or a split that let two in.
pub const VERDICTS_MAX: usize = 32;

const VERSION: u8 = 1;
const MALFORMED: Refusal = Refusal::Malformed("a verdict cannot be read");

/// How much a flock weighs where flocks meet: as its leader's heartbeat does, by the same rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight {
    /// log2 of how many members it has, rounded down.
    pub class: u8,
    /// Whether its leader is long in office.
    pub latched: bool,
    /// Its name: of two the smaller weighs more.
    pub flock: Reverse<[u8; 16]>,
}

/// What a verdict says. One value has one encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whose flocks it is for.
    pub owner: OwnerId,
    /// How much the flock of its signer weighed.
    pub weight: Weight,
    /// The chain of the rnode that stays, its enrolment first.
    pub holder: Vec<Vec<u8>>,
    /// The enrolment of the one that goes, by the same invitation.
    pub rival: Vec<u8>,
}

/// A verdict as it travels and lies on disk, byte for byte as signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedVerdict {
    /// An encoded [`Verdict`].
    pub payload: Vec<u8>,
    /// Over [`VERDICT_CONTEXT`] and the payload.
    pub signature: Vec<u8>,
    /// The signer's chain, its enrolment first.
    pub chain: Vec<Vec<u8>>,
}

/// What a verdict that counts comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// What both took.
    pub claim: Claim,
    /// Who stays.
    pub holder: RnodeId,
    /// Who goes.
    pub rival: RnodeId,
    /// Who says so, and how it came in.
    pub signer: Enrolment,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    judged: Judged,
    weight: Weight,
    id: Digest,
    signed: SignedVerdict,
}

impl Held {
    /// Which of two verdicts on one claim counts: the greater.
    fn standing(&self) -> impl Ord + use<> {
        let signer = self.judged.signer.taker;
        (self.weight, Reverse(signer), Reverse(self.id))
    }
}

/// The verdicts one holder knows: of each claim the one that counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdicts(BTreeMap<Claim, Held>);

impl Verdict {
    /// Its bytes: version, owner, class (u8), latched (u8), flock (16), holder (u8 count, u16 length each), rival (u16 length).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(self.owner.as_bytes());
        out.push(self.weight.class);
        out.push(u8::from(self.weight.latched));
        out.extend_from_slice(&self.weight.flock.0);
        out.push(u8::try_from(self.holder.len()).unwrap_or(u8::MAX));
        for der in self.holder.iter().chain([&self.rival]) {
            let length = u16::try_from(der.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(der);
        }
        out
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(bytes, MALFORMED);
        if reader.u8()? != VERSION {
            return Err(Refusal::Malformed(
                "a verdict has a version this release does not know",
            ));
        }
        let owner = OwnerId::from_bytes(reader.array()?);
        let class = reader.u8()?;
        let latched = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(MALFORMED),
        };
        let flock = Reverse(reader.array()?);
        let count = usize::from(reader.u8()?);
        if count > CHAIN_LENGTH_MAX {
            return Err(MALFORMED);
        }
        let holder = (0..count)
            .map(|_| certificate(&mut reader))
            .collect::<Result<_, _>>()?;
        let rival = certificate(&mut reader)?;
        reader.end()?;
        let weight = Weight {
            class,
            latched,
            flock,
        };
        Ok(Self {
            owner,
            weight,
            holder,
            rival,
        })
    }

    /// The chain of the one that goes.
    #[must_use]
    pub fn rival_chain(&self) -> Vec<Vec<u8>> {
        let above = self.holder.iter().skip(1);
        std::iter::once(&self.rival).chain(above).cloned().collect()
    }
}

fn certificate(reader: &mut Reader<'_>) -> Result<Vec<u8>, Refusal> {
    let length = usize::from(reader.u16()?);
    if length > CERTIFICATE_BYTES_MAX {
        return Err(MALFORMED);
    }
    Ok(reader.bytes(length)?.to_vec())
}

impl Verdicts {
    /// Judges a verdict and keeps it, if it counts for more than what is held on its claim.
    ///
    /// `denies` is what the owner denies, without verdicts, so none can make another count or not, and the vouchers that mend
    /// a denial of an operator. `claims` says that its signer is no second taker itself: else whoever has two used
    /// invitations could speak for itself.
    ///
    /// # Errors
    /// Why it does not count: malformed, another owner's, badly signed, not by a member that is neither, no two enrolments by
    /// one use of an invitation, or [`VERDICTS_MAX`] others are held. Nothing changes then.
    pub fn add(
        &mut self,
        signed: &SignedVerdict,
        charter: &Charter,
        denies: (&Denies, &Vouchers),
        claims: &ClaimTable,
    ) -> Result<(Novelty, Judged), Refusal> {
        let id = id_of(signed);
        if let Some(held) = self.0.values().find(|held| held.id == id) {
            return Ok((Novelty::Known, held.judged));
        }
        let verdict = Verdict::decode(&signed.payload)?;
        let judged = judge(signed, &verdict, charter, denies)?;
        let Enrolment { claim, taker } = judged.signer;
        if let Some(holder) = claims.holder(&claim).filter(|holder| *holder != taker) {
            return Err(Refusal::AlreadyClaimed {
                invitation: claim.invitation,
                holder,
                taker,
            });
        }
        let fresh = Held {
            judged,
            weight: verdict.weight,
            id,
            signed: signed.clone(),
        };
        match self.0.get(&judged.claim) {
            Some(held) if held.standing() >= fresh.standing() => {
                return Ok((Novelty::Known, judged));
            }
            None if self.0.len() >= VERDICTS_MAX => {
                return Err(Refusal::Malformed("the list of verdicts is full"));
            }
            _ => {}
        }
        self.0.insert(judged.claim, fresh);
        Ok((Novelty::New, judged))
    }

    /// Drops what no longer counts: after a new charter, or once its signer is denied.
    pub fn settle(&mut self, charter: &Charter, denies: (&Denies, &Vouchers)) {
        self.0.retain(|_, held| {
            Verdict::decode(&held.signed.payload)
                .and_then(|verdict| judge(&held.signed, &verdict, charter, denies))
                .is_ok()
        });
    }

    /// Whether a verdict of a flock that weighs so much would count against the one held on `claim`.
    ///
    /// A flock has spoken once: that it weighs more since, as it does when flocks have met, makes no other verdict.
    #[must_use]
    pub fn outweighs(&self, claim: &Claim, weight: Weight) -> bool {
        let held = self.0.get(claim);
        held.is_none_or(|held| weight > held.weight && weight.flock != held.weight.flock)
    }

    /// What is held, ascending by claim.
    pub fn iter(&self) -> impl Iterator<Item = &Judged> {
        self.0.values().map(|held| &held.judged)
    }

    /// What is held on `claim`.
    #[must_use]
    pub fn on(&self, claim: &Claim) -> Option<&Judged> {
        self.0.get(claim).map(|held| &held.judged)
    }

    /// What is held, as signed.
    pub fn signed(&self) -> impl Iterator<Item = &SignedVerdict> {
        self.0.values().map(|held| &held.signed)
    }

    /// `of` with a mark of what is held: unchanged when that is nothing.
    #[must_use]
    pub fn mark(&self, of: Digest) -> Digest {
        if self.0.is_empty() {
            return of;
        }
        let ids = std::iter::once(&of).chain(self.0.values().map(|held| &held.id));
        Digest::of(&ids.flat_map(Digest::as_bytes).copied().collect::<Vec<u8>>())
    }
}

/// Content and signer's chain: a second signature of the same signer makes no second verdict.
fn id_of(signed: &SignedVerdict) -> Digest {
    let parts = std::iter::once(&signed.payload).chain(&signed.chain);
    let digests: Vec<u8> = parts
        .flat_map(|part| *Digest::of(part).as_bytes())
        .collect();
    Digest::of(&digests)
}

fn judge(
    signed: &SignedVerdict,
    verdict: &Verdict,
    charter: &Charter,
    (denies, vouchers): (&Denies, &Vouchers),
) -> Result<Judged, Refusal> {
    if verdict.owner != charter.owner() {
        return Err(Refusal::ForeignOwner(charter.owner()));
    }
    let thing = Signed {
        context: VERDICT_CONTEXT,
        payload: &signed.payload,
        signature: &signed.signature,
        chain: &signed.chain,
    };
    let signer = vouchers.verify_signed(&thing, charter, denies, Moment::Kept)?;
    let (namespace, by) = rnode(&signer)?;
    if denies.closes(&by.claim, by.taker) {
        return Err(Refusal::Denied(Denied::Invitation(by.claim.invitation)));
    }
    signer.may(Verb::Peer, namespace)?;
    // Of the two, that they took it counts: whether either is denied is judged wherever it shows itself.
    let none = Denies::default();
    let taker = |chain: &[Vec<u8>]| {
        let (taker, _) = verify_signer(chain, charter, &none, Moment::Kept)?;
        let (of, enrolment) = rnode(&taker)?;
        if of != namespace {
            return Err(Refusal::OutOfReach(of.clone()));
        }
        Ok(enrolment)
    };
    let (holder, rival) = (taker(&verdict.holder)?, taker(&verdict.rival_chain())?);
    if holder.claim != rival.claim || holder.taker == rival.taker {
        return Err(Refusal::Malformed("a verdict is not on one claim of two"));
    }
    if [holder.taker, rival.taker].contains(&by.taker) {
        return Err(Refusal::Malformed("a verdict is not of a third"));
    }
    Ok(Judged {
        claim: holder.claim,
        holder: holder.taker,
        rival: rival.taker,
        signer: by,
    })
}

fn rnode(principal: &crate::identity::Principal) -> Result<(&Label, Enrolment), Refusal> {
    match (&principal.who, principal.enrolment) {
        (Who::Rnode { namespace, .. }, Some(enrolment)) => Ok((namespace, enrolment)),
        _ => Err(Refusal::WrongUse("certificate that is not a rnode's")),
    }
}
