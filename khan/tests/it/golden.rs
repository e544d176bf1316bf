//! Cases: a placement file before and after, members before and after, what is placed and planned.

use std::collections::BTreeMap;

use khan::{Placement, Rnode, Side, View, compile, place, plan};
use testkit::golden::{self, Case};

use crate::{application, carried_out, members};

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases");

/// Members from words like `6` (n1 to n6) or `n1 n2:GPU`.
fn rnodes(text: &str) -> Vec<Rnode> {
    if let Ok(count) = text.trim().parse::<u32>() {
        return members(1..=count);
    }
    let one = |word: &str| {
        let mut parts = word.split(':');
        let number = parts
            .next()
            .and_then(|label| label.strip_prefix('n')?.parse().ok())
            .unwrap_or(0);
        let mut rnode = members([number]).remove(0);
        rnode.tags.extend(parts.map(str::to_owned));
        rnode
    };
    text.split_whitespace().map(one).collect()
}

fn placed(picks: &str, view: &View) -> Result<Placement, String> {
    let program = compile(&application(picks)).map_err(|found| {
        found
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    })?;
    Ok(place(&program, view))
}

fn run(case: &Case) -> String {
    let text = |name: &str| case.text(name).unwrap_or_default();
    let seen = |name: &str, holders| {
        let mut view = View {
            holders,
            rnodes: rnodes(&text(name)),
            ..View::default()
        };
        for line in text("ready").lines() {
            if let Some((class, count)) = line.split_once(' ') {
                view.ready
                    .insert(class.to_owned(), count.parse().unwrap_or(0));
            }
        }
        view
    };
    let first = match placed(&text("before.khan"), &seen("rnodes", Vec::new())) {
        Ok(first) => first,
        Err(refused) => return refused,
    };
    let nothing = Side::default();
    let before = Side::of(&first, BTreeMap::new());
    let mut out = format!("{first}-- plan\n{}", plan(&nothing, &before));
    if case.text("after.khan").is_some() || case.text("rnodes after").is_some() {
        let picks = case
            .text("after.khan")
            .unwrap_or_else(|| text("before.khan"));
        let name = if case.text("rnodes after").is_some() {
            "rnodes after"
        } else {
            "rnodes"
        };
        let holders = carried_out(&first, Vec::new()).holders;
        let second = match placed(&picks, &seen(name, holders)) {
            Ok(second) => second,
            Err(refused) => return refused,
        };
        let plan = plan(&before, &Side::of(&second, BTreeMap::new()));
        out.push_str(&format!(
            "-- then\n{second}-- plan\n{plan}-- json\n{}\n",
            plan.to_json()
        ));
    }
    out
}

// Shows in part: KHN-11
#[test]
fn placements_and_plans_are_as_recorded() {
    golden::check(CASES, run);
}
