//! `radix data`, and needs that stand at a path and change their service.

use std::fs;
use std::time::Duration;

use e2e::{Sandbox, User};

use crate::copy::begin;

/// `rows.csv`, `deep/note` and `run`, packed by `mksquashfs`.
const SQUASHFS: &[u8] = include_bytes!("../../../../fulcrum/tests/it/sets/set.squashfs");

// Shows in part: FIO-09
#[test]
fn a_data_set_is_needed_at_a_path_mounted_read_and_taken_away_by_command() {
    let sandbox = Sandbox::empty(User::Ourselves);
    let _ = begin(&sandbox, "");
    let image = sandbox.root().join("set");
    fs::write(&image, SQUASHFS).expect("a file can be written");
    let here = image.display().to_string();
    let json = |words: &[&str]| {
        let reply = sandbox.radix(&[words, &["--format", "json"]].concat());
        reply.expect(0).json()
    };

    let added = json(&["need", "add", "n1", &here, "--at", "/var/bare/kept/set"]);
    let word = |name: &str| added[0][name].as_str().expect("a word").to_owned();
    let (id, digest) = (word("id"), word("digest"));
    assert_eq!(word("path"), "/var/bare/kept/set");
    let met = e2e::wait_for(Duration::from_secs(60), || {
        let needs = json(&["need", "list", "n1"]);
        (needs[0]["met"] == true).then_some(())
    });
    met.expect("the need is met");
    let found = json(&["data", "list", "n1", "--prefix", "/var/bare/kept"]);
    assert_eq!(found[0]["digest"], digest.as_str());
    assert_eq!(found[0]["service"], "rnodes");
    let back = sandbox.root().join("back").display().to_string();
    let _ = sandbox
        .radix(&["cp", "n1:/var/bare/kept/set", &back])
        .expect(0);
    assert_eq!(fs::read(&back).expect("it is there"), SQUASHFS);

    // By as much of it as a list shows.
    let short = &digest[..12];
    let mounted = sandbox.radix(&["data", "mount", "n1", short, "/var/bare/set"]);
    if mounted.stderr.contains("not offered here, because") {
        eprintln!("not mounted: {}", mounted.stderr);
    } else {
        let _ = mounted.expect(0);
        let set = json(&["data", "list", "n1", "--prefix", "/var/bare/set"]);
        assert_eq!(set.as_array().map(Vec::len), Some(4), "{set}");
        let rows = sandbox.root().join("rows").display().to_string();
        let _ = sandbox
            .radix(&["cp", "n1:/var/bare/set/rows.csv", &rows])
            .expect(0);
        assert_eq!(fs::read(&rows).expect("it is there"), b"a,b\n1,2\n");
        let _ = sandbox.radix(&["data", "remove", "n1", &digest]).expect(5);
        let _ = sandbox
            .radix(&["data", "unmount", "n1", "/var/bare/set"])
            .expect(0);
    }
    let _ = sandbox
        .radix(&["data", "unmount", "n1", "/var/bare/set"])
        .expect(2);

    let switch = |service: &str| sandbox.radix(&["need", "switch", "n1", &id, service]);
    let _ = switch("file:/var/bare/kept/set").expect(0);
    let needs = json(&["need", "list", "n1"]);
    assert_eq!(needs[0]["service"], "file:/var/bare/kept/set");
    let _ = switch("file:/var/bare/nothing").expect(5);
    let _ = switch("s3://bucket/set").expect(2);
    let _ = sandbox
        .radix(&["need", "drop", "n1", &id, "--remove"])
        .expect(0);
    let _ = sandbox
        .radix(&["cp", "n1:/var/bare/kept/set", &back])
        .expect(1);
    let _ = sandbox.radix(&["data", "remove", "n1", &digest]).expect(0);
    let _ = sandbox.radix(&["data", "remove", "n1", &digest]).expect(2);
}

#[test]
fn an_ordinary_user_is_told_why_its_rnodes_mount_nothing() {
    if !User::Ordinary.possible() {
        return;
    }
    let sandbox = Sandbox::empty(User::Ordinary);
    let _ = begin(&sandbox, "");
    let image = sandbox.root().join("set");
    fs::write(&image, SQUASHFS).expect("a file can be written");
    let here = image.display().to_string();
    let _ = sandbox
        .radix(&["cp", &here, "n1:/var/bare/in/set"])
        .expect(0);
    for what in ["/var/bare/in/set", "/var/bare/in"] {
        let refused = sandbox.radix(&["data", "mount", "n1", what, "/var/bare/at"]);
        assert!(
            refused.stderr.contains("not offered here, because"),
            "{what}: {}",
            refused.stderr
        );
    }
    let left = sandbox.radix(&[
        "data",
        "list",
        "n1",
        "--prefix",
        "/var/bare/at",
        "--format",
        "json",
    ]);
    assert_eq!(left.expect(0).json().as_array().map(Vec::len), Some(0));
    let down = sandbox.root().join("down").display().to_string();
    // Nothing was made there.
    let _ = sandbox.radix(&["cp", "n1:/var/bare/at", &down]).expect(1);
}
