//! What holds for all grants, chains and bytes.

use proptest::prelude::*;

use super::world::*;
use crate::identity::{
    Charter, Enrols, Grant, Moment, Prefix, Role, UnixTime, Verbs, Window, verify,
};
use crate::names::Label;

fn any_label() -> impl Strategy<Value = Label> {
    proptest::string::string_regex("[a-z0-9][a-z0-9_-]{0,20}")
        .expect("a pattern")
        .prop_map(|text| label(&text))
}

fn any_role() -> impl Strategy<Value = Role> {
    let enrols = prop_oneof![
        Just(Enrols::Rnode),
        Just(Enrols::Operator),
        Just(Enrols::Tool)
    ];
    prop_oneof![
        any_label().prop_map(|label| Role::Operator { label }),
        any_label().prop_map(|label| Role::Tool { label }),
        Just(Role::Host),
        (enrols, proptest::option::of(any_label()))
            .prop_map(|(enrols, label)| Role::Invitation { enrols, label }),
        (any_label(), any::<u32>()).prop_map(|(label, ordinal)| Role::Rnode { label, ordinal }),
        Just(Role::Leaf),
        (any_label(), any_label(), any::<u32>()).prop_map(|(application, class, index)| {
            Role::App {
                application,
                class,
                index,
            }
        }),
    ]
}

fn any_grant() -> impl Strategy<Value = Grant> {
    let verbs = || prop_oneof![0_u32..128, any::<u32>()].prop_map(Verbs::from_bits);
    let prefix = prop_oneof![
        Just(Prefix::EVERYTHING),
        any_label().prop_map(Prefix::namespace)
    ];
    (any_role(), verbs(), verbs(), prefix, any::<u64>(), 1_u32..).prop_map(
        |(role, verbs, pass, prefix, by, uses)| {
            let invitation = matches!(role, Role::Invitation { .. });
            let mut grant = Grant::new(role, verbs, prefix).may_grant(pass);
            if invitation {
                grant.claim_by = UnixTime::from_seconds(by);
                grant.uses = uses;
            }
            grant
        },
    )
}

proptest! {
    #[test]
    fn a_grant_has_one_encoding(grant in any_grant()) {
        let bytes = grant.encode();
        prop_assert_eq!(Grant::decode(&bytes), Ok(grant));
    }

    #[test]
    fn whatever_is_read_as_a_grant_is_written_the_same(bytes in proptest::collection::vec(0_u8..9, 0..40)) {
        if let Ok(grant) = Grant::decode(&bytes) {
            prop_assert_eq!(grant.encode(), bytes);
        }
    }

    #[test]
    fn no_bytes_make_the_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Grant::decode(&bytes);
        let _ = Charter::decode(&bytes);
        let _ = crate::identity::ClaimTable::decode(&bytes);
        let _ = Grant::of_certificate(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_passes_has_no_right_that_some_link_lacks(
        grants in proptest::collection::vec((any_grant(), 0_usize..3), 1..=4),
        shape in 0_usize..6,
    ) {
        let world = World::new();
        // Chains of chance alone hardly ever pass, so most links are of a good chain with rights of chance.
        let good = [
            vec![operator()],
            vec![host("stix")],
            vec![host("stix"), invitation("stix", None, 9), rnode("stix", "n1", 0)],
            vec![operator(), invitation("stix", None, 9), rnode("stix", "n1", 0)],
            vec![operator(), tool_invitation("stix"), tool("stix")],
            vec![operator_invitation("stix"), operator_of("stix"), tool("stix")],
        ][shape].clone();
        let mut links: Vec<Grant> = good;
        for (at, (chance, kind)) in grants.iter().enumerate() {
            let Some(link) = links.get_mut(at) else { break };
            match kind {
                0 => link.verbs = chance.verbs,
                1 => link.may_grant = chance.may_grant,
                _ if chance.verbs.bits() % 2 == 0 => link.prefix = chance.prefix.clone(),
                _ => {}
            }
        }
        links.push(leaf(links.last().expect("a link")));
        let mut above = &world.root;
        let keys: Vec<Key> = links.iter().map(|_| Key::new()).collect();
        let mut chain = Vec::new();
        for (link, key) in links.iter().zip(&keys) {
            let validity = match link.role {
                Role::Leaf => leaf_window(NOW),
                Role::Rnode { .. } => always(),
                _ => Window { from: NOW.minus(1_800), until: NOW.plus(DAY) },
            };
            chain.insert(0, above.certify(key, link, validity));
            above = key;
        }
        if let Ok(principal) = world.judge(&chain) {
            let holder = &links[links.len() - 2];
            prop_assert!(principal.verbs.within(holder.verbs));
            for upper in &links[..links.len() - 2] {
                prop_assert!(principal.verbs.within(upper.may_grant));
                prop_assert!(upper.prefix.covers(&principal.prefix));
            }
        }
    }

    #[test]
    fn a_tool_may_what_all_above_it_grant_over_the_names_that_all_cover(
        bits in proptest::array::uniform3(0_u32..256),
        wider in proptest::array::uniform2(0_u8..4),
        names in proptest::array::uniform3(0_usize..3),
    ) {
        let world = World::new();
        let prefix = |at: usize| match at {
            0 => Prefix::EVERYTHING,
            1 => Prefix::namespace(label("stix")),
            _ => Prefix::namespace(label("other")),
        };
        // Below lies mostly less, sometimes anything.
        let below = |bits: u32, above: Verbs, wider: u8| {
            let bits = Verbs::from_bits(bits);
            if wider == 0 { bits } else { bits.and(above) }
        };
        let of_operator = Verbs::from_bits(bits[0]);
        let of_invitation = below(bits[1], of_operator, wider[0]);
        let of_tool = below(bits[2], of_invitation, wider[1]);
        let mut links = [operator(), tool_invitation("stix"), tool("stix")];
        (links[0].may_grant, links[1].may_grant) = (of_operator, of_invitation);
        links[2].verbs = of_tool;
        for (link, name) in links.iter_mut().zip(names) {
            link.prefix = prefix(name);
        }
        let keys = [Key::new(), Key::new(), Key::new()];
        let day = Window { from: NOW.minus(1_800), until: NOW.plus(DAY) };
        let mut chain = vec![
            keys[2].certify(&Key::new(), &leaf(&links[2]), leaf_window(NOW)),
            keys[1].certify(&keys[2], &links[2], Window { from: NOW, until: NOW.plus(DAY) }),
            keys[0].certify(&keys[1], &links[1], day),
        ];
        chain.push(world.root.certify(&keys[0], &links[0], long()));
        let lies_within = of_tool.within(of_invitation)
            && of_invitation.within(of_operator)
            && prefix(names[0]).covers(&prefix(names[1]))
            && prefix(names[1]).covers(&prefix(names[2]));
        match world.judge(&chain) {
            Ok(seen) => {
                prop_assert!(lies_within);
                prop_assert_eq!((seen.verbs, &seen.prefix), (of_tool, &links[2].prefix));
            }
            Err(refusal) => prop_assert!(!lies_within, "{refusal}"),
        }
    }

    #[test]
    fn one_changed_bit_anywhere_is_refused(link in 0_usize..4, at in any::<proptest::sample::Index>(), bit in 0_u8..8) {
        let world = World::new();
        let mut chain = world.nested("stix", "n1").with_leaf(NOW);
        let at = at.index(chain[link].len());
        chain[link][at] ^= 1 << bit;
        prop_assert!(verify(&chain, &world.charter, &world.denies, Moment::Now(NOW)).is_err());
    }

    #[test]
    fn one_changed_bit_of_a_charter_is_refused(at in any::<proptest::sample::Index>(), bit in 0_u8..8) {
        let mut bytes = World::new().charter.encoded().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Charter::decode(&bytes).is_err());
    }
}
