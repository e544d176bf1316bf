//! The first command of the README, as us and as an ordinary user.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::{Sandbox, User, pids_of, wait_for};
use serde_json::Value;

use crate::{STIX, get, own_port, pids};

/// Instance → rnode, of a plan's actions or a status's instances.
fn places(list: &Value) -> BTreeMap<String, String> {
    let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    let place = |item: &Value| {
        let name = format!("{}/{}", text(item, "class"), item["index"]);
        (name, text(item, "rnode"))
    };
    list.as_array().into_iter().flatten().map(place).collect()
}

/// `up` to a ready stix, seen from every side.
fn rises(user: User) {
    if !user.possible() {
        crate::skipped();
        return;
    }
    let sandbox = Sandbox::with_stix(user);
    let address = own_port(&sandbox);
    let directory = sandbox.stix().display().to_string();
    let plan = sandbox
        .radix(&["plan", &directory, "--format", "json"])
        .expect(0)
        .json();
    let up = sandbox.up().expect(0);
    let at_once = get(&address, "/results");
    assert!(
        up.stdout.contains("radix status"),
        "says what to type next: {}",
        up.stdout
    );

    let status = sandbox.until_settled(&STIX);
    assert_eq!(status["rnodes"].as_array().map(Vec::len), Some(6));
    assert_eq!(
        places(&plan["actions"]),
        places(&status["instances"]),
        "what was planned is what runs"
    );
    let cells = |class: &str| {
        let instances = status["instances"].as_array().cloned().unwrap_or_default();
        let of_class = instances
            .iter()
            .filter(|instance| instance["class"] == class);
        of_class
            .map(|instance| instance["rnode"].to_string())
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert!(
        cells("cserver").is_disjoint(&cells("cagent")),
        "cagents run on the other three"
    );
    assert_eq!(
        pids_of(&sandbox.home(), " keep ").len(),
        7,
        "six keepers and the base's"
    );
    assert_eq!(
        pids_of(&sandbox.home(), " agent ").len(),
        7,
        "six agents and the base's"
    );

    let flock = sandbox
        .radix(&["flock", "--format", "json"])
        .expect(0)
        .json();
    assert_eq!(flock["members"].as_array().map(Vec::len), Some(6));
    assert_eq!(flock["leader_label"], status["leader"]);

    let printed = format!("curl http://{address}/results");
    assert!(up.stdout.contains(&printed), "{}", up.stdout);
    let first = at_once.expect("what `up` says to type works at once");
    let later = wait_for(Duration::from_secs(20), || {
        get(&address, "/results").filter(|body| *body != first)
    });
    assert!(later.is_some(), "results change while one watches: {first}");

    let again = sandbox.up().expect(0);
    assert!(
        again.stdout.contains("nothing to change"),
        "{}{}",
        again.stdout,
        again.stderr
    );
    assert_eq!(
        pids(&sandbox.status()),
        pids(&status),
        "a second up changes nothing"
    );
}

// Shows: ADF-01, KHN-03, RND-06, RND-10
#[test]
fn up_brings_the_printed_application_to_ready() {
    rises(User::Ourselves);
}

// Shows: FUL-01
#[test]
fn an_ordinary_user_needs_nothing_else() {
    rises(User::Ordinary);
}
