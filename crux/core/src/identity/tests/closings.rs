//! Closings: who may sign them, over which names, and that they keep exactly the claims they list.

use std::collections::BTreeMap;

use super::world::*;
use crate::identity::{
    CLOSING_CLAIMS_MAX, Closing, Denials, Denied, NOTICE_CLOSED_MAX, NOTICE_CONTEXT, Notice,
    Novelty, Refusal, SignedNotice, verify_invitation,
};
use crate::names::RnodeId;

fn closing_of(pool: &Rnode, claims: &[(u32, RnodeId)]) -> Closing {
    Closing {
        invitation: pool.throwaway.public().invitation_id(),
        claims: claims.iter().copied().collect(),
    }
}

fn notice(world: &World, closed: Vec<Closing>) -> Notice {
    Notice {
        owner: world.charter.owner(),
        at: NOW,
        denied: Vec::new(),
        closed,
        reason: "nobody came".to_owned(),
    }
}

fn by_host(world: &World, notice: &Notice, namespace: &str) -> SignedNotice {
    let payload = notice.encode();
    SignedNotice {
        signature: world.base.sign(&[NOTICE_CONTEXT, &payload].concat()),
        payload,
        chain: world.host_chain(namespace),
    }
}

/// Two who came in by one pool.
fn two(world: &World) -> (Rnode, Rnode) {
    let pool = invitation("stix", None, 3);
    let first = world.enrolled(&rnode("stix", "n1", 0), &pool, Key::new());
    let key = Key::new();
    let mut chain = first.chain.clone();
    let grant = rnode("stix", "n2", 1);
    chain[0] = first.throwaway.certify(&key, &grant, always());
    let second = Rnode {
        key,
        throwaway: Key::new(),
        grant,
        chain,
    };
    (first, second)
}

#[test]
fn a_notice_with_closings_reads_back_and_nothing_else_does() {
    let world = World::new();
    let (first, _) = two(&world);
    let id = |byte| RnodeId::from_bytes([byte; 32]);
    let whole = notice(&world, vec![closing_of(&first, &[(0, id(1)), (7, id(2))])]);
    let bytes = whole.encode();
    assert_eq!(Notice::decode(&bytes).as_ref(), Ok(&whole));
    for cut in 0..bytes.len() {
        assert!(Notice::decode(&bytes[..cut]).is_err());
    }
    assert!(Notice::decode(&[bytes.clone(), vec![0]].concat()).is_err());
    // The two claims the other way round say the same with other bytes.
    let mut turned = bytes;
    let at = turned.len() - 72;
    turned[at..].rotate_left(36);
    assert!(Notice::decode(&turned).is_err());
    let some = closing_of(&first, &[]);
    let mut crowded = some.clone();
    crowded.claims = (0..=CLOSING_CLAIMS_MAX)
        .map(|at| (u32::try_from(at).expect("small"), id(1)))
        .collect::<BTreeMap<_, _>>();
    for wrong in [vec![some; NOTICE_CLOSED_MAX + 1], vec![crowded]] {
        assert!(Notice::decode(&notice(&world, wrong).encode()).is_err());
    }
}

#[test]
fn a_closed_invitation_keeps_the_claims_listed_and_no_others() {
    let mut world = World::new();
    let (first, second) = two(&world);
    let holder = first.key.public().rnode_id();
    let mut list = Denials::default();
    let closing = notice(&world, vec![closing_of(&first, &[(0, holder)])]);
    let signed = by_host(&world, &closing, "stix");
    assert_eq!(list.add(&signed, &world.charter), Ok(Novelty::New));
    world.denies = list.denies(&world.charter);
    assert!(world.judge(&first.with_leaf(NOW)).is_ok());
    let id = first.throwaway.public().invitation_id();
    let refused = Refusal::Denied(Denied::Invitation(id));
    assert_eq!(world.judge(&second.with_leaf(NOW)), Err(refused));
    let claim = |ordinal| crate::identity::Claim {
        invitation: id,
        ordinal,
    };
    assert!(!world.denies.closes(&claim(0), holder) && world.denies.closes(&claim(1), holder));

    // A second closing that knows less takes more away.
    let less = by_host(
        &world,
        &notice(&world, vec![closing_of(&first, &[])]),
        "stix",
    );
    list.add(&less, &world.charter).expect("the host may");
    world.denies = list.denies(&world.charter);
    assert!(world.judge(&first.with_leaf(NOW)).is_err());
}

#[test]
fn a_host_closes_within_its_names_and_denies_nothing_else() {
    let mut world = World::new();
    let (first, _) = two(&world);
    let mut list = Denials::default();
    let closing = notice(&world, vec![closing_of(&first, &[])]);
    let mut more = closing.clone();
    more.denied = vec![Denied::Key(world.operator.public().id())];
    let wrong = by_host(&world, &more, "stix");
    assert!(list.add(&wrong, &world.charter).is_err());
    let mut by_rnode = by_host(&world, &closing, "stix");
    by_rnode.signature = first
        .key
        .sign(&[NOTICE_CONTEXT, &by_rnode.payload].concat());
    by_rnode.chain = first.chain.clone();
    assert!(list.add(&by_rnode, &world.charter).is_err());
    assert!(list.is_empty());

    // The host of another namespace may say so, and it counts for nobody here.
    let other = by_host(&world, &closing, "toy");
    assert_eq!(list.add(&other, &world.charter), Ok(Novelty::New));
    world.denies = list.denies(&world.charter);
    assert!(world.judge(&first.with_leaf(NOW)).is_ok());
    // Once the root denies the host, its closings count no more.
    let root_says = Notice {
        denied: vec![Denied::Key(world.base.public().id())],
        closed: Vec::new(),
        ..closing
    };
    let payload = root_says.encode();
    let by_root = SignedNotice {
        signature: world.root.sign(&[NOTICE_CONTEXT, &payload].concat()),
        payload,
        chain: Vec::new(),
    };
    list.add(&by_root, &world.charter).expect("the root may");
    assert_eq!(list.len(), 1);
}

#[test]
fn an_invitation_is_judged_by_its_own_chain() {
    let world = World::new();
    let (first, _) = two(&world);
    let judge = |chain: &[Vec<u8>]| verify_invitation(chain, &world.charter, &world.denies);
    let (key, grant) = judge(&first.chain[1..]).expect("an invitation");
    assert_eq!(key, first.throwaway.public());
    assert_eq!(grant.uses, 3);
    assert!(judge(&first.chain).is_err(), "a rnode is none");
    assert!(judge(&first.chain[1..2]).is_err(), "nobody vouches for it");
    let foreign = World::new();
    assert!(verify_invitation(&first.chain[1..], &foreign.charter, &foreign.denies).is_err());
}
