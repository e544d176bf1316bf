//! Processes killed at any moment: what comes back, and what never notices.

use std::time::Duration;

use e2e::{Sandbox, User, kill, pids_of, wait_for, wait_gone};
use serde_json::Value;

use crate::{STIX, get, keepers, own_port, pids};

fn pid_of(status: &Value, label: &str, field: &str) -> i32 {
    let rnodes = status["rnodes"].as_array().cloned().unwrap_or_default();
    let rnode = rnodes.iter().find(|rnode| rnode["label"] == label);
    let pid = rnode.and_then(|rnode| rnode[field].as_i64()).unwrap_or(0);
    assert!(pid > 0, "{label} has no {field}: {status}");
    i32::try_from(pid).expect("a pid")
}

fn raised() -> (Sandbox, String, Value) {
    let sandbox = Sandbox::with_stix(User::Ourselves);
    let address = own_port(&sandbox);
    let _ = sandbox.up().expect(0);
    let status = sandbox.until_settled(&STIX);
    (sandbox, address, status)
}

// Shows: GOA-03, KHN-10
#[test]
fn a_killed_slave_and_a_killed_agent_come_back_and_nothing_else_changes() {
    let (sandbox, _address, before) = raised();
    let victim = pids(&before)["prog2/0"];
    kill(i32::try_from(victim).expect("a pid"));
    let after = sandbox.until("the slave is back", |status| {
        let instances = status["instances"].as_array()?;
        let slave = instances
            .iter()
            .find(|instance| instance["instance"] == "prog2/0")?;
        let restarted = slave["restarts"].as_u64()? >= 1 && slave["state"] == "ready";
        let pid = slave["pid"].as_i64()?;
        (status["settled"] == true && restarted && pid > 100 && pid != victim)
            .then(|| status.clone())
    });
    let same = |a: &Value, b: &Value| {
        let (mut a, mut b) = (pids(a), pids(b));
        a.remove("prog2/0");
        b.remove("prog2/0");
        assert_eq!(a, b, "only the slave changed");
    };
    same(&before, &after);

    let agent = pid_of(&after, "n3", "agent_pid");
    kill(agent);
    let later = sandbox.until("a new agent", |status| {
        let rnodes = status["rnodes"].as_array()?;
        let rnode = rnodes.iter().find(|rnode| rnode["label"] == "n3")?;
        let pid = rnode["agent_pid"].as_i64()?;
        let new = pid > 100 && pid != i64::from(agent);
        (new && status["settled"] == true && rnodes.len() == 6).then(|| status.clone())
    });
    assert_eq!(
        pids(&after),
        pids(&later),
        "every process is the same as before"
    );
}

// Shows in part: RND-03
#[test]
fn killed_keepers_are_realised_again_with_right_counts() {
    let (sandbox, _address, before) = raised();
    let leader = before["leader"].as_str().expect("a leader").to_owned();
    kill(pid_of(&before, &leader, "keeper_pid"));
    let settled = |status: &Value| {
        (status["settled"] == true && status["rnodes_running"] == 6).then(|| status.clone())
    };
    let gone = pid_of(&before, &leader, "keeper_pid");
    assert!(wait_gone(gone));
    let after = sandbox.until("the leader's rnode is back", |status| {
        let keeper = status["rnodes"]
            .as_array()?
            .iter()
            .find(|rnode| rnode["label"] == leader)?;
        let pid = keeper["keeper_pid"].as_i64()?;
        (pid > 0 && pid != i64::from(gone)).then_some(())?;
        settled(status)
    });
    let victims: Vec<i32> = ["n1", "n3", "n5"]
        .iter()
        .map(|label| pid_of(&after, label, "keeper_pid"))
        .collect();
    victims.iter().for_each(|pid| kill(*pid));
    victims.iter().for_each(|pid| assert!(wait_gone(*pid)));
    let last = sandbox.until("three rnodes are back", |status| {
        let rnodes = status["rnodes"].as_array()?;
        let fresh = rnodes.iter().all(|rnode| {
            rnode["keeper_pid"]
                .as_i64()
                .is_some_and(|pid| pid > 0 && !victims.iter().any(|old| i64::from(*old) == pid))
        });
        (fresh && rnodes.len() == 6).then_some(())?;
        settled(status)
    });
    let counts = sandbox.until_settled(&STIX);
    assert_eq!(
        counts["instances"].as_array().map(Vec::len),
        Some(14),
        "nothing doubled: {last}"
    );
    sandbox.until("one leader, and all six follow it", |status| {
        let flock = sandbox.radix(&["flock", "--format", "json"]).json();
        let members = flock["members"].as_array()?.len();
        (members == 6 && flock["leader_label"] == status["leader"]).then_some(())
    });
}

#[test]
fn the_application_goes_on_without_the_base_and_up_brings_it_back() {
    let (sandbox, address, before) = raised();
    let base = sandbox.home().join("base").display().to_string();
    let base_pids: Vec<i32> = pids_of(&sandbox.home(), &format!("--dir {base} "));
    assert_eq!(base_pids.len(), 2, "keeper and agent of the base");
    base_pids.iter().for_each(|pid| kill(*pid));
    base_pids.iter().for_each(|pid| assert!(wait_gone(*pid)));
    assert!(get(&address, "/results").is_some(), "stix goes on");
    let _ = sandbox.up().expect(0);
    let after = sandbox.until_settled(&STIX);
    assert_eq!(pids(&before), pids(&after), "all was adopted");
    assert_eq!(keepers(&before), keepers(&after), "and every rnode");
}

#[test]
fn up_after_the_base_and_a_keeper_died_waits_until_all_is_there_again() {
    let (sandbox, address, before) = raised();
    let base = sandbox.home().join("base").display().to_string();
    let mut victims: Vec<i32> = pids_of(&sandbox.home(), &format!("--dir {base} "));
    assert_eq!(victims.len(), 2, "keeper and agent of the base");
    let keeper = pid_of(&before, "n4", "keeper_pid");
    victims.push(keeper);
    victims.iter().for_each(|pid| kill(*pid));
    victims.iter().for_each(|pid| assert!(wait_gone(*pid)));
    let _ = sandbox.up().expect(0);
    assert!(get(&address, "/results").is_some(), "it answers at once");
    let after = sandbox.status();
    let now = pid_of(&after, "n4", "keeper_pid");
    assert_ne!(now, keeper, "n4 was realised again");
    let instances = after["instances"].as_array().cloned().unwrap_or_default();
    assert_eq!(instances.len(), 14, "{after}");
    let there = |one: &Value| one["state"] == "ready" && one["pid"].as_i64() > Some(0);
    assert!(instances.iter().all(there), "{after}");
}

#[test]
fn the_other_worker_answers_when_one_is_killed() {
    let (sandbox, address, before) = raised();
    let worker = |body: &str| {
        serde_json::from_str::<Value>(body).ok()?["worker"]
            .as_str()
            .map(str::to_owned)
    };
    let first = get(&address, "/lookup/p0001")
        .and_then(|body| worker(&body))
        .expect("a worker answers");
    let index = first.rsplit('/').next().expect("an index").to_owned();
    kill(i32::try_from(pids(&before)[&format!("prog1/{index}")]).expect("a pid"));
    let other = wait_for(Duration::from_secs(20), || {
        get(&address, "/lookup/p0001")
            .and_then(|body| worker(&body))
            .filter(|name| *name != first)
    });
    assert!(other.is_some(), "the other answers");
    let _ = sandbox.until_settled(&STIX);
}

#[test]
fn up_killed_at_many_moments_is_finished_by_the_next_one() {
    let sandbox = Sandbox::with_stix(User::Ourselves);
    let _ = own_port(&sandbox);
    let directory = sandbox.stix().display().to_string();
    for moment_ms in [20, 80, 150, 250, 400, 700, 1200] {
        let mut child = sandbox
            .command(&["up", &directory, "--yes"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("radix starts");
        let _ = wait_for(Duration::from_millis(moment_ms), || None::<()>);
        let _ = child.kill();
        let _ = child.wait();
    }
    let _ = sandbox.up().expect(0);
    let status = sandbox.until_settled(&STIX);
    assert_eq!(status["instances"].as_array().map(Vec::len), Some(14));
    assert_eq!(status["rnodes"].as_array().map(Vec::len), Some(6));
}

#[test]
fn of_two_ups_at_once_one_wins_and_the_other_is_told() {
    let sandbox = Sandbox::with_stix(User::Ourselves);
    let _ = own_port(&sandbox);
    let _ = sandbox.up().expect(0);
    let directory = sandbox.stix().display().to_string();
    sandbox.edit("stix.khan", "pick(prog1, 2, ALL)", "pick(prog1, 3, ALL)");
    let start = || {
        sandbox
            .command(&["up", &directory, "--yes"])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("radix starts")
    };
    let children = [start(), start()];
    let codes: Vec<i32> = children
        .into_iter()
        .map(|child| {
            child
                .wait_with_output()
                .expect("it ends")
                .status
                .code()
                .unwrap_or(-1)
        })
        .collect();
    assert!(codes.contains(&0), "one wins: {codes:?}");
    assert!(
        codes.iter().all(|code| [0, 5].contains(code)),
        "the other is told or finds it done: {codes:?}"
    );
    let _ = sandbox.until_settled(&[("prog1", 3)]);
}
