//! Blobs of real agents: needed, kept, verified, listed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

use crux_core::digest::Digest;
use crux_wire::fileio::v1::{
    DropNeedRequest, NeedState, NeedsRequest, PutChunk, ReadRequest, RemoveRequest, ScanRequest,
    StateNeedRequest, Want,
};
use tonic::Code;

use crate::agent_files::{Files, address, copy, files, noise, offer, put, recorded};
use crate::agent_rig::{Base, Nested};
use crate::rig::until;

pub(crate) async fn need_states(files: &mut Files) -> Vec<NeedState> {
    let mut stream = files.needs(NeedsRequest {}).await.unwrap().into_inner();
    let mut states = Vec::new();
    while let Some(state) = stream.message().await.unwrap() {
        states.push(state);
    }
    states
}

pub(crate) async fn put_blob(
    files: &mut Files,
    bytes: &[u8],
    name: &str,
    persistent: bool,
) -> String {
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

pub(crate) fn blob(nested: &Nested, digest: &str) -> PathBuf {
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
        ..StateNeedRequest::default()
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
    one.drop_need(DropNeedRequest {
        id: theirs,
        remove: false,
    })
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
    // A note may reach the file a little later than the state is told.
    until(async || !recorded(&n2, "need.unmet").is_empty()).await;
    assert_eq!(recorded(&n2, "need.unmet").len(), 1);
}

pub(crate) async fn scan(files: &mut Files) -> BTreeMap<String, crux_wire::fileio::v1::FileInfo> {
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

// Shows: FIO-05
#[tokio::test(flavor = "multi_thread")]
async fn a_scan_of_five_rnodes_names_what_each_has_and_what_it_would_have_to_fetch() {
    let base = Base::start();
    base.ready().await;
    let mut rnodes = Vec::new();
    for number in 1..=5 {
        rnodes.push(Nested::start(&base, &format!("n{number}")).await);
    }
    let pinned = base.worker.to_string();
    for (number, nested) in rnodes.iter().enumerate() {
        let mut files = files(&base, nested).await;
        let bytes = noise(1000 + number, number as u64);
        let digest = put_blob(&mut files, &bytes, "mine", number % 2 == 0).await;
        // Known, and not yet assigned to anybody: so not fetched.
        let document = base.put(&base.application(1, "wait"));
        nested
            .fulcrum(&base)
            .await
            .put_document(document)
            .await
            .unwrap();
        let found = scan(&mut files).await;
        let (mine, worker) = (&found["mine"], &found["/var/app/bin/worker"]);
        assert_eq!((mine.size, &mine.digest), (1000 + number as u64, &digest));
        assert_eq!(
            (mine.kind.as_str(), mine.persistent),
            ("local", number % 2 == 0)
        );
        assert_eq!((worker.kind.as_str(), &worker.digest), ("remote", &pinned));
    }
}

// Shows: FIO-08
#[tokio::test(flavor = "multi_thread")]
async fn two_versions_of_a_name_are_there_at_once_each_by_its_digest() {
    let base = Base::start();
    let n1 = Nested::start(&base, "n1").await;
    let mut one = files(&base, &n1).await;
    let versions = [&b"first"[..], b"second"];
    for bytes in versions {
        let digest = put_blob(&mut one, bytes, "prods.csv", true).await;
        let want = Want {
            digest,
            ..Want::default()
        };
        let read = ReadRequest {
            ticket: String::new(),
            wants: vec![want],
        };
        let mut pieces = one.read(read).await.unwrap().into_inner();
        assert_eq!(pieces.message().await.unwrap().unwrap().bytes, bytes);
    }
    let request = ScanRequest {
        prefix: "prods.csv".into(),
    };
    let mut stream = one.scan(request).await.unwrap().into_inner();
    let mut digests = Vec::new();
    while let Some(info) = stream.message().await.unwrap() {
        digests.push(info.digest);
    }
    digests.sort();
    let mut expected = versions.map(|bytes| Digest::of(bytes).to_string());
    expected.sort();
    assert_eq!(digests, expected);
}

// Shows: DAT-04
// Shows: DAT-07
#[tokio::test(flavor = "multi_thread")]
async fn alone_a_rnode_lists_what_is_local_and_copies_diverge_by_themselves() {
    let mut base = Base::start();
    let mut n1 = Nested::start(&base, "n1").await;
    let n2 = Nested::start(&base, "n2").await;
    let (mut one, mut two) = (files(&base, &n1).await, files(&base, &n2).await);
    put(&n1.dir.join("files/list"), b"a", 0o644);
    let offered = offer(&mut one, "list").await.unwrap();
    let from = (offered.ticket.as_str(), address(&n1).await);
    copy(&mut two, from, "list").await.unwrap();
    put(&n2.dir.join("files/list"), b"b", 0o644);
    assert_ne!(
        offer(&mut one, "list").await.unwrap().manifest,
        offer(&mut two, "list").await.unwrap().manifest
    );
    assert_eq!(fs::read(n1.dir.join("files/list")).unwrap(), b"a");

    let here = put_blob(&mut two, b"here", "here", true).await;
    let application = base.put(&base.application(1, "wait"));
    n2.fulcrum(&base)
        .await
        .put_document(application)
        .await
        .unwrap();
    // Nobody else is left.
    n1.kill();
    base.kill_keeper();
    let found = scan(&mut two).await;
    let local: Vec<_> = found.values().filter(|info| info.kind == "local").collect();
    assert_eq!(local.len(), 1, "{local:?}");
    assert_eq!((local[0].name.as_str(), &local[0].digest), ("here", &here));
}
