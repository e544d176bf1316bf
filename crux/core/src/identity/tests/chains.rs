//! Each rule of the chain, kept and broken.

use std::collections::BTreeSet;

use super::world::*;
use crate::identity::{
    Charter, DOCUMENT_CONTEXT, Denied, Enrols, Grant, LEAF_LIFE_SECONDS, Moment, NEVER, Prefix,
    PublicKey, Refusal, Role, Signed, Verb, Verbs, Who, Window, verify_document, verify_signed,
};

fn with_leaf(key: &Key, grant: &Grant, chain: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut chain = chain;
    chain.insert(0, key.certify(&Key::new(), &leaf(grant), leaf_window(NOW)));
    chain
}

#[test]
fn each_kind_of_chain_gives_its_principal() {
    let world = World::new();
    let n1 = world.nested("stix", "n1");
    let found = world.judge(&n1.with_leaf(NOW)).expect("n1");
    let Who::Rnode {
        namespace,
        id,
        label: name,
        claim,
    } = &found.who
    else {
        panic!("{found}")
    };
    assert_eq!(
        (namespace.as_str(), *id, name.as_str(), claim.ordinal),
        ("stix", n1.key.public().rnode_id(), "n1", 0)
    );
    assert_eq!(claim.invitation, n1.throwaway.public().invitation_id());
    assert_eq!(found.verbs, Verbs::of(&[Verb::Peer]));

    let process = world
        .judge(&n1.with(&app("stix", "prog1", 4), leaf_window(NOW)))
        .expect("a process");
    assert_eq!(process.to_string(), "stix/stix/prog1/4");
    assert!(matches!(process.who, Who::App { rnode, .. } if rnode == n1.key.public().rnode_id()));
    assert_eq!(process.verbs, Verbs::of(&[Verb::App]));

    let person = world
        .judge(&with_leaf(
            &world.operator,
            &operator(),
            world.operator_chain(),
        ))
        .expect("the operator");
    assert!(matches!(person.who, Who::Operator { .. }));
    assert!(person.may(Verb::Operator, &label("stix")).is_ok());

    let base = world
        .judge(&with_leaf(
            &world.base,
            &host("stix"),
            world.host_chain("stix"),
        ))
        .expect("the host");
    assert_eq!(
        base.who,
        Who::Host {
            id: world.base.public().rnode_id()
        }
    );
    assert!(base.may(Verb::Host, &label("stix")).is_ok());
    assert_eq!(
        base.may(Verb::Host, &label("other")),
        Err(Refusal::OutOfReach(label("other")))
    );
}

// Shows in part: SEC-01
#[test]
fn n1_cannot_act_as_n2() {
    let world = World::new();
    let (n1, n2) = (world.nested("stix", "n1"), world.nested("stix", "n2"));
    // A leaf by n1's key before n2's chain.
    let mut posed = n1.with_leaf(NOW);
    posed.splice(1.., n2.chain);
    assert_eq!(world.judge(&posed), Err(Refusal::BadSignature));
    // n1 enrols a key of its own under n2's name.
    let own = Key::new();
    let mut posed = n1.with(&rnode("stix", "n2", 0), always());
    assert!(matches!(
        world.judge(&posed),
        Err(Refusal::ChainTooLong(_) | Refusal::RoleNotAllowed { .. })
    ));
    // The same without the host above, as a shorter chain.
    posed.truncate(3);
    assert!(matches!(world.judge(&posed), Err(Refusal::ForeignOwner(_))));
    // n1's own throwaway key, for n2's name.
    let enrolment = n1
        .throwaway
        .certify(&own, &rnode("stix", "n2", 0), always());
    let mut posed = vec![
        own.certify(&Key::new(), &leaf(&n1.grant), leaf_window(NOW)),
        enrolment,
    ];
    posed.extend(n1.chain[1..].iter().cloned());
    assert_eq!(
        world.judge(&posed),
        Err(Refusal::WrongLabel {
            invited: label("n1"),
            taken: label("n2")
        })
    );
}

// Shows in part: SEC-01
#[test]
fn a_rnode_cannot_act_as_an_application_of_another_namespace_or_by_its_own_leaf() {
    let world = World::new();
    let n1 = world.nested("stix", "n1");
    assert_eq!(
        world.judge(&n1.with(&app("other", "prog1", 0), leaf_window(NOW))),
        Err(Refusal::NamesExtended)
    );
    let dressed = Grant::new(Role::Leaf, Verbs::of(&[Verb::App]), n1.grant.prefix.clone());
    assert_eq!(
        world.judge(&n1.with(&dressed, leaf_window(NOW))),
        Err(Refusal::RightsExtended)
    );
    // Its plain leaf is a rnode's, with no right of an application.
    let principal = world.judge(&n1.with_leaf(NOW)).expect("n1");
    assert_eq!(
        principal.may(Verb::App, &label("stix")),
        Err(Refusal::LacksVerb(Verb::App))
    );
    // And a leaf vouches for nobody.
    let leaf_key = Key::new();
    let leaf_certificate = n1
        .key
        .certify(&leaf_key, &leaf(&n1.grant), leaf_window(NOW));
    let below = leaf_key.certify(&Key::new(), &app("stix", "prog1", 0), leaf_window(NOW));
    let base_rnode = root_invited(&world);
    let shorter = vec![
        below.clone(),
        base_rnode
            .key
            .certify(&leaf_key, &leaf(&base_rnode.grant), leaf_window(NOW)),
    ];
    let chain: Vec<Vec<u8>> = shorter.into_iter().chain(base_rnode.chain).collect();
    assert_eq!(
        world.judge(&chain),
        Err(Refusal::RoleNotAllowed {
            issuer: "leaf",
            subject: "process"
        })
    );
    let chain: Vec<Vec<u8>> = [below, leaf_certificate]
        .into_iter()
        .chain(n1.chain)
        .collect();
    assert_eq!(world.judge(&chain), Err(Refusal::ChainTooLong(5)));
}

/// A rnode invited by the root itself: a chain with room for one more.
fn root_invited(world: &World) -> Rnode {
    let (throwaway, key) = (Key::new(), Key::new());
    let window = Window {
        from: NOW.minus(1_800),
        until: NOW.plus(DAY),
    };
    let grant = rnode("stix", "n9", 0);
    let chain = vec![
        throwaway.certify(&key, &grant, always()),
        world
            .root
            .certify(&throwaway, &invitation("stix", Some("n9"), 1), window),
    ];
    Rnode {
        key,
        throwaway,
        grant,
        chain,
    }
}

// Shows in part: SEC-01
#[test]
fn a_rnode_cannot_act_as_the_operator() {
    let world = World::new();
    let n9 = root_invited(&world);
    let refused = world.judge(&n9.with(&operator(), long()));
    assert_eq!(
        refused,
        Err(Refusal::RoleNotAllowed {
            issuer: "rnode",
            subject: "operator"
        })
    );
    let dressed = Grant::new(
        Role::Leaf,
        Verbs::of(&[Verb::Peer, Verb::Operator]),
        n9.grant.prefix.clone(),
    );
    assert_eq!(
        world.judge(&n9.with(&dressed, leaf_window(NOW))),
        Err(Refusal::RightsExtended)
    );
    // What it signs is signed by a rnode, who may not sign documents.
    let signature = n9.key.sign(&[DOCUMENT_CONTEXT, b"document"].concat());
    let judged = verify_document(
        (b"document", &signature),
        &n9.chain,
        &world.charter,
        &world.denies,
        Moment::Now(NOW),
    );
    let principal = judged.expect("the signature is good");
    assert_eq!(
        principal.may(Verb::Operator, &label("stix")),
        Err(Refusal::LacksVerb(Verb::Operator))
    );
    // An invitation for a rnode enrols no operator.
    let own = Key::new();
    let mut chain = vec![n9.throwaway.certify(&own, &operator(), long())];
    chain.push(n9.chain[1].clone());
    let chain = with_leaf(&own, &operator(), chain);
    assert_eq!(
        world.judge(&chain),
        Err(Refusal::RoleNotAllowed {
            issuer: "invitation",
            subject: "operator"
        })
    );
}

// Shows in part: SEC-01
#[test]
fn a_foreign_owner_is_refused_whatever_it_says() {
    let (ours, theirs) = (World::new(), World::new());
    let foreign = theirs.nested("stix", "n1").with_leaf(NOW);
    assert_eq!(
        ours.judge(&foreign),
        Err(Refusal::ForeignOwner(ours.charter.owner()))
    );
    assert_ne!(ours.charter.owner(), theirs.charter.owner());
    // Our own upper part above their lower part.
    let n1 = ours.nested("stix", "n1");
    let mixed: Vec<Vec<u8>> = foreign[..2].iter().chain(&n1.chain[1..]).cloned().collect();
    assert_eq!(ours.judge(&mixed), Err(Refusal::BadSignature));
}

#[test]
fn rights_and_names_never_widen_on_the_way_down() {
    let world = World::new();
    let wide = |verbs: &[Verb], pass: &[Verb], namespace: &str| {
        let mut grant = rnode(namespace, "n1", 0).may_grant(Verbs::of(pass));
        grant.verbs = Verbs::of(verbs);
        let invited = invitation("stix", Some("n1"), 1);
        let joiner = world.enrolled(&grant, &invited, Key::new());
        world.judge(&joiner.with(&leaf(&grant), leaf_window(NOW)))
    };
    assert!(wide(&[Verb::Peer], &[Verb::App], "stix").is_ok());
    assert_eq!(
        wide(&[Verb::Peer, Verb::Operator], &[], "stix"),
        Err(Refusal::RightsExtended)
    );
    assert_eq!(
        wide(&[Verb::Peer], &[Verb::Operator], "stix"),
        Err(Refusal::RightsExtended)
    );
    assert_eq!(
        wide(&[Verb::Peer, Verb::ExecAny], &[], "stix"),
        Err(Refusal::RightsExtended)
    );
    assert_eq!(
        wide(&[Verb::Peer], &[Verb::App], "other"),
        Err(Refusal::NamesExtended)
    );
    // A verb of a later release is no exception.
    let mut grant = rnode("stix", "n1", 0);
    grant.verbs = Verbs::from_bits(1 | 1 << 30);
    let later = world.enrolled(&grant, &invitation("stix", Some("n1"), 1), Key::new());
    assert_eq!(
        world.judge(&later.with_leaf(NOW)),
        Err(Refusal::RightsExtended)
    );
    // A host invites only where it was told to, and no operators.
    let throwaway = Key::new();
    let mut chain = vec![
        world
            .base
            .certify(&throwaway, &invitation("other", None, 1), long()),
    ];
    chain.extend(world.host_chain("stix"));
    chain.insert(
        0,
        throwaway.certify(&Key::new(), &rnode("other", "n1", 0), always()),
    );
    assert_eq!(signed_by_nobody(&world, &chain), Refusal::NamesExtended);
    let mut grant = invitation("stix", None, 1);
    grant.role = Role::Invitation {
        enrols: Enrols::Operator,
        label: None,
    };
    let mut chain = vec![world.base.certify(&throwaway, &grant, long())];
    chain.extend(world.host_chain("stix"));
    assert_eq!(
        signed_by_nobody(&world, &chain),
        Refusal::RoleNotAllowed {
            issuer: "host",
            subject: "invitation"
        }
    );
}

/// The refusal of a chain beside a signature that is not looked at any more.
fn signed_by_nobody(world: &World, chain: &[Vec<u8>]) -> Refusal {
    let signed = Signed {
        context: b"",
        payload: b"",
        signature: b"",
        chain,
    };
    verify_signed(&signed, &world.charter, &world.denies, Moment::Now(NOW)).expect_err("refused")
}

#[test]
fn inviting_needs_the_right_to_invite() {
    let world = World::new();
    let mut grant = host("stix");
    grant.verbs = Verbs::of(&[Verb::Host]);
    let throwaway = Key::new();
    let chain = vec![
        throwaway.certify(&Key::new(), &rnode("stix", "n1", 0), always()),
        world
            .base
            .certify(&throwaway, &invitation("stix", None, 1), long()),
        world.root.certify(&world.base, &grant, always()),
    ];
    assert_eq!(
        signed_by_nobody(&world, &chain),
        Refusal::LacksVerb(Verb::Invite)
    );
}

#[test]
fn a_rnode_stands_in_exactly_one_namespace() {
    let world = World::new();
    let throwaway = Key::new();
    let mut everywhere = invitation("stix", Some("n1"), 1);
    everywhere.prefix = Prefix::EVERYTHING;
    let mut grant = rnode("stix", "n1", 0);
    grant.prefix = Prefix::EVERYTHING;
    let window = Window {
        from: NOW.minus(1_800),
        until: NOW.plus(DAY),
    };
    let chain = vec![
        throwaway.certify(&Key::new(), &grant, always()),
        world.root.certify(&throwaway, &everywhere, window),
    ];
    assert_eq!(signed_by_nobody(&world, &chain), Refusal::NotOneNamespace);
}

#[test]
fn a_chain_is_one_to_four_long_and_each_link_is_signed_by_the_next() {
    let world = World::new();
    assert_eq!(world.judge(&[]), Err(Refusal::NoCertificate));
    let n1 = world.nested("stix", "n1");
    let good = n1.with_leaf(NOW);
    let mut longer = good.clone();
    longer.push(good[3].clone());
    assert_eq!(world.judge(&longer), Err(Refusal::ChainTooLong(5)));
    for (one, other) in [(0, 1), (1, 2), (2, 3)] {
        let mut swapped = good.clone();
        swapped.swap(one, other);
        assert!(world.judge(&swapped).is_err());
    }
    for missing in 0..4 {
        let mut shorter = good.clone();
        shorter.remove(missing);
        assert!(world.judge(&shorter).is_err());
    }
    // The same words for a swapped key: signed by someone else.
    let other = Key::new();
    let mut swapped = good;
    swapped[0] = other.certify(&Key::new(), &leaf(&n1.grant), leaf_window(NOW));
    assert_eq!(world.judge(&swapped), Err(Refusal::BadSignature));
}

#[test]
fn a_leaf_ends_and_may_not_last() {
    let world = World::new();
    let n1 = world.nested("stix", "n1");
    let chain = n1.with_leaf(NOW);
    assert!(world.judge_at(&chain, NOW.plus(LEAF_LIFE_SECONDS)).is_ok());
    let ended = NOW.plus(LEAF_LIFE_SECONDS);
    assert_eq!(
        world.judge_at(&chain, ended.plus(1)),
        Err(Refusal::Expired(ended))
    );
    assert!(matches!(
        world.judge_at(&chain, NOW.minus(DAY)),
        Err(Refusal::NotYetValid(_))
    ));
    let lasting = n1.with(
        &leaf(&n1.grant),
        Window {
            from: NOW,
            until: NOW.plus(DAY),
        },
    );
    assert_eq!(world.judge(&lasting), Err(Refusal::LifeTooLong(DAY)));
    let lasting = n1.with(
        &app("stix", "prog1", 0),
        Window {
            from: NOW,
            until: NEVER,
        },
    );
    assert!(matches!(
        world.judge(&lasting),
        Err(Refusal::LifeTooLong(_))
    ));
}

#[test]
fn an_enrolment_outlives_the_grants_that_led_to_it() {
    let world = World::new();
    let year_later = NOW.plus(400 * DAY);
    let n1 = world.nested("stix", "n1");
    assert!(
        world
            .judge_at(&n1.with_leaf(year_later), year_later)
            .is_ok()
    );
    // The base itself, invited by an operator whose grant has long ended.
    let (throwaway, key) = (Key::new(), Key::new());
    let window = Window {
        from: NOW.minus(1_800),
        until: NOW.plus(DAY),
    };
    let grant = rnode("base", "base", 0);
    let mut chain = vec![
        throwaway.certify(&key, &grant, always()),
        world
            .operator
            .certify(&throwaway, &invitation("base", Some("base"), 1), window),
    ];
    chain.extend(world.operator_chain());
    let mut shown = chain.clone();
    shown.insert(
        0,
        key.certify(&Key::new(), &leaf(&grant), leaf_window(year_later)),
    );
    assert!(world.judge_at(&shown, year_later).is_ok());
    // But the operator is refused, and invites nobody any more.
    let mut person = world.operator_chain();
    person.insert(
        0,
        world
            .operator
            .certify(&Key::new(), &leaf(&operator()), leaf_window(year_later)),
    );
    assert!(matches!(
        world.judge_at(&person, year_later),
        Err(Refusal::Expired(_))
    ));
    let late = Window {
        from: year_later,
        until: year_later.plus(DAY),
    };
    let mut invited = invitation("base", Some("base"), 1);
    invited.claim_by = year_later.plus(DAY);
    chain[1] = world.operator.certify(&throwaway, &invited, late);
    chain[0] = throwaway.certify(
        &key,
        &grant,
        Window {
            from: year_later,
            until: NEVER,
        },
    );
    chain.insert(
        0,
        key.certify(&Key::new(), &leaf(&grant), leaf_window(year_later)),
    );
    assert_eq!(
        world.judge_at(&chain, year_later),
        Err(Refusal::InvitedAfterExpiry)
    );
}

#[test]
fn a_document_is_judged_by_the_clock_only_when_it_is_new() {
    let world = World::new();
    let signature = world
        .operator
        .sign(&[DOCUMENT_CONTEXT, b"document"].concat());
    let judge = |payload: &[u8], signature: &[u8], moment| {
        verify_document(
            (payload, signature),
            &world.operator_chain(),
            &world.charter,
            &world.denies,
            moment,
        )
    };
    let year_later = Moment::Now(NOW.plus(400 * DAY));
    assert!(
        judge(b"document", &signature, Moment::Now(NOW))
            .is_ok_and(|who| who.may(Verb::Operator, &label("stix")).is_ok())
    );
    assert!(matches!(
        judge(b"document", &signature, year_later),
        Err(Refusal::Expired(_))
    ));
    assert!(judge(b"document", &signature, Moment::Kept).is_ok());
    assert_eq!(
        judge(b"another", &signature, Moment::Now(NOW)),
        Err(Refusal::BadSignature)
    );
    // A signature over something else, by the same key.
    let bare = world.operator.sign(b"document");
    assert_eq!(
        judge(b"document", &bare, Moment::Now(NOW)),
        Err(Refusal::BadSignature)
    );
    // A leaf signs no documents, and a grant is shown on no connection.
    let leaf_key = Key::new();
    let mut chain = vec![
        world
            .operator
            .certify(&leaf_key, &leaf(&operator()), leaf_window(NOW)),
    ];
    chain.extend(world.operator_chain());
    let signature = leaf_key.sign(&[DOCUMENT_CONTEXT, b"document"].concat());
    let judged = verify_document(
        (b"document", &signature),
        &chain,
        &world.charter,
        &world.denies,
        Moment::Now(NOW),
    );
    assert_eq!(judged, Err(Refusal::WrongUse("leaf")));
    assert_eq!(
        world.judge(&world.operator_chain()),
        Err(Refusal::WrongUse("operator"))
    );
}

// Shows in part: CRT-04
#[test]
fn an_invitation_is_good_for_its_time_its_name_and_its_uses() {
    let world = World::new();
    let judged = |grant: &Grant, invited: &Grant, from| {
        let mut joiner = world.enrolled(grant, invited, Key::new());
        joiner.chain[0] =
            joiner
                .throwaway
                .certify(&joiner.key, grant, Window { from, until: NEVER });
        world.judge_at(&joiner.with_leaf(from), from)
    };
    let pool = invitation("stix", None, 3);
    for ordinal in 0..3 {
        assert!(judged(&rnode("stix", "any", ordinal), &pool, NOW).is_ok());
    }
    assert_eq!(
        judged(&rnode("stix", "any", 3), &pool, NOW),
        Err(Refusal::WrongOrdinal {
            uses: 3,
            ordinal: 3
        })
    );
    assert!(judged(&rnode("stix", "any", 0), &pool, NOW.plus(DAY)).is_ok());
    let late = judged(&rnode("stix", "any", 0), &pool, NOW.plus(DAY + 1));
    assert_eq!(late, Err(Refusal::ClaimedLate(NOW.plus(DAY))));
    assert!(matches!(
        judged(&rnode("stix", "any", 0), &pool, NOW.minus(DAY)),
        Err(Refusal::NotYetValid(_))
    ));
    // The throwaway key itself is nobody.
    let joiner = world.enrolled(&rnode("stix", "n1", 0), &pool, Key::new());
    assert_eq!(
        world.judge(&joiner.chain[1..]),
        Err(Refusal::WrongUse("invitation"))
    );
}

#[test]
fn what_is_denied_no_longer_counts_in_any_role() {
    let mut world = World::new();
    let n1 = world.nested("stix", "n1");
    let n2 = world.nested("stix", "n2");
    let denied = Denied::Rnode(n1.key.public().rnode_id());
    assert!(world.denies.deny(denied) && !world.denies.deny(denied));
    assert_eq!(
        world.judge(&n1.with_leaf(NOW)),
        Err(Refusal::Denied(denied))
    );
    assert!(matches!(
        world.judge(&n1.with(&app("stix", "prog1", 0), leaf_window(NOW))),
        Err(Refusal::Denied(_))
    ));
    assert!(world.judge(&n2.with_leaf(NOW)).is_ok());
    let invitation = Denied::Invitation(n2.throwaway.public().invitation_id());
    world.denies.deny(invitation);
    assert_eq!(
        world.judge(&n2.with_leaf(NOW)),
        Err(Refusal::Denied(invitation))
    );
    world.denies.deny(Denied::Key(world.root.public().id()));
    assert!(matches!(
        world.judge(&world.nested("stix", "n3").with_leaf(NOW)),
        Err(Refusal::Denied(Denied::Key(_)))
    ));
    for denied in world.denies.iter() {
        assert_eq!(denied.to_string().parse(), Ok(*denied));
    }
}

#[test]
fn only_certificates_of_our_profile_are_read() {
    let world = World::new();
    let n1 = world.nested("stix", "n1");
    let ours = crate::identity::OID_COMPONENTS;
    let content = leaf(&n1.grant).encode();
    let judge = |extensions: Vec<(&[u64], bool, Vec<u8>)>| {
        let mut chain = vec![
            n1.key
                .certify_raw(&Key::new(), extensions, leaf_window(NOW)),
        ];
        chain.extend(n1.chain.iter().cloned());
        world.judge(&chain)
    };
    assert!(judge(vec![(&ours, true, content.clone())]).is_ok());
    assert!(
        judge(vec![
            (&ours, true, content.clone()),
            (&[1, 2, 3], false, vec![5, 0])
        ])
        .is_ok()
    );
    assert!(matches!(judge(vec![]), Err(Refusal::Malformed(_))));
    assert!(matches!(
        judge(vec![(&ours, false, content.clone())]),
        Err(Refusal::Malformed(_))
    ));
    assert!(matches!(
        judge(vec![
            (&ours, true, content.clone()),
            (&[1, 2, 3], true, vec![5, 0])
        ]),
        Err(Refusal::Malformed(_))
    ));
    let twice = vec![
        (ours.as_slice(), true, content.clone()),
        (ours.as_slice(), true, content.clone()),
    ];
    assert!(matches!(judge(twice), Err(Refusal::Malformed(_))));
    let mut longer = content;
    longer.push(0);
    assert!(matches!(
        judge(vec![(&ours, true, longer)]),
        Err(Refusal::Malformed(_))
    ));
    assert!(matches!(
        judge(vec![(&ours, true, vec![0; 4_000])]),
        Err(Refusal::Malformed(_))
    ));
    // Another curve.
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let issuer = rcgen::Issuer::new(rcgen::CertificateParams::default(), &n1.key.0);
    let foreign = rcgen::CertificateParams::default()
        .signed_by(&other, &issuer)
        .expect("a certificate");
    assert_eq!(
        world.judge(&[foreign.der().to_vec()]),
        Err(Refusal::NotP256)
    );
    assert!(
        PublicKey::from_spki(&world.root.public().spki())
            .is_ok_and(|key| key == world.root.public())
    );
}

#[test]
fn a_charter_is_followed_only_by_one_its_own_keys_signed() {
    let (old, new, stranger) = (Key::new(), Key::new(), Key::new());
    let charter = charter_of(&old);
    let assemble = |payload: &[u8], keys: &[&Key]| {
        let message = Charter::message(payload);
        let signatures: Vec<_> = keys
            .iter()
            .map(|key| (key.public(), key.sign(&message)))
            .collect();
        Charter::assemble(payload, &signatures)
    };
    let payload = charter.successor_payload(&[new.public()], &BTreeSet::new());
    let next = charter
        .succeed(&assemble(&payload, &[&old, &new]))
        .expect("signed by old and new");
    assert_eq!(
        (next.owner(), next.generation(), next.roots()),
        (charter.owner(), 2, [new.public()].as_slice())
    );
    assert_eq!(Charter::decode(next.encoded()).as_ref(), Ok(&next));
    assert!(matches!(
        charter.succeed(&assemble(&payload, &[&new])),
        Err(Refusal::Charter(_))
    ));
    assert!(matches!(
        charter.succeed(&assemble(&payload, &[&old])),
        Err(Refusal::Charter(_))
    ));
    assert!(matches!(
        charter.succeed(&assemble(&payload, &[&new, &stranger])),
        Err(Refusal::Charter(_))
    ));
    assert!(matches!(
        next.succeed(charter.encoded()),
        Err(Refusal::Charter(_))
    ));
    assert_eq!(
        charter.succeed(charter_of(&stranger).encoded()),
        Err(Refusal::ForeignOwner(charter.owner()))
    );
    // Under the successor, the old root's people are strangers.
    let mut world = World::new();
    let payload = world
        .charter
        .successor_payload(&[new.public()], &BTreeSet::new());
    world.charter = world
        .charter
        .succeed(&assemble(&payload, &[&world.root, &new]))
        .expect("a successor");
    assert!(matches!(
        world.judge(&world.nested("stix", "n1").with_leaf(NOW)),
        Err(Refusal::ForeignOwner(_))
    ));
    // The first charter is named after its keys.
    let mut forged = charter.encoded().to_vec();
    forged[1] ^= 1;
    assert!(matches!(Charter::decode(&forged), Err(Refusal::Charter(_))));
}

#[test]
fn an_invitation_valid_beyond_its_claim_by_says_how_long_a_tool_stays() {
    let world = World::new();
    let (throwaway, key) = (Key::new(), Key::new());
    let judged = |days_beyond: u64, seconds: u64| {
        let invited = Window {
            from: NOW.minus(1_800),
            until: NOW.plus(DAY).plus(days_beyond * DAY),
        };
        let stays = Window {
            from: NOW,
            until: NOW.plus(seconds),
        };
        let mut chain = vec![
            key.certify(&Key::new(), &leaf(&tool("stix")), leaf_window(NOW)),
            throwaway.certify(&key, &tool("stix"), stays),
            world
                .operator
                .certify(&throwaway, &tool_invitation("stix"), invited),
        ];
        chain.extend(world.operator_chain());
        world.judge(&chain).map(|seen| seen.verbs)
    };
    let may = Ok(tool("stix").verbs);
    assert_eq!(judged(7, 7 * DAY), may);
    assert_eq!(
        judged(7, 7 * DAY + 1),
        Err(Refusal::LifeTooLong(7 * DAY + 1))
    );
    // As it was made before there was such a term: 90 days and a day of grace.
    assert_eq!(judged(0, 91 * DAY), may);
    assert!(judged(0, 92 * DAY).is_err());
}
