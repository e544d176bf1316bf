//! One source to many real agents: each gives on what it has while the rest comes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crux_core::digest::Digest;
use crux_net::files::{Reached, Thing, spread};
use crux_wire::fileio::v1::file_io_client::FileIoClient;
use crux_wire::fileio::v1::{
    CopyProgress, CopyRequest, ManifestRequest, OfferReply, ReadRequest, Want,
};
use futures_util::stream;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};

use crate::agent_files::{Files, address, copy, files, finish, noise, offer, put, recorded, tree};
use crate::agent_rig::{Base, Nested};
use crate::cutting::Cutting;
use crate::liar::{self, Liar, Lie};
use crate::rig::{until, within};

const LARGE: usize = 8 << 20;

/// Nested rnodes `n1`, `n2`, …, of which the first has a large file.
struct Few {
    rnodes: Vec<Nested>,
    files: Vec<Files>,
    offered: OfferReply,
    bytes: Vec<u8>,
    base: Base,
}

impl Few {
    async fn start(count: usize) -> Self {
        let base = Base::start();
        let (mut rnodes, mut clients) = (Vec::new(), Vec::new());
        for number in 1..=count {
            rnodes.push(Nested::start(&base, &format!("n{number}")).await);
        }
        for nested in &rnodes {
            clients.push(files(&base, nested).await);
        }
        let bytes = noise(LARGE, 11);
        put(&rnodes[0].dir.join("files/image"), &bytes, 0o644);
        let offered = offer(&mut clients[0], "image").await.unwrap();
        Self {
            rnodes,
            files: clients,
            offered,
            bytes,
            base,
        }
    }

    /// Asks a rnode to copy the file and to relay it.
    async fn begin(&mut self, at: usize, sources: Vec<String>) -> Streaming<CopyProgress> {
        let request = self.request(sources);
        self.files[at].copy(request).await.unwrap().into_inner()
    }

    fn request(&self, sources: Vec<String>) -> CopyRequest {
        CopyRequest {
            ticket: self.offered.ticket.clone(),
            sources,
            path: "image".into(),
            manifest: self.offered.manifest.clone(),
            relay: true,
            ..CopyRequest::default()
        }
    }

    fn place(&self, at: usize) -> PathBuf {
        self.rnodes[at].dir.join("files/image")
    }

    /// Bytes that are staged on a rnode.
    fn staged(&self, at: usize) -> u64 {
        let digest = Digest::of(&self.bytes).to_string();
        let staged = self.rnodes[at]
            .dir
            .join("files/.radix-partial")
            .join(digest);
        fs::metadata(staged).map_or(0, |metadata| metadata.len())
    }

    fn is_whole(&self, at: usize) -> bool {
        fs::read(self.place(at)).unwrap() == self.bytes
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_sends_one_copy_however_many_rnodes_take_it() {
    let mut few = Few::start(6).await;
    let source = few.rnodes[0].dir.join("files/all");
    put(&source.join("image"), &few.bytes, 0o644);
    put(&source.join("image again"), &few.bytes, 0o600);
    put(&source.join("other"), &noise(300_000, 12), 0o644);
    for number in 0..200 {
        let bytes = noise(1 + number * 31, number as u64);
        put(
            &source.join(format!("small/{}/{number}", number % 7)),
            &bytes,
            0o640,
        );
    }
    symlink("../../elsewhere", source.join("link")).unwrap();
    let offered = offer(&mut few.files[0], "all").await.unwrap();
    // One has a part of it already, one has an older version, one has nothing to wait for.
    put(
        &few.rnodes[2].dir.join("files/all/image"),
        &few.bytes,
        0o600,
    );
    let mut edited = few.bytes.clone();
    edited[5 << 20] ^= 1;
    put(&few.rnodes[3].dir.join("files/all/image"), &edited, 0o644);

    let link = Cutting::start(address(&few.rnodes[0]).await, |_| None).await;
    let mut sinks = Vec::new();
    for (nested, files) in few.rnodes.iter().zip(&few.files).skip(1) {
        let reached = Reached {
            files: files.clone(),
            address: address(nested).await,
        };
        sinks.push((nested.label.clone(), reached));
    }
    let thing = Thing {
        source: &link.address.to_string(),
        ticket: &offered.ticket,
        manifest: &offered.manifest,
        bytes: offered.bytes,
        path: "all",
    };
    let outcomes = spread(&thing, sinks.len(), stream::iter(sinks), &|_| {}).await;
    assert_eq!(outcomes.len(), 5);
    for (label, outcome) in outcomes {
        assert_eq!(outcome.unwrap().manifest, offered.manifest, "{label}");
    }
    for nested in &few.rnodes[1..] {
        assert_eq!(
            tree(&nested.dir.join("files/all")),
            tree(&source),
            "{}",
            nested.label
        );
        assert!(!nested.dir.join("files/.radix-partial").exists());
    }
    // The file and its equal travel once; the rest is what the small ones, seals and sessions take.
    let moved = link.moved.load(Ordering::Relaxed);
    assert!(
        moved < LARGE as u64 + (2 << 20),
        "{moved} bytes left the source"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_gives_on_what_it_verified_while_the_rest_is_still_to_come() {
    let mut few = Few::start(4).await;
    let on = Arc::new(Notify::new());
    let held = Cutting::holding(address(&few.rnodes[0]).await, 5 << 20, &on).await;
    let (second, third) = (address(&few.rnodes[1]).await, address(&few.rnodes[2]).await);
    // Each waits for the one before, which has not even a manifest yet.
    let mut copies = vec![few.begin(1, vec![held.address.to_string()]).await];
    copies.push(few.begin(2, vec![second]).await);
    copies.push(few.begin(3, vec![third]).await);
    until(async || few.staged(3) >= 3 << 20).await;
    assert!((1..4).all(|at| !few.place(at).exists()));
    on.notify_waiters();
    for (copied, at) in copies.into_iter().zip(1..) {
        let done = finish(copied).await.unwrap();
        let seals = (LARGE / (16 << 10) * 32) as u64;
        assert_eq!(done.bytes_moved, LARGE as u64 + seals);
        assert!(few.is_whole(at));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_dies_half_way_costs_those_behind_it_a_switch_and_no_group_twice() {
    let mut few = Few::start(4).await;
    let source = address(&few.rnodes[0]).await;
    let on = Arc::new(Notify::new());
    let held = Cutting::holding(source.clone(), 5 << 20, &on).await;
    let (second, third) = (address(&few.rnodes[1]).await, address(&few.rnodes[2]).await);
    let first = few.begin(1, vec![held.address.to_string()]).await;
    let next = few.begin(2, vec![second.clone(), source]).await;
    let last = few.begin(3, vec![third, second]).await;
    until(async || few.staged(3) >= 3 << 20).await;
    few.rnodes[1].kill();
    assert!(finish(first).await.is_err());
    for (copied, at) in [(next, 2), (last, 3)] {
        let done = finish(copied).await.unwrap();
        // Seals come with each source, and one message may have been on its way.
        assert!(done.bytes_moved < (LARGE + (512 << 10)) as u64, "{done:?}");
        assert!(few.is_whole(at));
        assert!(recorded(&few.rnodes[at], "file.lied").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_gives_another_manifest_is_named_and_its_reader_goes_on() {
    let mut few = Few::start(2).await;
    let other = noise(100_000, 3);
    let manifest = format!(
        "radix-manifest/1\nf 644 {} {} \n",
        other.len(),
        Digest::of(&other)
    );
    let liar = Liar {
        manifest,
        bytes: other,
        wrong_group: 0,
        lie: Lie::Group,
    };
    let (lying, _serving) = liar::serve(&few.base, "liar", liar).await;
    let sources = vec![lying.to_string(), address(&few.rnodes[0]).await];
    finish(few.begin(1, sources).await).await.unwrap();
    assert!(few.is_whole(1));
    until(async || !recorded(&few.rnodes[1], "file.lied").is_empty()).await;
    let lie = recorded(&few.rnodes[1], "file.lied").pop().unwrap();
    assert_eq!(lie.fields["source"], lying.to_string().as_str());
    assert!(lie.fields["reason"].as_str().unwrap().contains("manifest"));
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_a_copy_that_fails_turn_to_others_and_those_that_come_later_get_all_of_it() {
    let mut few = Few::start(4).await;
    let (source, second) = (address(&few.rnodes[0]).await, address(&few.rnodes[1]).await);
    // The fourth knows nothing of the ticket.
    let nobody = address(&few.rnodes[3]).await;
    let hopeless = few.begin(1, vec![nobody]).await;
    let copied = few.begin(2, vec![second, source]).await;
    assert!(finish(hopeless).await.is_err());
    finish(copied).await.unwrap();
    assert!(few.is_whole(2));
    // What came to its end is given on, too, for as long as nobody changes it.
    let third = address(&few.rnodes[2]).await;
    finish(few.begin(3, vec![third.clone()]).await)
        .await
        .unwrap();
    assert!(few.is_whole(3));
    put(&few.place(2), b"something else", 0o644);
    let (ticket, mut fourth) = (few.offered.ticket.clone(), few.files[3].clone());
    let refused = copy(&mut fourth, (&ticket, third), "later").await;
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
    assert!(!few.rnodes[3].dir.join("files/later").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn sinks_that_accept_and_never_answer_hold_up_nobody_else() {
    const SILENT: usize = 16;
    let few = Few::start(3).await;
    // Each takes connections in its backlog, and that is all.
    let (mut sinks, mut listeners) = (Vec::new(), Vec::new());
    for number in 0..SILENT {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let channel = Endpoint::new(format!("http://{address}"))
            .unwrap()
            .connect_lazy();
        let files = FileIoClient::new(channel);
        sinks.push((format!("a{number:02}"), Reached { files, address }));
        listeners.push(listener);
    }
    for (nested, files) in few.rnodes.iter().zip(&few.files).skip(1) {
        let reached = Reached {
            files: files.clone(),
            address: address(nested).await,
        };
        sinks.push((nested.label.clone(), reached));
    }
    let source = address(&few.rnodes[0]).await;
    let thing = Thing {
        source: &source,
        ticket: &few.offered.ticket,
        manifest: &few.offered.manifest,
        bytes: few.offered.bytes,
        path: "image",
    };
    let spreading = spread(&thing, sinks.len(), stream::iter(sinks), &|_| {});
    // Those that answer have it while the silent ones are still waited for.
    let there = until(async || (1..3).all(|at| few.place(at).exists()));
    let mut spreading = Box::pin(spreading);
    tokio::select! {
        _ = &mut spreading => panic!("the silent ones were not waited for"),
        () = there => {}
    }
    drop(listeners);
    let outcomes = within(spreading).await;
    assert_eq!(outcomes.len(), SILENT + 2);
    for (label, outcome) in outcomes {
        assert_eq!(
            outcome.is_ok(),
            label.starts_with('n'),
            "{label}: {outcome:?}"
        );
    }
}

/// What the first message of a read is.
async fn first(files: &Files, ticket: &str) -> Result<bool, Status> {
    let mut files = files.clone();
    let want = Want::default();
    let request = ReadRequest {
        ticket: ticket.into(),
        wants: vec![want],
    };
    let mut pieces = files.read(request).await?.into_inner();
    Ok(pieces.message().await?.is_some())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_has_its_limits_and_takes_nothing_from_an_offer() {
    let mut few = Few::start(2).await;
    let own = address(&few.rnodes[0]).await;
    for wrong in [
        CopyRequest {
            manifest: String::new(),
            ..few.request(vec![own.clone()])
        },
        CopyRequest {
            ticket: String::new(),
            ..few.request(vec![own.clone()])
        },
        CopyRequest {
            manifest: "none".into(),
            ..few.request(vec![own.clone()])
        },
        few.request(vec![own.clone(); 65]),
        CopyRequest {
            ticket: "0".repeat(257),
            ..few.request(vec![own.clone()])
        },
    ] {
        let refused = few.files[1].copy(wrong).await.map(drop);
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    }
    assert!(!few.place(1).exists());
    // A copy from itself under the ticket of its own offer: the offer stays.
    let mut request = few.request(vec![own.clone()]);
    request.path = "other".into();
    let copied = few.files[0].copy(request).await.unwrap().into_inner();
    finish(copied).await.unwrap();
    let ticket = few.offered.ticket.clone();
    let asked = ManifestRequest {
        ticket: ticket.clone(),
    };
    assert!(few.files[0].manifest(asked).await.is_ok());

    // Eight wait for what does not come; the ninth is sent elsewhere.
    let on = Arc::new(Notify::new());
    let held = Cutting::holding(own, 3 << 20, &on).await;
    let copied = few.begin(1, vec![held.address.to_string()]).await;
    until(async || few.staged(1) > 0).await;
    let mut reading = Vec::new();
    for _ in 0..8 {
        let want = Want {
            ranges: vec![crux_wire::fileio::v1::Range {
                offset: (LARGE - (16 << 10)) as u64,
                length: 16 << 10,
            }],
            ..Want::default()
        };
        let request = ReadRequest {
            ticket: ticket.clone(),
            wants: vec![want],
        };
        let reader = few.files[1].clone().read(request).await.unwrap();
        reading.push(reader.into_inner());
    }
    let mut refused = Ok(true);
    until(async || {
        refused = first(&few.files[1], &ticket).await;
        refused.is_err()
    })
    .await;
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
    on.notify_waiters();
    finish(copied).await.unwrap();
    for mut reader in reading {
        assert_eq!(
            reader.message().await.unwrap().unwrap().bytes.len(),
            16 << 10
        );
    }
    assert!(first(&few.files[1], &ticket).await.unwrap());
}
