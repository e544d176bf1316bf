//! `myriad` with real processes.

use std::collections::BTreeSet;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use underverse::Kind;
use underverse_local::Home;
use underverse_local::myriad::{MYRIAD_MARK, MyriadError, Request, Run, clean, live, run};

use crate::fake::{Scratch, World, realised, spec};

/// A home that is cleaned with the test.
struct Site {
    scratch: Scratch,
    home: Home,
}

impl Site {
    fn new() -> Self {
        let scratch = Scratch::new();
        let home = Home::new(scratch.path().join("home"));
        Self { scratch, home }
    }

    fn write(&self, block: &str) -> PathBuf {
        let path = self.scratch.path().join("six.rnodes");
        std::fs::write(&path, block).unwrap();
        path
    }

    fn run(&self, block: &str) -> Result<Run, MyriadError> {
        let file = self.write(block);
        run(&Request {
            home: &self.home,
            file: &file,
            radix: Path::new("/bin/echo"),
        })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(clean(&self.home));
    }
}

fn marked(run: &Run) -> usize {
    let value = run.directory.display().to_string();
    underverse_local::mark::marked(MYRIAD_MARK, &value)
        .unwrap()
        .len()
}

// Shows in part: MYR-03
#[test]
fn a_block_without_a_fulcrum_runs_so_many_commands_with_name_and_address_appended() {
    let site = Site::new();
    let mut run = site
        .run("myriad {\n  n = 3\n  cmd = /bin/echo hello\n}\n")
        .unwrap();
    let ends = run.wait().unwrap();
    assert!(ends.iter().all(|(_, status)| status.success()));
    let mut addresses = std::collections::BTreeSet::new();
    for label in ["n1", "n2", "n3"] {
        let text = std::fs::read_to_string(run.directory.join(label).join("stdout")).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(words[..4], ["hello", "-rnode", label, "-ip"]);
        assert!(
            words[4]
                .parse::<std::net::Ipv4Addr>()
                .unwrap()
                .is_loopback()
        );
        addresses.insert(words[4].to_owned());
    }
    assert_eq!(addresses.len(), 3);
    assert_eq!(run.id, "six-1");
}

// Shows in part: MYR-04
#[test]
fn everything_spawned_is_cleaned_up_though_its_record_is_lost() {
    let site = Site::new();
    let script = site.scratch.path().join("forks");
    std::fs::write(
        &script,
        "#!/bin/sh\nsleep 600 &\n(setsid sleep 600 &)\nwait\n",
    )
    .unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&script, mode).unwrap();
    let block = format!(
        "local {{\n  n = 2\n  cmd = /bin/sh {}\n}}\n",
        script.display()
    );
    let first = site.run(&block).unwrap();
    let second = site.run(&block).unwrap();
    assert_ne!(first.directory, second.directory);
    // As after a kill between a spawn and its record.
    std::fs::remove_file(second.directory.join("run.json")).unwrap();
    let cleaned = clean(&site.home).unwrap();
    assert_eq!(cleaned.runs, ["six-1", "six-2"]);
    assert!(cleaned.ended >= 2, "{cleaned:?}");
    for run in [&first, &second] {
        assert_eq!(marked(run), 0);
        assert!(
            run.processes
                .iter()
                .all(|spawned| !spawned.process.is_alive())
        );
        assert!(!run.directory.exists());
    }
    assert!(!site.home.myriad().exists());
    assert_eq!(
        clean(&site.home).unwrap(),
        underverse_local::myriad::Cleaned::default()
    );
}

/// `sleep` binds nothing: only what is known of other runs and cells says that an address is in use.
#[test]
fn an_address_in_use_is_given_to_nobody_else() {
    let site = Site::new();
    let script = site.scratch.path().join("sleeps");
    std::fs::write(&script, "#!/bin/sh\nexec sleep 600\n").unwrap();
    let block = |count: u32| {
        let script = script.display();
        format!("myriad {{\n  n = {count}\n  cmd = /bin/sh {script}\n}}\n")
    };
    let addresses = |run: &Run| {
        let all = run.processes.iter().map(|one| one.address);
        all.collect::<BTreeSet<_>>()
    };
    let first = site.run(&block(2)).unwrap();
    let second = site.run(&block(2)).unwrap();
    assert_eq!(addresses(&first).len() + addresses(&second).len(), 4);
    assert!(addresses(&first).is_disjoint(&addresses(&second)));
    assert_eq!(live(&site.home).unwrap(), ["six-1", "six-2"]);
    // Whoever started them may end: they are in use while they run.
    let used = addresses(&first);
    drop((first, second));
    let third = site.run(&block(1)).unwrap();
    assert!(addresses(&third).is_disjoint(&used));
    drop(third);
    clean(&site.home).unwrap();
    assert!(live(&site.home).unwrap().is_empty());
    // A cell that runs, of whatever state directory, holds its address by a name.
    let before = addresses(&site.run(&block(1)).unwrap());
    clean(&site.home).unwrap();
    let host = before.first().unwrap();
    let name = SocketAddr::from_abstract_name(format!("radix/held/{host}")).unwrap();
    let held = UnixDatagram::bind_addr(&name).unwrap();
    let after = site.run(&block(1)).unwrap();
    assert!(!addresses(&after).contains(host));
    drop(held);
}

/// What a command leaves in the background has its address, though the command was gone before it could be named.
#[tokio::test]
async fn an_address_whose_command_left_something_in_the_background_is_given_to_no_horde() {
    let world = World::new();
    let site = Site {
        scratch: Scratch::new(),
        home: world.settings().home,
    };
    let script = world.scratch.path().join("leaves");
    std::fs::write(&script, "#!/bin/sh\nsleep 600 >/dev/null 2>&1 &\n").unwrap();
    let block = format!(
        "myriad {{\n  n = 2\n  cmd = /bin/sh {}\n}}\n",
        script.display()
    );
    let mut left = site.run(&block).unwrap();
    left.wait().unwrap();
    // What this machine happens to have free is not what the world in memory has: the first it would lease are in use.
    let path = left.directory.join("run.json");
    let mut record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(record["addresses"].as_array().map(Vec::len), Some(2));
    let free = World::new();
    realised(&free.local(), 1, &spec(2)).await;
    let leased = |world: &World| -> BTreeSet<String> {
        let leases = world.json("hordes/stix/addresses.json");
        let leases = leases["leases"].as_array().unwrap().iter();
        leases
            .map(|lease| lease["host"].as_str().unwrap().to_owned())
            .collect()
    };
    let used = leased(&free);
    record["addresses"] = used.iter().cloned().collect();
    std::fs::write(&path, record.to_string()).unwrap();
    drop(left);
    realised(&world.local(), 1, &spec(3)).await;
    assert_eq!(leased(&world).len(), 3);
    assert!(leased(&world).is_disjoint(&used), "{used:?}");
    assert_eq!(clean(&site.home).unwrap().runs, ["six-1"]);
}

#[test]
fn a_command_that_cannot_be_started_leaves_nothing() {
    let site = Site::new();
    let error = site
        .run("myriad {\n  n = 2\n  cmd = /nowhere/at/all\n}\n")
        .unwrap_err();
    let MyriadError::Failed(error) = error else {
        panic!("{error:?}")
    };
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    assert_eq!(clean(&site.home).unwrap().runs, Vec::<String>::new());
}

#[test]
fn bad_blocks_are_located_and_spawn_nothing() {
    let site = Site::new();
    for (block, part) in [
        ("myriad {\n  n = 0\n  cmd = /bin/echo\n}\n", "six.rnodes:2"),
        ("myriad {\n  cmd = /bin/echo\n}\n", "n = "),
        ("myriad {\n  n = 1\n}\n", "cmd = "),
        (
            "docker {\n  n = 1\n  cmd = /bin/echo\n}\n",
            "backend docker",
        ),
        ("", "no block"),
    ] {
        let error = site.run(block).unwrap_err();
        let MyriadError::Description(found) = error else {
            panic!("{error:?}")
        };
        let text: String = found.iter().map(ToString::to_string).collect();
        assert!(text.contains(part), "{part}: {text}");
    }
    let error = site
        .run("myriad {\n  n = 4000\n  cmd = /bin/echo\n}\n")
        .unwrap_err();
    let MyriadError::Failed(error) = error else {
        panic!("{error:?}")
    };
    assert_eq!(error.kind(), Kind::Limit);
    assert!(!site.home.myriad().exists());
}

#[test]
fn a_mount_is_read_through_the_command_and_reported_weaker() {
    let site = Site::new();
    std::fs::write(site.scratch.path().join("data.csv"), "one row").unwrap();
    let block = "myriad {\n  n = 1\n  cmd = /bin/cp /var/stix/data.csv copy --\n  \
                 mount . = /var/stix\n  user stix = auto\n}\n";
    let mut run = site.run(block).unwrap();
    run.wait().unwrap();
    assert_eq!(run.weaker.len(), 2);
    assert!(run.weaker[0].contains("/var/stix"), "{:?}", run.weaker);
    let stderr = std::fs::read_to_string(run.directory.join("n1/stderr")).unwrap();
    // `cp` gets the outer path, and refuses the words appended to it.
    assert!(!stderr.contains("/var/stix"), "{stderr}");
}

#[test]
fn a_fulcrum_means_this_radix() {
    let site = Site::new();
    let mut run = site
        .run("myriad {\n  n = 1\n  cmd = /var/radix/bin/fulcrum\n}\n")
        .unwrap();
    run.wait().unwrap();
    let text = std::fs::read_to_string(run.directory.join("n1/stdout")).unwrap();
    assert!(text.starts_with("fulcrum -resource "), "{text}");
    assert!(text.contains("/n1/rnode -rnode n1 -ip 127."), "{text}");
}
