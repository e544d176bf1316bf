//! Files and folders between real agents: copied whole, resumed, refused.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crux_core::digest::Digest;
use crux_wire::fileio::v1::file_io_client::FileIoClient;
use crux_wire::fileio::v1::{
    CopyProgress, CopyRequest, ExpectRequest, OfferReply, OfferRequest, PushRequest, RemoveRequest,
};
use fulcrum::memoir::Record;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::agent_rig::{Base, Nested};
use crate::cutting::Cutting;
use crate::liar::{self, Liar, Lie};
use crate::rig::{PATIENCE, until};

pub(crate) type Files = FileIoClient<Channel>;

pub(crate) async fn files(base: &Base, nested: &Nested) -> Files {
    FileIoClient::new(nested.channel(base).await)
}

pub(crate) async fn address(nested: &Nested) -> String {
    let contact = nested.contact().await;
    format!("{}:{}", contact["host"].as_str().unwrap(), contact["port"])
}

/// Where a path of a nested rnode's mount lies.
pub(crate) fn place(nested: &Nested, path: &str) -> PathBuf {
    nested.dir.join("cell/var/app").join(path)
}

fn memoir(nested: &Nested) -> Vec<Record> {
    fulcrum::memoir::read(&nested.dir.join("memoir"), 0).unwrap()
}

pub(crate) fn recorded(nested: &Nested, kind: &str) -> Vec<Record> {
    let mut records = memoir(nested);
    records.retain(|record| record.kind == kind);
    records
}

pub(crate) async fn offer(files: &mut Files, path: &str) -> Result<OfferReply, Status> {
    let request = OfferRequest { path: path.into() };
    files.offer(request).await.map(tonic::Response::into_inner)
}

pub(crate) async fn finish(stream: Streaming<CopyProgress>) -> Result<CopyProgress, Status> {
    let mut stream = stream;
    let ended = tokio::time::timeout(20 * PATIENCE, async {
        while let Some(progress) = stream.message().await? {
            if progress.done {
                return Ok(progress);
            }
        }
        Err(Status::unavailable("ended without a last word"))
    });
    ended.await.expect("the copy neither ends nor fails")
}

pub(crate) async fn copy(
    sink: &mut Files,
    (ticket, source): (&str, String),
    path: &str,
) -> Result<CopyProgress, Status> {
    let request = CopyRequest {
        ticket: ticket.into(),
        sources: vec![source],
        path: path.into(),
        ..CopyRequest::default()
    };
    finish(sink.copy(request).await?.into_inner()).await
}

/// Bytes that are nowhere the same and compress to nothing.
pub(crate) fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        bytes.extend_from_slice(&(seed ^ (seed >> 29)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub(crate) fn put(path: &Path, bytes: &[u8], mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Path → what it is, of everything below a folder.
pub(crate) fn tree(at: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![at.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let mode = metadata.mode() & 0o7777;
            let what = if metadata.is_dir() {
                folders.push(path.clone());
                format!("folder {mode:o}")
            } else if metadata.is_symlink() {
                format!("link {}", fs::read_link(&path).unwrap().display())
            } else {
                format!("file {mode:o} {}", Digest::of(&fs::read(&path).unwrap()))
            };
            let name = path.strip_prefix(at).unwrap().to_str().unwrap().to_owned();
            found.insert(name, what);
        }
    }
    found
}

// Shows: FIO-02
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_goes_from_one_rnode_to_another_as_it_is_and_a_second_time_nothing_moves() {
    let base = Base::start();
    let (n1, n2) = (
        Nested::start(&base, "n1").await,
        Nested::start(&base, "n2").await,
    );
    let (mut one, mut two) = (files(&base, &n1).await, files(&base, &n2).await);
    let source = place(&n1, "tree");
    let large = noise(300_000, 7);
    put(&source.join("bin/run"), &large, 0o755);
    put(&source.join("bin/run again"), &large, 0o700);
    put(&source.join("data/käse.csv"), b"a,b\n", 0o640);
    put(&source.join("data/also"), b"a,b\n", 0o444);
    put(&source.join("data/empty"), b"", 0o600);
    symlink("../../../etc/passwd", source.join("data/out")).unwrap();
    symlink("/nowhere", source.join("absolute")).unwrap();
    fs::create_dir(source.join("hollow")).unwrap();
    fs::set_permissions(source.join("data"), fs::Permissions::from_mode(0o750)).unwrap();

    let offered = offer(&mut one, "/var/app/tree").await.unwrap();
    assert_eq!((offered.files, offered.folder), (5, true));
    let from = (offered.ticket.as_str(), address(&n1).await);
    let done = copy(&mut two, from.clone(), "/var/app/got/tree")
        .await
        .unwrap();
    assert_eq!(tree(&place(&n2, "got/tree")), tree(&source));
    assert_eq!(done.manifest, offered.manifest);
    // Equal contents travel once.
    assert_eq!(
        (done.bytes_moved, done.files_done),
        (300_004 + 2 * 19 * 32, 5)
    );

    let again = copy(&mut two, from, "/var/app/got/tree").await.unwrap();
    assert_eq!((again.bytes_moved, again.bytes_kept), (0, 600_008));
    assert!(!place(&n2, ".radix-partial").exists());
    until(async || recorded(&n2, "file.copied").len() == 2).await;
    let copied = recorded(&n2, "file.copied");
    assert_eq!(copied[0].fields["moved"], done.bytes_moved);
    assert_eq!(recorded(&n1, "file.offer").len(), 1);
}

// Shows: FIO-10
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_takes_no_connection_pushes_and_a_sink_that_takes_none_pulls() {
    let base = Base::start();
    let (n1, n2) = (
        Nested::start(&base, "n1").await,
        Nested::start(&base, "n2").await,
    );
    let (mut one, mut two) = (files(&base, &n1).await, files(&base, &n2).await);
    put(&n1.dir.join("files/report"), &noise(200_000, 1), 0o644);
    // The address behind which nobody answers: a firewall in front of the other.
    let walled = Cutting::start(address(&n1).await, |_| Some(0)).await;

    let expected = two
        .expect(ExpectRequest {
            path: "from/n1".into(),
        })
        .await
        .unwrap()
        .into_inner();
    let request = PushRequest {
        path: "report".into(),
        ticket: expected.ticket,
        sink: address(&n2).await,
    };
    let done = finish(one.push(request).await.unwrap().into_inner())
        .await
        .unwrap();
    assert_eq!(done.bytes_moved, 200_000 + 13 * 32);
    let sent = fs::read(n1.dir.join("files/report")).unwrap();
    assert_eq!(fs::read(n2.dir.join("files/from/n1")).unwrap(), sent);

    let offered = offer(&mut one, "report").await.unwrap();
    let denied = copy(&mut two, (&offered.ticket, walled.address.to_string()), "b").await;
    assert_eq!(denied.unwrap_err().code(), Code::Unavailable);
    let from = (offered.ticket.as_str(), address(&n1).await);
    copy(&mut two, from, "pulled").await.unwrap();
    assert_eq!(fs::read(n2.dir.join("files/pulled")).unwrap(), sent);
}

// Shows: FIO-11
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_cut_half_way_goes_on_where_it_was_and_shows_nothing_partial() {
    let base = Base::start();
    let (n1, n2) = (
        Nested::start(&base, "n1").await,
        Nested::start(&base, "n2").await,
    );
    let (mut one, mut two) = (files(&base, &n1).await, files(&base, &n2).await);
    let bytes = noise(8 << 20, 3);
    put(&n1.dir.join("files/image"), &bytes, 0o644);
    let offered = offer(&mut one, "image").await.unwrap();
    let half = Cutting::start(address(&n1).await, |number| {
        (number < 8).then_some(if number == 0 { 4 << 20 } else { 1000 })
    })
    .await;
    let cut = copy(
        &mut two,
        (&offered.ticket, half.address.to_string()),
        "image",
    )
    .await;
    let whole = n2.dir.join("files/image");
    let staged = n2
        .dir
        .join("files/.radix-partial")
        .join(Digest::of(&bytes).to_string());
    if cut.is_err() {
        assert!(!whole.exists() && staged.exists());
    }
    let from = (offered.ticket.as_str(), address(&n1).await);
    let done = copy(&mut two, from, "image").await.unwrap();
    assert!(
        done.bytes_moved < 6 << 20 && done.bytes_moved > 2 << 20,
        "{done:?}"
    );
    assert_eq!(fs::read(&whole).unwrap(), bytes);
    assert!(!staged.exists());
}

/// Looks at a folder until told to stop: whatever bears a final name must be whole.
fn watch(
    at: PathBuf,
    wanted: BTreeMap<PathBuf, u64>,
    stop: Arc<AtomicBool>,
) -> impl FnOnce() -> usize {
    let watching = std::thread::Builder::new()
        .name("watch".to_owned())
        .spawn(move || {
            let mut seen = 0;
            while !stop.load(Ordering::Relaxed) {
                for (name, size) in wanted.iter().step_by(1 + wanted.len() / 1000) {
                    if let Ok(metadata) = fs::metadata(at.join(name)) {
                        assert_eq!(metadata.len(), *size, "{}", name.display());
                        seen += 1;
                    }
                }
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            seen
        })
        .unwrap();
    move || watching.join().unwrap()
}

/// What the gate moves, or with `RADIX_FULL=1` what the contract names: 2 GiB and 100 000 files.
fn sizes() -> (usize, usize) {
    if std::env::var_os("RADIX_FULL").is_some() {
        (2 << 30, 100_000)
    } else {
        (24 << 20, 600)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_and_many_small_ones_arrive_whole_over_a_link_that_is_cut_at_random() {
    let base = Base::start();
    let (n1, n2) = (
        Nested::start(&base, "n1").await,
        Nested::start(&base, "n2").await,
    );
    let (mut one, mut two) = (files(&base, &n1).await, files(&base, &n2).await);
    let (large, many) = sizes();
    let source = n1.dir.join("files/all");
    put(&source.join("large"), &noise(large, 5), 0o600);
    let mut wanted = BTreeMap::from([(PathBuf::from("large"), large as u64)]);
    for number in 0..many {
        let name = format!("small/{}/{number}", number % 100);
        let bytes = noise(1 + number % 4096, number as u64);
        put(&source.join(&name), &bytes, 0o644);
        wanted.insert(name.into(), bytes.len() as u64);
    }
    let offered = offer(&mut one, "all").await.unwrap();
    let mean = (large / 12) as u64;
    let link = Cutting::start(address(&n1).await, move |number| {
        // Between an eighth and two times the mean, the same in every run.
        let roll = noise(8, number as u64 + 99);
        let roll = u64::from_le_bytes(roll.try_into().unwrap()) % 16;
        Some(mean * (roll + 1) / 8)
    })
    .await;
    let stop = Arc::new(AtomicBool::new(false));
    let join = watch(n2.dir.join("files/all"), wanted, Arc::clone(&stop));
    let mut tries = 0;
    let done = loop {
        let copied = copy(&mut two, (&offered.ticket, link.address.to_string()), "all").await;
        match copied {
            Ok(done) => break done,
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
        }
        tries += 1;
        assert!(tries < 50, "it gets nowhere");
    };
    stop.store(true, Ordering::Relaxed);
    let seen = join();
    let (cuts, moved) = (
        link.cuts.load(Ordering::Relaxed),
        link.moved.load(Ordering::Relaxed),
    );
    println!(
        "{cuts} cuts, {moved} bytes over the wire for {}, {seen} looks",
        done.bytes
    );
    assert!(cuts >= 3, "{cuts} cuts");
    // What was verified is not sent again: only what was in flight at each cut is.
    assert!(moved < done.bytes * 3 / 2, "{moved} of {}", done.bytes);
    assert_eq!(tree(&n2.dir.join("files/all")), tree(&source));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_file_sends_only_the_groups_that_differ() {
    let base = Base::start();
    let (n1, n2) = (
        Nested::start(&base, "n1").await,
        Nested::start(&base, "n2").await,
    );
    let (mut one, mut two) = (files(&base, &n1).await, files(&base, &n2).await);
    let at = n1.dir.join("files/disk");
    put(&at, &noise(4 << 20, 9), 0o644);
    for (round, edit) in [None, Some(100), Some(2_000_000)].into_iter().enumerate() {
        if let Some(offset) = edit {
            let file = fs::File::options().write(true).open(&at).unwrap();
            file.write_all_at(b"edited", offset).unwrap();
        }
        let offered = offer(&mut one, "disk").await.unwrap();
        let from = (offered.ticket.as_str(), address(&n1).await);
        let done = copy(&mut two, from, "disk").await.unwrap();
        // The seals of 256 groups come the first time; then those above 16 each, and the 16 below the one that differs.
        let expected = match round {
            0 => 256 * 32 + (4 << 20),
            _ => 16 * 32 + 16 * 32 + 16_384,
        };
        assert_eq!(done.bytes_moved, expected, "round {round}");
        assert_eq!(
            fs::read(n2.dir.join("files/disk")).unwrap(),
            fs::read(&at).unwrap()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn path_tricks_are_refused_recorded_and_change_nothing() {
    let base = Base::start();
    let (n1, n2) = (
        Nested::start(&base, "n1").await,
        Nested::start(&base, "n2").await,
    );
    let (mut one, mut two) = (files(&base, &n1).await, files(&base, &n2).await);
    let own = n1.dir.join("files");
    let secret = n1.dir.join("secret");
    put(&secret, b"secret", 0o600);
    put(&own.join("plain"), b"plain", 0o644);
    symlink(&n1.dir, own.join("door")).unwrap();
    put(&own.join("hard/plain"), b"x", 0o644);
    fs::hard_link(&secret, own.join("hard/other")).unwrap();
    fs::create_dir(own.join("pipe")).unwrap();
    nix::unistd::mkfifo(&own.join("pipe/p"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    fs::create_dir(own.join("bytes")).unwrap();
    let raw = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"n\xff");
    fs::write(own.join("bytes").join(raw), b"x").unwrap();
    let long = "x".repeat(300);
    let before = tree_sizes(&n1.dir.join("files"));

    let tricks: [(&str, Code, &str); 12] = [
        ("../secret", Code::InvalidArgument, "it has `..` or `.`"),
        (
            "/etc/passwd",
            Code::PermissionDenied,
            "no declared root covers it",
        ),
        (
            "/var/app/../../etc/passwd",
            Code::InvalidArgument,
            "it has `..` or `.`",
        ),
        (
            "/var/apple",
            Code::PermissionDenied,
            "no declared root covers it",
        ),
        (
            "door/secret",
            Code::InvalidArgument,
            "a link or a file stands where a folder should",
        ),
        (
            "plain/x",
            Code::InvalidArgument,
            "a link or a file stands where a folder should",
        ),
        ("hard", Code::InvalidArgument, "it has other hard links"),
        (
            "pipe",
            Code::InvalidArgument,
            "it is a device, pipe or socket",
        ),
        ("bytes", Code::InvalidArgument, "its name is not UTF-8"),
        (
            &long,
            Code::InvalidArgument,
            "it has a name of more than 255 bytes",
        ),
        (
            ".radix-partial/x",
            Code::InvalidArgument,
            "it names `.radix-partial`",
        ),
        ("a\nb", Code::InvalidArgument, "it has a control character"),
    ];
    for (path, code, reason) in tricks {
        let refused = offer(&mut one, path).await.unwrap_err();
        assert_eq!(refused.code(), code, "{path}: {refused}");
        assert!(refused.message().contains(reason), "{path}: {refused}");
        let last = recorded(&n1, "file.refused").pop().unwrap();
        assert!(last.fields["reason"].as_str().unwrap().contains(reason));
    }
    assert_eq!(recorded(&n1, "file.refused").len(), tricks.len());
    assert_eq!(tree_sizes(&n1.dir.join("files")), before);

    // At the sink: out by a link, a link in a file's place, a folder in a file's place.
    let offered = offer(&mut one, "plain").await.unwrap();
    let theirs = n2.dir.join("files");
    fs::create_dir_all(theirs.join("folder/plain/deep")).unwrap();
    symlink(&n2.dir, theirs.join("door")).unwrap();
    put(&n2.dir.join("target"), b"kept", 0o644);
    symlink(n2.dir.join("target"), theirs.join("alias")).unwrap();
    let from = (offered.ticket.as_str(), address(&n1).await);
    for path in ["door/stolen", "/etc/stolen", "../stolen", "folder"] {
        let refused = copy(&mut two, from.clone(), path).await.unwrap_err();
        let right = matches!(
            refused.code(),
            Code::InvalidArgument | Code::PermissionDenied
        );
        assert!(right, "{path}: {refused}");
    }
    assert_eq!(recorded(&n2, "file.refused").len(), 4);
    assert!(!n2.dir.join("stolen").exists() && !theirs.join(".radix-partial").exists());
    // A link in the final place is replaced, what it points to is not touched.
    copy(&mut two, from.clone(), "alias").await.unwrap();
    assert_eq!(fs::read(theirs.join("alias")).unwrap(), b"plain");
    assert!(!theirs.join("alias").is_symlink());
    assert_eq!(fs::read(n2.dir.join("target")).unwrap(), b"kept");
    // A ticket of another rnode, or none, opens nothing.
    let guess = copy(&mut two, (&"0".repeat(64), from.1.clone()), "x").await;
    assert_eq!(guess.unwrap_err().code(), Code::InvalidArgument);
}

fn tree_sizes(at: &Path) -> usize {
    let count = |folder: &Path| fs::read_dir(folder).map_or(0, Iterator::count);
    count(at)
        + ["hard", "pipe", "bytes"]
            .iter()
            .map(|name| count(&at.join(name)))
            .sum::<usize>()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_takes_a_folders_place_while_files_arrive_leads_nowhere() {
    let base = Base::start();
    let (n1, n2) = (
        Nested::start(&base, "n1").await,
        Nested::start(&base, "n2").await,
    );
    let (mut one, mut two) = (files(&base, &n1).await, files(&base, &n2).await);
    for number in 0..300 {
        put(&n1.dir.join(format!("files/all/d/{number}")), b"x", 0o644);
    }
    let offered = offer(&mut one, "all").await.unwrap();
    let (outside, racing) = (n2.dir.join("outside"), n2.dir.join("files/all/d"));
    fs::create_dir(&outside).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, aside, target) = (Arc::clone(&stop), n2.dir.join("aside"), outside.clone());
    let racer = std::thread::Builder::new()
        .name("racer".to_owned())
        .spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let _ = fs::rename(&racing, &aside);
                let _ = symlink(&target, &racing);
                let _ = fs::remove_file(&racing);
                let _ = fs::rename(&aside, &racing);
            }
        })
        .unwrap();
    let from = (offered.ticket.as_str(), address(&n1).await);
    for _ in 0..20 {
        // It may fail, and it may not leave.
        let _ = copy(&mut two, from.clone(), "all").await;
    }
    stop.store(true, Ordering::Relaxed);
    racer.join().unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_lies_is_named_at_its_first_bad_group_and_an_honest_one_goes_on() {
    let base = Base::start();
    let (n1, n2) = (
        Nested::start(&base, "n1").await,
        Nested::start(&base, "n2").await,
    );
    let (mut one, mut two) = (files(&base, &n1).await, files(&base, &n2).await);
    let bytes = noise(640 * 1024, 6);
    put(&n1.dir.join("files/data"), &bytes, 0o644);
    let offered = offer(&mut one, "data").await.unwrap();
    let manifest = format!(
        "radix-manifest/1\nf 644 {} {} \n",
        bytes.len(),
        Digest::of(&bytes)
    );
    assert_eq!(
        Digest::of(manifest.as_bytes()).to_string(),
        offered.manifest
    );
    let honest = address(&n1).await;
    for (label, lie, expected) in [
        ("liar1", Lie::Group, "at byte 458752"),
        ("liar2", Lie::Seals, "lead to"),
        ("liar3", Lie::Again, "at byte 0 was not asked for"),
        ("liar4", Lie::NoSeals, "at byte 0"),
    ] {
        let liar = Liar {
            manifest: manifest.clone(),
            bytes: bytes.clone(),
            wrong_group: 7,
            lie,
        };
        let (lying, _serving) = liar::serve(&base, label, liar).await;
        let path = format!("got/{label}");
        let request = CopyRequest {
            ticket: offered.ticket.clone(),
            sources: vec![lying.to_string(), honest.clone()],
            path: path.clone(),
            ..CopyRequest::default()
        };
        let done = finish(two.copy(request).await.unwrap().into_inner())
            .await
            .unwrap();
        assert_eq!(fs::read(n2.dir.join("files").join(&path)).unwrap(), bytes);
        // Each good group before the lie came once, from the liar; nothing came of false seals.
        assert!(
            done.bytes_moved <= bytes.len() as u64 + 4 * 65_536,
            "{done:?}"
        );
        until(async || {
            let lies = recorded(&n2, "file.lied");
            lies.last()
                .is_some_and(|lie| lie.fields["source"] == lying.to_string().as_str())
        })
        .await;
        let lie = recorded(&n2, "file.lied").pop().unwrap();
        let reason = lie.fields["reason"].as_str().unwrap();
        assert!(reason.contains(expected), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing_and_gets_its_room_back() {
    let base = Base::start();
    let n1 = Nested::start(&base, "n1").await;
    let mut n2 = Nested::start(&base, "n2").await;
    n2.contact().await;
    n2.kill();
    let disk = n2.dir.join("files");
    fs::create_dir_all(&disk).unwrap();
    let probe = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "true"])
        .status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no namespaces here");
        return;
    }
    n2.start_on_small_disk(&base, &disk);
    let (mut one, mut two) = (files(&base, &n1).await, files(&base, &n2).await);
    let own = n1.dir.join("files");
    put(&own.join("kept"), &noise(300_000, 1), 0o644);
    // Larger than what is free, and than the whole disk (`edited`, below).
    put(&own.join("large"), &noise(1_900_000, 2), 0o644);
    put(&own.join("edited"), &noise(500_000, 3), 0o644);
    for number in 0..400 {
        put(
            &own.join(format!("many/{number}")),
            &noise(4000, number),
            0o644,
        );
    }
    for name in ["kept", "edited"] {
        let offered = offer(&mut one, name).await.unwrap();
        let from = (offered.ticket.as_str(), address(&n1).await);
        copy(&mut two, from, name).await.unwrap();
    }
    let before = offer(&mut two, "").await.unwrap();
    put(&own.join("edited"), &noise(8 << 20, 4), 0o644);
    for name in ["large", "edited", "many"] {
        let offered = offer(&mut one, name).await.unwrap();
        let from = (offered.ticket.as_str(), address(&n1).await);
        let full = copy(&mut two, from, name).await.unwrap_err();
        assert_eq!(full.code(), Code::ResourceExhausted, "{name}: {full}");
        assert!(full.message().contains("no room is left there"), "{full}");
        if name != "many" {
            assert_eq!(offer(&mut two, "").await.unwrap().manifest, before.manifest);
        }
    }
    // Files of a folder that did not fit as a whole are whole each; what is named is never half.
    for number in 0..400 {
        let request = RemoveRequest {
            path: format!("many/{number}"),
            digest: String::new(),
        };
        two.remove(request).await.unwrap();
    }
    assert_eq!(offer(&mut two, "").await.unwrap().files, before.files);
    // There is room again for what fits.
    put(&own.join("fits"), &noise(900_000, 5), 0o644);
    let offered = offer(&mut one, "fits").await.unwrap();
    let from = (offered.ticket.as_str(), address(&n1).await);
    copy(&mut two, from, "fits").await.unwrap();
}

/// What the gate pushes and fetches, or with `RADIX_FULL=1` the gigabyte that the requirement names.
fn pushed_bytes() -> usize {
    if std::env::var_os("RADIX_FULL").is_some() {
        1_000_000_000
    } else {
        10_000_001
    }
}

// Shows: FIO-01
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_pushed_and_fetched_back_has_the_hash_that_it_had() {
    let base = Base::start();
    let (n1, n2) = (
        Nested::start(&base, "n1").await,
        Nested::start(&base, "n2").await,
    );
    let (mut one, mut two) = (files(&base, &n1).await, files(&base, &n2).await);
    let size = pushed_bytes();
    let source = n1.dir.join("files/first");
    put(&source, &noise(size, 17), 0o640);
    let expect = ExpectRequest {
        path: "there".into(),
    };
    let ticket = two.expect(expect).await.unwrap().into_inner().ticket;
    let push = PushRequest {
        path: "first".into(),
        ticket,
        sink: address(&n2).await,
    };
    let pushed = finish(one.push(push).await.unwrap().into_inner()).await;
    assert!(pushed.unwrap().bytes_moved >= size as u64);
    let offered = offer(&mut two, "there").await.unwrap();
    let from = (offered.ticket.as_str(), address(&n2).await);
    let fetched = copy(&mut one, from, "back").await.unwrap();
    assert_eq!(fetched.bytes, size as u64);
    let hash = |path: PathBuf| Digest::of(&fs::read(path).unwrap());
    let wanted = hash(source);
    assert_eq!(hash(n2.dir.join("files/there")), wanted);
    assert_eq!(hash(n1.dir.join("files/back")), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_refuses_what_it_leaves_no_room_for_and_names_itself() {
    let base = Base::start();
    let quota = 3_000_000;
    let (n1, n2) = (
        Nested::start(&base, "n1").await,
        Nested::within(&base, "n2", quota).await,
    );
    let (mut one, mut two) = (files(&base, &n1).await, files(&base, &n2).await);
    put(&n1.dir.join("files/first"), &noise(2_000_000, 1), 0o600);
    put(&n1.dir.join("files/second"), &noise(1_500_000, 2), 0o600);
    let from = |offered: OfferReply| async {
        let address = address(&n1).await;
        (offered.ticket, address)
    };
    let (ticket, source) = from(offer(&mut one, "first").await.unwrap()).await;
    copy(&mut two, (&ticket, source), "a").await.unwrap();
    let before = tree(&n2.dir.join("files"));
    let (ticket, source) = from(offer(&mut one, "second").await.unwrap()).await;
    let refused = copy(&mut two, (&ticket, source.clone()), "b").await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let named = refused.message().contains("quota of 3000000 bytes");
    assert!(named, "{refused}");
    assert_eq!(tree(&n2.dir.join("files")), before);
    // What is removed makes room.
    let gone = RemoveRequest {
        path: "a".into(),
        ..RemoveRequest::default()
    };
    assert!(two.remove(gone).await.unwrap().into_inner().existed);
    copy(&mut two, (&ticket, source), "b").await.unwrap();
    // The store keeps to it as well.
    let bytes = noise(3_000_001, 3);
    let chunks: Vec<_> = bytes
        .chunks(1 << 20)
        .map(|piece| crux_wire::fileio::v1::PutChunk {
            digest: Digest::of(&bytes).to_string(),
            total: bytes.len() as u64,
            bytes: piece.to_vec(),
            ..crux_wire::fileio::v1::PutChunk::default()
        })
        .collect();
    let refused = two.put(tokio_stream::iter(chunks)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let named = refused.message().contains("quota of 3000000 bytes");
    assert!(named, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_at_once_share_a_quota_and_together_stay_within_it() {
    let base = Base::start();
    let (n1, n2) = (
        Nested::start(&base, "n1").await,
        Nested::within(&base, "n2", 5_000_000).await,
    );
    let (mut one, two) = (files(&base, &n1).await, files(&base, &n2).await);
    let mut copies = Vec::new();
    for number in 0..8 {
        let name = format!("part{number}");
        let bytes = noise(2_000_000, number);
        put(&n1.dir.join("files").join(&name), &bytes, 0o600);
        let offered = offer(&mut one, &name).await.unwrap();
        let source = address(&n1).await;
        let mut two = two.clone();
        copies.push(async move {
            let from = (offered.ticket.as_str(), source);
            copy(&mut two, from, &name).await
        });
    }
    let done = futures_util::future::join_all(copies).await;
    let (brought, refused): (Vec<_>, Vec<_>) = done.into_iter().partition(Result::is_ok);
    assert_eq!(brought.len(), 2);
    for refused in refused {
        assert_eq!(refused.unwrap_err().code(), Code::ResourceExhausted);
    }
    let there = tree(&n2.dir.join("files"));
    assert_eq!(there.len(), 2, "{there:?}");
}
