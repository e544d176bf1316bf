//! Plans: exactly what must be done.

use std::collections::BTreeMap;

use khan::{ActionKind, Side, place, plan};

use crate::{STIX, carried_out, counts, members, program, view};

fn side(picks: &str, size: u32) -> (khan::Placement, Side) {
    let placement = place(&program(picks), &view(members(1..=size)));
    let side = Side::of(&placement, BTreeMap::new());
    (placement, side)
}

// Shows in part: KHN-11
#[test]
fn an_edit_from_two_to_three_is_exactly_one_start() {
    let (placement, before) = side(STIX, 6);
    let edited = STIX.replace("prog1, 2", "prog1, 3");
    let after = place(&program(&edited), &carried_out(&placement, members(1..=6)));
    let plan = plan(&before, &Side::of(&after, BTreeMap::new()));
    assert_eq!(plan.actions.len(), 1);
    let action = &plan.actions[0];
    assert_eq!(
        (action.class.as_str(), action.index, &action.kind),
        ("prog1", 2, &ActionKind::Start)
    );
    assert_eq!(action.reason, "from 2 to 3");
    assert!(!plan.stops_something());
}

#[test]
fn a_class_removed_is_exactly_its_stops() {
    let (placement, before) = side(STIX, 6);
    let edited = STIX.replace("pick(prog2, size(ALL), ALL)\n", "");
    let after = place(&program(&edited), &carried_out(&placement, members(1..=6)));
    let plan = plan(&before, &Side::of(&after, BTreeMap::new()));
    assert_eq!(plan.actions.len(), 6);
    assert!(
        plan.actions
            .iter()
            .all(|one| one.class == "prog2" && one.kind == ActionKind::Stop)
    );
    assert_eq!(counts(&after).get("prog2"), None);
}

#[test]
fn nothing_changed_is_no_plan() {
    let (placement, before) = side(STIX, 6);
    let after = place(&program(STIX), &carried_out(&placement, members(1..=6)));
    let plan = plan(&before, &Side::of(&after, BTreeMap::new()));
    assert!(plan.is_empty());
    assert_eq!(plan.to_string(), "no changes\n");
    assert_eq!(
        plan.to_json(),
        r#"{"actions":[],"counts":{"start":0,"stop":0,"replace":0,"move":0}}"#
    );
}
