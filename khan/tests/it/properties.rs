//! What holds for every view: order, stability, limits.

use std::collections::{BTreeMap, BTreeSet};

use khan::{Placement, View, place};
use proptest::prelude::*;

use crate::{STIX, carried_out, members, program, view};

const PROGRAMS: [&str; 4] = [
    STIX,
    "pick(a, 3, ALL)\npick(b, size(ALL) / 2, ALL)\n",
    "x := pick(a, 2, ALL)\ny := pick(b, 2, ALL - x)\npick(c, size(ALL), ALL - x - y)\n",
    "pick(a, 1, ALL)\npick(b, size(ALL) - 1, ALL) after ready(a) >= 1\n",
];

/// (class, rnode) of every instance.
fn spots(placement: &Placement) -> BTreeSet<(String, String)> {
    placement
        .instances()
        .into_iter()
        .map(|placed| (placed.class, placed.rnode))
        .collect()
}

fn per_class(placement: &Placement) -> BTreeMap<String, usize> {
    placement
        .classes
        .iter()
        .map(|one| (one.class.clone(), one.placed.len()))
        .collect()
}

// Shows: KHN-07
#[test]
fn adding_a_rnode_starts_what_the_counts_add_and_moves_nothing() {
    proptest!(|(which in 0..PROGRAMS.len(), size in 1_u32..40, newcomer in 100_u32..1000)| {
        let program = program(PROGRAMS[which]);
        let before = place(&program, &view(members(1..=size)));
        let grown = members((1..=size).chain([newcomer]));
        let after = place(&program, &carried_out(&before, grown));
        let (old, new) = (spots(&before), spots(&after));
        let (was, now) = (per_class(&before), per_class(&after));
        for (class, count) in &now {
            let added = new.difference(&old).filter(|(other, _)| other == class).count();
            let gone = old.difference(&new).filter(|(other, _)| other == class).count();
            prop_assert_eq!(added, count.saturating_sub(was[class]), "{}", class);
            prop_assert_eq!(gone, was[class].saturating_sub(*count), "{}", class);
        }
    });
}

// Shows in part: KHN-07
#[test]
fn losing_a_rnode_moves_only_what_it_held_and_what_sets_force() {
    proptest!(|(size in 4_u32..40, lost in 1_u32..40)| {
        let lost = lost % size + 1;
        let program = program("pick(a, 3, ALL)\npick(b, size(ALL) / 2, ALL)\npick(c, size(ALL), ALL)\n");
        let before = place(&program, &view(members(1..=size)));
        let left: Vec<_> = members((1..=size).filter(|one| *one != lost));
        let after = place(&program, &carried_out(&before, left.clone()));
        let staying: BTreeSet<&str> = left.iter().map(|rnode| rnode.id.as_str()).collect();
        for (class, rnode) in spots(&before).difference(&spots(&after)) {
            let shrunk = per_class(&before)[class] > per_class(&after)[class];
            prop_assert!(!staying.contains(rnode.as_str()) || shrunk, "{} left {}", class, rnode);
        }
    });
}

#[test]
fn the_order_in_which_things_are_seen_changes_nothing() {
    let shuffled = (0..PROGRAMS.len(), 1_u32..20).prop_flat_map(|(which, size)| {
        let whole: Vec<u32> = (1..=size).collect();
        (
            Just(which),
            Just(whole.clone()).prop_shuffle(),
            Just(whole),
            any::<u64>(),
        )
    });
    proptest!(|((which, mixed, whole, seed) in shuffled)| {
        let program = program(PROGRAMS[which]);
        let first = place(&program, &view(members(whole)));
        prop_assert_eq!(&place(&program, &view(members(mixed.clone()))), &first);
        let held = carried_out(&first, members(mixed.into_iter().skip(1)));
        let mut other = held.clone();
        let middle = usize::try_from(seed % (held.holders.len() as u64 + 1)).unwrap_or(0);
        other.holders.rotate_left(middle);
        other.rnodes.reverse();
        prop_assert_eq!(place(&program, &other), place(&program, &held));
    });
}

#[test]
fn placing_again_what_was_carried_out_changes_nothing() {
    proptest!(|(which in 0..PROGRAMS.len(), size in 0_u32..30)| {
        let program = program(PROGRAMS[which]);
        let first = place(&program, &view(members(1..=size)));
        let second = place(&program, &carried_out(&first, members(1..=size)));
        prop_assert_eq!(second.instances(), first.instances());
    });
}

/// Any expression over the members, to see that nothing overflows or panics.
fn number() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (0_u32..1_000_000).prop_map(|number| number.to_string()),
        Just("size(ALL)".to_owned()),
        Just("size(tag(\"x\") + ~ALL)".to_owned()),
    ];
    leaf.prop_recursive(5, 40, 2, |inner| {
        (inner.clone(), "[-+*/]", inner)
            .prop_filter(
                "a literal division by zero is told beforehand",
                |(_, sign, right)| sign != "/" || right != "0",
            )
            .prop_map(|(left, sign, right)| format!("({left} {sign} {right})"))
    })
}

#[test]
fn at_most_one_of_a_class_is_on_a_rnode_and_shortfall_adds_up() {
    proptest!(|(count in number(), size in 0_u32..20, holders in prop::collection::vec((0_u32..30, 0_usize..20), 0..30))| {
        let program = program(&format!("pick(a, {count}, ALL)\n"));
        let rnodes = members(1..=size);
        let mut seen = view(rnodes.clone());
        for (index, at) in holders {
            if let Some(rnode) = rnodes.get(at) {
                seen.holders.push(khan::Holder { class: "a".to_owned(), index, rnode: rnode.id.clone() });
            }
        }
        let placement = place(&program, &seen);
        let report = &placement.classes[0];
        let distinct: BTreeSet<&str> = report.placed.iter().map(|placed| placed.rnode.as_str()).collect();
        prop_assert_eq!(distinct.len(), report.placed.len());
        let indexes: BTreeSet<u32> = report.placed.iter().map(|placed| placed.index).collect();
        prop_assert_eq!(indexes.len(), report.placed.len());
        let short = report.short.as_ref().map_or(0, |short| short.by);
        prop_assert_eq!(report.placed.len() as u32 + short, report.wanted);
        prop_assert!(short == 0 || report.placed.len() == rnodes.len());
    });
}

#[test]
fn an_empty_view_places_nothing_and_reports_everything() {
    let placement = place(&program(STIX), &View::default());
    assert!(placement.rnodes.is_empty());
    assert_eq!(
        placement
            .class("cserver")
            .and_then(|one| one.short.clone())
            .map(|short| short.by),
        Some(3)
    );
}
