//! What a rotation carries over of what the replaced root certified: what may still serve somebody.
//!
//! Left out is what the root denied, unless rnodes came in by it: those are to hear that they are denied, or a voucher stands
//! for them. What has only ended stays while there is room: a document that was accepted counts without the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crux_core::digest::Digest;
use crux_core::identity::{
    CARRIED_MAX, Charter, Denies, Enrols, GRANT_LIFE_MAX_SECONDS, PublicKey, Role, UnixTime,
    is_signed_by,
};

use crate::identity::files::{self, decode_chain};
use crate::identity::issued::{Issued, IssuedCertificate};
use crate::identity::{Error, Trust, enrolled_chain};

/// Digests of what a successor of `charters` carries over, and how many were left out only because there is no more room.
///
/// # Errors
/// [`Error::Full`] when more than [`CARRIED_MAX`] may still let somebody in; [`Error::Io`].
pub(crate) fn carried(
    home: &Path,
    charters: &[&Charter],
    trust: &Trust,
) -> Result<(BTreeSet<Digest>, usize), Error> {
    let stands = |der: &[u8]| charters.iter().any(|charter| charter.vouches_for(der));
    let denied = trust.notices_of_root().into_iter();
    let denied: Denies = denied.flat_map(|notice| notice.denied).collect();
    let invited = Issued::by_operator(home).list()?;
    let carried = charters.iter().flat_map(|charter| charter.carried());
    let mut kept: BTreeMap<Digest, Serves> =
        carried.map(|digest| (*digest, Serves::Somebody)).collect();
    for held in Issued::at(home).list()? {
        if stands(&held.der) {
            kept.insert(Digest::of(&held.der), serves(&held, &denied, &invited));
        }
    }
    for held in Issued::erased(home).list()? {
        kept.insert(Digest::of(&held.der), Serves::Nobody);
    }
    for der in in_use(home, trust)? {
        if stands(&der) {
            kept.insert(Digest::of(&der), Serves::Somebody);
        }
    }
    choose(kept, trust.clock().now())
}

/// Whom a certificate below the root may still serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serves {
    /// Whoever came in by it, for ever.
    Somebody,
    /// Nobody: it is denied.
    Nobody,
    /// Nobody acts by it after this moment; what was signed before counts.
    Until(UnixTime),
}

fn serves(held: &IssuedCertificate, denied: &Denies, invited: &[IssuedCertificate]) -> Serves {
    let until = match &held.grant.role {
        Role::Operator { .. } if enrolled_any(held, invited) => return Serves::Somebody,
        Role::Operator { .. } => held.validity.until,
        Role::Invitation { enrols, .. } if *enrols != Enrols::Rnode => {
            held.grant.claim_by.plus(GRANT_LIFE_MAX_SECONDS)
        }
        _ => return Serves::Somebody,
    };
    match denied.find(&held.key) {
        Some(_) => Serves::Nobody,
        None => Serves::Until(until),
    }
}

/// Whether an invitation of rnodes was made by this grant of an operator.
fn enrolled_any(operator: &IssuedCertificate, invited: &[IssuedCertificate]) -> bool {
    invited.iter().any(|made| {
        let role = &made.grant.role;
        matches!(role, Role::Invitation { enrols, .. } if *enrols == Enrols::Rnode)
            && operator.validity.contains(made.validity.from)
            && is_signed_by(&made.der, &operator.key)
    })
}

/// Leaves out what serves nobody and, as far as there is no room, what ended first.
fn choose(
    kept: BTreeMap<Digest, Serves>,
    now: UnixTime,
) -> Result<(BTreeSet<Digest>, usize), Error> {
    let mut ended: Vec<(UnixTime, Digest)> = Vec::new();
    let mut carried = BTreeSet::new();
    for (digest, serves) in kept {
        match serves {
            Serves::Nobody => continue,
            Serves::Until(until) if until < now => ended.push((until, digest)),
            Serves::Until(_) | Serves::Somebody => {}
        }
        carried.insert(digest);
    }
    ended.sort_unstable();
    let surplus = carried.len().saturating_sub(CARRIED_MAX);
    if surplus > ended.len() {
        return Err(Error::Full(
            "a charter carries over 256 at most, and more than that may still let somebody in",
        ));
    }
    for (_, digest) in &ended[..surplus] {
        carried.remove(digest);
    }
    Ok((carried, surplus))
}

/// What stands at the top of chains that lie here or were passed on, whoever made it.
fn in_use(home: &Path, trust: &Trust) -> Result<Vec<Vec<u8>>, Error> {
    let mut paths = vec![
        home.join("operator/grant"),
        home.join("base/identity/chain"),
    ];
    if let Ok(entries) = std::fs::read_dir(home.join("base/identity/hosts")) {
        paths.extend(entries.filter_map(Result::ok).map(|entry| entry.path()));
    }
    let authority = trust.authority();
    let notices = authority.notices.into_iter().map(|notice| notice.chain);
    let verdicts = authority.verdicts.into_iter().map(|verdict| verdict.chain);
    let mut chains: Vec<Vec<Vec<u8>>> = notices.chain(verdicts).collect();
    for path in paths {
        let chain = files::read(&path)?.and_then(|bytes| decode_chain(&bytes));
        chains.extend(chain);
    }
    Ok(chains
        .into_iter()
        .filter_map(|mut chain| chain.pop())
        .collect())
}

/// Forgets what was erased, once `charter` does not carry it any more.
pub(crate) fn forget_erased(home: &Path, charter: &Charter) -> Result<(), Error> {
    let is_left = |held: &IssuedCertificate| !charter.carried().contains(&Digest::of(&held.der));
    Issued::erased(home).forget(is_left)
}

/// Forgets what was certified to the base rnode of `home`, whose key is about to be erased, with all that it hosted: it can
/// serve nobody any more.
///
/// Its grants to host go, and the invitation by which it came in once nobody may claim that.
///
/// # Errors
/// [`Error::Io`]; repeated, it finishes.
pub(crate) fn forget_base(home: &Path, charter: &Charter, now: UnixTime) -> Result<(), Error> {
    let chain = enrolled_chain(&home.join("base/identity")).unwrap_or_default();
    let Some(base) = chain.first() else {
        return Ok(());
    };
    let base = PublicKey::of_certificate(base)?;
    let hosts = |held: &IssuedCertificate| held.grant.role == Role::Host && held.key == base;
    // Ordering: what a charter carries it says by a digest alone, so what that was is written down before it goes.
    for held in Issued::at(home).list()?.into_iter().filter(hosts) {
        if charter.carried().contains(&Digest::of(&held.der)) {
            Issued::erased(home).keep(&held.der)?;
        }
    }
    Issued::at(home).forget(hosts)?;
    if let Some(invitation) = chain.get(1) {
        let invited = Issued::by_operator(home).list()?;
        if invited.iter().any(|held| held.der == *invitation) {
            Issued::used(home).keep(invitation)?;
        }
    }
    forget_used(home, now)
}

/// Forgets the invitations of bases that are gone, once nobody may claim them: until then the next base is handed them.
pub(crate) fn forget_used(home: &Path, now: UnixTime) -> Result<(), Error> {
    let is_over = |held: &IssuedCertificate| held.settled_from(held.grant.claim_by) <= now;
    let mut over = Issued::used(home).list()?;
    over.retain(is_over);
    Issued::by_operator(home).forget(|held| over.iter().any(|used| used.der == held.der))?;
    Issued::used(home).forget(is_over)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crux_core::identity::{Denied, Grant, Prefix, Verb, Verbs, Window};
    use crux_core::names::Label;

    use crate::identity::SecretKey;
    use crate::identity::issue::issue;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::from_seconds(seconds)
    }

    fn digest(number: usize) -> Digest {
        Digest::of(&number.to_be_bytes())
    }

    #[test]
    fn what_is_denied_goes_at_once_and_what_has_ended_as_far_as_there_is_no_room() {
        let somebody = (0..CARRIED_MAX - 6).map(|number| (number, Serves::Somebody));
        let going_on = [(1_000, Serves::Until(at(101)))];
        let ended = (1..=20).map(|second| {
            let until = Serves::Until(at(u64::try_from(second).unwrap()));
            (2_000 + second, until)
        });
        let denied = (3_000..3_005).map(|number| (number, Serves::Nobody));
        let all: BTreeMap<Digest, Serves> = somebody
            .chain(going_on)
            .chain(ended)
            .chain(denied)
            .map(|(number, serves)| (digest(number), serves))
            .collect();
        let (carried, left_out) = choose(all.clone(), at(100)).unwrap();
        assert_eq!((carried.len(), left_out), (CARRIED_MAX, 15));
        assert!(carried.contains(&digest(1_000)));
        let kept = (1..=20).filter(|second| carried.contains(&digest(2_000 + second)));
        assert_eq!(kept.collect::<Vec<_>>(), [16, 17, 18, 19, 20]);
        // With room, what has ended stays: what it signed counts.
        let few = all.into_iter().filter(|(_, of)| *of != Serves::Somebody);
        let (carried, left_out) = choose(few.collect(), at(100)).unwrap();
        assert_eq!((carried.len(), left_out), (21, 0));
        let many = (0..=CARRIED_MAX).map(|number| (digest(number), Serves::Somebody));
        let refused = choose(many.collect(), at(100));
        assert!(matches!(refused, Err(Error::Full(_))), "{refused:?}");
    }

    #[test]
    fn an_operator_by_whom_rnodes_came_in_serves_them_denied_and_ended_or_not() {
        let (root, operator) = (
            SecretKey::generate().unwrap(),
            SecretKey::generate().unwrap(),
        );
        let throwaway = SecretKey::generate().unwrap();
        let label = Label::new("bob").unwrap();
        let everything = Verbs::of(&[Verb::Operator, Verb::Invite]);
        let grant = Grant::new(Role::Operator { label }, everything, Prefix::EVERYTHING);
        let made = |from, until| {
            let validity = Window {
                from: at(from),
                until: at(until),
            };
            let der = issue(&grant, validity, operator.public(), &root).unwrap();
            IssuedCertificate::read(der).unwrap()
        };
        let invitation = Grant {
            role: Role::Invitation {
                enrols: Enrols::Rnode,
                label: None,
            },
            uses: 1,
            claim_by: at(160),
            ..Grant::new(Role::Host, Verbs::NONE, Prefix::namespace(Label::base()))
        };
        let validity = Window {
            from: at(150),
            until: at(160),
        };
        let der = issue(&invitation, validity, throwaway.public(), &operator).unwrap();
        let invited = [IssuedCertificate::read(der).unwrap()];
        let denied: Denies = [Denied::Key(operator.public().id())].into_iter().collect();
        let (before, then) = (made(10, 100), made(110, 200));
        let none = Denies::default();
        assert_eq!(serves(&before, &none, &invited), Serves::Until(at(100)));
        assert_eq!(serves(&before, &denied, &invited), Serves::Nobody);
        for denies in [&none, &denied] {
            assert_eq!(serves(&then, denies, &invited), Serves::Somebody);
        }
        assert_eq!(serves(&then, &none, &[]), Serves::Until(at(200)));
    }

    #[test]
    fn the_invitation_of_a_base_that_is_gone_is_forgotten_once_it_is_settled() {
        let home = std::env::temp_dir().join(format!("carried-{}", std::process::id()));
        std::fs::create_dir_all(home.join("owner")).unwrap();
        let root = SecretKey::generate().unwrap();
        let charter = crate::identity::succession::first(&home.join("owner"), &root).unwrap();
        let invite = |claim_by: u64| {
            let grant = Grant {
                role: Role::Invitation {
                    enrols: Enrols::Rnode,
                    label: Some(Label::base()),
                },
                uses: 1,
                claim_by: at(claim_by),
                ..Grant::new(Role::Host, Verbs::NONE, Prefix::namespace(Label::base()))
            };
            let validity = Window {
                from: at(10_000),
                until: at(claim_by),
            };
            let key = SecretKey::generate().unwrap();
            let der = issue(&grant, validity, key.public(), &root).unwrap();
            Issued::by_operator(&home).keep(&der).unwrap();
            der
        };
        // The base came in by the first; the second, alike, is somebody else's.
        let (used, other) = (invite(20_000), invite(20_001));
        let chain = files::encode_chain(&[other.clone(), used.clone()]);
        std::fs::create_dir_all(home.join("base/identity")).unwrap();
        std::fs::write(home.join("base/identity/chain"), chain).unwrap();
        let kept = |der: &[u8]| {
            let invited = Issued::by_operator(&home).list().unwrap();
            invited.iter().any(|held| held.der == der)
        };
        forget_base(&home, &charter, at(19_000)).unwrap();
        assert!(kept(&used) && kept(&other), "a thief may claim it still");
        std::fs::remove_dir_all(home.join("base")).unwrap();
        forget_used(&home, at(19_000)).unwrap();
        assert!(kept(&used));
        forget_used(&home, at(90_000)).unwrap();
        assert!(!kept(&used) && kept(&other));
        assert!(Issued::used(&home).list().unwrap().is_empty());
        std::fs::remove_dir_all(&home).unwrap();
    }
}
