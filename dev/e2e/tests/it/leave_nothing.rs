//! `down` gives everything back.

use std::path::Path;

use e2e::{Inventory, Sandbox, User};

use crate::{STIX, own_port};

/// What may stay after `down`: memoirs, the store, the owner, and the bookkeeping of generations.
const KEPT: [&str; 7] = [
    "memoirs",
    "store",
    "owner",
    "operator",
    "begat",
    "generations",
    "trees",
];

fn leaves_nothing(user: User) {
    if !user.possible() {
        crate::skipped();
        return;
    }
    let sandbox = Sandbox::with_stix(user);
    let address = own_port(&sandbox);
    let before = Inventory::take(&sandbox.home());
    let _ = sandbox.up().expect(0);
    let _ = sandbox.until_settled(&STIX);
    let directory = sandbox.stix().display().to_string();
    let asked = sandbox.radix(&["down", &directory]).expect(2);
    assert!(asked.stderr.contains("--yes"), "{}", asked.stderr);
    let _ = sandbox.radix(&["down", &directory, "--yes"]).expect(0);
    let after = Inventory::take(&sandbox.home());
    assert_eq!(before.processes, after.processes);
    assert_eq!(before.mounts, after.mounts);
    let freed = std::net::TcpListener::bind(&address);
    assert!(freed.is_ok(), "the exposed port is free again: {freed:?}");
    let stray: Vec<_> = after
        .files
        .iter()
        .filter(|file| !KEPT.iter().any(|kept| file.starts_with(Path::new(kept))))
        .filter(|file| file.as_path() != Path::new("start.lock"))
        .collect();
    assert!(stray.is_empty(), "{stray:?}");

    let list = sandbox
        .radix(&["memoir", "read", "--format", "json"])
        .expect(0)
        .json();
    let memoirs = list.as_array().cloned().unwrap_or_default();
    assert_eq!(memoirs.len(), 7, "{list}");
    assert!(
        memoirs.iter().all(|memoir| memoir["verified"] == true),
        "{list}"
    );
    built(&sandbox);
    let one = sandbox.radix(&["memoir", "read", "stix/n1"]).expect(0);
    assert!(
        one.stdout.contains("exec") || one.stdout.contains("start"),
        "{}",
        one.stdout
    );

    let _ = sandbox.radix(&["down", "--purge", "--yes"]).expect(0);
    let purged = Inventory::take(&sandbox.home());
    let stray: Vec<_> = purged
        .files
        .iter()
        .filter(|file| !file.starts_with("owner") && !file.starts_with("operator"))
        .collect();
    assert!(stray.is_empty(), "{stray:?}");
    let again = sandbox.radix(&["down", "--purge", "--yes"]);
    assert_eq!(
        again.code, 0,
        "a rerun finds nothing to do: {}",
        again.stderr
    );
}

/// The memoir of the base tells of the executions that made the two programs.
fn built(sandbox: &Sandbox) {
    let base = sandbox.radix(&["memoir", "read", "base/base"]).expect(0);
    let lines: Vec<&str> = base.stdout.lines().collect();
    for (name, output) in [("worker", "bin/worker="), ("slave", "bin/slave=")] {
        let told = lines.iter().filter(|line| {
            let words = ["build.execution", name, output, "inputs", "started_unix_ms"];
            words.iter().all(|word| line.contains(word))
        });
        assert_eq!(told.count(), 1, "{name}: {}", base.stdout);
    }
}

// Shows: DUS-02, MEM-02
#[test]
fn down_leaves_nothing_but_memoirs_store_and_owner() {
    leaves_nothing(User::Ourselves);
}

#[test]
fn down_leaves_nothing_of_an_ordinary_user() {
    leaves_nothing(User::Ordinary);
}
