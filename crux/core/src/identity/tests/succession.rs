//! Successors that stand against each other, and the ones that end it.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::world::*;
use crate::digest::Digest;
use crate::identity::key::VERIFIED;
use crate::identity::{Charter, RIVALS_MAX, Refusal, Step, Succession};

/// Root and recovery key.
struct Keys([Key; 2]);

impl Keys {
    fn new() -> Self {
        Self([Key::new(), Key::new()])
    }

    fn publics(&self) -> [crate::identity::PublicKey; 2] {
        [self.0[0].public(), self.0[1].public()]
    }
}

fn sign(payload: &[u8], keys: &[&Key]) -> Charter {
    let message = Charter::message(payload);
    let signatures: Vec<_> = keys
        .iter()
        .map(|key| (key.public(), key.sign(&message)))
        .collect();
    Charter::decode(&Charter::assemble(payload, &signatures)).expect("a charter")
}

fn first(keys: &Keys) -> Charter {
    let payload = Charter::first_payload(&keys.publics());
    sign(&payload, &[&keys.0[0], &keys.0[1]])
}

/// A successor of `before`, signed by `old` of its keys.
fn next(before: &Charter, old: &[&Key], keys: &Keys, generation: u64) -> Charter {
    let payload = before.successor_payload_at(generation, &keys.publics(), &BTreeSet::new());
    let all: Vec<&Key> = old.iter().copied().chain(&keys.0).collect();
    sign(&payload, &all)
}

fn knowing(charters: &[&Charter]) -> Succession {
    let mut known = Succession::new(charters[0].clone());
    for charter in &charters[1..] {
        known.take(charter.encoded()).expect("taken");
    }
    known
}

#[test]
fn a_stolen_root_cannot_use_up_the_generations() {
    let keys = Keys::new();
    let common = first(&keys);
    let mut known = knowing(&[&common]);
    for generation in [u64::MAX, common.generation() + (1 << 32) + 1] {
        let far = next(&common, &[&keys.0[0]], &Keys::new(), generation);
        let refused = known.take(far.encoded());
        assert!(matches!(refused, Err(Refusal::Charter(_))), "{refused:?}");
    }
    let far = next(
        &common,
        &[&keys.0[0]],
        &Keys::new(),
        common.generation() + (1 << 32),
    );
    assert_eq!(known.take(far.encoded()), Ok(Step::Followed));
}

#[test]
fn the_recovery_key_outweighs_a_root_and_both_outweigh_either() {
    let keys = Keys::new();
    let [root, recovery] = &keys.0;
    let common = first(&keys);
    let by = |old: &[&Key]| next(&common, old, &Keys::new(), 2);
    let ascending = [by(&[root]), by(&[recovery]), by(&[root, recovery])];
    let weights: Vec<usize> = ascending.iter().map(|one| one.weight(&common)).collect();
    assert_eq!(weights, [1, 2, 3]);
    for (light, heavy) in [(0, 1), (0, 2), (1, 2)] {
        let (light, heavy) = (&ascending[light], &ascending[heavy]);
        // Also against one that has gone on meanwhile.
        let further = next(light, &[&Key::new()], &Keys::new(), 9);
        let mut known = knowing(&[&common, light]);
        assert!(known.take(further.encoded()).is_err(), "not of its keys");
        let overturned = known.take(heavy.encoded());
        let lost = Box::new(light.clone());
        assert_eq!(overturned, Ok(Step::Overturned { lost }));
        assert_eq!((known.held(), known.open().len()), (heavy, 0));
        let refused = known.take(light.encoded());
        assert!(matches!(refused, Err(Refusal::Charter(_))), "{refused:?}");
        assert_eq!(known, knowing(&[&common, heavy]));
    }
}

#[test]
fn of_two_that_weigh_the_same_each_keeps_its_own_and_both_say_so() {
    let (keys, ours, theirs) = (Keys::new(), Keys::new(), Keys::new());
    let common = first(&keys);
    let one = next(&common, &[&keys.0[0]], &ours, 2);
    let other = next(&common, &[&keys.0[0]], &theirs, 2);
    let further = next(&other, &[&theirs.0[0]], &Keys::new(), 3);
    let (mut here, mut there) = (knowing(&[&common, &one]), knowing(&[&common, &other]));
    let plain = Digest::of(b"");
    assert_eq!(here.mark(plain), plain);
    assert_eq!(here.take(other.encoded()), Ok(Step::Rival));
    assert_eq!(here.take(other.encoded()), Ok(Step::Known));
    assert_eq!(there.take(one.encoded()), Ok(Step::Rival));
    assert_eq!((here.held(), there.held()), (&one, &other));
    assert_eq!(here.common(here.open()[0]), Some(&common));
    assert_eq!(here.mark(plain), there.mark(plain));
    assert_ne!(here.mark(plain), plain);
    // However far one of them goes on.
    assert_eq!(there.take(further.encoded()), Ok(Step::Followed));
    assert_eq!(here.take(further.encoded()), Ok(Step::Rival));
    assert_eq!((here.held(), here.open()), (&one, vec![&further]));
    let on_disk: Vec<Vec<u8>> = here.all().iter().map(|of| of.encoded().to_vec()).collect();
    assert_eq!(Succession::restore(one.clone(), &on_disk), here);

    // Both agree on one: an ordinary successor of either.
    let payload = one.successor_payload_at(4, &Keys::new().publics(), &BTreeSet::new());
    assert!(Charter::decode(&Charter::assemble(&payload, &[])).is_err());
    let last = Keys::new();
    let payload = one.successor_payload_at(4, &last.publics(), &BTreeSet::new());
    let further_keys = Keys::new();
    let with_keys = next(&other, &[&theirs.0[0]], &further_keys, 3);
    let agreed = sign(
        &payload,
        &[&ours.0[0], &further_keys.0[0], &last.0[0], &last.0[1]],
    );
    let mut here = knowing(&[&common, &one, &other, &with_keys]);
    let mut there = knowing(&[&common, &other, &with_keys, &one]);
    for known in [&mut here, &mut there] {
        assert_eq!(known.open().len(), 1);
        assert_eq!(known.take(agreed.encoded()), Ok(Step::Followed));
        assert_eq!((known.held(), known.open().len()), (&agreed, 0));
        assert_eq!(known.mark(plain), plain);
    }
}

#[test]
fn whoever_asks_what_stands_against_what_has_no_signature_checked() {
    let keys = Keys::new();
    let common = first(&keys);
    let by_root = |generation| next(&common, &[&keys.0[0]], &Keys::new(), generation);
    let mut known = knowing(&[&common, &by_root(2)]);
    for generation in 3..=5 {
        let rival = by_root(generation);
        assert_eq!(known.take(rival.encoded()), Ok(Step::Rival));
    }
    let on_disk: Vec<Vec<u8>> = known.all().iter().map(|of| of.encoded().to_vec()).collect();
    let restored = Succession::restore(known.held().clone(), &on_disk);
    let before = VERIFIED.get();
    for known in [&known, &restored] {
        assert_eq!(known.open().len(), 3);
        assert_ne!(known.mark(Digest::of(b"")), Digest::of(b""));
    }
    assert_eq!(VERIFIED.get(), before);
    known.take(by_root(6).encoded()).expect("a fourth");
    assert!(VERIFIED.get() > before, "what is new is checked");
    assert_eq!(known.open().len(), 4);
}

#[test]
fn signatures_cannot_be_taken_away_and_rivals_have_an_end() {
    let keys = Keys::new();
    let [root, recovery] = &keys.0;
    let common = first(&keys);
    let ours = Keys::new();
    let whole = next(&common, &[root, recovery], &ours, 2);
    let part = next(&common, &[root], &ours, 2);
    let rival = next(&common, &[recovery], &Keys::new(), 2);
    assert_eq!(whole.id(), part.id());
    let mut known = knowing(&[&common, &part]);
    let lost = Box::new(part.clone());
    assert_eq!(known.take(rival.encoded()), Ok(Step::Overturned { lost }));
    let lost = Box::new(rival.clone());
    assert_eq!(known.take(whole.encoded()), Ok(Step::Overturned { lost }));
    assert_eq!(known.take(part.encoded()), Ok(Step::Known));
    assert!(known.take(rival.encoded()).is_err());
    let mut known = knowing(&[&common, &part]);
    assert_eq!(known.take(whole.encoded()), Ok(Step::Signed));
    assert!(known.take(rival.encoded()).is_err());

    let mut known = knowing(&[&common, &part]);
    for at in 0..=RIVALS_MAX {
        let rival = next(&common, &[root], &Keys::new(), 2);
        assert_eq!(known.take(rival.encoded()).is_ok(), at < RIVALS_MAX);
    }
    let ending = next(&common, &[recovery], &Keys::new(), 3);
    assert!(matches!(
        known.take(ending.encoded()),
        Ok(Step::Overturned { .. })
    ));
    assert_eq!(known, knowing(&[&common, &ending]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever rivals there are, wherever they arrive first and however far each goes on: once the charter that the recovery
    /// key signed has spread, all hold it and nothing stands against it.
    #[test]
    fn no_split_is_left_after_the_ending_charter_has_spread(
        branches in proptest::collection::vec(1_usize..4, 1..4),
        knows in proptest::collection::vec(proptest::collection::vec((0_usize..4, 0_usize..4), 0..6), 2..6),
        meetings in proptest::collection::vec((0_usize..6, 0_usize..6), 0..10),
        first_to_hear in 0_usize..6,
    ) {
        let keys = Keys::new();
        let common = first(&keys);
        let mut all: Vec<Vec<Charter>> = Vec::new();
        for length in &branches {
            let (mut last, mut old) = (common.clone(), None::<Keys>);
            let mut branch = Vec::new();
            for at in 0..*length {
                let fresh = Keys::new();
                let by = old.as_ref().unwrap_or(&keys);
                last = next(&last, &[&by.0[0]], &fresh, 2 + at as u64);
                branch.push(last.clone());
                old = Some(fresh);
            }
            all.push(branch);
        }
        let mut rnodes: Vec<Succession> = knows.iter().map(|_| Succession::new(common.clone())).collect();
        for (rnode, knows) in rnodes.iter_mut().zip(&knows) {
            for (branch, length) in knows {
                let branch = &all[branch % all.len()];
                for charter in branch.iter().take(*length) {
                    rnode.take(charter.encoded()).expect("it follows");
                }
            }
        }
        let count = rnodes.len();
        let exchange = |rnodes: &mut Vec<Succession>, one: usize, other: usize| {
            let said: Vec<Vec<u8>> = rnodes[one].all().iter().map(|of| of.encoded().to_vec()).collect();
            for bytes in said {
                // One that lost is refused: what is told is not always news.
                rnodes[other].take(&bytes).ok();
            }
        };
        for (one, other) in &meetings {
            exchange(&mut rnodes, one % count, other % count);
        }
        let ending = next(&common, &[&keys.0[1]], &Keys::new(), 9);
        rnodes[first_to_hear % count].take(ending.encoded()).expect("it ends all");
        for (one, other) in meetings.iter().copied().chain(
            (0..2 * count).flat_map(|one| (0..count).map(move |other| (one, other))),
        ) {
            exchange(&mut rnodes, one % count, other % count);
        }
        let plain = Digest::of(b"");
        for rnode in &rnodes {
            prop_assert_eq!(rnode.held(), &ending);
            prop_assert!(rnode.open().is_empty());
            prop_assert_eq!(rnode.mark(plain), plain);
        }
    }
}
