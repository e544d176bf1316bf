//! What a person is told when an application misbehaves or a command is mistaken, and how to go on.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use e2e::{Inventory, Reply, Sandbox, User, kill, wait_for};
use serde_json::Value;

use crate::skipped;

/// An application `name` of one class `p` on `rnodes` rnodes, whose program is this shell script.
fn write(sandbox: &Sandbox, name: &str, rnodes: u32, script: &str) -> PathBuf {
    let directory = sandbox.root().join(name);
    std::fs::create_dir_all(directory.join("bin")).expect("a directory can be made");
    let program = directory.join("bin/p");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("a file can be written");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, mode).expect("it can be made executable");
    let shape = format!(
        "myriad {{\n  n = {rnodes}\n  cmd = /var/radix/bin/fulcrum\n  mount . = /app\n}}\n"
    );
    let files = [
        ("rnodes", shape.as_str()),
        ("khan", "pick(p, size(ALL), ALL)\n"),
        ("rexec", "p = /app/bin/p\n"),
        ("begat", "p: rexec/p\n      rexec/p\n"),
    ];
    for (ending, text) in files {
        let file = directory.join(format!("{name}.{ending}"));
        std::fs::write(file, text).expect("a file can be written");
    }
    directory
}

fn up(sandbox: &Sandbox, directory: &std::path::Path, more: &[&str]) -> Reply {
    let directory = directory.display().to_string();
    sandbox.radix(&[&["up", &directory, "--yes"], more].concat())
}

#[track_caller]
fn says(reply: &Reply, words: &[&str]) {
    let all = format!("{}{}", reply.stdout, reply.stderr);
    for word in words {
        assert!(all.contains(word), "no `{word}` in\n{all}");
    }
}

#[track_caller]
fn nothing_runs(sandbox: &Sandbox) {
    let inventory = Inventory::take(&sandbox.home());
    assert!(inventory.processes.is_empty(), "{:?}", inventory.processes);
}

#[test]
fn what_an_instance_said_before_it_crashed_is_shown_while_it_waits_to_be_tried_again() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let directory = write(
        &sandbox,
        "crash",
        1,
        "echo the output\necho the reason >&2\nexit 3",
    );
    let reply = up(&sandbox, &directory, &["--timeout", "3s"]).expect(4);
    says(&reply, &["exit code 3", "radix logs -n crash p"]);
    // Whatever it does just now: most of the time it waits, and so nothing of it runs.
    for words in [&["logs"][..], &["logs", "p"], &["logs", "p/0"]] {
        for _ in 0..3 {
            let reply = sandbox.radix(words).expect(0);
            says(&reply, &["the output", "the reason"]);
        }
    }
    let reply = sandbox.radix(&["logs", "q"]).expect(2);
    says(&reply, &["nothing is called `q`", "classes here: p"]);
}

#[test]
fn events_come_from_every_rnode_and_go_on_behind_a_token() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let directory = write(&sandbox, "calm", 3, "exec sleep 1000000");
    let _ = up(&sandbox, &directory, &[]).expect(0);
    let status = sandbox.until_settled(&[("p", 3)]);
    let events = |words: &[&str]| -> Vec<Value> {
        let all = [&["events", "--format", "json"], words].concat();
        let text = sandbox.radix(&all).expect(0).stdout;
        let event = |line: &str| serde_json::from_str(line).expect("an event a line");
        text.lines().map(event).collect()
    };
    let of = |events: &[Value], kind: &str| -> Vec<String> {
        let of_kind = events.iter().filter(|event| event["kind"] == kind);
        let subject = |event: &Value| event["subject"].as_str().unwrap_or_default().to_owned();
        let mut subjects: Vec<String> = of_kind.map(subject).collect();
        subjects.sort();
        subjects
    };
    let before = events(&[]);
    assert_eq!(of(&before, "instance.ready"), ["p/0", "p/1", "p/2"]);
    assert_eq!(
        of(&before, "document").len(),
        1,
        "told by three, shown once"
    );
    let last = before.last().expect("something happened")["token"].clone();
    let last = last.as_str().expect("a token").to_owned();
    let instances = status["instances"].as_array().expect("instances");
    for instance in instances {
        kill(i32::try_from(instance["pid"].as_i64().expect("a pid")).expect("a pid"));
    }
    let exited = || {
        let later = events(&["--after", &last]);
        let all = of(&later, "instance.exited").len() == 3;
        all.then_some(later)
    };
    let later = wait_for(Duration::from_secs(60), exited).expect("each rnode tells of its own");
    assert!(of(&later, "document").is_empty(), "that was before");
    let reply = sandbox.radix(&["events", "--after", "7"]).expect(2);
    says(&reply, &["`7` is no token", "n1:7"]);
    let of_base = |after: &str| sandbox.radix(&["events", "-n", "base", "--after", after]);
    says(&of_base("999").expect(2), &["base has no event 999 yet"]);
    let _ = of_base("1").expect(0);
}

#[test]
fn what_exec_itself_cannot_do_is_125_and_not_the_command_s_own_code() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let directory = write(
        &sandbox,
        "calm",
        1,
        "case $1 in two) exit 2;; esac\nexec sleep 1000000",
    );
    let _ = sandbox.radix(&["exec", "n1", "p"]).expect(125);
    let _ = up(&sandbox, &directory, &[]).expect(0);
    let _ = sandbox.radix(&["exec", "n1", "p", "--", "two"]).expect(2);
    says(
        &sandbox.radix(&["exec", "n9", "p"]).expect(125),
        &["no rnode `n9`", "rnodes: n1"],
    );
    let _ = sandbox
        .radix(&["exec", "-n", "other", "n1", "p"])
        .expect(125);
    let _ = sandbox.radix(&["exec", "n1", "q"]).expect(127);
}

#[test]
fn a_slash_behind_the_destination_of_a_copy_is_a_folder() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let directory = write(&sandbox, "calm", 2, "exec sleep 1000000");
    let _ = up(&sandbox, &directory, &[]).expect(0);
    let file = directory.join("calm.khan").display().to_string();
    let folder = directory.join("bin").display().to_string();
    let copies: [(&[&str], &str); 6] = [
        (&[&file, "n1:/app/data/"], "n1:/app/data/calm.khan"),
        (
            &["n1:/app/data/calm.khan", "n2:/app/pulled/"],
            "n2:/app/pulled/calm.khan",
        ),
        (
            &["--push", "n1:/app/data/calm.khan", "n2:/app/pushed/"],
            "n2:/app/pushed/calm.khan",
        ),
        (&[&file, "n1,n2:/app/both/"], "n2:/app/both/calm.khan"),
        (&[&folder, "n1:/app/tools/"], "n1:/app/tools/p"),
        (&["n1:/app/tools/", "n2:/app/tools/"], "n2:/app/tools/p"),
    ];
    let back = sandbox.root().join("back");
    for (words, there) in copies {
        let _ = sandbox.radix(&[&["cp"], words].concat()).expect(0);
        let _ = std::fs::remove_file(&back);
        let _ = sandbox
            .radix(&["cp", there, &back.display().to_string()])
            .expect(0);
        assert!(back.is_file(), "{there}");
    }
}

#[test]
fn a_name_program_or_command_that_cannot_be_is_refused_before_anything_starts() {
    let sandbox = Sandbox::empty(User::Ourselves);
    for name in ["base", "a.b", "größe", "-x"] {
        let directory = write(&sandbox, name, 1, "exec sleep 1000000");
        for command in ["check", "plan", "up"] {
            let reply = sandbox.radix(&[command, &directory.display().to_string()]);
            says(
                &reply.expect(2),
                &[&format!("cannot be called `{name}`"), "four files"],
            );
        }
    }
    let directory = write(&sandbox, "calm", 1, "exec sleep 1000000");
    let edit = |ending: &str, from: &str, to: &str| {
        let path = directory.join(format!("calm.{ending}"));
        let text = std::fs::read_to_string(&path).expect("the file can be read");
        assert!(text.contains(from), "{text}");
        std::fs::write(path, text.replace(from, to)).expect("the file can be written");
    };
    let refused = |words: &[&str]| {
        for command in ["check", "plan", "up"] {
            let reply = sandbox.radix(&[command, &directory.display().to_string()]);
            says(&reply.expect(2), words);
        }
    };
    edit("rnodes", "bin/fulcrum", "bin/fulcrumm");
    refused(&["calm.rnodes:3:", "fulcrum"]);
    edit("rnodes", "bin/fulcrumm", "bin/fulcrum");
    edit("rexec", "bin/p", "bin/q");
    refused(&["calm.rexec:1:", "is not there, and no dictum makes it"]);
    edit("rexec", "bin/q", "bin/p");
    edit("rnodes", "mount .", "mount ./nowhere");
    refused(&["calm.rnodes:4:", "cannot mount"]);
    edit("rnodes", "mount ./nowhere", "mount .");
    let program = directory.join("bin/p");
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&program, mode).expect("it can be changed");
    refused(&["calm.rexec:1:", "may not be executed", "chmod +x"]);
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, mode).expect("it can be changed");
    edit("begat", "rexec/p\n", "rexec/p userid=nobody\n");
    says(
        &sandbox
            .radix(&["check", &directory.display().to_string()])
            .expect(0),
        &[
            "warning[unknown-user]",
            "calm.begat:1:",
            "runs as whoever runs the rnode",
        ],
    );
    nothing_runs(&sandbox);
}

#[test]
fn a_state_directory_of_somebody_else_is_told_as_such_by_whatever_looks() {
    if !User::Ordinary.possible() {
        return skipped();
    }
    let sandbox = Sandbox::empty(User::Ordinary);
    let theirs = sandbox.root().join("theirs");
    std::fs::create_dir(&theirs).expect("a directory can be made");
    for words in [&["status"][..], &["ps"], &["logs"], &["events"]] {
        let mut command = sandbox.command(words);
        let reply = sandbox.run(command.env("RADIX_HOME", &theirs)).expect(2);
        says(&reply, &["belongs to uid 0", "RADIX_HOME"]);
    }
}

#[test]
fn a_plan_from_a_directory_that_up_would_refuse_says_so() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let first = write(&sandbox, "calm", 1, "exec sleep 1000000");
    let _ = up(&sandbox, &first, &[]).expect(0);
    let second = sandbox.root().join("copy");
    std::fs::rename(&first, &second).expect("a directory can be moved");
    let path = second.join("calm.khan");
    std::fs::write(path, "pick(p, 0, ALL)\n").expect("the file can be written");
    let reply = sandbox
        .radix(&["plan", &second.display().to_string()])
        .expect(0);
    says(
        &reply,
        &[
            "note: `up` refuses this without --take-over",
            "was never applied",
        ],
    );
    let _ = up(&sandbox, &second, &[]).expect(5);
}

#[test]
fn whoever_was_denied_is_told_that_and_ends_with_5() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let directory = write(&sandbox, "calm", 1, "exec sleep 1000000");
    let _ = up(&sandbox, &directory, &[]).expect(0);
    let line = sandbox
        .radix(&["ca", "invite", "--operator", "bob"])
        .expect(0)
        .stdout;
    let theirs = sandbox.root().join("theirs");
    let as_bob = |words: &[&str]| {
        let mut command = sandbox.command(words);
        sandbox.run(command.env("RADIX_HOME", &theirs))
    };
    let _ = as_bob(&["login", line.trim()]).expect(0);
    let _ = as_bob(&["status"]).expect(0);
    let deny = ["ca", "deny", "bob", "--reason", "a test", "--yes"];
    let _ = sandbox.radix(&deny).expect(0);
    // The connection may break before the reason is read: then it is asked for again.
    for words in [&["status"][..], &["ps"], &["flock"], &["services"]].repeat(5) {
        says(
            &as_bob(words).expect(5),
            &["it refuses us", "was denied here"],
        );
    }
}

#[test]
fn a_plan_of_what_finds_no_place_says_which_and_why_and_ends_with_3() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let directory = write(&sandbox, "calm", 2, "exec sleep 1000000");
    let wants = |count: u32| {
        let text = format!("pick(p, {count}, ALL)\n");
        std::fs::write(directory.join("calm.khan"), text).expect("the file can be written");
    };
    let shown = directory.display().to_string();
    let plan = |code| sandbox.radix(&["plan", &shown]).expect(code);
    wants(5);
    let reply = sandbox
        .radix(&["plan", &shown, "--detailed-exitcode"])
        .expect(3);
    says(&reply, &["start   p/1 on n", "p is short by 3: "]);
    assert!(
        reply.stderr.contains("p is short by 3: "),
        "{}",
        reply.stderr
    );
    nothing_runs(&sandbox);
    wants(2);
    says(&plan(0), &["its class is new"]);
    let _ = up(&sandbox, &directory, &[]).expect(0);
    wants(0);
    says(&plan(0), &["(from 2 to 0)"]);
    wants(5);
    says(&plan(3), &["p is short by 3: "]);
}

#[test]
fn an_application_that_ends_is_told_as_ending() {
    let sandbox = Sandbox::empty(User::Ourselves);
    // Deaf to the polite request, so that its end takes a while.
    let deaf = "trap '' TERM\nwhile :; do sleep 1; done";
    let directory = write(&sandbox, "calm", 2, deaf);
    let _ = up(&sandbox, &directory, &[]).expect(0);
    let mut down = sandbox.command(&["down", "--yes"]);
    let mut down = down.spawn().expect("radix starts");
    let mut seen = 0;
    while down.try_wait().expect("it is ours").is_none() {
        let reply = sandbox.radix(&["status"]);
        let first = reply.stdout.lines().next().unwrap_or_default();
        if first.contains("is ending") {
            seen += 1;
        }
        for wrong in ["of 0 rnodes", "generation 0"] {
            assert!(!reply.stdout.contains(wrong), "{}", reply.stdout);
        }
    }
    assert!(seen > 0, "status says that it is ending");
}

#[test]
fn what_cannot_be_read_or_copied_is_told_as_wrong_use() {
    let sandbox = Sandbox::empty(User::Ourselves);
    // Nothing runs, and nothing has to.
    let reply = sandbox.radix(&["cp", "a", "b"]).expect(2);
    says(&reply, &["both ends are on this machine", "n1:PATH"]);
    let reply = sandbox.radix(&["cp", "n1:/x", "-"]).expect(2);
    says(&reply, &["`-` is no path", "./-"]);
    let reply = sandbox.radix(&["ca", "recover", "garbage"]).expect(2);
    says(
        &reply,
        &["because: failed to read a recovery key", "radixrecovery1"],
    );
    let invite = ["ca", "invite", "--operator", "bob"];
    let _ = sandbox.radix(&invite).expect(0);
    let deny = ["ca", "deny", "bob", "--reason", "a test", "--yes"];
    says(
        &sandbox.radix(&deny).expect(0),
        &["denies operator bob (invitation "],
    );
    let reply = sandbox.radix(&["ca", "invite", "--operator", "a b"]);
    says(&reply.expect(2), &["because: failed to read a label: "]);
    let directory = write(&sandbox, "calm", 1, "exec sleep 1000000");
    std::fs::write(directory.join("calm.khan"), "#".repeat(3 << 20)).expect("written");
    let reply = sandbox.radix(&["check", &directory.display().to_string()]);
    says(&reply.expect(2), &["calm.khan has more than 1048576 bytes"]);
}

#[test]
fn ending_one_of_two_applications_says_what_the_base_goes_on_for() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let looking = [&["ca", "show"][..], &["ca", "list"], &["ca", "recovery"]];
    for words in looking {
        let reply = sandbox.radix(words).expect(1);
        says(&reply, &["has no owner yet", "radix up DIR"]);
    }
    for name in ["calm", "quiet"] {
        let directory = write(&sandbox, name, 1, "exec sleep 1000000");
        let reply = up(&sandbox, &directory, &[]).expect(0);
        let status = match name {
            "calm" => "  radix status\n",
            _ => "  radix status -n quiet\n",
        };
        says(&reply, &[status]);
    }
    let reply = sandbox.radix(&["down", "-n", "calm", "--yes"]).expect(0);
    says(&reply, &["ended calm", "the base goes on: it runs quiet"]);
    let reply = sandbox.radix(&["down", "--yes"]).expect(0);
    assert!(!reply.stderr.contains("goes on"), "{}", reply.stderr);
}

#[test]
fn events_are_followed_on_when_an_agent_dies() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let directory = write(&sandbox, "calm", 2, "exec sleep 1000000");
    let _ = up(&sandbox, &directory, &[]).expect(0);
    let status = sandbox.until_settled(&[("p", 2)]);
    let pid = |of: &Value, name: &str| i32::try_from(of[name].as_i64().unwrap_or(0)).unwrap_or(0);
    let path = sandbox.root().join("followed");
    let file = std::fs::File::create(&path).expect("a file can be made");
    let mut command = sandbox.command(&["events", "-f"]);
    let mut following = command.stdout(file).spawn().expect("it starts");
    let text = || std::fs::read_to_string(&path).unwrap_or_default();
    let count = |word: &str| text().matches(word).count();
    let limit = Duration::from_secs(60);
    let begun = || (count("instance.ready") == 2).then_some(());
    wait_for(limit, begun).expect("what was is told first");
    for rnode in status["rnodes"].as_array().expect("rnodes") {
        kill(pid(rnode, "agent_pid"));
    }
    let _ = sandbox.until_settled(&[("p", 2)]);
    for instance in status["instances"].as_array().expect("instances") {
        kill(pid(instance, "pid"));
    }
    let ended = || (count("instance.exited") == 2 && count("instance.ready") == 4).then_some(());
    let seen = wait_for(limit, ended);
    following.kill().expect("it can be ended");
    let _ = following.wait();
    assert!(
        seen.is_some(),
        "not all was told, or some twice:\n{}",
        text()
    );
}
