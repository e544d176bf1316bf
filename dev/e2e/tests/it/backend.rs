//! `radix backend check local`: every promise of the contract, on real processes.

use e2e::{Sandbox, User};

use crate::skipped;

/// Cases run and skipped; where it differs by user, the capability record says why.
const GOLDEN: &str = include_str!("../golden/backend-local.txt");

fn checked(user: User) {
    if !user.possible() {
        return skipped();
    }
    let sandbox = Sandbox::empty(user);
    let mut counts = String::new();
    for way in [&[][..], &["--plug-in"]] {
        let words = [&["backend", "check", "local"], way].concat();
        let reply = sandbox.radix(&words).expect(0);
        counts.push_str(reply.stdout.lines().last().unwrap_or_default());
        counts.push('\n');
        assert_eq!(
            reply
                .stdout
                .lines()
                .filter(|line| line.starts_with("failed"))
                .count(),
            0
        );
    }
    assert_eq!(counts, GOLDEN);
}

// Shows: UND-07
// Shows: NET-08
// Shows in part: UND-01, HRD-09
#[test]
fn local_keeps_its_promises_linked_in_and_as_a_plug_in() {
    checked(User::Ourselves);
}

#[test]
fn local_keeps_its_promises_for_an_ordinary_user() {
    checked(User::Ordinary);
}

#[test]
fn what_is_checked_is_reported_for_programs_and_a_missing_backend_is_told() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let reply = sandbox.radix(&[
        "backend",
        "check",
        "local",
        "--only",
        "effective.",
        "--format",
        "json",
    ]);
    let report = reply.expect(0).json();
    assert_eq!(report["backend"], "local, linked in");
    assert_eq!(report["counts"]["passed"], 3, "{report}");
    assert_eq!(report["cases"][0]["verdict"], "passed");
    let reply = sandbox.radix(&["backend", "check", "moria"]).expect(2);
    assert!(
        reply
            .stderr
            .contains("there is no radix-underverse-moria in"),
        "{}",
        reply.stderr
    );
    let listed = sandbox
        .radix(&["backend", "list", "--format", "json"])
        .expect(0)
        .json();
    assert_eq!(listed[0]["name"], "local");
    assert_eq!(listed[0]["linked"], true);
}
