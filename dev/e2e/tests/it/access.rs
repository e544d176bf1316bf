//! What a user of a rnode may do with a file is asked of the system, and required before a command starts as that user.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use e2e::{Reply, Sandbox, User, kill};
use serde_json::Value;

/// The program, as the application sees it.
const PROGRAM: &str = "/var/acc/bin/work";

/// An application of one instance that runs as `worker`, a user of its own where there can be one.
fn begin(sandbox: &Sandbox, user: User) -> String {
    let directory = sandbox.root().join("acc");
    fs::create_dir_all(directory.join("bin")).expect("a directory can be made");
    fs::copy("/bin/sleep", directory.join("bin/work")).expect("a program can be copied");
    let shape = "myriad {\n  n = 1\n  cmd = /var/radix/bin/fulcrum\n  mount . = /var/acc\n  user worker = auto\n}\n";
    let files = [
        ("rnodes", shape),
        ("khan", "pick(stay, 1, ALL)\n"),
        ("rexec", "work = /var/acc/bin/work\n"),
        (
            "begat",
            "stay: rexec/work userid=worker\n      rexec/work 1000000\n",
        ),
    ];
    for (ending, text) in files {
        fs::write(directory.join(format!("acc.{ending}")), text).expect("a file can be written");
    }
    user.own(&directory).expect("it can be given away");
    directory.display().to_string()
}

fn may(sandbox: &Sandbox, wish: &str, user: &str) -> Reply {
    let words = ["rnode", "may", "n1", wish, PROGRAM, "--user", user];
    sandbox.radix(&words)
}

/// The one instance: its pid, and all that the status says of it.
fn instance(status: &Value) -> Option<(i32, String)> {
    let instance = status["instances"].as_array()?.first()?;
    let pid = i32::try_from(instance["pid"].as_i64()?).ok()?;
    Some((pid, instance.to_string()))
}

/// The program where the rnode has it, from outside of its cell.
fn program(status: &Value) -> PathBuf {
    let agent = status["rnodes"][0]["agent_pid"].as_i64().expect("an agent");
    Path::new("/proc")
        .join(agent.to_string())
        .join("root")
        .join(&PROGRAM[1..])
}

// Shows: SEC-06
#[test]
fn the_property_flips_when_permission_is_revoked_and_back_and_nothing_starts_without() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let directory = begin(&sandbox, User::Ourselves);
    let _ = sandbox.radix(&["up", &directory, "--yes"]).expect(0);
    let status = sandbox.until_settled(&[("stay", 1)]);
    let _ = may(&sandbox, "read", "").expect(0);
    if !nix::unistd::geteuid().is_root() {
        // The user is the rnode's own; of another nobody but root can say anything.
        let other = may(&sandbox, "read", "1");
        assert!(
            other.code != 0 && other.stderr.contains("only root"),
            "{}",
            other.stderr
        );
        return;
    }
    let held = may(&sandbox, "execute", "worker").expect(0);
    assert_eq!(
        held.stdout.trim(),
        format!("(n1, worker) may execute {PROGRAM}")
    );
    let _ = may(&sandbox, "write", "worker").expect(5);

    let file = program(&status);
    fs::set_permissions(&file, Permissions::from_mode(0o700)).expect("it is root's");
    let revoked = may(&sandbox, "execute", "worker").expect(5);
    assert!(
        revoked.stderr.contains("Permission denied"),
        "{}",
        revoked.stderr
    );
    let (pid, _) = instance(&status).expect("an instance");
    kill(pid);
    let refused = sandbox.until("a refused start", |status| {
        let (_, told) = instance(status)?;
        told.contains("may execute").then_some(told)
    });
    assert!(
        refused.contains(PROGRAM) && refused.contains("(n1, uid 2"),
        "{refused}"
    );
    let memoir = sandbox.radix(&["memoir", "read", "acc/n1"]).expect(0);
    assert!(memoir.stdout.contains("exec.refused"), "{}", memoir.stdout);

    fs::set_permissions(&file, Permissions::from_mode(0o755)).expect("it is root's");
    let _ = may(&sandbox, "execute", "worker").expect(0);
    let _ = sandbox.until_settled(&[("stay", 1)]);
}

#[test]
fn an_ordinary_user_is_told_that_others_cannot_be_tried() {
    if !User::Ordinary.possible() {
        return;
    }
    let sandbox = Sandbox::empty(User::Ordinary);
    let directory = begin(&sandbox, User::Ordinary);
    let _ = sandbox.radix(&["up", &directory, "--yes"]).expect(0);
    let _ = sandbox.until_settled(&[("stay", 1)]);
    let _ = may(&sandbox, "execute", "worker").expect(0);
    let other = may(&sandbox, "execute", "1");
    assert!(other.code != 0 && other.code != 5, "{}", other.stderr);
    assert!(other.stderr.contains("only root"), "{}", other.stderr);
}
