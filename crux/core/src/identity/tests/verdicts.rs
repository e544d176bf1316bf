//! Two took one use of an invitation while a split kept their flocks apart; then the flocks meet.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::world::*;
use crate::identity::{
    Claim, ClaimTable, Denied, Denies, Judged, Moment, Novelty, Refusal, SignedVerdict,
    VERDICT_CONTEXT, VERDICTS_MAX, Verdict, Verdicts, Vouchers, Weight, Window, verify,
};
use crate::names::RnodeId;

fn weight(class: u8, flock: u8) -> Weight {
    Weight {
        class,
        latched: false,
        flock: Reverse([flock; 16]),
    }
}

/// Two takers of one use, and members that are neither.
struct Scene {
    world: World,
    takers: [Rnode; 2],
    others: Vec<Rnode>,
}

impl Scene {
    fn new(others: usize) -> Self {
        let world = World::new();
        let first = world.nested("stix", "n1");
        let second = again(&first);
        let others = (0..others)
            .map(|at| world.nested("stix", &format!("m{at}")))
            .collect();
        Self {
            world,
            takers: [first, second],
            others,
        }
    }

    fn id(&self, taker: usize) -> RnodeId {
        self.takers[taker].key.public().rnode_id()
    }

    fn claim(&self) -> Claim {
        Claim {
            invitation: self.takers[0].throwaway.public().invitation_id(),
            ordinal: 0,
        }
    }

    fn verdict(&self, holder: usize, weight: Weight) -> Verdict {
        Verdict {
            owner: self.world.charter.owner(),
            weight,
            holder: self.takers[holder].chain.clone(),
            rival: self.takers[1 - holder].chain[0].clone(),
        }
    }

    fn signed(&self, signer: &Rnode, verdict: &Verdict) -> SignedVerdict {
        let payload = verdict.encode();
        assert_eq!(Verdict::decode(&payload).as_ref(), Ok(verdict));
        SignedVerdict {
            signature: signer
                .key
                .sign(&[VERDICT_CONTEXT, payload.as_slice()].concat()),
            payload,
            chain: signer.chain.clone(),
        }
    }

    fn add(&self, held: &mut Verdicts, signed: &SignedVerdict) -> Result<Novelty, Refusal> {
        let denied = (&self.world.denies, &Vouchers::default());
        let added = held.add(signed, &self.world.charter, denied, &ClaimTable::default());
        added.map(|(novelty, _)| novelty)
    }
}

/// Somebody else with a copy of the invitation, at the same ordinal.
fn again(first: &Rnode) -> Rnode {
    let key = Key::new();
    let mut chain = first.chain.clone();
    chain[0] = first.throwaway.certify(&key, &first.grant, always());
    Rnode {
        key,
        throwaway: Key::new(),
        grant: first.grant.clone(),
        chain,
    }
}

#[test]
fn the_verdict_of_the_heavier_flock_counts_and_the_other_taker_is_refused() {
    let scene = Scene::new(2);
    let mut held = Verdicts::default();
    let light = scene.signed(&scene.others[0], &scene.verdict(1, weight(0, 3)));
    let heavy = scene.signed(&scene.others[1], &scene.verdict(0, weight(2, 9)));
    assert_eq!(scene.add(&mut held, &light), Ok(Novelty::New));
    assert_eq!(
        held.on(&scene.claim()).map(|on| on.holder),
        Some(scene.id(1))
    );
    assert!(held.outweighs(&scene.claim(), weight(2, 9)));
    assert_eq!(scene.add(&mut held, &heavy), Ok(Novelty::New));
    assert!(!held.outweighs(&scene.claim(), weight(2, 9)));
    assert!(held.outweighs(&scene.claim(), weight(3, 8)));
    assert!(
        !held.outweighs(&scene.claim(), weight(3, 9)),
        "it has spoken"
    );
    assert_eq!(scene.add(&mut held, &heavy), Ok(Novelty::Known));
    assert_eq!(scene.add(&mut held, &light), Ok(Novelty::Known));
    let all: Vec<&Judged> = held.iter().collect();
    assert_eq!(
        (all.len(), all[0].holder, all[0].rival),
        (1, scene.id(0), scene.id(1))
    );

    let mut denies = Denies::default();
    denies.settle(all[0].claim, all[0].holder);
    let judge = |taker: &Rnode| {
        let chain = taker.with_leaf(NOW);
        verify(&chain, &scene.world.charter, &denies, Moment::Now(NOW))
    };
    assert!(judge(&scene.takers[0]).is_ok());
    assert!(judge(&scene.others[0]).is_ok());
    let lost = judge(&scene.takers[1]).expect_err("it lost its claim");
    assert!(matches!(lost, Refusal::LostClaim { .. }), "{lost}");
    let mut table = ClaimTable::default();
    table.take(scene.claim(), scene.id(1)).expect("the first");
    table.settle(scene.claim(), scene.id(0));
    assert_eq!(table.holder(&scene.claim()), Some(scene.id(0)));
}

#[test]
fn nobody_makes_a_rival_up_and_no_taker_judges_itself() {
    let scene = Scene::new(1);
    let witness = &scene.others[0];
    let good = scene.verdict(0, weight(1, 1));
    let mut held = Verdicts::default();
    let mut refuse = |signed: SignedVerdict, why: &str| {
        let denied = (&scene.world.denies, &Vouchers::default());
        let added = held.add(
            &signed,
            &scene.world.charter,
            denied,
            &ClaimTable::default(),
        );
        assert!(added.is_err(), "{why}");
    };
    refuse(scene.signed(&scene.takers[0], &good), "it judges itself");
    refuse(scene.signed(&scene.takers[1], &good), "the one that goes");
    // Without the throwaway key: certified by the witness, or by a throwaway key of its own.
    let made_up = witness
        .throwaway
        .certify(&Key::new(), &scene.takers[0].grant, always());
    let rival = Verdict {
        rival: made_up,
        ..good.clone()
    };
    refuse(scene.signed(witness, &rival), "a rival made up");
    let itself = Verdict {
        rival: scene.takers[0].chain[0].clone(),
        ..good.clone()
    };
    refuse(scene.signed(witness, &itself), "one is no two");
    let foreign = Verdict {
        owner: World::new().charter.owner(),
        ..good.clone()
    };
    refuse(scene.signed(witness, &foreign), "of another owner");
    let elsewhere = scene.world.nested("other", "m9");
    refuse(scene.signed(&elsewhere, &good), "of another namespace");
    let mut forged = scene.signed(witness, &good);
    forged.payload[34] ^= 1;
    refuse(forged, "its weight was changed");
    let mut operator = scene.signed(witness, &good);
    operator.chain = scene.world.operator_chain();
    refuse(operator, "not of a rnode");
    let signed = scene.signed(witness, &good);
    for denied in [
        Denied::Rnode(witness.key.public().rnode_id()),
        Denied::Invitation(witness.throwaway.public().invitation_id()),
    ] {
        let denies: Denies = [denied].into_iter().collect();
        let denied = (&denies, &Vouchers::default());
        let added = held.add(
            &signed,
            &scene.world.charter,
            denied,
            &ClaimTable::default(),
        );
        assert!(added.is_err());
        assert_eq!(scene.add(&mut held, &signed), Ok(Novelty::New));
        held.settle(&scene.world.charter, denied);
        assert_eq!(held, Verdicts::default());
    }
    // Who came by a used invitation itself has no say.
    let mut claims = ClaimTable::default();
    let own = Claim {
        invitation: witness.throwaway.public().invitation_id(),
        ordinal: 0,
    };
    claims.take(own, scene.id(0)).expect("the first");
    let denied = (&scene.world.denies, &Vouchers::default());
    let refused = held.add(&signed, &scene.world.charter, denied, &claims);
    assert!(matches!(refused, Err(Refusal::AlreadyClaimed { .. })));
    for cut in 0..signed.payload.len() {
        assert!(Verdict::decode(&signed.payload[..cut]).is_err());
    }
}

#[test]
fn who_came_in_by_an_operator_that_is_denied_has_no_say_unless_the_root_vouches() {
    let scene = Scene::new(0);
    let world = &scene.world;
    let (key, throwaway) = (Key::new(), Key::new());
    let invited = invitation("stix", Some("m9"), 1);
    let window = Window {
        from: NOW,
        until: NOW.plus(DAY),
    };
    let grant = rnode("stix", "m9", 0);
    let mut chain = vec![
        throwaway.certify(&key, &grant, always()),
        world.operator.certify(&throwaway, &invited, window),
    ];
    chain.extend(world.operator_chain());
    let witness = Rnode {
        key,
        throwaway,
        grant,
        chain,
    };
    let signed = scene.signed(&witness, &scene.verdict(0, weight(1, 1)));
    let denies: Denies = [Denied::Key(world.operator.public().id())]
        .into_iter()
        .collect();
    let mut vouchers = Vouchers::default();
    let voucher = world.root.certify(&witness.throwaway, &invited, window);
    vouchers.add(&voucher, &world.charter).expect("of the root");
    let none = Vouchers::default();
    let claims = ClaimTable::default();

    let mut held = Verdicts::default();
    let refused = held.add(&signed, &world.charter, (&denies, &none), &claims);
    assert!(matches!(refused, Err(Refusal::Denied(_))), "{refused:?}");
    // It counted before it was denied.
    assert_eq!(scene.add(&mut held, &signed), Ok(Novelty::New));
    let before = held.clone();
    held.settle(&world.charter, (&denies, &vouchers));
    assert_eq!(held, before);
    held.settle(&world.charter, (&denies, &none));
    assert_eq!(held, Verdicts::default());
    let vouched = held.add(&signed, &world.charter, (&denies, &vouchers), &claims);
    assert!(vouched.is_ok(), "{vouched:?}");
}

#[test]
fn verdicts_are_kept_on_so_many_claims_and_no_more() {
    let world = World::new();
    let witness = world.nested("stix", "m0");
    let (mut held, mut bytes) = (Verdicts::default(), 0);
    for at in 0..=VERDICTS_MAX {
        let first = world.nested("stix", &format!("n{at}"));
        let verdict = Verdict {
            owner: world.charter.owner(),
            weight: weight(0, 0),
            rival: again(&first).chain[0].clone(),
            holder: first.chain,
        };
        let payload = verdict.encode();
        let signed = SignedVerdict {
            signature: witness
                .key
                .sign(&[VERDICT_CONTEXT, payload.as_slice()].concat()),
            payload,
            chain: witness.chain.clone(),
        };
        let denied = (&world.denies, &Vouchers::default());
        let added = held.add(&signed, &world.charter, denied, &ClaimTable::default());
        assert_eq!(added.is_ok(), at < VERDICTS_MAX);
        let chain = signed.chain.iter().map(Vec::len).sum::<usize>();
        bytes += signed.payload.len() + signed.signature.len() + chain;
    }
    assert_eq!(held.iter().count(), VERDICTS_MAX);
    assert!(bytes < 256 << 10, "{bytes} bytes");
}

/// A member of one half or the other, as its driver goes about it.
struct Member {
    at: usize,
    /// Which of the two it lets in.
    holds: usize,
    /// Whom it let in when it learned of the other, until it has thought about it.
    dispute: Option<usize>,
    weight: Weight,
    verdicts: Verdicts,
}

impl Member {
    /// Meets the other taker.
    fn meet(&mut self, scene: &Scene, taker: usize) {
        if taker != self.holds && self.verdicts.on(&scene.claim()).is_none() {
            self.dispute.get_or_insert(self.holds);
        }
    }

    /// Signs what it saw first, unless a heavier flock has spoken; then that is how it is.
    fn look(&mut self, scene: &Scene) {
        let Some(holder) = self.dispute.take() else {
            return;
        };
        if self.verdicts.outweighs(&scene.claim(), self.weight) {
            let signed = scene.signed(&scene.others[self.at], &scene.verdict(holder, self.weight));
            assert_eq!(scene.add(&mut self.verdicts, &signed), Ok(Novelty::New));
            self.holds = holder;
        }
    }

    /// Both enrolments stand in a verdict.
    fn hear(&mut self, scene: &Scene, all: &[SignedVerdict]) {
        for signed in all {
            let novelty = scene.add(&mut self.verdicts, signed).expect("it counts");
            let holder = self.verdicts.on(&scene.claim()).map(|on| on.holder);
            let holder = usize::from(holder == Some(scene.id(1)));
            if novelty == Novelty::New && holder != self.holds {
                self.dispute.get_or_insert(self.holds);
            }
            self.holds = holder;
        }
    }
}

/// Each tells each, in these pairs and then twice around, as in a flock.
fn meet(scene: &Scene, members: &mut [Member], first: &[(usize, usize)]) {
    let count = members.len();
    let around = (0..2 * count).flat_map(|one| (0..count).map(move |other| (one, other)));
    for (one, other) in first.iter().copied().chain(around) {
        let (one, other) = (one % count, other % count);
        let held = (members[one].holds, members[other].holds);
        members[one].meet(scene, held.1);
        members[other].meet(scene, held.0);
        members[one].look(scene);
        let said: Vec<_> = members[one].verdicts.signed().cloned().collect();
        members[other].hear(scene, &said);
        members[other].look(scene);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whoever meets whom, in whatever order: in the end all hold the same, and the winner of the merge keeps its taker.
    #[test]
    fn halves_that_meet_agree_on_who_stays(
        sides in proptest::collection::vec(0_usize..2, 2..6),
        classes in (0_u8..3, 0_u8..3),
        flocks in (0_u8..9, 10_u8..19),
        meetings in proptest::collection::vec((0_usize..6, 0_usize..6), 0..12),
    ) {
        let scene = Scene::new(sides.len());
        let weights = [weight(classes.0, flocks.0), weight(classes.1, flocks.1)];
        let mut members: Vec<Member> = sides
            .iter()
            .enumerate()
            .map(|(at, side)| Member {
                at,
                holds: *side,
                dispute: None,
                weight: weights[*side],
                verdicts: Verdicts::default(),
            })
            .collect();
        meet(&scene, &mut members, &meetings);
        let both: BTreeSet<usize> = sides.iter().copied().collect();
        let marks = |members: &[Member]| -> BTreeSet<_> {
            let mark = |member: &Member| member.verdicts.mark(crate::digest::Digest::of(b""));
            members.iter().map(mark).collect()
        };
        let agreed = marks(&members);
        prop_assert_eq!(agreed.len(), 1);
        let on = members[0].verdicts.on(&scene.claim()).map(|on| on.holder);
        let winner = usize::from(weights[1] > weights[0]);
        prop_assert_eq!(on, (both.len() == 2).then(|| scene.id(winner)));
        // The flock that came of it weighs more, and later there is another; neither asks again what was answered.
        let merged = weight(3, weights[winner].flock.0[0]);
        for weight in [merged, Weight { latched: true, ..merged }, weight(9, 42)] {
            for member in &mut members {
                member.weight = weight;
            }
            meet(&scene, &mut members, &meetings);
            prop_assert_eq!(marks(&members), agreed.clone());
        }
    }
}
