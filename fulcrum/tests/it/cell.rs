//! Cells: what is inside, what is not on the host, and what ends with what.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crux_wire::keeper::v1::OutcomeKind;
use fulcrum::config::{Isolation, Mount};

use crate::rig::{
    Agent, NOBODY, Rig, Scratch, Setup, TESTEE, copy_executable, is_root, outcome, stderr, stdout,
    until, write_script,
};

/// Every path below `root` with all that a careless mount could change.
fn inventory(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = match metadata.file_type() {
            kind if kind.is_dir() => {
                waiting.extend(
                    fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
                String::new()
            }
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
            kind if kind.is_file() => format!("{:?}", fs::read(&path).unwrap()),
            _ => "special".to_owned(),
        };
        let (mode, inode, uid) = (metadata.mode(), metadata.ino(), metadata.uid());
        let times = (
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        );
        found.insert(
            path,
            format!(
                "{mode:o} {inode} {uid} {} {times:?} {content}",
                metadata.len()
            ),
        );
    }
    found
}

/// The names directly below the root, where a mount point must not stay behind.
fn root_names() -> Vec<PathBuf> {
    let mut names: Vec<_> = fs::read_dir("/")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    names
}

/// A host tree with one of everything.
fn host_tree(scratch: &Scratch) -> PathBuf {
    let root = scratch.path().join("host, with:odd\\name");
    for directory in ["data/deep", "other/empty", "shared"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(root.join("data/rows.csv"), "a,1\n").unwrap();
    fs::write(root.join("data/deep/file"), "deep").unwrap();
    fs::write(root.join("other/tool"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(root.join("other/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::write(root.join("secret"), "s").unwrap();
    fs::set_permissions(root.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("data/rows.csv", root.join("link")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    drop(std::os::unix::net::UnixListener::bind(scratch.path().join("s")).unwrap());
    fs::rename(scratch.path().join("s"), root.join("socket")).unwrap();
    root
}

/// Runs a shell script inside and returns what it printed.
async fn script(agent: &mut Agent, name: &str, text: &str) -> String {
    let mut asked = crate::rig::spawn(name, &["/bin/sh", "-c", text]);
    let path = crux_wire::keeper::v1::EnvironmentVariable {
        name: "PATH".to_owned(),
        value: "/usr/bin:/bin".to_owned(),
    };
    asked.env = vec![path];
    agent.spawn_as(asked).await;
    let ended = agent.exit().await;
    assert_eq!(
        outcome(&ended),
        (OutcomeKind::Exited, 0),
        "{}{}",
        stdout(&ended),
        stderr(&ended)
    );
    stdout(&ended)
}

/// The users to test as: ourselves, and an ordinary one where we are root.
fn users() -> Vec<Option<u32>> {
    if is_root() {
        vec![None, Some(NOBODY)]
    } else {
        vec![None]
    }
}

/// Whether this machine lets `uid` have cells; says so where it does not.
pub(crate) fn has_cells(uid: Option<u32>) -> bool {
    let scratch = Scratch::new();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let executable = scratch.path().join("radix");
    copy_executable(Path::new(TESTEE), &executable);
    let probed = match uid {
        None => fulcrum::cell::probe(&executable, &scratch.path().join("dir")),
        Some(uid) => {
            let wrapper = scratch.path().join("wrapper");
            let text = format!(
                "#!/bin/sh\nexec setpriv --reuid={uid} --regid={uid} --clear-groups {} \"$@\"\n",
                executable.display()
            );
            write_script(&wrapper, &text);
            fulcrum::cell::probe(&wrapper, &scratch.path().join("dir"))
        }
    };
    assert_eq!(
        fs::read_dir(scratch.path().join("dir")).map_or(0, Iterator::count),
        0,
        "the trial left something"
    );
    if let Some(reason) = &probed.reason {
        eprintln!("skipped for user {uid:?}: {reason}");
    }
    probed.isolation == Isolation::PidMount
}

fn cell(scratch: Scratch, mounts: Vec<Mount>, uid: Option<u32>) -> Rig {
    Rig::start(
        scratch,
        Setup {
            word: "cell",
            isolation: Isolation::PidMount,
            mounts,
            uid,
            ..Setup::default()
        },
    )
}

fn mount(host: &Path, target: impl Into<PathBuf>) -> Mount {
    Mount {
        host: host.to_owned(),
        target: target.into(),
        writable: false,
    }
}

#[tokio::test]
async fn host_directories_are_shown_inside_and_the_host_stays_as_it_was() {
    for uid in users().into_iter().filter(|uid| has_cells(*uid)) {
        let scratch = Scratch::new();
        let root = host_tree(&scratch);
        if let Some(uid) = uid {
            // A file keeps its owner inside, so what is to be written there must be the user's own.
            std::os::unix::fs::chown(root.join("data/rows.csv"), Some(uid), Some(uid)).unwrap();
            std::os::unix::fs::chown(root.join("data/deep"), Some(uid), Some(uid)).unwrap();
            std::os::unix::fs::chown(root.join("data/deep/file"), Some(uid), Some(uid)).unwrap();
        }
        let (before, names) = (inventory(&root), root_names());
        let mount_table = || fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounted = mount_table();
        let mounts = vec![
            // Below the root; in a directory that exists; two levels that do not; over a directory; inside another.
            mount(
                &root.join("data"),
                format!("/radix-it-{}", std::process::id()),
            ),
            mount(&root.join("data"), root.join("new")),
            mount(&root.join("other"), root.join("shared/not/yet")),
            mount(&root.join("data"), root.join("other/empty")),
            mount(&root.join("data/rows.csv"), root.join("one-file")),
            mount(&root.join("other"), root.join("new/deep/inside")),
        ];
        let top = mounts[0].target.display().to_string();
        let mut rig = cell(scratch, mounts, uid);
        let mut agent = rig.agent().await;
        let inside = root.display().to_string().replace('\\', "\\\\");
        let text = format!(
            "set -e; cd \"{inside}\"; cat {top}/rows.csv new/rows.csv other/empty/rows.csv one-file link; \
             ls shared/not/yet new/deep/inside; echo more >> {top}/rows.csv; echo b > new/made; rm other/empty/deep/file; \
             cat {top}/rows.csv; cat new/made; test ! -e other/empty/deep/file; test -e new/deep/file; test -p fifo; test -S socket; \
             ! echo x 2> /dev/null > one-file || exit 9"
        );
        let printed = script(&mut agent, "inside", &text).await;
        let expected = "a,1\n".repeat(5) + "shared";
        assert!(
            printed.starts_with(&expected[..expected.len() - 6]),
            "{printed}"
        );
        assert!(printed.ends_with("a,1\nmore\nb\n"), "{printed}");
        assert_eq!(inventory(&root), before);
        assert_eq!(root_names(), names);
        assert_eq!(mount_table(), mounted);

        // What was written is there again in the next cell on the directory.
        rig.kill_process();
        rig.start_process();
        let mut agent = rig.agent().await;
        assert_eq!(
            script(&mut agent, "again", &format!("tail -n 1 {top}/rows.csv")).await,
            "more\n"
        );
        drop(rig);
    }
}

#[tokio::test]
async fn inside_a_cell_only_its_own_processes_are_seen() {
    for uid in users().into_iter().filter(|uid| has_cells(*uid)) {
        let rig = cell(Scratch::new(), Vec::new(), uid);
        let mut agent = rig.agent().await;
        assert_eq!(agent.keeper.hello().await.unwrap().keeper_pid, 1);
        let printed = script(
            &mut agent,
            "processes",
            "cat /proc/1/cmdline | tr '\\0' ' '; ls -d /proc/[0-9]* | wc -l",
        )
        .await;
        let (command, count) = printed.trim().rsplit_once(' ').unwrap();
        assert!(command.starts_with("radix keep --dir"), "{printed}");
        assert!(count.parse::<u32>().unwrap() < 10, "{printed}");
    }
}

/// The pids of all processes that carry the rig's mark.
fn marked(rig: &Rig) -> Vec<i32> {
    fulcrum::mark::marked(&rig.mark()).unwrap()
}

#[tokio::test]
async fn killing_the_cell_ends_everything_inside() {
    for uid in users() {
        for isolation in [Isolation::None, Isolation::PidMount] {
            if isolation == Isolation::PidMount && !has_cells(uid) {
                continue;
            }
            let mut rig = Rig::start(
                Scratch::new(),
                Setup {
                    word: "cell",
                    isolation,
                    uid,
                    ..Setup::default()
                },
            );
            let agent = rig.agent().await;
            agent.spawn("e", &["wait"]).await;
            assert!(marked(&rig).len() >= 4);
            rig.kill_process();
            until(async || marked(&rig).is_empty()).await;
        }
    }
}

#[tokio::test]
async fn killing_the_keeper_ends_everything_and_the_cell_says_how() {
    for uid in users() {
        for isolation in [Isolation::None, Isolation::PidMount] {
            if isolation == Isolation::PidMount && !has_cells(uid) {
                continue;
            }
            let mut rig = Rig::start(
                Scratch::new(),
                Setup {
                    word: "cell",
                    isolation,
                    uid,
                    ..Setup::default()
                },
            );
            let agent = rig.agent().await;
            // Out of its group and session, it is found by namespace or mark only.
            let stray = agent
                .spawn(
                    "stray",
                    &[
                        "/bin/sh",
                        "-c",
                        "setsid /bin/sleep 1000 & echo started; wait",
                    ],
                )
                .await;
            until(async || stdout(&stray) == "started\n").await;
            let cell = rig.pid();
            let children =
                fs::read_to_string(format!("/proc/{cell}/task/{cell}/children")).unwrap();
            rig.kill(children.trim().parse().unwrap());
            assert_eq!(rig.ended().await.code(), Some(128 + 9));
            until(async || marked(&rig).is_empty()).await;
        }
    }
}

#[tokio::test]
async fn a_cell_told_to_end_retires_its_keeper() {
    for uid in users().into_iter().filter(|uid| has_cells(*uid)) {
        let mut rig = cell(Scratch::new(), Vec::new(), uid);
        let agent = rig.agent().await;
        agent.spawn("e", &["wait"]).await;
        let cell = nix::unistd::Pid::from_raw(rig.pid());
        nix::sys::signal::kill(cell, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(rig.ended().await.success());
        assert!(
            fs::read_to_string(rig.dir.join("keeper/executions/e/outcome"))
                .unwrap()
                .contains("\"code\":15")
        );
        until(async || marked(&rig).is_empty()).await;
    }
}

#[tokio::test]
async fn mounts_that_cannot_be_made_are_named_and_nothing_starts() {
    if !has_cells(None) {
        return;
    }
    let cases: [(&str, &str, &str); 4] = [
        ("missing", "target", "No such file"),
        ("data", "link-to-nothing/x", "is a link to nothing"),
        ("data", "file/x", "Not a directory"),
        ("data", "rnode/inside", "would hide"),
    ];
    for (host, target, expected) in cases {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path().join("data")).unwrap();
        fs::write(scratch.path().join("file"), "").unwrap();
        symlink("nothing", scratch.path().join("link-to-nothing")).unwrap();
        let mounts = vec![mount(
            &scratch.path().join(host),
            scratch.path().join(target),
        )];
        let rig = Rig::prepare(
            scratch,
            Setup {
                word: "cell",
                isolation: Isolation::PidMount,
                mounts,
                ..Setup::default()
            },
        );
        let output = rig.command().output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && text.contains(expected),
            "{text}"
        );
        assert!(!rig.dir.join("keeper").exists());
    }
}

#[tokio::test]
async fn a_cell_is_made_where_the_whole_host_but_its_own_directory_is_read_only() {
    let scratch = Scratch::new();
    let set_up = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro / && exec "$@""#;
    let words = ["unshare", "--mount", "/bin/sh", "-c", set_up];
    let mut wrapper: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    wrapper.push(scratch.path().display().to_string());
    let mut trial = std::process::Command::new("unshare");
    let trial = trial
        .args(&wrapper[1..])
        .arg("true")
        .stderr(std::process::Stdio::null())
        .status();
    if !trial.is_ok_and(|status| status.success()) || !has_cells(None) {
        eprintln!("skipped: this user cannot make the host read-only");
        return;
    }
    let root = host_tree(&scratch);
    let target = format!("/radix-ro-{}/deep", std::process::id());
    let mounts = vec![
        mount(&root.join("data"), &target),
        mount(&root.join("data"), "/usr/radix-it/data"),
    ];
    let setup = Setup {
        word: "cell",
        wrapper,
        isolation: Isolation::PidMount,
        mounts,
        uid: None,
    };
    let rig = Rig::start(scratch, setup);
    let mut agent = rig.agent().await;
    let outside = std::env::temp_dir().join(format!("radix-ro-{}", std::process::id()));
    let text = format!(
        "cat {target}/rows.csv /usr/radix-it/data/rows.csv; echo b > {target}/made; ! echo x 2>&- > {}",
        outside.display()
    );
    assert_eq!(script(&mut agent, "script", &text).await, "a,1\na,1\n");
    assert!(!outside.exists());
}
