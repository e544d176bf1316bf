//! The first claim seen stays.

use super::world::*;
use crate::identity::{Claim, ClaimTable, Novelty, Refusal};
use crate::names::{InvitationId, RnodeId};

fn claim(invitation: u8, ordinal: u32) -> Claim {
    Claim {
        invitation: InvitationId::from_bytes([invitation; 32]),
        ordinal,
    }
}

fn id(byte: u8) -> RnodeId {
    RnodeId::from_bytes([byte; 32])
}

// Shows in part: CRT-04
#[test]
fn a_second_taker_of_an_invitation_is_refused_and_a_repeat_is_not() {
    let world = World::new();
    let first = world.nested("stix", "n1");
    // A thief has a copy of the throwaway key.
    let mut thief = Rnode {
        key: Key::new(),
        throwaway: Key::new(),
        grant: first.grant.clone(),
        chain: first.chain.clone(),
    };
    thief.chain[0] = first.throwaway.certify(&thief.key, &first.grant, always());
    let (one, other) = (
        world.judge(&first.with_leaf(NOW)),
        world.judge(&thief.with_leaf(NOW)),
    );
    let (one, other) = (
        one.expect("the first"),
        other.expect("the chain alone is good"),
    );
    let mut table = ClaimTable::default();
    assert_eq!(table.observe(&one), Ok(Novelty::New));
    assert_eq!(table.observe(&one), Ok(Novelty::Known));
    let refused = table.observe(&other);
    let (holder, taker) = (first.key.public().rnode_id(), thief.key.public().rnode_id());
    let invitation = first.throwaway.public().invitation_id();
    assert_eq!(
        refused,
        Err(Refusal::AlreadyClaimed {
            invitation,
            holder,
            taker
        })
    );
    assert_eq!(table.observe(&one), Ok(Novelty::Known));
    let person = world.judge(&{
        let mut chain = world.operator_chain();
        chain.insert(
            0,
            world
                .operator
                .certify(&Key::new(), &leaf(&operator()), leaf_window(NOW)),
        );
        chain
    });
    assert_eq!(
        table.observe(&person.expect("the operator")),
        Ok(Novelty::Known)
    );
}

#[test]
fn what_another_table_knows_is_learned_where_nothing_was_known() {
    let (mut ours, mut theirs) = (ClaimTable::default(), ClaimTable::default());
    for (table, holder) in [(&mut ours, 1), (&mut theirs, 2)] {
        assert_eq!(table.take(claim(9, 0), id(holder)), Ok(Novelty::New));
        assert_eq!(table.take(claim(holder, 0), id(holder)), Ok(Novelty::New));
    }
    ours.learn(&theirs);
    let held: Vec<_> = ours.iter().map(|(claim, id)| (*claim, *id)).collect();
    let expected = [
        (claim(1, 0), id(1)),
        (claim(2, 0), id(2)),
        (claim(9, 0), id(1)),
    ];
    assert_eq!(held, expected);
}

#[test]
fn a_verdict_moves_a_claim_that_was_met_and_makes_none_of_one_that_was_not() {
    let mut table = ClaimTable::default();
    assert_eq!(table.take(claim(9, 0), id(1)), Ok(Novelty::New));
    table.settle(claim(9, 0), id(2));
    table.settle(claim(8, 0), id(2));
    let held: Vec<_> = table.iter().map(|(claim, id)| (*claim, *id)).collect();
    assert_eq!(held, [(claim(9, 0), id(2))]);
}

#[test]
fn a_table_is_read_back_whole_or_not_at_all() {
    let mut table = ClaimTable::default();
    for ordinal in 0..5 {
        assert_eq!(
            table.take(claim(3, ordinal), id(u8::try_from(ordinal).expect("small"))),
            Ok(Novelty::New)
        );
    }
    let bytes = table.encode();
    assert_eq!(ClaimTable::decode(&bytes), Ok(table));
    assert!(ClaimTable::decode(&bytes[1..]).is_err());
    // One claim with two holders.
    let mut doubled = bytes.clone();
    doubled.extend_from_slice(&bytes[..36]);
    doubled.extend_from_slice(&[7; 32]);
    assert!(ClaimTable::decode(&doubled).is_err());
}
