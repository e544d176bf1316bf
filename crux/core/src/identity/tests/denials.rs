//! The deny list: who may deny, what counts, and that order does not matter. And what a new charter carries over.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::world::*;
use crate::digest::Digest;
use crate::identity::{
    CARRIED_MAX, Charter, Denials, Denied, NOTICE_CONTEXT, NOTICE_DENIED_MAX, Notice, Novelty,
    Prefix, REASON_BYTES_MAX, Refusal, Role, SignedNotice, Verb, Verbs,
};
use crate::names::RnodeId;

fn notice(world: &World, denied: Vec<Denied>) -> Notice {
    Notice {
        owner: world.charter.owner(),
        at: NOW,
        denied,
        closed: Vec::new(),
        reason: "stolen".to_owned(),
    }
}

fn signed(notice: &Notice, key: &Key, chain: Vec<Vec<u8>>) -> SignedNotice {
    let payload = notice.encode();
    let signature = key.sign(&[NOTICE_CONTEXT, &payload].concat());
    SignedNotice {
        payload,
        signature,
        chain,
    }
}

fn some(byte: u8) -> Denied {
    Denied::Rnode(RnodeId::from_bytes([byte; 32]))
}

/// An operator of everything, with a key of its own.
fn operator_of(world: &World) -> (Key, Vec<Vec<u8>>) {
    let key = Key::new();
    let chain = vec![world.root.certify(&key, &operator(), long())];
    (key, chain)
}

fn succession(world: &World, new: &Key, carried: &BTreeSet<Digest>) -> Charter {
    let payload = world.charter.successor_payload(&[new.public()], carried);
    let message = Charter::message(&payload);
    let signatures = [&world.root, new].map(|key| (key.public(), key.sign(&message)));
    let next = Charter::assemble(&payload, &signatures);
    world.charter.succeed(&next).expect("a successor")
}

#[test]
fn a_notice_reads_back_and_nothing_else_does() {
    let world = World::new();
    let whole = notice(&world, vec![some(1), some(2)]);
    let bytes = whole.encode();
    assert_eq!(Notice::decode(&bytes).as_ref(), Ok(&whole));
    for cut in 0..bytes.len() {
        assert!(Notice::decode(&bytes[..cut]).is_err());
    }
    assert!(Notice::decode(&[bytes, vec![0]].concat()).is_err());
    let none = notice(&world, Vec::new());
    let many = notice(&world, vec![some(1); NOTICE_DENIED_MAX + 1]);
    let mut long = notice(&world, vec![some(1)]);
    long.reason = "x".repeat(REASON_BYTES_MAX + 1);
    for wrong in [none, many, long] {
        assert!(Notice::decode(&wrong.encode()).is_err());
    }
}

#[test]
fn root_and_operator_may_deny_and_nobody_else() {
    let mut world = World::new();
    let rnode = world.nested("stix", "n1");
    let shown = rnode.with_leaf(NOW);
    assert!(world.judge(&shown).is_ok());
    let what = notice(&world, vec![Denied::Rnode(rnode.key.public().rnode_id())]);
    let mut list = Denials::default();

    let stranger = Key::new();
    let by_stranger = signed(&what, &stranger, Vec::new());
    let by_rnode = signed(&what, &rnode.key, rnode.chain.clone());
    let by_base = signed(&what, &world.base, world.host_chain("stix"));
    let mut narrow = operator();
    narrow.prefix = Prefix::namespace(label("stix"));
    let narrow = vec![world.root.certify(&world.operator, &narrow, long())];
    let by_narrow = signed(&what, &world.operator, narrow);
    let tool = crate::identity::Grant::new(
        Role::Tool { label: label("t") },
        Verbs::of(&[Verb::Tool]),
        Prefix::EVERYTHING,
    );
    let tool = vec![world.root.certify(&stranger, &tool, long())];
    let by_tool = signed(&what, &stranger, tool);
    let foreign = Notice {
        owner: World::new().charter.owner(),
        ..what.clone()
    };
    let foreign = signed(&foreign, &world.root, Vec::new());
    let mut bent = signed(&what, &world.root, Vec::new());
    bent.payload[40] ^= 1;
    for wrong in [
        by_stranger,
        by_rnode,
        by_base,
        by_narrow,
        by_tool,
        foreign,
        bent,
    ] {
        assert!(list.add(&wrong, &world.charter).is_err());
        assert!(list.is_empty());
    }

    let by_operator = signed(&what, &world.operator, world.operator_chain());
    assert_eq!(list.add(&by_operator, &world.charter), Ok(Novelty::New));
    assert_eq!(list.add(&by_operator, &world.charter), Ok(Novelty::Known));
    let by_root = signed(&what, &world.root, Vec::new());
    assert_eq!(list.add(&by_root, &world.charter), Ok(Novelty::New));
    world.denies = list.denies(&world.charter);
    assert_eq!(
        world.judge(&shown),
        Err(Refusal::Denied(what.denied[0])),
        "whoever shows it, and its processes"
    );
    assert!(
        world
            .judge(&world.nested("stix", "n2").with_leaf(NOW))
            .is_ok()
    );
}

#[test]
fn a_root_overrules_operators_and_is_never_denied_itself() {
    let mut world = World::new();
    let (ann, ann_chain) = operator_of(&world);
    let (bob, bob_chain) = operator_of(&world);
    let mut list = Denials::default();
    let root = Denied::Key(world.root.public().id());
    let by_ann = notice(&world, vec![Denied::Key(bob.public().id()), root]);
    let by_bob = notice(&world, vec![Denied::Key(ann.public().id()), some(7)]);
    let ann_signed = signed(&by_ann, &ann, ann_chain);
    let bob_signed = signed(&by_bob, &bob, bob_chain);
    list.add(&ann_signed, &world.charter).expect("ann may");
    list.add(&bob_signed, &world.charter).expect("bob may");
    let denies = list.denies(&world.charter);
    assert_eq!(
        denies.iter().count(),
        3,
        "both count, but not against the root"
    );
    assert_eq!(denies.find(&world.root.public()), None);

    let against_bob = notice(&world, vec![Denied::Key(bob.public().id())]);
    let by_root = signed(&against_bob, &world.root, Vec::new());
    list.add(&by_root, &world.charter).expect("the root may");
    world.denies = list.denies(&world.charter);
    assert_eq!(
        world.denies.find(&ann.public()),
        None,
        "bob's word is worth nothing now"
    );
    assert!(list.add(&bob_signed, &world.charter).is_err());
    assert_eq!(list.len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn two_lists_that_exchange_what_they_hold_are_equal(order in Just((0..8_usize).collect::<Vec<_>>()).prop_shuffle(), split in 0..8_usize) {
        let world = World::new();
        let operators: Vec<_> = (0..3).map(|_| operator_of(&world)).collect();
        let mut notices = Vec::new();
        for (at, (key, chain)) in operators.iter().enumerate() {
            let next = operators[(at + 1) % 3].0.public().id();
            let against = notice(&world, vec![Denied::Key(next)]);
            notices.push(signed(&against, key, chain.clone()));
            let other = notice(&world, vec![some(u8::try_from(at).expect("small"))]);
            notices.push(signed(&other, key, chain.clone()));
        }
        let root_says = notice(&world, vec![Denied::Key(operators[0].0.public().id())]);
        notices.push(signed(&root_says, &world.root, Vec::new()));
        let root_says = notice(&world, vec![some(9)]);
        notices.push(signed(&root_says, &world.root, Vec::new()));
        let (mut one, mut other) = (Denials::default(), Denials::default());
        for (at, which) in order.iter().enumerate() {
            let into = if at < split { &mut one } else { &mut other };
            let _ = into.add(&notices[*which], &world.charter);
        }
        let (from_one, from_other): (Vec<_>, Vec<_>) =
            (one.signed().cloned().collect(), other.signed().cloned().collect());
        for signed in &from_other { let _ = one.add(signed, &world.charter); }
        for signed in &from_one { let _ = other.add(signed, &world.charter); }
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(one.fingerprint(), other.fingerprint());
        let mut all = Denials::default();
        for signed in &notices { let _ = all.add(signed, &world.charter); }
        prop_assert_eq!(all.denies(&world.charter), one.denies(&world.charter));
    }
}

#[test]
fn a_successor_counts_what_it_carries_over_and_nothing_else_of_the_old_root() {
    let mut world = World::new();
    let carried_host = world.host_chain("stix");
    let (enrolled, other) = (world.nested("stix", "n1"), world.nested("stix", "n2"));
    // Each call of the rig makes the host's certificate anew: n1 keeps its own, n2 is not carried over.
    let top = enrolled.chain.last().expect("the host's grant");
    assert_ne!(top, &carried_host[0]);
    let mut list = Denials::default();
    let what = notice(&world, vec![some(1)]);
    let by_old = signed(&what, &world.root, Vec::new());
    list.add(&by_old, &world.charter).expect("the root may");
    let new = Key::new();
    world.charter = succession(&world, &new, &BTreeSet::from([Digest::of(top)]));
    assert_eq!(
        Charter::decode(world.charter.encoded()).as_ref(),
        Ok(&world.charter)
    );
    assert!(world.judge(&enrolled.with_leaf(NOW)).is_ok());
    let refused = Err(Refusal::ForeignOwner(world.charter.owner()));
    assert_eq!(world.judge(&other.with_leaf(NOW)), refused);
    // A certificate that says the same but has other bytes is another one.
    let mut bent = enrolled.with_leaf(NOW);
    let last = bent.len() - 1;
    let at = bent[last].len() - 1;
    bent[last][at] ^= 1;
    assert!(world.judge(&bent).is_err());
    // What the old root denied is the new one's to say again.
    list.settle(&world.charter);
    assert!(list.is_empty());
    assert!(list.add(&by_old, &world.charter).is_err());
    let by_new = signed(&what, &new, Vec::new());
    assert_eq!(list.add(&by_new, &world.charter), Ok(Novelty::New));
}

#[test]
fn a_charter_that_carries_too_much_or_out_of_order_is_not_read() {
    let world = World::new();
    let new = Key::new();
    let assemble = |carried: &BTreeSet<Digest>, bend: fn(&mut Vec<u8>)| {
        let mut payload = world.charter.successor_payload(&[new.public()], carried);
        bend(&mut payload);
        let message = Charter::message(&payload);
        let signatures = [&world.root, &new].map(|key| (key.public(), key.sign(&message)));
        Charter::assemble(&payload, &signatures)
    };
    let digests = |count: usize| -> BTreeSet<Digest> {
        (0..count).map(|at| Digest::of(&at.to_be_bytes())).collect()
    };
    let most = assemble(&digests(CARRIED_MAX), |_| {});
    assert!(world.charter.succeed(&most).is_ok());
    let more = assemble(&digests(CARRIED_MAX + 1), |_| {});
    assert!(world.charter.succeed(&more).is_err());
    let swapped = assemble(&digests(2), |payload| {
        let at = payload.len() - 64;
        payload[at..].rotate_left(32);
    });
    assert!(world.charter.succeed(&swapped).is_err());
}
