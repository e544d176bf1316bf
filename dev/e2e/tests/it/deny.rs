//! A rnode whose identity was denied gives way to another.

use std::collections::BTreeMap;

use e2e::{Sandbox, User, wait_gone};
use serde_json::Value;

/// Permanent name and keeper of each rnode, by label.
fn rnodes(status: &Value) -> BTreeMap<String, (String, i64)> {
    let rnodes = status["rnodes"].as_array().into_iter().flatten();
    let one = |rnode: &Value| {
        let text = |name: &str| rnode[name].as_str().unwrap_or_default().to_owned();
        let keeper = rnode["keeper_pid"].as_i64().unwrap_or(0);
        (text("label"), (text("id"), keeper))
    };
    rnodes.map(one).collect()
}

#[test]
fn a_denied_rnode_is_ended_and_replaced_by_one_of_another_identity() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let _ = crate::tiny(&sandbox, 3);
    let directory = sandbox.root().join("tiny").display().to_string();
    let _ = sandbox.radix(&["up", &directory, "--yes"]).expect(0);
    let counts = [("cserver", 1), ("stay", 2)];
    let before = rnodes(&sandbox.until_settled(&counts));
    assert_eq!(before.keys().collect::<Vec<_>>(), ["n1", "n2", "n3"]);
    let (old, keeper) = before["n3"].clone();

    let _ = sandbox
        .radix(&["ca", "deny", "tiny/n3", "--reason", "a test", "--yes"])
        .expect(0);
    let after = sandbox.until("another n3", |status| {
        let now = rnodes(status);
        let (id, keeper) = now.get("n3")?;
        let fresh = !id.is_empty() && *id != old && *keeper > 0;
        (fresh && status["settled"] == true && now.len() == 3).then_some(now)
    });
    assert!(wait_gone(i32::try_from(keeper).expect("a pid")));
    for label in ["n1", "n2"] {
        assert_eq!(before[label], after[label], "the others stay");
    }
    let settled = sandbox.until_settled(&counts);
    assert_eq!(settled["rnodes_running"], 3, "{settled}");
    assert_eq!(
        settled["instances"].as_array().map(Vec::len),
        Some(3),
        "{settled}"
    );
    let again = sandbox.radix(&["up", &directory, "--yes"]).expect(0);
    assert!(
        again.stdout.contains("nothing to change"),
        "{}",
        again.stdout
    );
}

#[test]
fn what_a_denied_operator_signed_is_signed_again_by_the_next_up() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let _ = crate::tiny(&sandbox, 2);
    let directory = sandbox.root().join("tiny").display().to_string();
    let _ = sandbox.radix(&["up", &directory, "--yes"]).expect(0);
    let counts = [("cserver", 1), ("stay", 2)];
    let before = sandbox.until_settled(&counts);
    let pids = |status: &Value| {
        let instances = status["instances"].as_array().into_iter().flatten();
        let mut pids: Vec<i64> = instances.filter_map(|one| one["pid"].as_i64()).collect();
        pids.sort_unstable();
        pids
    };

    let _ = sandbox
        .radix(&["ca", "deny", "operator", "--reason", "a test", "--yes"])
        .expect(0);
    let held = sandbox.until("what it signed held back", |status| {
        let problems = status["problems"].to_string();
        problems.contains("held back").then(|| status.clone())
    });
    assert_eq!(pids(&held), pids(&before), "what runs goes on");

    let again = sandbox.radix(&["up", &directory, "--yes"]).expect(0);
    assert!(again.stdout.contains("signed again"), "{}", again.stdout);
    let after = sandbox.until_settled(&counts);
    assert_eq!(pids(&after), pids(&before), "nothing was restarted");
    let third = sandbox.radix(&["up", &directory, "--yes"]).expect(0);
    assert!(
        third.stdout.contains("nothing to change"),
        "{}",
        third.stdout
    );
}
