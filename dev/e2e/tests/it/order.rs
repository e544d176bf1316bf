//! No promise of order within a pass is made, so none may be needed: the examples and the suite, started in other orders.

use std::collections::BTreeMap;

use crux_net::order::{Order, VARIABLE};
use crux_net::process::Environment;
use e2e::{Sandbox, User, find_marked};

use crate::{STIX, own_port, pids};

/// Orders that are tried.
const SEEDS: [u64; 2] = [1, 2];

#[expect(clippy::print_stdout, reason = "a failing test tells its seed")]
fn say(seed: u64) {
    println!("the order of {VARIABLE}={seed}");
}

/// Labels of the rnodes in the order in which their cells were started, by when the kernel made them.
fn started(sandbox: &Sandbox) -> Vec<String> {
    let mut first: BTreeMap<String, (u64, i32)> = BTreeMap::new();
    for (pid, command) in find_marked(&sandbox.home()) {
        let Some((_, directory)) = command.split_once(" cell --dir ") else {
            continue;
        };
        let label = directory.trim().rsplit('/').next().unwrap_or_default();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default();
        // Field 22 of the line; the second is what ends with the bracket.
        let begun = fields.split_whitespace().nth(19);
        let begun = begun.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
        let held = first.entry(label.to_owned()).or_insert((begun, pid));
        *held = (*held).min((begun, pid));
    }
    let mut cells: Vec<((u64, i32), String)> =
        first.into_iter().map(|(label, at)| (at, label)).collect();
    cells.sort();
    cells.into_iter().map(|(_, label)| label).collect()
}

/// Whether a process was told of the order.
fn knows_of_it(pid: i64) -> bool {
    i32::try_from(pid).is_ok_and(|pid| {
        Environment::of(pid).is_ok_and(|environment| environment.value(VARIABLE).is_some())
    })
}

// Shows in part: HRD-04
#[test]
fn stix_comes_up_in_whatever_order_its_rnodes_and_instances_are_started() {
    for seed in SEEDS {
        say(seed);
        let sandbox = Sandbox::with_stix(User::Ourselves);
        let address = own_port(&sandbox);
        let stix = sandbox.stix().display().to_string();
        let mut up = sandbox.command(&["up", &stix, "--yes"]);
        let _ = sandbox.run(up.env(VARIABLE, seed.to_string())).expect(0);
        let labels = (1..=6).map(|ordinal| format!("n{ordinal}")).collect();
        assert_eq!(started(&sandbox), Order::seeded(seed).arrange(labels));
        let status = sandbox.until_settled(&STIX);
        assert!(crate::get(&address, "/results").is_some());
        let rnodes = status["rnodes"].as_array().cloned().unwrap_or_default();
        let agents = rnodes
            .iter()
            .filter_map(|rnode| rnode["agent_pid"].as_i64());
        assert_eq!(agents.filter(|pid| knows_of_it(*pid)).count(), 6);
        let instances = pids(&status);
        assert!(
            !instances.values().any(|pid| knows_of_it(*pid)),
            "{instances:?}"
        );
        let _ = sandbox.radix(&["down", "--yes"]).expect(0);
    }
}

// Shows in part: HRD-04
#[test]
fn local_keeps_its_promises_in_whatever_order_it_starts() {
    for (seed, way) in SEEDS.into_iter().zip([&[][..], &["--plug-in"]]) {
        say(seed);
        let sandbox = Sandbox::empty(User::Ourselves);
        let words = [&["backend", "check", "local"], way].concat();
        let mut check = sandbox.command(&words);
        let reply = sandbox.run(check.env(VARIABLE, seed.to_string())).expect(0);
        let line = reply.stdout.lines().last().unwrap_or_default().to_owned();
        let golden = include_str!("../golden/backend-local.txt");
        assert!(golden.lines().any(|known| known == line), "{line}");
    }
}
