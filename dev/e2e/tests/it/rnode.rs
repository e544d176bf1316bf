//! One rnode as an operator sees it: what it tells of itself, what it runs when asked, and what it writes down.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::time::Duration;

use e2e::{Sandbox, User, wait_for};
use serde_json::Value;

use crate::{STIX, own_port};

/// Memory of this machine as its own system tells it, in bytes.
fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("the kernel tells it");
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("a number of KiB") * 1024
}

fn show(sandbox: &Sandbox, label: &str) -> Value {
    let shown = sandbox.radix(&["rnode", "show", label, "--format", "json"]);
    shown.expect(0).json()
}

/// The records of a rnode's memoir, oldest first.
fn memoir(sandbox: &Sandbox, label: &str) -> Vec<Value> {
    let read = sandbox.radix(&["memoir", "read", label, "--format", "json"]);
    let text = read.expect(0).stdout;
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn of_kind<'a>(records: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let right = move |record: &&Value| record["kind"] == kind;
    records.iter().filter(right).map(|record| &record["fields"])
}

/// Its cluster, its resources as the system tells them, and three services that answer.
fn tells_of_itself(sandbox: &Sandbox, label: &str) {
    let told = show(sandbox, label);
    assert_eq!(
        (&told["label"], &told["namespace"]),
        (&label.into(), &"stix".into())
    );
    assert_eq!(told["owner"].as_str().map(str::len), Some(64), "{told}");
    assert_eq!(told["memory_bytes"], memory_bytes());
    let cpus = std::thread::available_parallelism().expect("the system tells it");
    assert_eq!(told["cpus"], cpus.get());
    assert!(told["storage_free_bytes"].as_u64() > Some(0), "{told}");
    let services = told["directory"].as_object().expect("a directory");
    let names: BTreeSet<&str> = services.keys().map(String::as_str).collect();
    let wanted = ["fulcrum", "rexec/stix", "fileio"].map(|name| format!("{label}/{name}"));
    assert_eq!(names, wanted.iter().map(String::as_str).collect());
    for address in services.values().filter_map(Value::as_str) {
        TcpStream::connect(address).expect("whoever is listed listens");
    }
}

/// A declared command runs with its exit code and output passed on, and no other runs, whatever it is called.
fn runs_what_was_declared(sandbox: &Sandbox, label: &str) {
    let ran = sandbox.radix(&["exec", label, "stix/worker", "--", "-task", "by-hand"]);
    let ran = ran.expect(2);
    assert!(ran.stderr.contains("-ip is missing"), "{}", ran.stderr);
    for (command, code) in [
        ("sh", 127),
        ("stix/sh", 127),
        ("/bin/sh", 127),
        ("other/worker", 127),
    ] {
        let refused = sandbox.radix(&["exec", label, command, "--", "-c", "true"]);
        let refused = refused.expect(code);
        assert!(refused.stderr.contains("error: "), "{}", refused.stderr);
    }
}

/// The memoir has the load with the digest of each command, and each run with its words, its caller and its end.
fn writes_down(sandbox: &Sandbox, label: &str) {
    let run = |records: &[Value]| {
        let by_hand = of_kind(records, "exec.start")
            .find(|fields| {
                fields["argv"]
                    .as_array()
                    .is_some_and(|argv| argv.contains(&"by-hand".into()))
            })?
            .clone();
        let execution = &by_hand["execution"];
        let end = of_kind(records, "exec.end").find(|fields| fields["execution"] == *execution)?;
        Some((by_hand, end.clone()))
    };
    let mut records = Vec::new();
    let found = wait_for(Duration::from_secs(20), || {
        records = memoir(sandbox, label);
        run(&records)
    });
    let (begun, ended) = found.expect("a run and its end");
    let argv = begun["argv"].as_array().expect("its words");
    assert_eq!(argv[0], "/var/stix/bin/worker");
    assert_eq!(argv[argv.len() - 2..], ["-task", "by-hand"]);
    let caller = begun["caller"].as_str().unwrap_or_default();
    assert!(caller.starts_with("operator "), "{caller}");
    assert_eq!(ended["outcome"], "exit code 2");

    let loaded = of_kind(&records, "document.accept").last().expect("a load");
    let commands = loaded["commands"].as_array().expect("its commands");
    let worker = format!("worker={}", begun["digest"].as_str().expect("a digest"));
    assert!(commands.contains(&worker.into()), "{loaded}");
    let none = |word: &str| {
        !commands
            .iter()
            .any(|one| one.as_str().is_some_and(|one| one.starts_with(word)))
    };
    assert!(none("sh="), "{loaded}");
    let assigned = of_kind(&records, "exec.start").any(|fields| {
        let caller = fields["caller"].as_str();
        caller.is_some_and(|caller| caller.starts_with("assignment "))
    });
    assert!(assigned, "what khan had it start is written down, too");
}

// Shows: RND-01, REX-02, REX-04, SEC-05
#[test]
fn a_rnode_tells_what_it_is_runs_what_was_declared_and_writes_it_down() {
    let sandbox = Sandbox::with_stix(User::Ourselves);
    let _ = own_port(&sandbox);
    let _ = sandbox.up().expect(0);
    let _ = sandbox.until_settled(&STIX);
    for label in ["n1", "n6"] {
        tells_of_itself(&sandbox, label);
        runs_what_was_declared(&sandbox, label);
        writes_down(&sandbox, label);
    }
}

// Shows: MYR-03
#[test]
fn myriad_runs_commands_with_no_agent_no_owner_and_nothing_left() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let script = sandbox.root().join("program");
    std::fs::write(&script, "echo \"$@\"\n").expect("a file can be written");
    let file = sandbox.root().join("plain.rnodes");
    let block = format!(
        "myriad {{\n  n = 6\n  cmd = /bin/sh {}\n}}\n",
        script.display()
    );
    std::fs::write(&file, block).expect("a file can be written");
    let ran = sandbox.radix(&["myriad", "run", &file.display().to_string()]);
    let ran = ran.expect(0);
    assert_eq!(ran.stdout.lines().count(), 6, "{}", ran.stdout);
    let run = sandbox.home().join("myriad/plain-1");
    for line in ran.stdout.lines() {
        let (label, address) = line.split_once(' ').expect("a label and an address");
        let said = std::fs::read_to_string(run.join(label).join("stdout"));
        assert_eq!(
            said.expect("its output"),
            format!("-rnode {label} -ip {address}\n")
        );
    }
    let made = std::fs::read_dir(sandbox.home()).expect("a directory");
    let made: Vec<_> = made
        .filter_map(Result::ok)
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(made, ["myriad"]);
    let _ = sandbox.radix(&["myriad", "clean"]).expect(0);
    assert!(!sandbox.home().join("myriad").exists());
}
