//! Switches: who reaches whom, what the death of a holder changes, and that nothing is left.
//!
//! Each test runs again, for each kind of user, in a network namespace of its own that stands for the machine,
//! so that not a packet leaves the real one.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::rig::{NOBODY, Scratch, TESTEE, copy_executable, is_root};

/// The machine's outside address; in the range that documents are written with, so it is nobody's.
const INTERNET: &str = "203.0.113.7";
/// Directory of the test for whoever runs in the machine.
const SCRATCH: &str = "RADIX_TEST_MACHINE";

/// Runs `body` as root, if we are, and as an ordinary user, each time on a machine of its own.
///
/// `name` is the test's own, with its module.
fn on_machines(name: &str, body: impl FnOnce(&Machine)) {
    if let Some(scratch) = std::env::var_os(SCRATCH) {
        let scratch = PathBuf::from(scratch);
        let testee = scratch.join("testee");
        body(&Machine { scratch, testee });
        return;
    }
    let users = if is_root() {
        vec![None, Some(NOBODY)]
    } else {
        vec![None]
    };
    for user in users {
        let scratch = Scratch::new();
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let [testee, test] = ["testee", "test"].map(|name| scratch.path().join(name));
        copy_executable(Path::new(TESTEE), &testee);
        copy_executable(&std::env::current_exe().unwrap(), &test);
        let mut command = Command::new(&testee);
        command
            .args(["network", "machine", INTERNET])
            .arg(&test)
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(SCRATCH, scratch.path())
            .current_dir(scratch.path());
        if let Some(uid) = user {
            command.uid(uid).gid(uid);
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "as {user:?}: {text}\n{errors}"
        );
    }
}

/// A machine that a test runs on.
struct Machine {
    scratch: PathBuf,
    testee: PathBuf,
}

impl Machine {
    fn start(&self, words: &[&str]) -> Somebody {
        let mut command = Command::new(&self.testee);
        command
            .arg("network")
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut somebody = Somebody {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        };
        assert_eq!(somebody.line(), "ready", "{words:?}");
        somebody
    }

    /// A member of the horde's switch; a name is a directory of the switch.
    fn member(&self, switch: &str, address: &str) -> Somebody {
        self.start(&["member", &self.switch(switch), address])
    }

    fn switch(&self, name: &str) -> String {
        self.scratch.join(name).display().to_string()
    }

    fn probe(&self, switch: &str, (from, to): (&str, &str), outbound: &str) -> String {
        let output = Command::new(&self.testee)
            .args(["network", "probe", &self.switch(switch), from, to, outbound])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A process on a network, which obeys lines.
struct Somebody {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Somebody {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").unwrap();
        self.line()
    }

    fn serve(&mut self, port: u16) {
        assert_eq!(self.ask(&format!("serve {port}")), "yes");
    }

    fn reaches(&mut self, address: &str) -> bool {
        self.ask(&format!("connect {address}")).starts_with("yes")
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Somebody {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Names of this machine's links.
fn links() -> Vec<String> {
    let text = fs::read_to_string("/proc/net/dev").unwrap();
    let names = text.lines().filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

// Shows in part: NET-02
// Shows in part: NET-03
#[test]
fn members_reach_each_other_on_the_same_port_and_nobody_else_reaches_them() {
    on_machines(
        "switch::members_reach_each_other_on_the_same_port_and_nobody_else_reaches_them",
        |machine| {
            let addresses = ["198.18.1.1", "198.18.1.2", "198.18.1.3"];
            let mut members: Vec<_> = addresses
                .iter()
                .map(|address| machine.member("a", address))
                .collect();
            for member in &mut members {
                member.serve(45271);
            }
            for member in &mut members {
                for address in addresses {
                    let answer = member.ask(&format!("connect {address}:45271"));
                    assert_eq!(answer, format!("yes {address}"));
                }
                assert!(!member.reaches(&format!("{INTERNET}:8080")));
            }
            let mut outside = machine.start(&["outside"]);
            outside.serve(8080);
            assert!(outside.reaches(&format!("{INTERNET}:8080")), "it is there");
            let mut other = machine.member("b", "198.18.1.4");
            other.serve(45271);
            assert!(!other.reaches("198.18.1.1:45271"));
            for address in addresses {
                assert!(!outside.reaches(&format!("{address}:45271")));
            }
            assert!(!members[0].reaches("198.18.1.4:45271"));
            assert!(!members[0].reaches(&format!("{INTERNET}:8080")));
            // Whoever enters the switch, as a door does, reaches all.
            let mut door = machine.start(&["door", &machine.switch("a")]);
            for address in addresses {
                assert!(door.reaches(&format!("{address}:45271")));
            }
            assert_eq!(links(), ["lo"], "nothing of it is on the machine");
        },
    );
}

#[test]
fn the_death_of_any_holder_takes_nothing_from_the_others() {
    on_machines(
        "switch::the_death_of_any_holder_takes_nothing_from_the_others",
        |machine| {
            let mut first = machine.member("a", "198.18.1.1");
            let mut second = machine.member("a", "198.18.1.2");
            let mut door = machine.start(&["door", &machine.switch("a")]);
            first.serve(7000);
            second.serve(7000);
            assert!(second.reaches("198.18.1.1:7000"));
            // The one that made it.
            first.kill();
            assert!(door.reaches("198.18.1.2:7000"));
            let mut again = machine.member("a", "198.18.1.1");
            again.serve(7000);
            assert!(second.reaches("198.18.1.1:7000"), "under its old address");
            assert!(door.reaches("198.18.1.1:7000"));
            // All members at once: the door holds it.
            second.kill();
            again.kill();
            let mut third = machine.member("a", "198.18.1.3");
            third.serve(7000);
            assert!(door.reaches("198.18.1.3:7000"));
            // All of them: the next one makes a new one.
            third.kill();
            door.kill();
            let mut fourth = machine.member("a", "198.18.1.1");
            let mut fifth = machine.member("a", "198.18.1.2");
            fourth.serve(7000);
            assert!(fifth.reaches("198.18.1.1:7000"));
            assert_eq!(links(), ["lo"]);
        },
    );
}

#[test]
fn members_that_come_at_once_are_on_one_switch() {
    on_machines(
        "switch::members_that_come_at_once_are_on_one_switch",
        |machine| {
            let start = |member: usize| {
                let address = format!("198.18.3.{member}");
                move || machine.member("a", &address)
            };
            let mut members: Vec<Somebody> = std::thread::scope(|scope| {
                let started: Vec<_> = (1..=8).map(|member| scope.spawn(start(member))).collect();
                started.into_iter().map(|one| one.join().unwrap()).collect()
            });
            for member in &mut members {
                member.serve(1024);
            }
            for member in &mut members {
                assert!((1..=8).all(|other| member.reaches(&format!("198.18.3.{other}:1024"))));
            }
        },
    );
}

// Shows: NET-04
// Shows: NET-10
#[test]
fn connections_out_are_none_or_as_many_as_the_limit_and_the_next_is_refused() {
    on_machines(
        "switch::connections_out_are_none_or_as_many_as_the_limit_and_the_next_is_refused",
        |machine| {
            let mut outside = machine.start(&["outside"]);
            outside.serve(8080);
            let target = format!("{INTERNET}:8080");
            let mut first = machine.member("a", "198.18.5.1");
            let mut second = machine.member("a", "198.18.5.2");
            let mut stranger = machine.member("a", "198.18.6.1");
            assert!(!first.reaches(&target), "there is no way out yet");
            let mut uplink = machine.start(&["uplink", &machine.switch("a"), "5", "2"]);
            assert_eq!(first.ask(&format!("hold {target}")), "yes");
            assert_eq!(second.ask(&format!("hold {target}")), "yes");
            let refused = "no ConnectionRefused";
            for member in [&mut first, &mut second] {
                assert_eq!(member.ask(&format!("connect {target}")), refused);
            }
            assert!(!stranger.reaches(&target), "of another horde of the flock");
            assert_eq!(first.ask("release"), "released");
            until(|| second.ask(&format!("hold {target}")) == "yes");
            assert_eq!(first.ask(&format!("connect {target}")), refused);
            // Its death shuts the way out; another opens it.
            uplink.kill();
            until(|| !first.reaches(&target));
            let _again = machine.start(&["uplink", &machine.switch("a"), "5", "none"]);
            for _ in 0..10 {
                assert_eq!(first.ask(&format!("hold {target}")), "yes");
            }
            assert_eq!(links(), ["lo"]);
        },
    );
}

#[test]
fn where_descriptors_end_the_next_connection_out_is_refused_and_the_others_stay() {
    on_machines(
        "switch::where_descriptors_end_the_next_connection_out_is_refused_and_the_others_stay",
        |machine| {
            let mut outside = machine.start(&["outside"]);
            outside.serve(8080);
            let target = format!("{INTERNET}:8080");
            let mut member = machine.member("a", "198.18.5.1");
            let mut hold = |count: usize| {
                let held = (0..count).filter(|_| member.ask(&format!("hold {target}")) == "yes");
                held.count()
            };
            // 8 fit into 48 files beside the 32 that are spared; the 24 that were found are raised.
            let switch = machine.switch("a");
            let mut uplink = machine.start(&["uplink", &switch, "5", "none", "24", "48"]);
            assert_eq!(hold(12), 8);
            uplink.kill();
            until(|| hold(1) == 0);

            let uplink = machine.start(&["uplink", &switch, "5", "none"]);
            assert_eq!(hold(1), 1);
            // Too few for the next one, and nobody was told so.
            let open = fs::read_dir(format!("/proc/{}/fd", uplink.child.id())).unwrap();
            let files = open.count() as u64;
            let pid = rustix::process::Pid::from_raw(uplink.child.id() as i32);
            let limit = rustix::process::Rlimit {
                current: Some(files),
                maximum: Some(files),
            };
            rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit).unwrap();
            assert_eq!(hold(20), 0);
            assert_eq!(member.ask("release"), "released");
            until(|| member.ask(&format!("hold {target}")) == "yes");
        },
    );
}

#[test]
fn what_a_horde_got_is_found_out_by_trying() {
    on_machines(
        "switch::what_a_horde_got_is_found_out_by_trying",
        |machine| {
            let pair = ("198.18.5.1", "198.18.5.2");
            let _first = machine.member("a", pair.0);
            let _second = machine.member("a", pair.1);
            let found = |outbound| machine.probe("a", pair, outbound);
            let found_none = found("1");
            let expected = "members: true, outside: false, outbound: 0, outbound_ended: true";
            assert!(found_none.contains(expected), "{found_none}");
            let _uplink = machine.start(&["uplink", &machine.switch("a"), "5", "2"]);
            let found_two = found("3");
            assert!(
                found_two.contains("outbound: 2, outbound_ended: true"),
                "{found_two}"
            );
            until(|| found("2").contains("outbound: 2, outbound_ended: false"));
            // What is not there cannot be tried.
            assert_eq!(machine.probe("a", ("198.18.5.1", "198.18.5.9"), "0"), "");
        },
    );
}

#[test]
fn the_trial_tells_what_the_machine_grants_and_leaves_nothing() {
    on_machines(
        "switch::the_trial_tells_what_the_machine_grants_and_leaves_nothing",
        |machine| {
            let dir = machine.scratch.join("trial");
            fs::create_dir(&dir).unwrap();
            let granted = fulcrum::switch::granted(&machine.testee, &dir);
            assert_eq!((granted.switch, granted.outbound), (None, None));
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
            assert_eq!(links(), ["lo"]);
            let refused = fulcrum::switch::granted(Path::new("/nowhere"), &dir);
            assert!(refused.switch.unwrap().contains("cannot be started"));
        },
    );
}

fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("it takes too long");
}
