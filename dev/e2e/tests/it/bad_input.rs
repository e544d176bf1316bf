//! Bad input and a bad environment: a located error, the documented exit code, nothing started.

use e2e::{Inventory, Sandbox, User};

use crate::own_port;

/// After a refusal nothing runs.
#[track_caller]
fn nothing_started(sandbox: &Sandbox) {
    let inventory = Inventory::take(&sandbox.home());
    assert!(inventory.processes.is_empty(), "{:?}", inventory.processes);
    assert!(inventory.mounts.is_empty(), "{:?}", inventory.mounts);
}

#[test]
fn a_wrong_description_is_refused_with_its_place_and_nothing_starts() {
    let sandbox = Sandbox::with_stix(User::Ourselves);
    let cases: [(&str, &str, &str, i32, &[&str]); 10] = [
        (
            "stix.khan",
            "prog1, 2",
            "prgo1, 2",
            2,
            &["stix.khan:", "did you mean", "prog1"],
        ),
        (
            "stix.khan",
            "prog1, 2",
            "prog1, 2, ALL, ALL",
            2,
            &["stix.khan:"],
        ),
        ("stix.rnodes", "n = 6", "n = 0", 2, &["stix.rnodes:"]),
        (
            "stix.rnodes",
            "n = 6",
            "n = 10000",
            3,
            &[
                "10000 rnodes do not fit",
                "because:",
                "backend local holds at most 200 rnodes a horde",
                "lower `n`",
            ],
        ),
        (
            "stix.begat",
            "include(consul)",
            "include(stix)",
            2,
            &["stix.begat:1", "include"],
        ),
        (
            "stix.rnodes",
            "myriad {",
            "kubernetes {",
            2,
            &["kubernetes"],
        ),
        (
            "stix.begat",
            "include(consul)",
            "include(consl)",
            2,
            &["stix.begat:1", "consul"],
        ),
        ("stix.begat", "prods.csv", "absent.csv", 2, &["absent.csv"]),
        (
            "stix.rexec",
            "bin/slave",
            "bin/nobody",
            2,
            &["stix.rexec:", "bin/nobody"],
        ),
        (
            "stix.rnodes",
            "mount ",
            "muont ",
            2,
            &["stix.rnodes:", "mount"],
        ),
    ];
    let directory = sandbox.stix().display().to_string();
    for (file, from, to, code, words) in cases {
        let path = sandbox.stix().join(file);
        let good = std::fs::read_to_string(&path).expect("the file can be read");
        sandbox.edit(file, from, to);
        let reply = sandbox.radix(&["up", &directory, "--yes"]);
        assert_eq!(
            reply.code, code,
            "{file}: {to}\n{}{}",
            reply.stdout, reply.stderr
        );
        for word in words {
            assert!(
                reply.stderr.contains(word),
                "{file}: {to}: no `{word}` in\n{}",
                reply.stderr
            );
        }
        nothing_started(&sandbox);
        std::fs::write(&path, good).expect("the file can be put back");
    }
}

#[test]
fn every_error_of_all_four_files_is_reported_at_once() {
    let sandbox = Sandbox::with_stix(User::Ourselves);
    sandbox.edit("stix.khan", "prog1, 2", "prgo1, 2");
    sandbox.edit("stix.rnodes", "n = 6", "n = six");
    sandbox.edit("stix.begat", "-prod %prod", "-prod %prodd");
    let directory = sandbox.stix().display().to_string();
    let reply = sandbox.radix(&["check", &directory]).expect(2);
    for file in ["stix.khan:", "stix.rnodes:", "stix.begat:"] {
        assert!(reply.stderr.contains(file), "{}", reply.stderr);
    }
}

#[test]
fn what_cannot_be_placed_yet_is_told_by_check_plan_and_up_alike() {
    let sandbox = Sandbox::with_stix(User::Ourselves);
    let pick = "pick(prog1, 2, ALL)";
    sandbox.edit("stix.khan", pick, &format!("{pick} spread(\"rack\")"));
    let directory = sandbox.stix().display().to_string();
    for command in ["check", "plan", "up"] {
        let reply = sandbox.radix(&[command, &directory]).expect(2);
        for word in ["stix.khan:3:", "spread(", "not available yet"] {
            assert!(reply.stderr.contains(word), "{command}: {}", reply.stderr);
        }
    }
    nothing_started(&sandbox);
}

#[test]
fn a_dictum_that_fails_shows_its_output() {
    let sandbox = Sandbox::with_stix(User::Ourselves);
    let source = sandbox.stix().join("src/bin/worker.rs");
    std::fs::write(&source, "fn main() { this does not compile }\n").expect("written");
    let reply = sandbox.up().expect(1);
    assert!(reply.stderr.contains("error"), "{}", reply.stderr);
    let twice = reply.stderr.contains("`: build `");
    assert!(!twice, "its dictum is named once: {}", reply.stderr);
    assert!(
        reply.stderr.contains("worker.rs"),
        "the compiler's words: {}",
        reply.stderr
    );
    nothing_started(&sandbox);
}

#[test]
fn a_taken_port_is_told_and_costs_nothing() {
    let sandbox = Sandbox::with_stix(User::Ourselves);
    let address = own_port(&sandbox);
    let taken = std::net::TcpListener::bind(&address).expect("the port is free");
    let reply = sandbox.up();
    assert_ne!(reply.code, 0);
    let said = format!("{}{}", reply.stdout, reply.stderr);
    assert!(said.contains(&address), "{said}");
    drop(taken);
}

#[test]
fn an_unwritable_state_directory_is_named() {
    let user = User::Ordinary;
    if !user.possible() {
        crate::skipped();
        return;
    }
    let sandbox = Sandbox::with_stix(user);
    let foreign = sandbox.root().join("foreign");
    std::fs::create_dir(&foreign).expect("a directory can be made");
    let directory = sandbox.stix().display().to_string();
    let output = sandbox
        .command(&["up", &directory, "--yes"])
        .env("RADIX_HOME", &foreign)
        .output()
        .expect("radix runs");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("RADIX_HOME"), "{text}");
}

#[test]
fn hostile_sizes_are_refused_quickly() {
    let sandbox = Sandbox::with_stix(User::Ourselves);
    let directory = sandbox.stix().display().to_string();
    let hostile = [
        ("stix.khan", "(".repeat(200_000)),
        (
            "stix.khan",
            format!("x := {}1{}", "(".repeat(200_000), ")".repeat(200_000)),
        ),
        ("stix.begat", "a".repeat(10 * 1024 * 1024)),
        ("stix.rnodes", "{".repeat(200_000)),
        ("stix.rexec", "\u{0}".repeat(5000)),
    ];
    for (file, text) in hostile {
        let path = sandbox.stix().join(file);
        let good = std::fs::read(&path).expect("the file can be read");
        std::fs::write(&path, text).expect("written");
        // 1 GiB of addresses, most of which the runtime's threads only reserve.
        let limits = ["--as=1073741824", "--core=0"];
        let output = sandbox
            .command_of(std::path::Path::new("prlimit"), &limits)
            .arg(sandbox.binary())
            .args(["check", &directory])
            .output()
            .expect("prlimit can be run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let start: String = said.chars().take(2000).collect();
        assert_eq!(output.status.code(), Some(2), "{start}");
        assert!(said.contains(file), "{start}");
        assert!(said.len() < 200_000, "bounded talk: {} bytes", said.len());
        std::fs::write(&path, good).expect("put back");
    }
}

/// What the test of a full disk does in a mount namespace of its own: `$1` radix, `$2` the state directory,
/// `$3` products, `$4` the application, `$5` where it writes what it saw, `$6` the KiB that a plan takes.
/// Nothing of the machine's is touched.
const FULL_DISK: &str = r#"
set -u
home="$2"
export RADIX_HOME="$home"
mount -t tmpfs -o size=600m,mode=0700 tmpfs "$2" || exit 90
"$1" begat import "$3" > /dev/null || exit 91
leave() {
  rm -f "$home/filler"
  available=$(df --output=avail -k "$home" | tail -n 1)
  head -c "$((available - $1))k" /dev/zero > "$home/filler"
}
for room in 1000 "$6" 200 900 2500 9000; do
  leave "$room"
  [ "$room" = "$6" ] && { "$1" plan "$4" > /dev/null 2>&1 || exit 92; continue; }
  "$1" up "$4" --yes --timeout 10s > "$5/out.$room" 2> "$5/err.$room"
  echo "$room $?" >> "$5/codes"
  [ -e "$2/base" ] && echo "$room left something" >> "$5/codes"
done
rm "$home/filler"
"$1" up "$4" --yes > "$5/out.last" 2> "$5/err.last"
echo "last $?" >> "$5/codes"
"$1" down --purge --yes > /dev/null 2>&1
"#;

#[test]
fn a_full_state_directory_is_named_and_a_later_up_succeeds() {
    let sandbox = Sandbox::with_stix(User::Ourselves);
    let _ = own_port(&sandbox);
    let (home, saw) = (sandbox.root().join("full"), sandbox.root().join("saw"));
    for directory in [&home, &saw] {
        std::fs::create_dir(directory).expect("a directory can be made");
    }
    let mut command = sandbox.command_of(std::path::Path::new("unshare"), &["--mount"]);
    if !nix::unistd::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    // A plan puts the executable itself into the store, and little else.
    let binary = std::fs::metadata(sandbox.binary()).expect("the binary is there");
    let planned_kib = binary.len() / 1024 + 4096;
    let output = command
        .args(["sh", "-c", FULL_DISK, "sh"])
        .args([
            sandbox.binary().as_path(),
            &home,
            &sandbox.root().join("products"),
        ])
        .args([&sandbox.stix(), &saw])
        .arg(planned_kib.to_string())
        .output()
        .expect("unshare can be run");
    let read = |name: &str| std::fs::read_to_string(saw.join(name)).unwrap_or_default();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if matches!(output.status.code(), Some(1 | 90)) && read("codes").is_empty() {
        crate::skipped_because(&format!("no mount namespace here: {said}"));
        return;
    }
    let codes = read("codes");
    assert!(output.status.success(), "{said}\n{codes}");
    for room in ["1000", "200", "900", "2500", "9000", "last"] {
        let (out, err) = (read(&format!("out.{room}")), read(&format!("err.{room}")));
        let code = if room == "last" { 0 } else { 2 };
        let line = format!("{room} {code}");
        let seen = codes.lines().any(|seen| seen == line);
        assert!(seen, "{line} is not in\n{codes}\n{out}{err}");
        let told = err.contains("no room is left") && err.contains("free some space");
        assert!(told || room == "last", "{room}\n{out}{err}");
        let started = format!("{room} left something");
        assert!(!codes.contains(&started), "nothing was started:\n{codes}");
    }
}

#[test]
fn what_is_formatted_stays_as_readable_as_it_was() {
    use std::os::unix::fs::PermissionsExt as _;
    let sandbox = Sandbox::empty(User::Ourselves);
    crate::tiny(&sandbox, 1);
    let directory = sandbox.root().join("tiny");
    let file = directory.join("tiny.khan");
    let mode = || {
        std::fs::metadata(&file)
            .expect("a file")
            .permissions()
            .mode()
            & 0o7777
    };
    std::fs::write(&file, "pick( cserver,1 , ALL)\n").expect("a file can be written");
    let asked = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(&file, asked).expect("a file of ours");
    let words = directory.display().to_string();
    let _ = sandbox.radix(&["fmt", &words, "--check"]).expect(1);
    let _ = sandbox.radix(&["fmt", &words]).expect(0);
    let text = std::fs::read_to_string(&file).expect("a file");
    assert_eq!((text.as_str(), mode()), ("pick(cserver, 1, ALL)\n", 0o640));
    let _ = sandbox.radix(&["fmt", &words, "--check"]).expect(0);
    let left = std::fs::read_dir(&directory).expect("a directory");
    assert_eq!(left.count(), 4, "nothing is left beside the files");
}
