//! The owner's deny list: a set of signed notices that only grows, merged by union.
//!
//! What it denies is a function of the set and the charter alone, so the order in which notices arrive does not matter:
//! notices of root keys count first, then those of operators whom no root denies.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::identity::{
    Charter, Denied, Denies, Moment, NOTICE_CONTEXT, Notice, Novelty, Prefix, Principal, PublicKey,
    Refusal, Signed, SignedNotice, Verb, Who, verify_signed,
};

/// Most notices kept.
pub const NOTICES_MAX: usize = 1_024;
/// Most of these that others than root keys may fill, so that a root always finds room.
const OTHERS_NOTICES_MAX: usize = 896;
/// Most of these that hosts may fill, so that an operator always finds room.
const HOST_NOTICES_MAX: usize = 512;

/// A mark of what a list holds: equal on two sides exactly if they hold the same.
pub type Fingerprint = Digest;

/// One notice that was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    notice: Notice,
    signed: SignedNotice,
    signer: Signer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Signer {
    Root,
    Operator(String),
    /// Of these names, and for closings alone.
    Host(String, Prefix),
}

impl Signer {
    /// Over whatever names it closes invitations.
    fn scope(&self) -> Prefix {
        match self {
            Self::Root | Self::Operator(_) => Prefix::EVERYTHING,
            Self::Host(_, prefix) => prefix.clone(),
        }
    }
}

/// The notices one holder knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Denials(BTreeMap<Digest, Held>);

impl Denials {
    /// Judges a notice and keeps it.
    ///
    /// # Errors
    /// Why it does not count: malformed, another owner's, badly signed, by someone who may not deny, or the list is full.
    /// The list is unchanged then.
    pub fn add(&mut self, signed: &SignedNotice, charter: &Charter) -> Result<Novelty, Refusal> {
        let id = id_of(signed);
        if self.0.contains_key(&id) {
            return Ok(Novelty::Known);
        }
        let notice = Notice::decode(&signed.payload)?;
        let signer = judge(signed, &notice, charter, &self.of_roots(charter))?;
        if self.is_full_for(&signer) {
            return Err(Refusal::Malformed("the deny list is full"));
        }
        let signed = signed.clone();
        let held = Held {
            notice,
            signed,
            signer,
        };
        self.0.insert(id, held);
        self.settle(charter);
        Ok(Novelty::New)
    }

    /// Drops what no longer counts: after a new charter, or once a root denies an operator who signed.
    pub fn settle(&mut self, charter: &Charter) {
        let none = Denies::default();
        self.0.retain(|_, held| {
            held.signer != Signer::Root || judge(&held.signed, &held.notice, charter, &none).is_ok()
        });
        let of_roots = self.of_roots(charter);
        self.0.retain(|_, held| {
            held.signer == Signer::Root
                || judge(&held.signed, &held.notice, charter, &of_roots).is_ok()
        });
    }

    /// All that is denied. A root key never is: it is replaced by a successor charter.
    #[must_use]
    pub fn denies(&self, charter: &Charter) -> Denies {
        self.of(charter, |_| true)
    }

    /// What is held, oldest first, each with who signed it, for people.
    #[must_use]
    pub fn notices(&self) -> Vec<(&Notice, String)> {
        let mut notices: Vec<_> = self
            .0
            .values()
            .map(|held| {
                let signer = match &held.signer {
                    Signer::Root => "the root key".to_owned(),
                    Signer::Operator(who) | Signer::Host(who, _) => who.clone(),
                };
                (&held.notice, signer)
            })
            .collect();
        notices.sort_by_key(|(notice, _)| notice.at);
        notices
    }

    /// What is held, as signed.
    pub fn signed(&self) -> impl Iterator<Item = &SignedNotice> {
        self.0.values().map(|held| &held.signed)
    }

    /// The notices that root keys signed: a new root signs them again.
    pub fn of_root(&self) -> impl Iterator<Item = &Notice> {
        self.0
            .values()
            .filter(|held| held.signer == Signer::Root)
            .map(|held| &held.notice)
    }

    /// A mark of what is held.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let ids: Vec<u8> = self.0.keys().flat_map(Digest::as_bytes).copied().collect();
        Digest::of(&ids)
    }

    /// How many notices are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn is_full_for(&self, signer: &Signer) -> bool {
        let count = |counts: fn(&Signer) -> bool| {
            let held = self.0.values();
            held.filter(|held| counts(&held.signer)).count()
        };
        let others = count(|of| *of != Signer::Root);
        let hosts = count(|of| matches!(of, Signer::Host(..)));
        self.0.len() >= NOTICES_MAX
            || match signer {
                Signer::Root => false,
                Signer::Operator(_) => others >= OTHERS_NOTICES_MAX,
                Signer::Host(..) => others >= OTHERS_NOTICES_MAX || hosts >= HOST_NOTICES_MAX,
            }
    }

    fn of_roots(&self, charter: &Charter) -> Denies {
        self.of(charter, |held| held.signer == Signer::Root)
    }

    fn of(&self, charter: &Charter, counts: impl Fn(&Held) -> bool) -> Denies {
        let roots: Denies = charter.roots().iter().flat_map(names_of).collect();
        let held: Vec<&Held> = self.0.values().filter(|held| counts(held)).collect();
        let mut denies: Denies = held
            .iter()
            .flat_map(|held| held.notice.denied.iter().copied())
            .filter(|denied| !roots.iter().any(|root| root == denied))
            .collect();
        for held in held {
            for closing in &held.notice.closed {
                denies.close(held.signer.scope(), closing.clone());
            }
        }
        denies
    }
}

/// Everything by which a key can be denied.
fn names_of(key: &PublicKey) -> [Denied; 3] {
    [
        Denied::Key(key.id()),
        Denied::Rnode(key.rnode_id()),
        Denied::Invitation(key.invitation_id()),
    ]
}

/// Content and signer's chain: a second signature of the same signer makes no second notice.
fn id_of(signed: &SignedNotice) -> Digest {
    let mut bytes = Vec::new();
    for part in std::iter::once(&signed.payload).chain(&signed.chain) {
        bytes.extend_from_slice(Digest::of(part).as_bytes());
    }
    Digest::of(&bytes)
}

/// Who signed, if they may: a root key, or an operator of everything.
fn judge(
    signed: &SignedNotice,
    notice: &Notice,
    charter: &Charter,
    denies: &Denies,
) -> Result<Signer, Refusal> {
    if notice.owner != charter.owner() {
        return Err(Refusal::ForeignOwner(charter.owner()));
    }
    if signed.chain.is_empty() {
        let message = [NOTICE_CONTEXT, &signed.payload].concat();
        let by_root = charter
            .roots()
            .iter()
            .any(|root| root.verify(&message, &signed.signature).is_ok());
        return by_root.then_some(Signer::Root).ok_or(Refusal::BadSignature);
    }
    let thing = Signed {
        context: NOTICE_CONTEXT,
        payload: &signed.payload,
        signature: &signed.signature,
        chain: &signed.chain,
    };
    let principal = verify_signed(&thing, charter, denies, Moment::Kept)?;
    if notice.denied.is_empty() && matches!(principal.who, Who::Host { .. }) {
        if !principal.verbs.has(Verb::Host) {
            return Err(Refusal::LacksVerb(Verb::Host));
        }
        return Ok(Signer::Host(principal.to_string(), principal.prefix));
    }
    may_deny(&principal)?;
    Ok(Signer::Operator(principal.to_string()))
}

fn may_deny(principal: &Principal) -> Result<(), Refusal> {
    if !matches!(principal.who, Who::Operator { .. }) {
        return Err(Refusal::WrongUse("certificate that is not an operator's"));
    }
    if !principal.verbs.has(Verb::Operator) {
        return Err(Refusal::LacksVerb(Verb::Operator));
    }
    if principal.prefix != Prefix::EVERYTHING {
        return Err(Refusal::NamesExtended);
    }
    Ok(())
}
