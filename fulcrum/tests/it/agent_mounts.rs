//! Data sets mounted in a rnode's cell: what discovery says of them, and that nothing else changes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crux_core::digest::Digest;
use crux_wire::fileio::v1::{FileInfo, MountReply, MountRequest, RemoveRequest, UnmountRequest};
use tonic::{Code, Status};

use crate::agent_blobs::{put_blob, scan};
use crate::agent_files::{Files, address, copy, files, offer, put, recorded, tree};
use crate::agent_rig::{Base, Nested};
use crate::cell::has_cells;
use crate::rig::{is_root, until};

/// `rows.csv`, `deep/note` and `run`, packed by `mksquashfs` and by `mkfs.erofs`.
const SQUASHFS: &[u8] = include_bytes!("sets/set.squashfs");
const EROFS: &[u8] = include_bytes!("sets/set.erofs");

/// Whether images can be mounted here; says so where not.
fn has_images() -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let lacks = if !is_root() {
        "an ordinary user mounts nothing"
    } else if !Path::new("/dev/loop-control").exists() {
        "there are no loop devices"
    } else if !known.contains("squashfs") || !known.contains("erofs") {
        "this kernel has no squashfs or no erofs"
    } else {
        return has_cells(None);
    };
    eprintln!("skipped: {lacks}");
    false
}

/// A path of a rnode's mount, as its processes see it.
fn inside(nested: &Nested, path: &str) -> PathBuf {
    let root = format!("/proc/{}/root/var/app", nested.agent_pid());
    Path::new(&root).join(path)
}

async fn mount(
    files: &mut Files,
    (digest, source): (&str, &str),
    path: &str,
) -> Result<MountReply, Status> {
    let request = MountRequest {
        digest: digest.into(),
        source: source.into(),
        path: path.into(),
        writable: false,
    };
    files.mount(request).await.map(tonic::Response::into_inner)
}

async fn unmount(files: &mut Files, path: &str) -> Result<bool, Status> {
    let request = UnmountRequest { path: path.into() };
    let unmounted = files.unmount(request).await?;
    Ok(unmounted.into_inner().existed)
}

/// What is mounted below `/var/app` in a rnode's cell.
fn mounts(nested: &Nested) -> Vec<String> {
    let table = fs::read_to_string(format!("/proc/{}/mountinfo", nested.agent_pid()));
    let table = table.unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let below = points.filter(|point| point.starts_with("/var/app/"));
    below.map(str::to_owned).collect()
}

/// The files behind loop devices that belong to a rnode.
fn looped(nested: &Nested) -> usize {
    let devices = fs::read_dir("/sys/block").unwrap().filter_map(Result::ok);
    let backing = devices.filter_map(|device| {
        let file = device.path().join("loop/backing_file");
        fs::read_to_string(file).ok()
    });
    let own = nested.dir.to_str().unwrap().to_owned();
    backing.filter(|file| file.starts_with(&own)).count()
}

fn of_set<'a>(found: &'a BTreeMap<String, FileInfo>, path: &str) -> Vec<(&'a str, &'a str)> {
    let of = found.values().filter(|info| info.mounted == path);
    of.map(|info| (info.name.as_str(), info.kind.as_str()))
        .collect()
}

// Shows: FIO-09
#[tokio::test(flavor = "multi_thread")]
async fn mounting_and_unmounting_change_what_discovery_reports_and_nothing_else() {
    if !has_images() {
        return;
    }
    let base = Base::start();
    let n1 = Nested::in_cell(&base, "n1").await;
    let mut one = files(&base, &n1).await;
    put(&inside(&n1, "data/own"), b"own", 0o644);
    put_blob(&mut one, b"other", "other", true).await;
    for (image, form) in [(SQUASHFS, "squashfs"), (EROFS, "erofs")] {
        let digest = put_blob(&mut one, image, form, true).await;
        let whole = tree(&inside(&n1, ""));
        let host = tree(&base.home.join("host"));
        let before = scan(&mut one).await;

        let shown = mount(&mut one, (&digest, ""), "/var/app/data/set")
            .await
            .unwrap();
        assert_eq!(
            (shown.form.as_str(), shown.files, shown.existed),
            (form, 3, false)
        );
        let mut found = scan(&mut one).await;
        assert_eq!(
            of_set(&found, "/var/app/data/set"),
            [
                ("/var/app/data/set", "set"),
                ("/var/app/data/set/deep/note", "member"),
                ("/var/app/data/set/rows.csv", "member"),
                ("/var/app/data/set/run", "member"),
            ]
        );
        let rows = &found["/var/app/data/set/rows.csv"];
        assert_eq!(rows.digest, Digest::of(b"a,b\n1,2\n").to_string());
        assert_eq!((rows.size, rows.executable), (8, false));
        assert!(found["/var/app/data/set/run"].executable);
        assert_eq!(found["/var/app/data/set"].digest, shown.manifest);
        found.retain(|_, info| info.mounted.is_empty());
        assert_eq!(found, before);
        // It is a folder like any other, for whoever may read there.
        let offered = offer(&mut one, "/var/app/data/set").await.unwrap();
        assert_eq!(offered.manifest, shown.manifest);
        let mut rest = tree(&inside(&n1, ""));
        assert_eq!(
            rest["data/set/deep/note"].split(' ').next_back(),
            Some(Digest::of(b"deep\n").to_string().as_str())
        );
        rest.retain(|name, _| !name.starts_with("data/set"));
        assert_eq!(rest, whole);
        assert_eq!(tree(&base.home.join("host")), host);
        assert!(fs::write(inside(&n1, "data/set/rows.csv"), b"x").is_err());

        let again = mount(&mut one, (&digest, ""), "/var/app/data/set")
            .await
            .unwrap();
        assert!(again.existed);
        let remove = RemoveRequest {
            digest: digest.clone(),
            ..RemoveRequest::default()
        };
        let refused = one.remove(remove).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        // What is in use stays; a ticket that nobody is at is no use.
        offer(&mut one, "/var/app/data/set/rows.csv").await.unwrap();
        let used = fs::File::open(inside(&n1, "data/set/rows.csv")).unwrap();
        let refused = unmount(&mut one, "/var/app/data/set").await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(of_set(&scan(&mut one).await, "/var/app/data/set").len(), 4);
        drop(used);

        assert!(unmount(&mut one, "/var/app/data/set").await.unwrap());
        assert!(!unmount(&mut one, "/var/app/data/set").await.unwrap());
        assert_eq!(scan(&mut one).await, before);
        assert_eq!(tree(&inside(&n1, "")), whole);
        until(async || looped(&n1) == 0).await;
    }
    assert_eq!(recorded(&n1, "file.mount").len(), 4);
    assert_eq!(recorded(&n1, "file.unmount").len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_remounted_with_other_content_is_told_as_what_it_is() {
    if !has_images() {
        return;
    }
    let base = Base::start();
    let n1 = Nested::in_cell(&base, "n1").await;
    let mut one = files(&base, &n1).await;
    // Uncompressed content of the same length, inode and times: only its bytes differ.
    let mut other = EROFS.to_vec();
    let at = other
        .windows(8)
        .position(|bytes| bytes == b"a,b\n1,2\n")
        .unwrap();
    other[at + 4] = b'9';
    for (image, rows) in [(EROFS, b"a,b\n1,2\n"), (&other[..], b"a,b\n9,2\n")] {
        let digest = put_blob(&mut one, image, "image", true).await;
        mount(&mut one, (&digest, ""), "/var/app/set")
            .await
            .unwrap();
        let found = scan(&mut one).await;
        assert_eq!(
            found["/var/app/set/rows.csv"].digest,
            Digest::of(rows).to_string()
        );
        unmount(&mut one, "/var/app/set").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_outlives_its_agent_comes_back_with_its_rnode_and_leaks_nothing() {
    if !has_images() {
        return;
    }
    let base = Base::start();
    let mut n1 = Nested::in_cell(&base, "n1").await;
    let mut one = files(&base, &n1).await;
    // What is mounted stays, though its blob was put as ephemeral.
    let digest = put_blob(&mut one, SQUASHFS, "set", false).await;
    let manifest = mount(&mut one, (&digest, ""), "/var/app/set")
        .await
        .unwrap()
        .manifest;
    let shown = async |base: &Base, n1: &Nested| {
        let mut files = files(base, n1).await;
        let found = scan(&mut files).await;
        found
            .get("/var/app/set")
            .is_some_and(|set| set.digest == manifest)
    };

    let agent = n1.agent_pid();
    let _ = fs::remove_file(n1.dir.join("agent/contact"));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(agent), nix::sys::signal::SIGKILL).unwrap();
    until(async || ![0, agent].contains(&n1.agent_pid())).await;
    assert_eq!(mounts(&n1), ["/var/app/set"]);
    assert!(shown(&base, &n1).await);
    assert_eq!(mounts(&n1), ["/var/app/set"]);

    n1.kill();
    until(async || looped(&n1) == 0).await;
    n1.start_again(&base);
    until(async || shown(&base, &n1).await).await;

    // Ended between what is written and what is done: the next one finishes either.
    let record = n1.dir.join("agent/mounted.json");
    let written = fs::read_to_string(&record).unwrap();
    n1.kill();
    let other = written.replace("/var/app/set", "/var/app/two");
    fs::write(
        &record,
        other.replace("\"ending\": false", "\"ending\": true"),
    )
    .unwrap();
    fs::create_dir(base.home.join("host/n1/two")).unwrap();
    n1.start_again(&base);
    until(async || fs::read_to_string(&record).unwrap().trim() == "{}").await;
    n1.kill();
    fs::write(&record, &written).unwrap();
    n1.start_again(&base);
    until(async || shown(&base, &n1).await).await;
    let mut one = files(&base, &n1).await;
    assert!(unmount(&mut one, "/var/app/set").await.unwrap());
    assert!(!inside(&n1, "set").exists());
    n1.kill();
    until(async || looped(&n1) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_bound_where_there_are_no_images_and_written_to_only_if_asked() {
    if !is_root() || !has_cells(None) {
        return;
    }
    let base = Base::start();
    let n1 = Nested::in_cell(&base, "n1").await;
    let mut one = files(&base, &n1).await;
    put(&inside(&n1, "source/list"), b"a", 0o644);
    let source = "/var/app/source";
    let shown = mount(&mut one, ("", source), "/var/app/view")
        .await
        .unwrap();
    assert_eq!((shown.form.as_str(), shown.files), ("folder", 1));
    assert!(fs::write(inside(&n1, "view/list"), b"b").is_err());
    fs::write(inside(&n1, "source/list"), b"b").unwrap();
    let found = scan(&mut one).await;
    assert_eq!(
        found["/var/app/view/list"].digest,
        Digest::of(b"b").to_string()
    );
    assert!(unmount(&mut one, "/var/app/view").await.unwrap());

    let request = MountRequest {
        source: source.into(),
        path: "/var/app/view".into(),
        writable: true,
        ..MountRequest::default()
    };
    one.mount(request).await.unwrap();
    let offered = offer(&mut one, "/var/app/source/list").await.unwrap();
    let from = (offered.ticket.as_str(), address(&n1).await);
    copy(&mut one, from, "/var/app/view/more").await.unwrap();
    assert_eq!(fs::read(inside(&n1, "source/more")).unwrap(), b"b");
    assert!(unmount(&mut one, "/var/app/view").await.unwrap());
    assert!(!inside(&n1, "view").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_mounted_is_refused_with_its_reason_and_changes_nothing() {
    if !has_images() {
        return;
    }
    let base = Base::start();
    let n1 = Nested::in_cell(&base, "n1").await;
    let mut one = files(&base, &n1).await;
    let digest = put_blob(&mut one, SQUASHFS, "set", true).await;
    let text = put_blob(&mut one, b"text", "text", true).await;
    let hollow = put_blob(
        &mut one,
        &[&b"hsqs"[..], &[0; 8188]].concat(),
        "hollow",
        true,
    )
    .await;
    put(&inside(&n1, "full/file"), b"x", 0o644);
    put(&inside(&n1, "file"), b"x", 0o644);
    symlink("/", inside(&n1, "door")).unwrap();
    let before = (tree(&inside(&n1, "")), scan(&mut one).await);
    let cases = [
        (&digest, "set", Code::InvalidArgument, "an absolute path"),
        (
            &digest,
            "/etc/set",
            Code::PermissionDenied,
            "no declared root covers it",
        ),
        (
            &digest,
            "/var/app/../set",
            Code::InvalidArgument,
            "it has `..` or `.`",
        ),
        (
            &digest,
            "/var/app",
            Code::InvalidArgument,
            "it is a whole root",
        ),
        (
            &digest,
            "/var/app/door/set",
            Code::InvalidArgument,
            "a link or a file stands",
        ),
        (
            &digest,
            "/var/app/door",
            Code::InvalidArgument,
            "a link or a file stands",
        ),
        (
            &digest,
            "/var/app/file",
            Code::InvalidArgument,
            "a link or a file stands",
        ),
        (
            &digest,
            "/var/app/full",
            Code::InvalidArgument,
            "something is in the folder",
        ),
        (&digest, "/var/app/no/where", Code::NotFound, "No such file"),
        (
            &text,
            "/var/app/set",
            Code::InvalidArgument,
            "is no image of squashfs",
        ),
        (
            &hollow,
            "/var/app/set",
            Code::InvalidArgument,
            "the kernel does not take it",
        ),
    ];
    for (digest, path, code, reason) in &cases {
        let refused = mount(&mut one, (digest, ""), path).await.unwrap_err();
        assert_eq!(refused.code(), *code, "{path}: {refused}");
        assert!(refused.message().contains(reason), "{path}: {refused}");
    }
    let writable = MountRequest {
        digest: digest.clone(),
        path: "/var/app/set".into(),
        writable: true,
        ..MountRequest::default()
    };
    assert_eq!(
        one.mount(writable).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let absent = Digest::of(b"absent").to_string();
    let refused = mount(&mut one, (&absent, ""), "/var/app/set")
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!((tree(&inside(&n1, "")), scan(&mut one).await), before);
    assert_eq!(mounts(&n1), Vec::<String>::new());
    until(async || looped(&n1) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_do_not_lie_in_each_other_and_nothing_is_copied_into_a_read_only_one() {
    if !has_images() {
        return;
    }
    let base = Base::start();
    let n1 = Nested::in_cell(&base, "n1").await;
    let mut one = files(&base, &n1).await;
    let digest = put_blob(&mut one, SQUASHFS, "set", true).await;
    put(&inside(&n1, "file"), b"x", 0o644);
    mount(&mut one, (&digest, ""), "/var/app/set")
        .await
        .unwrap();
    let refused = mount(&mut one, (&digest, ""), "/var/app/set/deep")
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    let offered = offer(&mut one, "/var/app/file").await.unwrap();
    let from = (offered.ticket.as_str(), address(&n1).await);
    let refused = copy(&mut one, from, "/var/app/set/file").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cell_nothing_is_mounted_and_the_answer_says_why() {
    let base = Base::start();
    let plain = Nested::start(&base, "plain").await;
    let mut bare = files(&base, &plain).await;
    let digest = put_blob(&mut bare, SQUASHFS, "set", true).await;
    let refused = mount(&mut bare, (&digest, ""), "/var/app/set")
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
    assert!(
        refused.message().contains("not offered here, because"),
        "{refused}"
    );
}

/// Whether what is recorded, mounted, made and bound to loop devices says the same.
fn agrees(nested: &Nested) -> bool {
    let record = fs::read_to_string(nested.dir.join("agent/mounted.json")).unwrap_or_default();
    let ending = record.contains("\"ending\": true");
    let stands = (
        record.contains("/var/app/set"),
        mounts(nested).len(),
        inside(nested, "set").exists(),
        looped(nested),
    );
    !ending && [(true, 1, true, 1), (false, 0, false, 0)].contains(&stands)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_while_it_mounts_or_unmounts_leaves_nothing_half_done() {
    if !has_images() {
        return;
    }
    let base = Base::start();
    let mut n1 = Nested::in_cell(&base, "n1").await;
    let digest = put_blob(&mut files(&base, &n1).await, SQUASHFS, "set", true).await;
    let mut outcomes = BTreeMap::<bool, usize>::new();
    for round in 0..8u64 {
        let mut one = files(&base, &n1).await;
        let stood = mounts(&n1).len() == 1;
        let digest = digest.clone();
        let calling = crux_net::task::spawn("call", crux_net::task::Policy::ABORT, async move {
            if stood {
                unmount(&mut one, "/var/app/set").await.is_ok()
            } else {
                mount(&mut one, (&digest, ""), "/var/app/set").await.is_ok()
            }
        });
        // Another moment each time.
        tokio::time::sleep(std::time::Duration::from_millis(round * 2)).await;
        let agent = n1.agent_pid();
        let _ = fs::remove_file(n1.dir.join("agent/contact"));
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(agent),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
        *outcomes.entry(calling.await.unwrap()).or_default() += 1;
        until(async || ![0, agent].contains(&n1.agent_pid())).await;
        until(async || agrees(&n1)).await;
    }
    eprintln!("answered before the kill: {outcomes:?}");
    n1.kill();
    until(async || looped(&n1) == 0).await;
}
