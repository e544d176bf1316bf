//! `radix cp` between this machine and rnodes.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use e2e::{Sandbox, User};

/// Three rnodes without an application.
const FILES: [(&str, &str); 4] = [
    (
        "bare.begat",
        "nothing: rexec/nothing\n      rexec/nothing\n",
    ),
    ("bare.rexec", "nothing = /bin/true\n"),
    ("bare.khan", "# Nothing is placed.\n"),
    (
        "bare.rnodes",
        "local {\n  n = 3\n  cmd = /var/radix/bin/fulcrum\n  mount . = /var/bare\n}\n",
    ),
];

/// Brings the rnodes up, with one more line for where they come from; returns the folder.
pub(crate) fn begin(sandbox: &Sandbox, line: &str) -> PathBuf {
    let folder = sandbox.root().join("bare");
    fs::create_dir(&folder).expect("a folder can be made");
    for (name, text) in FILES {
        let text = match name {
            "bare.rnodes" => text.replace("  n = 3\n", &format!("  n = 3\n{line}")),
            _ => text.to_owned(),
        };
        fs::write(folder.join(name), text).expect("a file can be written");
    }
    let up = [
        "up",
        &folder.display().to_string(),
        "--yes",
        "--timeout",
        "2m",
    ];
    let _ = sandbox.radix(&up).expect(0);
    folder
}

// Shows in part: FIO-01
#[test]
fn a_file_goes_up_across_to_many_and_down_again() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let folder = begin(&sandbox, "");
    let file = sandbox.root().join("report");
    let bytes: Vec<u8> = (0..1_000_000u32).map(|at| (at * 7 % 251) as u8).collect();
    fs::write(&file, &bytes).expect("a file can be written");
    let (here, back) = (
        file.display().to_string(),
        sandbox.root().join("back").display().to_string(),
    );
    let copy = |words: &[&str]| sandbox.radix(&[&["cp", "--format", "json"], words].concat());
    // All of it with its seals, or nothing.
    let moved = |reply: &e2e::Reply| match reply.json()[0]["bytes_moved"].as_u64() {
        Some(0) => false,
        Some(1_000_000..1_010_000) => true,
        other => panic!("{other:?} moved"),
    };

    let up = copy(&[&here, "n1:/var/bare/in/report"]).expect(0);
    assert!(moved(&up));
    let again = copy(&[&here, "n1:/var/bare/in/report"]).expect(0);
    assert!(!moved(&again));
    let across = copy(&["n1:/var/bare/in", "ALL:/var/bare/in"]).expect(0);
    assert_eq!(across.json().as_array().map(Vec::len), Some(2));
    // A single file that goes into a folder, there or not, goes there under its own name.
    for folder in ["ALL:/var/bare/all/", "ALL:/var/bare/all"] {
        let all = copy(&[&here, folder]).expect(0);
        assert_eq!(all.json().as_array().map(Vec::len), Some(3));
    }
    let one = copy(&["n3:/var/bare/all/report", &format!("{back}-all")]).expect(0);
    assert!(moved(&one));
    let pushed = copy(&["--push", "n3:/var/bare/in/report", "n2:own"]).expect(0);
    assert!(moved(&pushed));
    let down = copy(&["-r", "n2:own", &back]).expect(0);
    assert!(moved(&down));
    assert_eq!(fs::read(&back).expect("it is there"), bytes);
    assert!(!sandbox.root().join(".radix-partial").exists());
    // What is mounted from the host was not written to.
    assert_eq!(fs::read_dir(&folder).expect("it is there").count(), 4);

    // A folder goes to all as it is here, without what lay at its place on the first of them.
    let set = sandbox.root().join("set");
    fs::create_dir(&set).expect("a directory can be made");
    fs::write(set.join("a"), "of the set").expect("a file can be written");
    let _ = copy(&[&here, "n1:/var/bare/set/besides"]).expect(0);
    let spread = copy(&["-r", &set.display().to_string(), "ALL:/var/bare/set"]).expect(0);
    assert_eq!(spread.json().as_array().map(Vec::len), Some(3));
    let _ = copy(&["n3:/var/bare/set/a", &format!("{back}-a")]).expect(0);
    for label in ["n2", "n3"] {
        let besides = format!("{label}:/var/bare/set/besides");
        let _ = copy(&[&besides, &format!("{back}-none")]).expect(1);
    }

    // Who fails among several is named, and costs only itself, wherever the source is.
    for from in [here.as_str(), "n3:/var/bare/in/report"] {
        let partial = copy(&[from, "n77,n2:/var/bare/part/"]).expect(4);
        let said = partial.stderr.as_str();
        assert!(
            said.contains("1 of 2 copies failed") && said.contains("n77: "),
            "{said}"
        );
        assert_eq!(partial.json().as_array().map(Vec::len), Some(1));
    }
    // Refused, each with its exit code.
    let _ = copy(&[&here, "n1:/etc/report"]).expect(5);
    let _ = copy(&[&here, "n1:../report"]).expect(2);
    let _ = copy(&["n1:nothing", "n2:x"]).expect(1);
    let _ = copy(&["n1:/var/bare/in", "n77:x"]).expect(2);
    let _ = copy(&[&here, &back]).expect(2);
}

#[test]
fn a_rnode_that_takes_connections_and_never_answers_costs_only_itself() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let _ = begin(&sandbox, "");
    let file = sandbox.root().join("report");
    fs::write(&file, vec![7; 300_000]).expect("a file can be written");
    let here = file.display().to_string();
    let status = sandbox
        .radix(&["status", "--format", "json"])
        .expect(0)
        .json();
    let rnodes = status["rnodes"].as_array().cloned().unwrap_or_default();
    let first = rnodes.iter().find(|rnode| rnode["label"] == "n1");
    let agent = first.and_then(|rnode| rnode["agent_pid"].as_i64());
    let agent = i32::try_from(agent.expect("an agent")).expect("a pid");
    e2e::stop(agent);
    let copy = |words: &[&str]| sandbox.radix(&[&["cp", "--format", "json"], words].concat());
    for from in [here.as_str(), "n3:/var/bare/in/report"] {
        let partial = copy(&[from, "n1,n2,n3:/var/bare/in/"]).expect(4);
        let said = partial.stderr.as_str();
        let named = said.contains("n1: ") && !said.contains("n2: ");
        assert!(said.contains("copies failed") && named, "{said}");
    }
    e2e::resume(agent);
    let all = copy(&[&here, "ALL:/var/bare/in/"]).expect(0);
    assert_eq!(all.json().as_array().map(Vec::len), Some(3));
}

#[test]
fn a_need_is_stated_met_listed_and_taken_back_and_a_quota_names_itself() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let _ = begin(&sandbox, "  quota = 2M\n");
    let file = sandbox.root().join("model");
    fs::write(&file, vec![7; 300_000]).expect("a file can be written");
    let here = file.display().to_string();

    let added = sandbox
        .radix(&["need", "add", "n1,n3", &here, "--format", "json"])
        .expect(0)
        .json();
    assert_eq!(added.as_array().map(Vec::len), Some(2), "{added}");
    let id = added[0]["id"].as_str().expect("an id").to_owned();
    let list = || sandbox.radix(&["need", "list", "--format", "json"]);
    let met = e2e::wait_for(Duration::from_secs(60), || {
        let needs = list().expect(0).json();
        let needs = needs.as_array().cloned().unwrap_or_default();
        let met = needs.iter().all(|need| need["met"] == true);
        (needs.len() == 2 && met).then_some(needs)
    });
    let met = met.expect("both are met");
    let on = |at: usize| met[at]["rnode"].as_str().unwrap_or_default().to_owned();
    assert_eq!((on(0), on(1)), ("n1".to_owned(), "n3".to_owned()));
    assert_eq!(met[0]["name"], "model");

    let _ = sandbox.radix(&["need", "drop", "n1", &id]).expect(0);
    let left = list().expect(0).json();
    assert_eq!(left.as_array().map(Vec::len), Some(1), "{left}");
    let _ = sandbox.radix(&["need", "drop", "n1", &id]).expect(2);
    let _ = sandbox
        .radix(&["need", "add", "n1", "no such file"])
        .expect(2);

    fs::write(&file, vec![8; 3_000_000]).expect("a file can be written");
    let refused = sandbox.radix(&["cp", &here, "n2:big"]).expect(3);
    let said = refused.stderr;
    assert!(said.contains("quota of 2097152 bytes"), "{said}");
}
