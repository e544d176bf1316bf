//! Who starts a rnode vouches for it, and what it hands over is worth nothing in other hands.

use std::path::Path;
use std::time::Duration;

use e2e::{Reply, Sandbox, User, find_marked, wait_for};

/// How long the short tokens here may be claimed.
const BRIEF: &str = "5s";

/// `radix` with a state directory of its own beside the sandbox's.
fn elsewhere(sandbox: &Sandbox, home: &str, arguments: &[&str]) -> Reply {
    let mut command = sandbox.command(arguments);
    command.env("RADIX_HOME", sandbox.root().join(home));
    sandbox.run(&mut command)
}

/// The last line of what `radix ca …` printed.
fn line(reply: &Reply) -> String {
    reply.stdout.lines().last().unwrap_or_default().to_owned()
}

/// Starts a rnode by hand with this token, waits until `look` says what it wants of its directory and of what it told, and
/// ends it again.
#[track_caller]
fn start_rnode(sandbox: &Sandbox, label: &str, token: &str, look: impl Fn(&Path, &str) -> bool) {
    let directory = sandbox.home().join("by-hand").join(label);
    std::fs::create_dir_all(&directory).expect("a directory can be made");
    std::fs::write(directory.join("invitation"), token).expect("a file can be written");
    let told = directory.join("told");
    let file = std::fs::File::create(&told).expect("a file can be made");
    let resource = directory.display().to_string();
    let words = ["fulcrum", "-rnode", label, "-ip", "127.0.0.1", "-resource"];
    let mut command = sandbox.command(&[&words[..], &[&resource]].concat());
    let mut keeper = command.stderr(file).spawn().expect("radix can be started");
    let seen = wait_for(Duration::from_secs(60), || {
        let told = std::fs::read_to_string(&told).unwrap_or_default();
        look(&directory, &told).then_some(())
    });
    // Its agent ends with it.
    let _ = keeper.kill();
    let _ = keeper.wait();
    let told = std::fs::read_to_string(&told).unwrap_or_default();
    assert!(seen.is_some(), "{label}: {told}");
}

// Shows: CRT-03
#[test]
fn a_nested_fulcrum_is_vouched_for_by_its_spawner_and_its_token_serves_nobody_else() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let _ = crate::tiny(&sandbox, 2);
    let directory = sandbox.root().join("tiny").display().to_string();
    let _ = sandbox.radix(&["up", &directory, "--yes"]).expect(0);
    let _ = sandbox.until_settled(&[("cserver", 1), ("stay", 2)]);

    // The base's backend started each through the base's rexec, and asked the base for its token.
    let memoir = sandbox.radix(&["memoir", "read", "base/base"]).expect(0);
    for label in ["n1", "n2"] {
        let home = sandbox.home().join("hordes/tiny").join(label);
        assert!(home.join("identity/chain").exists(), "{}", home.display());
        assert!(!home.join("invitation").exists(), "the token was erased");
        let asked = memoir.stdout.lines().any(|record| {
            record.contains("invite") && record.contains(label) && record.contains("backend")
        });
        assert!(asked, "{}", memoir.stdout);
    }
    let words = find_marked(&sandbox.home());
    assert!(words.len() > 2 && words.values().all(|words| !words.contains("radix1")));

    // A token for a rnode makes no operator or tool, and one for a tool no rnode.
    let ca = |words: &[&str]| line(&sandbox.radix(&[&["ca"], words].concat()).expect(0));
    let for_rnode = ca(&["invite", "--namespace", "tiny", "n9"]);
    let for_tool = ca(&["invite", "--tool", "spy"]);
    let brief = ca(&["invite", "--tool", "late", "--within", BRIEF]);
    let refused = elsewhere(&sandbox, "wrong", &["login", &for_rnode]).expect(1);
    assert!(
        refused.stderr.contains("it is for a rnode"),
        "{}",
        refused.stderr
    );
    assert!(!sandbox.root().join("wrong/operator/grant").exists());

    // The same holder may exchange it again, for the same identity; nobody else may.
    let first = elsewhere(&sandbox, "holder", &["login", &for_tool]).expect(0);
    let again = elsewhere(&sandbox, "holder", &["login", &for_tool]).expect(0);
    assert_eq!(first.stdout, again.stdout);
    let _ = elsewhere(&sandbox, "holder", &["ps"]).expect(0);
    let _ = elsewhere(&sandbox, "other", &["login", &for_tool]).expect(0);
    let refused = elsewhere(&sandbox, "other", &["ps"]);
    assert_ne!(refused.code, 0, "{}", refused.stdout);

    let expired = wait_for(Duration::from_secs(60), || {
        let reply = elsewhere(&sandbox, "late", &["login", &brief]);
        (reply.code != 0).then_some(reply)
    });
    let expired = expired.expect("a token ends");
    assert!(expired.stderr.contains("claimed by"), "{}", expired.stderr);
    start_rnode(&sandbox, "n8", &for_tool, |directory, told| {
        let enrolled = directory.join("identity/chain").exists();
        assert!(!enrolled, "a tool's token made a rnode");
        told.contains("not for a rnode")
    });
    start_rnode(&sandbox, "n7", &for_rnode, |directory, told| {
        assert!(!directory.join("agent/contact").exists(), "it runs");
        told.contains("it is tiny/n9")
    });
    let by_hand = ca(&["invite", "--namespace", "tiny", "n9"]);
    start_rnode(&sandbox, "n9", &by_hand, |directory, _| {
        directory.join("agent/contact").exists() && !directory.join("invitation").exists()
    });
}

#[test]
fn a_grant_issued_for_a_shown_key_is_good_for_its_holder_alone() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let _ = crate::tiny(&sandbox, 2);
    let directory = sandbox.root().join("tiny").display().to_string();
    let _ = sandbox.radix(&["up", &directory, "--yes"]).expect(0);
    let key = line(&elsewhere(&sandbox, "spy", &["login", "--show-key"]).expect(0));
    let same = line(&elsewhere(&sandbox, "spy", &["login", "--show-key"]).expect(0));
    assert!(key.starts_with("radixk1") && key == same, "{key} {same}");
    let issued = sandbox
        .radix(&["ca", "issue", "--tool", "spy", &key])
        .expect(0);
    let grant = line(&issued);
    let refused = elsewhere(&sandbox, "thief", &["login", &grant]).expect(1);
    assert!(refused.stderr.contains("another key"), "{}", refused.stderr);
    let _ = elsewhere(&sandbox, "spy", &["login", &grant]).expect(0);
    let _ = elsewhere(&sandbox, "spy", &["ps"]).expect(0);
    let denied = ["ca", "deny", "spy", "--reason", "a test", "--yes"];
    let _ = sandbox.radix(&denied).expect(0);
    let gone = wait_for(Duration::from_secs(60), || {
        (elsewhere(&sandbox, "spy", &["ps"]).code != 0).then_some(())
    });
    assert!(gone.is_some(), "a denied tool looks no more");
}
