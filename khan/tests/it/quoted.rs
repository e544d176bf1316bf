//! The printed file, and rules of placement it shows.

use khan::{Standing, View, place};

use crate::{STIX, carried_out, counts, members, on, program, view};

// Shows: KHN-01
#[test]
fn the_printed_file_gives_three_three_two_six_and_on_twelve_three_nine_two_twelve() {
    for (size, cagents) in [(6, 3), (12, 9)] {
        let placement = place(&program(STIX), &view(members(1..=size)));
        let counts = counts(&placement);
        assert_eq!(counts["cserver"], 3);
        assert_eq!(counts["cagent"], cagents);
        assert_eq!(counts["prog1"], 2);
        assert_eq!(counts["prog2"], size as usize);
        assert!(on(&placement, "cserver").is_disjoint(&on(&placement, "cagent")));
        assert!(placement.is_complete());
        assert!(placement.warnings.is_empty());
    }
}

// Shows in part: KHN-02
#[test]
fn counts_follow_members_that_come_and_go() {
    let program = program(STIX);
    let ten = place(&program, &view(members(1..=10)));
    let twelve = place(&program, &carried_out(&ten, members(1..=12)));
    assert_eq!(counts(&twelve)["cagent"], 9);
    assert_eq!(counts(&twelve)["prog2"], 12);
    let again = place(&program, &carried_out(&twelve, members(3..=12)));
    assert_eq!(counts(&again)["cserver"], 3);
    assert_eq!(counts(&again)["cagent"], 7);
    assert_eq!(counts(&again)["prog2"], 10);
    assert!(on(&again, "cserver").is_disjoint(&on(&again, "cagent")));
}

// Shows: KHN-08
#[test]
fn what_does_not_fit_is_reported_short_with_the_constraint() {
    let placement = place(&program(STIX), &view(members(1..=2)));
    let cserver = placement.class("cserver").expect("it is in the program");
    let short = cserver.short.as_ref().expect("three do not fit on two");
    assert_eq!((cserver.placed.len(), short.by), (2, 1));
    assert_eq!(short.reason, "at most one runs on a rnode, and there are 2");
    assert_eq!(counts(&placement)["cagent"], 0);
    assert!(!placement.is_complete());
}

// Shows in part: KHN-06
#[test]
fn only_tagged_rnodes_are_chosen() {
    let mut rnodes = members(1..=5);
    for rnode in rnodes.iter_mut().take(2) {
        rnode.tags.insert("GPU".to_owned());
    }
    let tagged: Vec<String> = rnodes[..2].iter().map(|rnode| rnode.id.clone()).collect();
    let text =
        "pick(a, 2, tag(\"GPU\"))\npick(b, 4, tag(\"GPU\"))\npick(c, size(ALL), !tag(\"GPU\"))\n";
    let placement = place(&program(text), &view(rnodes));
    assert_eq!(
        on(&placement, "a"),
        tagged.iter().map(String::as_str).collect()
    );
    let short = placement.class("b").and_then(|report| report.short.clone());
    let reason = short.map(|short| short.reason).unwrap_or_default();
    assert_eq!(
        reason,
        "at most one runs on a rnode, and `tag(\"GPU\")` holds 2 of 5"
    );
    assert!(on(&placement, "c").is_disjoint(&on(&placement, "a")));
}

#[test]
fn a_negative_count_is_taken_as_none_with_a_warning() {
    let placement = place(
        &program("pick(a, size(ALL) - 3, ALL)\n"),
        &view(members(1..=2)),
    );
    assert_eq!(counts(&placement)["a"], 0);
    assert_eq!(
        placement.warnings[0].message,
        "its count comes to -1; none is placed"
    );
}

// Shows in part: KHN-05
#[test]
fn a_class_waits_until_half_of_another_has_been_ready_and_then_never_again() {
    let program =
        program("pick(prog1, 3, ALL)\npick(prog2, size(ALL), ALL) after ready(prog1) >= 50%\n");
    let held = |ready: u32, released: bool| {
        let mut view = view(members(1..=4));
        view.ready.insert("prog1".to_owned(), ready);
        if released {
            view.released.insert("prog2".to_owned());
        }
        let placement = place(&program, &view);
        assert_eq!(counts(&placement)["prog2"], 4);
        assert!(
            placement
                .rnodes
                .values()
                .flatten()
                .all(|one| one.class == "prog2" || one.held.is_none())
        );
        placement
            .class("prog2")
            .and_then(|report| report.held.clone())
    };
    assert_eq!(
        held(1, false).as_deref(),
        Some("waits for 2 of 3 prog1 to be ready; 1 so far")
    );
    assert_eq!(held(2, false), None);
    assert_eq!(held(0, true), None);
}

#[test]
fn an_empty_class_makes_its_condition_hold() {
    let text = "pick(a, size(tag(\"x\")), tag(\"x\"))\npick(b, 1, ALL) after ready(a) >= 100% and ready(a) >= 3\n";
    let placement = place(&program(text), &view(members(1..=2)));
    assert_eq!(
        placement.class("b").and_then(|report| report.held.clone()),
        None
    );
}

#[test]
fn a_silent_rnode_keeps_what_it_holds_and_gets_nothing_new() {
    let program_two = program("pick(a, 2, ALL)\npick(b, size(ALL), ALL)\n");
    let first = place(&program_two, &view(members(1..=4)));
    let holder = on(&first, "a")
        .into_iter()
        .next()
        .map(str::to_owned)
        .expect("there are two");
    let mut view = carried_out(&first, members(1..=5));
    for rnode in &mut view.rnodes {
        if rnode.id == holder {
            rnode.standing = Standing::Silent;
        }
    }
    let second = place(&program_two, &view);
    assert_eq!(on(&second, "a"), on(&first, "a"));
    view.holders.clear();
    let fresh = place(&program_two, &view);
    assert!(!on(&fresh, "a").contains(holder.as_str()));
    let short = fresh
        .class("b")
        .and_then(|report| report.short.clone())
        .expect("one is silent");
    assert!(short.reason.contains("silent: n"), "{}", short.reason);
    // Beyond the count the silent one goes first.
    let one = place(
        &program("pick(a, 1, ALL)\n"),
        &View {
            holders: carried_out(&first, Vec::new()).holders,
            ..view
        },
    );
    assert!(!on(&one, "a").contains(holder.as_str()));
}

#[test]
fn where_an_agent_gave_up_nothing_is_placed_and_the_report_says_so() {
    let first = place(&program("pick(a, 2, ALL)\n"), &view(members(1..=2)));
    let mut view = carried_out(&first, members(1..=2));
    view.barred
        .insert(("a".to_owned(), view.rnodes[0].id.clone()));
    let second = place(&program("pick(a, 2, ALL)\n"), &view);
    let short = second
        .class("a")
        .and_then(|report| report.short.clone())
        .expect("one rnode is left");
    assert_eq!(
        short.reason,
        "at most one runs on a rnode, and there are 2; it gave up on n1"
    );
}

#[test]
fn an_instance_keeps_its_number_and_a_new_one_takes_the_lowest_free() {
    let program = program("pick(a, 3, ALL)\n");
    let first = place(&program, &view(members(1..=6)));
    let zero = first
        .class("a")
        .map(|report| report.placed[0].label.clone())
        .expect("it is placed");
    let rest = members(1..=6)
        .into_iter()
        .filter(|rnode| rnode.label != zero)
        .collect();
    let second = place(&program, &carried_out(&first, rest));
    let before = &first.class("a").expect("it is placed").placed;
    let after = &second.class("a").expect("it is placed").placed;
    assert_eq!(after[1..], before[1..]);
    assert_eq!(after[0].index, 0);
    assert_ne!(after[0].rnode, before[0].rnode);
}

#[test]
fn a_number_held_twice_after_a_split_is_kept_once() {
    let program = program("pick(a, 1, ALL)\n");
    let mut view = view(members(1..=4));
    for rnode in &view.rnodes.clone() {
        let (class, index) = ("a".to_owned(), 0);
        view.holders.push(khan::Holder {
            class,
            index,
            rnode: rnode.id.clone(),
        });
    }
    let placement = place(&program, &view);
    assert_eq!(counts(&placement)["a"], 1);
}
