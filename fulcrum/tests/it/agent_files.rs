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
    CopyProgress, CopyRequest, ExpectRequest, NeedState, NeedsRequest, OfferReply, OfferRequest,
    PushRequest, PutChunk, ReadRequest, RemoveRequest, ScanRequest, StateNeedRequest, Want,
};
use fulcrum::memoir::Record;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::agent_rig::{Base, Nested};
use crate::cutting::Cutting;
use crate::rig::{PATIENCE, until};

type Files = FileIoClient<Channel>;

async fn files(base: &Base, nested: &Nested) -> Files {
    FileIoClient::new(nested.channel(base).await)
}

async fn address(nested: &Nested) -> String {
    let contact = nested.contact().await;
    format!("{}:{}", contact["host"].as_str().unwrap(), contact["port"])
}

/// Where a path of a nested rnode's mount lies.
fn place(nested: &Nested, path: &str) -> PathBuf {
    nested.dir.join("cell/var/app").join(path)
}

fn memoir(nested: &Nested) -> Vec<Record> {
    fulcrum::memoir::read(&nested.dir.join("memoir"), 0).unwrap()
}

fn recorded(nested: &Nested, kind: &str) -> Vec<Record> {
    let mut records = memoir(nested);
    records.retain(|record| record.kind == kind);
    records
}

async fn offer(files: &mut Files, path: &str) -> Result<OfferReply, Status> {
    let request = OfferRequest { path: path.into() };
    files.offer(request).await.map(tonic::Response::into_inner)
}

async fn finish(stream: Streaming<CopyProgress>) -> Result<CopyProgress, Status> {
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

async fn copy(
    sink: &mut Files,
    (ticket, source): (&str, String),
    path: &str,
) -> Result<CopyProgress, Status> {
    let request = CopyRequest {
        ticket: ticket.into(),
        sources: vec![source],
        path: path.into(),
        need: String::new(),
    };
    finish(sink.copy(request).await?.into_inner()).await
}

/// Bytes that are nowhere the same and compress to nothing.
fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        bytes.extend_from_slice(&(seed ^ (seed >> 29)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn put(path: &Path, bytes: &[u8], mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Path → what it is, of everything below a folder.
fn tree(at: &Path) -> BTreeMap<String, String> {
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
    assert_eq!((done.bytes_moved, done.files_done), (300_004, 5));

    let again = copy(&mut two, from, "/var/app/got/tree").await.unwrap();
    assert_eq!((again.bytes_moved, again.bytes_kept), (0, 600_008));
    assert!(!place(&n2, ".radix-partial").exists());
    let copied = recorded(&n2, "file.copied");
    assert_eq!(copied[0].fields["moved"], 300_004);
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
    assert_eq!(done.bytes_moved, 200_000);
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
        let expected = if round == 0 { 4 << 20 } else { 65_536 };
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

async fn need_states(files: &mut Files) -> Vec<NeedState> {
    let mut stream = files.needs(NeedsRequest {}).await.unwrap().into_inner();
    let mut states = Vec::new();
    while let Some(state) = stream.message().await.unwrap() {
        states.push(state);
    }
    states
}

async fn put_blob(files: &mut Files, bytes: &[u8], name: &str, persistent: bool) -> String {
    let digest = Digest::of(bytes).to_string();
    let chunk = PutChunk {
        digest: digest.clone(),
        total: bytes.len() as u64,
        bytes: bytes.to_vec(),
        name: name.into(),
        persistent,
        ..PutChunk::default()
    };
    files.put(tokio_stream::iter([chunk])).await.unwrap();
    digest
}

fn blob(nested: &Nested, digest: &str) -> PathBuf {
    nested.dir.join("store").join(&digest[..2]).join(digest)
}

// Shows: FIO-03
// Shows: FIO-04
#[tokio::test(flavor = "multi_thread")]
async fn a_needed_blob_comes_back_when_deleted_and_is_shown_unmet_when_every_source_is_gone() {
    let base = Base::start();
    let n1 = Nested::start(&base, "n1").await;
    let n2 = Nested::join(&base, "n2", Some(&n1)).await;
    let (mut one, mut two) = (files(&base, &n1).await, files(&base, &n2).await);
    let digest = put_blob(&mut one, &noise(200_000, 2), "prods.csv", true).await;
    let request = StateNeedRequest {
        digest: digest.clone(),
        name: "prods.csv".into(),
        executable: false,
    };
    // Needed on both: so each may give it to the other.
    one.state_need(request.clone()).await.unwrap();
    let id = two.state_need(request).await.unwrap().into_inner().id;
    until(async || need_states(&mut two.clone()).await[0].met).await;
    assert!(blob(&n2, &digest).exists());

    fs::remove_file(blob(&n2, &digest)).unwrap();
    until(async || blob(&n2, &digest).exists()).await;
    // The record is written after the blob was named.
    until(async || recorded(&n2, "file.copied").len() == 2).await;
    for record in recorded(&n2, "file.copied") {
        assert_eq!(record.fields["need"], id.as_str());
        assert_eq!(record.fields["source"], address(&n1).await.as_str());
    }

    let refused = two
        .remove(RemoveRequest {
            digest: digest.clone(),
            path: String::new(),
        })
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::FailedPrecondition);

    // Every source gone: the only other rnode drops its need and its copy.
    let theirs = need_states(&mut one).await[0].id.clone();
    one.drop_need(crux_wire::fileio::v1::DropNeedRequest { id: theirs })
        .await
        .unwrap();
    let gone = one
        .remove(RemoveRequest {
            digest: digest.clone(),
            path: String::new(),
        })
        .await;
    assert!(gone.unwrap().into_inner().existed);
    fs::remove_file(blob(&n2, &digest)).unwrap();
    until(async || !need_states(&mut two.clone()).await[0].met).await;
    let state = need_states(&mut two).await.remove(0);
    assert!(!state.reason.is_empty(), "{state:?}");
    assert_eq!(recorded(&n2, "need.unmet").len(), 1);
}

async fn scan(files: &mut Files) -> BTreeMap<String, crux_wire::fileio::v1::FileInfo> {
    let mut stream = files
        .scan(ScanRequest::default())
        .await
        .unwrap()
        .into_inner();
    let mut found = BTreeMap::new();
    while let Some(info) = stream.message().await.unwrap() {
        found.insert(info.name.clone(), info);
    }
    found
}

// Shows: DAT-02
// Shows: DAT-03
#[tokio::test(flavor = "multi_thread")]
async fn persistent_data_outlives_the_rnode_verified_and_ephemeral_data_does_not() {
    let base = Base::start();
    let mut n1 = Nested::start(&base, "n1").await;
    let mut one = files(&base, &n1).await;
    put_blob(&mut one, b"stays", "stays", true).await;
    let wrong = put_blob(&mut one, &noise(100_000, 4), "goes wrong", true).await;
    let fleeting = put_blob(&mut one, b"goes", "goes", false).await;
    assert_eq!(scan(&mut one).await.len(), 3);

    n1.kill();
    let at = blob(&n1, &wrong);
    fs::set_permissions(&at, fs::Permissions::from_mode(0o644)).unwrap();
    let file = fs::File::options().write(true).open(&at).unwrap();
    file.write_all_at(b"!", 70_000).unwrap();
    drop(file);
    n1.start_again(&base);

    let mut one = files(&base, &n1).await;
    until(async || {
        scan(&mut one.clone())
            .await
            .get("goes wrong")
            .is_some_and(|info| info.corrupt)
    })
    .await;
    until(async || !scan(&mut one.clone()).await.contains_key("goes")).await;
    let found = scan(&mut one).await;
    assert!(found["stays"].persistent && !found["stays"].corrupt);
    assert_eq!(found["goes wrong"].kind, "absent");
    assert!(!blob(&n1, &fleeting).exists());
    let want = Want {
        digest: wrong.clone(),
        ..Want::default()
    };
    let read = ReadRequest {
        ticket: String::new(),
        wants: vec![want],
    };
    assert_eq!(one.read(read).await.unwrap_err().code(), Code::NotFound);
    let told = recorded(&n1, "file.corrupt");
    assert_eq!(told[0].fields["digest"], wrong.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_flipped_in_the_store_is_found_and_named_before_anybody_gets_it() {
    let base = Base::start();
    let n1 = Nested::start(&base, "n1").await;
    let mut one = files(&base, &n1).await;
    let digest = put_blob(&mut one, &noise(300_000, 8), "data", true).await;
    let at = blob(&n1, &digest);
    fs::set_permissions(&at, fs::Permissions::from_mode(0o644)).unwrap();
    let file = fs::File::options().write(true).open(&at).unwrap();
    file.write_all_at(b"!", 200_000).unwrap();
    let want = Want {
        digest: digest.clone(),
        ..Want::default()
    };
    let read = ReadRequest {
        ticket: String::new(),
        wants: vec![want],
    };
    let mut pieces = one.read(read).await.unwrap().into_inner();
    let refused = loop {
        match pieces.message().await {
            Ok(piece) => assert!(piece.is_none(), "a wrong byte may have been given"),
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), Code::DataLoss);
    assert!(refused.message().contains(&digest), "{refused}");
    assert_eq!(recorded(&n1, "file.corrupt").len(), 1);
}
