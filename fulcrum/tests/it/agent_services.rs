//! Needs that are served by data services, and needs that stand at a path.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crux_net::task::{Policy, Task, spawn};
use crux_wire::fileio::v1::{
    DropNeedRequest, NeedState, RemoveRequest, StateNeedRequest, SwitchRequest,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tonic::{Code, Status};

use crate::agent_blobs::{blob, need_states, put_blob, scan};
use crate::agent_files::{Files, files, noise, place, put, recorded, tree};
use crate::agent_rig::{Base, Nested};
use crate::rig::until;

/// An object service with one object, `/right`, and one that is another, `/wrong`.
async fn objects(bytes: Vec<u8>) -> (SocketAddr, Arc<AtomicUsize>, Task<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let serving = spawn("objects", Policy::ABORT, async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(connection.read_u8().await.unwrap_or(b'\n'));
            }
            counted.fetch_add(1, Ordering::Relaxed);
            let (status, body) = match &request[..] {
                request if request.starts_with(b"GET /right ") => ("200 OK", &bytes[..]),
                request if request.starts_with(b"GET /wrong ") => ("200 OK", &b"wrong"[..]),
                _ => ("404 Not Found", &b""[..]),
            };
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n");
            // Whoever asked may have gone.
            let _ = connection.write_all(head.as_bytes()).await;
            let _ = connection.write_all(body).await;
        }
    });
    (address, asked, serving)
}

async fn switch(files: &mut Files, id: &str, service: &str) -> Result<String, Status> {
    let request = SwitchRequest {
        id: id.into(),
        service: service.into(),
    };
    Ok(files.switch(request).await?.into_inner().before)
}

async fn state(files: &mut Files, digest: &str, path: &str) -> String {
    let request = StateNeedRequest {
        digest: digest.into(),
        name: "data".into(),
        path: path.into(),
        ..StateNeedRequest::default()
    };
    files.state_need(request).await.unwrap().into_inner().id
}

async fn met(files: &mut Files, wanted: impl Fn(&NeedState) -> bool) {
    until(async || {
        need_states(&mut files.clone())
            .await
            .first()
            .is_some_and(&wanted)
    })
    .await;
}

// Shows: FIO-09
#[tokio::test(flavor = "multi_thread")]
async fn another_data_service_serves_a_need_and_discovery_says_so_and_nothing_else_changes() {
    let base = Base::start();
    let n1 = Nested::start(&base, "n1").await;
    let mut one = files(&base, &n1).await;
    let bytes = noise(300_000, 6);
    let (objects, asked, _serving) = objects(bytes.clone()).await;
    let digest = put_blob(&mut one, &bytes, "data", true).await;
    let id = state(&mut one, &digest, "").await;
    met(&mut one, |need| need.met).await;
    let at = blob(&n1, &digest);
    put(&place(&n1, "nfs/data"), &bytes, 0o644);
    put(
        &place(&n1, "disk"),
        &[&bytes[..], &[0; 1000]].concat(),
        0o600,
    );

    let mut serves = "rnodes".to_owned();
    let url = format!("http://{objects}/right");
    let services = [
        url.as_str(),
        "file:/var/app/nfs/data",
        "block:/var/app/disk?300000",
    ];
    for service in services {
        let before = (tree(&n1.dir.join("store")), tree(&place(&n1, "")));
        let mut found = scan(&mut one).await;
        assert_eq!(found["data"].service, serves);
        // What has not got it is not switched to.
        for (wrong, code) in [
            (format!("http://{objects}/wrong"), Code::FailedPrecondition),
            (format!("http://{objects}/absent"), Code::FailedPrecondition),
            ("file:/var/app/no".to_owned(), Code::FailedPrecondition),
            ("file:/etc/passwd".to_owned(), Code::FailedPrecondition),
            (
                "block:/var/app/disk?300001".to_owned(),
                Code::FailedPrecondition,
            ),
            ("rnode:n9".to_owned(), Code::FailedPrecondition),
            ("s3://bucket/data".to_owned(), Code::InvalidArgument),
        ] {
            let refused = switch(&mut one, &id, &wrong).await.unwrap_err();
            assert_eq!(refused.code(), code, "{wrong}: {refused}");
        }
        assert_eq!(scan(&mut one).await, found);
        assert_eq!(switch(&mut one, &id, service).await.unwrap(), serves);
        found.get_mut("data").unwrap().service = service.to_owned();
        assert_eq!(scan(&mut one).await, found);
        assert_eq!((tree(&n1.dir.join("store")), tree(&place(&n1, ""))), before);
        serves = service.to_owned();
        // And it does serve it.
        fs::remove_file(&at).unwrap();
        met(&mut one, |need| need.met && need.source == service).await;
        assert_eq!(fs::read(&at).unwrap(), bytes);
    }
    let refused = switch(&mut one, "nobody", &url).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(asked.load(Ordering::Relaxed) >= 8);
    assert_eq!(recorded(&n1, "need.switch").len(), 3);
    // The wrong object, and the device that is read too far.
    assert_eq!(recorded(&n1, "file.lied").len(), 6);

    // Where it is gone, so is the need's source; nobody else is asked.
    assert_eq!(switch(&mut one, &id, &url).await.unwrap(), serves);
    assert_eq!(switch(&mut one, &id, "rnodes").await.unwrap(), url);
    fs::remove_file(&at).unwrap();
    met(&mut one, |need| !need.met && !need.reason.is_empty()).await;
}

// Shows: FIO-09
#[tokio::test(flavor = "multi_thread")]
async fn removing_a_blob_takes_it_from_what_discovery_reports_and_nothing_else() {
    let base = Base::start();
    let n1 = Nested::start(&base, "n1").await;
    let mut one = files(&base, &n1).await;
    put_blob(&mut one, b"stays", "stays", true).await;
    let goes = put_blob(&mut one, b"goes", "goes", true).await;
    put(&place(&n1, "file"), b"x", 0o644);
    let (mut found, mut stored) = (scan(&mut one).await, tree(&n1.dir.join("store")));
    let beside = tree(&place(&n1, ""));
    let request = RemoveRequest {
        digest: goes.clone(),
        ..RemoveRequest::default()
    };
    assert!(one.remove(request).await.unwrap().into_inner().existed);
    found.remove("goes").unwrap();
    stored.remove(&format!("{}/{goes}", &goes[..2])).unwrap();
    assert_eq!(scan(&mut one).await, found);
    let mut left = tree(&n1.dir.join("store"));
    // An empty folder of the store is none of its content.
    left.retain(|_, what| !what.starts_with("folder"));
    stored.retain(|_, what| !what.starts_with("folder"));
    assert_eq!(left, stored);
    assert_eq!(tree(&place(&n1, "")), beside);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_need_is_served_by_the_one_rnode_it_names() {
    let base = Base::start();
    let n1 = Nested::start(&base, "n1").await;
    let n2 = Nested::join(&base, "n2", Some(&n1)).await;
    let (mut one, mut two) = (files(&base, &n1).await, files(&base, &n2).await);
    let digest = put_blob(&mut one, b"bytes", "data", true).await;
    state(&mut one, &digest, "").await;
    let id = state(&mut two, &digest, "").await;
    met(&mut two, |need| need.met).await;
    assert_eq!(switch(&mut two, &id, "rnode:n1").await.unwrap(), "rnodes");
    fs::remove_file(blob(&n2, &digest)).unwrap();
    met(&mut two, |need| need.met && need.service == "rnode:n1").await;
    until(async || blob(&n2, &digest).exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_need_stands_at_its_path_comes_back_when_gone_or_changed_and_goes_only_if_asked() {
    let base = Base::start();
    let mut n1 = Nested::start(&base, "n1").await;
    let mut one = files(&base, &n1).await;
    let bytes = noise(100_000, 3);
    let digest = put_blob(&mut one, &bytes, "data", true).await;
    let at = place(&n1, "models/data");
    let id = state(&mut one, &digest, "/var/app/models/data").await;
    let stands = async || fs::read(&at).is_ok_and(|there| there == bytes);
    until(stands).await;
    assert_eq!(
        fs::metadata(&at).unwrap().permissions().mode() & 0o777,
        0o444
    );
    met(&mut one, |need| {
        need.met && need.path == "/var/app/models/data"
    })
    .await;
    let found = &scan(&mut one).await["/var/app/models/data"];
    assert_eq!((found.kind.as_str(), &found.digest), ("local", &digest));

    fs::remove_file(&at).unwrap();
    until(stands).await;
    put(&at, b"something else", 0o644);
    until(stands).await;
    // A link in its place is replaced, and nothing is written where it leads.
    put(&n1.dir.join("kept"), b"kept", 0o644);
    fs::remove_file(&at).unwrap();
    let _ = symlink(n1.dir.join("kept"), &at);
    until(async || !at.is_symlink() && fs::read(&at).is_ok_and(|there| there == bytes)).await;
    assert_eq!(fs::read(n1.dir.join("kept")).unwrap(), b"kept");
    // Both gone, and the rnode started anew.
    n1.kill();
    fs::remove_file(&at).unwrap();
    n1.start_again(&base);
    until(stands).await;
    let mut one = files(&base, &n1).await;

    let drop_it = |id: &str, remove| DropNeedRequest {
        id: id.into(),
        remove,
    };
    one.drop_need(drop_it(&id, false)).await.unwrap();
    assert!(at.exists());
    assert_eq!(state(&mut one, &digest, "/var/app/models/data").await, id);
    until(stands).await;
    let other = StateNeedRequest {
        digest: digest.clone(),
        name: "other".into(),
        path: "/var/app/models/data".into(),
        ..StateNeedRequest::default()
    };
    assert!(one.state_need(other).await.is_err());
    one.drop_need(drop_it(&id, true)).await.unwrap();
    assert!(!at.exists());
    for path in ["/etc/data", "../data", "/var/app/../data"] {
        let request = StateNeedRequest {
            digest: digest.clone(),
            path: path.into(),
            ..StateNeedRequest::default()
        };
        assert!(one.state_need(request).await.is_err(), "{path}");
    }
}
