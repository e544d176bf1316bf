//! What an edited description changes: exactly that.

use std::time::Duration;

use e2e::{Sandbox, User, pids_of, wait_for};

use crate::{STIX, get, keepers, own_port, pids};

/// Instances whose pid differs between two statuses, or that only one has.
fn changed(before: &serde_json::Value, after: &serde_json::Value) -> Vec<String> {
    let (before, after) = (pids(before), pids(after));
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .cloned()
        .collect()
}

// Shows: KHN-11, ADF-04
#[test]
fn plan_prints_exactly_what_up_then_does() {
    let sandbox = Sandbox::with_stix(User::Ourselves);
    let address = own_port(&sandbox);
    let _ = sandbox.up().expect(0);
    let before = sandbox.until_settled(&STIX);
    let directory = sandbox.stix().display().to_string();

    let plan = sandbox
        .radix(&["plan", &directory, "--detailed-exitcode"])
        .expect(0);
    assert!(plan.stdout.contains("nothing to change"), "{}", plan.stdout);

    sandbox.edit("stix.khan", "pick(prog1, 2, ALL)", "pick(prog1, 3, ALL)");
    let plan = sandbox
        .radix(&["plan", &directory, "--format", "json"])
        .expect(0)
        .json();
    let actions = plan["actions"].as_array().cloned().unwrap_or_default();
    assert_eq!(actions.len(), 1, "{plan}");
    assert_eq!(actions[0]["action"], "start");
    assert_eq!(actions[0]["class"], "prog1");
    let _ = sandbox
        .radix(&["plan", &directory, "--detailed-exitcode"])
        .expect(6);
    let _ = sandbox.up().expect(0);
    let after = sandbox.until_settled(&[("prog1", 3), ("prog2", 6)]);
    assert_eq!(changed(&before, &after), ["prog1/2"]);

    sandbox.edit("stix.khan", "pick(prog2, size(ALL), ALL)", "");
    let plan = sandbox
        .radix(&["plan", &directory, "--format", "json"])
        .expect(0)
        .json();
    let actions = plan["actions"].as_array().cloned().unwrap_or_default();
    assert_eq!(actions.len(), 6, "{plan}");
    assert!(
        actions
            .iter()
            .all(|action| action["action"] == "stop" && action["class"] == "prog2")
    );
    let without = sandbox.radix(&["up", &directory]).expect(2);
    assert!(without.stderr.contains("--yes"), "{}", without.stderr);
    let _ = sandbox.up().expect(0);
    let last = sandbox.until_settled(&[("prog1", 3), ("prog2", 0), ("cserver", 3)]);
    assert_eq!(changed(&after, &last).len(), 6);

    let row = |body: &str| body.contains("renamed-by-the-test");
    assert!(!get(&address, "/lookup/p0001").is_some_and(|body| row(&body)));
    change_a_row(&sandbox);
    let _ = sandbox.up().expect(0);
    let seen = wait_for(Duration::from_secs(30), || {
        get(&address, "/lookup/p0001").filter(|body| row(body))
    });
    assert!(seen.is_some(), "the answers change with the CSV");
}

/// Puts a marked name in the first data row of the CSV.
fn change_a_row(sandbox: &Sandbox) {
    let path = sandbox.stix().join("prods.csv");
    let text = std::fs::read_to_string(&path).expect("the CSV can be read");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let cells: Vec<&str> = lines[1].split(',').collect();
    let mut cells: Vec<String> = cells.into_iter().map(str::to_owned).collect();
    cells[1] = "renamed-by-the-test".to_owned();
    lines[1] = cells.join(",");
    std::fs::write(&path, lines.join("\n") + "\n").expect("the CSV can be written");
}

// Shows: BEG-02
#[test]
fn an_edited_worker_is_rebuilt_and_only_its_instances_are_replaced() {
    let sandbox = Sandbox::with_stix(User::Ourselves);
    let _ = own_port(&sandbox);
    let _ = sandbox.up().expect(0);
    let before = sandbox.until_settled(&STIX);
    sandbox.edit("src/bin/worker.rs", "rows of csv", "lines of csv");
    let up = sandbox.up().expect(0);
    assert!(
        up.stderr.contains("worker"),
        "names what it builds: {}",
        up.stderr
    );
    let after = sandbox.until_settled(&STIX);
    let changed = changed(&before, &after);
    assert!(
        changed.iter().all(|name| name.starts_with("prog1/")),
        "{changed:?}"
    );
    assert_eq!(changed.len(), 2);
}

#[test]
fn an_old_copy_of_the_directory_is_refused() {
    let sandbox = Sandbox::with_stix(User::Ourselves);
    let _ = own_port(&sandbox);
    let _ = sandbox.up().expect(0);
    let copy = sandbox.root().join("copy");
    let status = std::process::Command::new("cp")
        .args(["-r".as_ref(), sandbox.tree().as_os_str(), copy.as_os_str()])
        .status();
    assert!(status.is_ok_and(|status| status.success()));
    sandbox.edit("stix.khan", "pick(prog1, 2, ALL)", "pick(prog1, 3, ALL)");
    let _ = sandbox.up().expect(0);
    let old = copy.join("examples/stix").display().to_string();
    let refused = sandbox.radix(&["up", &old, "--yes"]).expect(5);
    assert!(
        refused
            .stderr
            .contains(&sandbox.stix().display().to_string()),
        "{}",
        refused.stderr
    );
    let _ = sandbox.until_settled(&[("prog1", 3)]);
    let _ = sandbox
        .radix(&["up", &old, "--yes", "--take-over"])
        .expect(0);
    let _ = sandbox.until_settled(&[("prog1", 2)]);
}

#[test]
fn a_newer_radix_replaces_the_agent_of_the_base_and_nothing_else() {
    let mut sandbox = Sandbox::with_stix(User::Ourselves);
    let address = own_port(&sandbox);
    let _ = sandbox.up().expect(0);
    let before = sandbox.until_settled(&STIX);
    let base = format!("--dir {} ", sandbox.home().join("base").display());
    let of_base = |word: &str| {
        let all = pids_of(&sandbox.home(), &base);
        let kind: Vec<i32> = pids_of(&sandbox.home(), word);
        let mut both = all.into_iter().filter(|pid| kind.contains(pid));
        both.next()
            .unwrap_or_else(|| panic!("no {word}of the base"))
    };
    let (keeper, agent) = (of_base(" keep "), of_base(" agent "));
    sandbox.renew_radix();
    let directory = sandbox.stix().display().to_string();
    let plan = sandbox.radix(&["plan", &directory]).expect(0);
    assert!(plan.stdout.contains("nothing to change"), "{}", plan.stdout);
    assert!(
        plan.stdout.contains("replaces its agent"),
        "{}",
        plan.stdout
    );
    let up = sandbox.up().expect(0);
    assert!(up.stderr.contains("its agent is replaced"), "{}", up.stderr);
    assert!(up.stdout.contains("nothing to change"), "{}", up.stdout);
    assert!(get(&address, "/results").is_some(), "it answers at once");
    let after = sandbox.until_settled(&STIX);
    let of_base = |word: &str| {
        let kind = pids_of(&sandbox.home(), word);
        let all = pids_of(&sandbox.home(), &base);
        let both: Vec<i32> = all.into_iter().filter(|pid| kind.contains(pid)).collect();
        both
    };
    assert_eq!(of_base(" keep "), [keeper]);
    assert_ne!(of_base(" agent "), [agent]);
    assert_eq!(pids(&before), pids(&after));
    assert_eq!(keepers(&before), keepers(&after));
    let again = sandbox.up().expect(0);
    assert!(!again.stderr.contains("replaced"), "{}", again.stderr);
}

#[test]
fn a_smaller_horde_is_settled_as_soon_as_the_surplus_has_left() {
    let sandbox = Sandbox::with_stix(User::Ourselves);
    let _ = own_port(&sandbox);
    let _ = sandbox.up().expect(0);
    let before = sandbox.until_settled(&STIX);
    sandbox.edit("stix.rnodes", "n = 6", "n = 5");
    let _ = sandbox.up().expect(0);
    let smaller = [("cserver", 3), ("cagent", 2), ("prog1", 2), ("prog2", 5)];
    let after = sandbox.until_settled(&smaller);
    assert_eq!(after["rnodes_running"], 5);
    let flock = sandbox
        .radix(&["flock", "--format", "json"])
        .expect(0)
        .json();
    let members = flock["members"].as_array().cloned().unwrap_or_default();
    let states = |label: &str| {
        let of = members.iter().filter(|member| member["label"] == label);
        of.map(|member| member["state"].clone()).collect::<Vec<_>>()
    };
    // It said good-bye: nobody had to find out that it is gone.
    assert!(states("n6").iter().all(|state| state == "left"), "{flock}");
    let kept: Vec<_> = keepers(&before).into_iter().take(5).collect();
    let now = keepers(&after);
    assert_eq!(kept, now.into_iter().take(5).collect::<Vec<_>>());
}
