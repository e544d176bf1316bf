//! The first command of the README, as us and as an ordinary user.

use std::collections::BTreeMap;
use std::path::Path;
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

    mounts_stay_inside(&status);
    for label in ["n1", "n2", "n3", "n4", "n5", "n6"] {
        let file = sandbox
            .home()
            .join("hordes/stix")
            .join(label)
            .join("rnode.json");
        let text = std::fs::read_to_string(&file).expect("each rnode has a directory of its own");
        let told: Value = serde_json::from_str(&text).expect("it is JSON");
        let hints = told["hints"].as_array().map(Vec::len);
        assert!(matches!(hints, Some(0 | 1)), "one hint at most: {text}");
    }

    let flock = sandbox
        .radix(&["flock", "--format", "json"])
        .expect(0)
        .json();
    assert_eq!(flock["members"].as_array().map(Vec::len), Some(6));
    assert_eq!(flock["leader_label"], status["leader"]);

    let printed = format!("curl http://{address}/");
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

/// What `mount` asks for is seen in every cell and nowhere on the machine.
fn mounts_stay_inside(status: &serde_json::Value) {
    let target = |mounts: &str| {
        let mut lines = mounts.lines();
        lines.any(|line| line.split(' ').nth(4) == Some("/var/stix"))
    };
    let read = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/mountinfo"));
    let outside = read("self").expect("our own mounts can be read");
    assert!(!target(&outside), "{outside}");
    let rnodes = status["rnodes"].as_array().cloned().unwrap_or_default();
    for rnode in rnodes {
        let inside = read(&rnode["keeper_pid"].to_string()).expect("a cell's mounts can be read");
        assert!(target(&inside), "{rnode}: {inside}");
        let seen = format!("/proc/{}/root/var/stix/prods.csv", rnode["agent_pid"]);
        assert!(
            Path::new(&seen).is_file(),
            "{rnode}: its agent sees no {seen}"
        );
    }
}

// Shows: ADF-01, KHN-03, MYR-02, RND-06, RND-10
#[test]
fn up_brings_the_printed_application_to_ready() {
    rises(User::Ourselves);
}

// Shows: FUL-01
#[test]
fn an_ordinary_user_needs_nothing_else() {
    rises(User::Ordinary);
}

#[test]
fn two_state_directories_that_start_at_once_do_not_meet() {
    let sandbox = Sandbox::with_stix(User::Ourselves);
    let other = sandbox.beside();
    let sandboxes = [&sandbox, &other];
    let addresses = sandboxes.map(own_port);
    let ups = sandboxes.map(|sandbox| {
        let directory = sandbox.stix().display().to_string();
        sandbox
            .command(&["up", &directory, "--yes"])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("radix starts")
    });
    for up in ups {
        let output = up.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
    }
    let mut hosts = std::collections::BTreeSet::new();
    for (sandbox, address) in sandboxes.into_iter().zip(&addresses) {
        assert!(get(address, "/results").is_some(), "{address} answers");
        let status = sandbox.until_settled(&STIX);
        let rnodes = status["rnodes"].as_array().cloned().unwrap_or_default();
        hosts.extend(rnodes.iter().map(|rnode| rnode["address"].to_string()));
    }
    assert_eq!(hosts.len(), 12, "every rnode has its own: {hosts:?}");
}
