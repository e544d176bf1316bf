//! A second state directory on the machine of a running base: another operator's, a copy; and the operator's own denial.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use e2e::{Reply, Sandbox, User};

const COUNTS: [(&str, u64); 2] = [("cserver", 1), ("stay", 2)];

/// `radix` with another state directory.
#[track_caller]
fn elsewhere(sandbox: &Sandbox, home: &Path, arguments: &[&str]) -> Reply {
    let mut command = sandbox.command(arguments);
    sandbox.run(command.env("RADIX_HOME", home))
}

/// A running application, its directory, and the instances' pids.
#[track_caller]
fn running(sandbox: &Sandbox) -> (String, BTreeMap<String, i64>) {
    let _ = crate::tiny(sandbox, 2);
    let directory = sandbox.root().join("tiny").display().to_string();
    let _ = sandbox.radix(&["up", &directory, "--yes"]).expect(0);
    let pids = crate::pids(&sandbox.until_settled(&COUNTS));
    (directory, pids)
}

/// A description of the same application under another name.
#[track_caller]
fn renamed(sandbox: &Sandbox, name: &str) -> PathBuf {
    let (from, to) = (sandbox.root().join("tiny"), sandbox.root().join(name));
    std::fs::create_dir(&to).expect("a directory can be made");
    for ending in ["begat", "rexec", "khan", "rnodes"] {
        let text = std::fs::read_to_string(from.join(format!("tiny.{ending}")));
        let text = text.expect("the file can be read");
        // Without the port, which is taken.
        let kept = text.lines().filter(|line| !line.contains("expose"));
        let text: Vec<&str> = kept.collect();
        let file = to.join(format!("{name}.{ending}"));
        std::fs::write(file, text.join("\n") + "\n").expect("the file can be written");
    }
    to
}

#[test]
fn an_operator_with_a_home_of_its_own_goes_on_with_what_the_first_began() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let (directory, before) = running(&sandbox);
    let invited = sandbox
        .radix(&["ca", "invite", "--operator", "bob"])
        .expect(0);
    let home = sandbox.root().join("bob");
    let bob = |arguments: &[&str]| elsewhere(&sandbox, &home, arguments);
    let said = bob(&["login", invited.stdout.trim()]).expect(0);
    assert!(said.stdout.contains("operator bob"), "{}", said.stdout);
    let _ = bob(&["status"]).expect(0);

    // The very same is no change, whoever applied it.
    let same = bob(&["up", &directory, "--yes"]).expect(0);
    assert!(same.stdout.contains("nothing to change"), "{}", same.stdout);
    let begat = sandbox.root().join("tiny/tiny.begat");
    let text = std::fs::read_to_string(&begat).expect("the file can be read");
    std::fs::write(&begat, text.replace("1000000", "1000001")).expect("it can be written");
    let _ = bob(&["up", &directory, "--yes"]).expect(0);
    let after = crate::pids(&sandbox.until_settled(&COUNTS));
    assert_eq!(after["cserver/0"], before["cserver/0"], "it stays");
    assert_ne!(after["stay/0"], before["stay/0"], "its arguments changed");

    // The first does not undo that by accident.
    let text = std::fs::read_to_string(&begat).expect("the file can be read");
    std::fs::write(&begat, text.replace("1000001", "1000002")).expect("it can be written");
    let refused = sandbox.radix(&["up", &directory, "--yes"]).expect(5);
    assert!(
        refused.stderr.contains("another operator"),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("--take-over"), "{}", refused.stderr);

    // What takes the root key is refused before anything begins.
    let other = renamed(&sandbox, "other").display().to_string();
    let refused = bob(&["up", &other, "--yes"]).expect(5);
    assert!(refused.stderr.contains("root key"), "{}", refused.stderr);
    let _ = bob(&["ca", "invite", "--operator", "eve"]).expect(5);
    let _ = bob(&["ca", "rotate", "--yes"]).expect(5);
    assert_eq!(crate::pids(&sandbox.status()), after, "nothing was touched");

    let _ = bob(&["down", "tiny", "--yes"]).expect(0);
    let _ = sandbox.radix(&["status"]).expect(1);
}

#[test]
fn a_copy_of_a_state_directory_is_refused_while_the_original_is_there() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let (directory, before) = running(&sandbox);
    let _ = sandbox.status();
    let copy = sandbox.root().join("copy");
    let mut copying = sandbox.command_of(Path::new("cp"), &["-a", "home", "copy"]);
    let _ = sandbox.run(&mut copying).expect(0);
    for arguments in [
        vec!["up", &directory, "--yes"],
        vec!["status"],
        vec!["down", "tiny", "--yes"],
        vec!["ca", "rotate", "--yes"],
    ] {
        let refused = elsewhere(&sandbox, &copy, &arguments).expect(5);
        assert!(
            refused.stderr.contains("is a copy of"),
            "{}",
            refused.stderr
        );
    }
    assert_eq!(crate::pids(&sandbox.until_settled(&COUNTS)), before);
}

#[test]
fn a_machines_own_operator_is_denied_with_all_it_enrolled_and_the_next_up_brings_the_base_back() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let (directory, before) = running(&sandbox);
    let mut words = vec!["ca", "deny", "operator", "--reason", "a test", "--yes"];
    words.push("--with-enrolled");
    let denied = sandbox.radix(&words).expect(0);
    assert!(
        denied.stdout.contains("the next `radix up`"),
        "{}",
        denied.stdout
    );
    let ended = sandbox.radix(&["status"]).expect(1);
    assert!(ended.stderr.contains("denied"), "{}", ended.stderr);
    let listed = sandbox.radix(&["ca", "list"]).expect(0);
    let why = "the base was not heard: it cannot be reached";
    assert!(listed.stderr.contains(why), "{}", listed.stderr);

    let again = sandbox.radix(&["up", &directory, "--yes"]).expect(0);
    assert!(again.stderr.contains("another"), "{}", again.stderr);
    let after = crate::pids(&sandbox.until_settled(&COUNTS));
    assert_eq!(after, before, "what ran was not touched");
    // The base may host it again: it replaces a rnode that is lost.
    let _ = sandbox
        .radix(&["ca", "deny", "tiny/n2", "--reason", "a test", "--yes"])
        .expect(0);
    sandbox.until("another n2", |status| {
        let fresh = crate::pids(status);
        (status["settled"] == true && fresh.len() == 3 && fresh != before).then_some(())
    });
    let _ = sandbox.radix(&["down", "tiny", "--yes"]).expect(0);
}
