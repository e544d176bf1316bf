//! Commands that are given at the same moment.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use e2e::{Inventory, Sandbox, User, wait_for};

use crate::{application, tiny};

/// Whether a process has a file open.
fn has_open(pid: u32, file: &Path) -> bool {
    let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    open.flatten()
        .any(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target == file))
}

/// `down` has seen that nothing is left and waits for the right to end the base, when another application is started.
#[test]
fn what_is_started_while_the_last_application_ends_goes_on() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let (_, _) = (tiny(&sandbox, 2), application(&sandbox, "other", 2));
    let before = Inventory::take(&sandbox.home());
    let [first, second] = ["tiny", "other"].map(|name| sandbox.root().join(name));
    let [first, second] = [first, second].map(|path| path.display().to_string());
    let _ = sandbox.radix(&["up", &first]).expect(0);

    let lock = sandbox.home().join("start.lock");
    let right = File::open(&lock).expect("as the first up left it");
    right.lock().expect("nobody has it");
    let mut down = sandbox.command(&["down", &first, "--yes"]);
    let mut down = down.spawn().expect("radix starts");
    let waits = wait_for(Duration::from_secs(60), || {
        has_open(down.id(), &lock).then_some(())
    });
    assert!(waits.is_some(), "down waits for the right to end the base");
    // Who has the right takes the file away at its end: another is made, and whoever waits at the old one is told.
    std::fs::rename(&lock, sandbox.root().join("old.lock")).expect("as the test needs it");
    let _ = sandbox.radix(&["up", &second]).expect(0);
    drop(right);
    assert!(down.wait().expect("it ends").success());

    let status = sandbox.radix(&["status", "--format", "json"]).expect(0);
    let status = status.json();
    assert_eq!(status["namespace"], "other", "{status}");
    assert_eq!(status["settled"], true, "{status}");
    let _ = sandbox.radix(&["down", "--purge", "--yes"]).expect(0);
    let after = Inventory::take(&sandbox.home());
    assert_eq!(before.processes, after.processes);
    let kept =
        |file: &&std::path::PathBuf| file.starts_with("owner") || file.starts_with("operator");
    let stray: Vec<_> = after.files.iter().filter(|file| !kept(file)).collect();
    assert!(stray.is_empty(), "{stray:?}");
}
