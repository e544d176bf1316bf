//! Flocks over real sockets on loopback, with real certificates.

use std::future::Future;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use crux_core::flock::Seated;
use crux_core::ken::Refusal;
use crux_core::names::RnodeId;
use crux_net::flock::{Config, Error, FlockView, Ref, State, Timings};
use crux_net::identity::RnodeIdentity;
use crux_net::task::{Policy, Task, spawn};
use crux_wire::document::v1::{Document, SignedDocument};
use prost::Message;
use tokio_util::sync::CancellationToken;

use crate::fixture::World;

/// Far above what any of it takes, on a machine that compiles at the same time.
const LIMIT: Duration = Duration::from_secs(120);

struct Rnode {
    id: RnodeId,
    address: SocketAddr,
    flock: Ref,
    cancel: CancellationToken,
    task: Task<Result<(), Error>>,
}

fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").expect("a free port")
}

fn start(
    world: &World,
    identity: &RnodeIdentity,
    socket: UdpSocket,
    hints: Vec<SocketAddr>,
) -> Rnode {
    let name = format!("flock-{}", identity.id());
    let address = socket.local_addr().expect("it is bound");
    let config = Config {
        timings: Timings {
            remove_after: Duration::from_secs(2),
            declare_grace: Duration::from_secs(1),
            ..Timings::default()
        },
        identity: identity.clone(),
        socket,
        addresses: Vec::new(),
        hints,
        vote: 100,
        incarnation: 0,
        dir: world.dir.join(&name),
        judge: None,
    };
    let (actor, flock) = config.build().expect("it builds");
    let cancel = CancellationToken::new();
    let task = spawn("flock", Policy::ABORT, actor.run(cancel.clone()));
    Rnode {
        id: identity.id(),
        address,
        flock,
        cancel,
        task,
    }
}

impl Rnode {
    async fn kill(self) -> UdpSocket {
        self.cancel.cancel();
        self.task.await.expect("no panic").expect("nothing failed");
        // The endpoint lets go of the socket a little after its last task.
        loop {
            match UdpSocket::bind(self.address) {
                Ok(socket) => return socket,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    fn counter(&self, name: &str) -> u64 {
        let view = self.flock.view();
        let view = view.borrow();
        view.counters
            .iter()
            .find(|(known, _)| *known == name)
            .map_or(0, |(_, value)| *value)
    }
}

async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, wait)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen"))
}

/// Waits until the view of each satisfies `holds`.
async fn all(what: &str, rnodes: &[Rnode], holds: impl Fn(&FlockView) -> bool) {
    for rnode in rnodes {
        let mut view = rnode.flock.view();
        let seen = within(what, view.wait_for(|view| holds(view)))
            .await
            .map(|_| ());
        seen.expect("the flock lives");
    }
}

async fn until(what: &str, rnode: &Rnode, holds: impl Fn(&Ref) -> bool) {
    let mut changes = rnode.flock.changes();
    let wait = async {
        while !holds(&rnode.flock) {
            changes.changed().await.expect("the flock lives");
        }
    };
    within(what, wait).await;
}

fn one_flock(view: &FlockView, count: usize) -> bool {
    view.leader.is_some() && view.up().count() == count
}

async fn same_leader(rnodes: &[Rnode], count: usize) -> RnodeId {
    loop {
        all("one flock", rnodes, |view| one_flock(view, count)).await;
        let leaders: Vec<_> = rnodes
            .iter()
            .filter_map(|rnode| rnode.flock.view().borrow().leader)
            .collect();
        if leaders.len() == rnodes.len() && leaders.windows(2).all(|pair| pair[0] == pair[1]) {
            return leaders[0];
        }
        let mut changes = rnodes[0].flock.changes();
        changes.mark_unchanged();
        tokio::time::timeout(Duration::from_millis(100), changes.changed())
            .await
            .ok();
    }
}

fn chain(world: &World, namespace: &str, count: usize) -> Vec<Rnode> {
    let sockets: Vec<UdpSocket> = (0..count).map(|_| socket()).collect();
    let addresses: Vec<SocketAddr> = sockets
        .iter()
        .map(|socket| socket.local_addr().expect("bound"))
        .collect();
    let rnodes = sockets.into_iter().enumerate().map(|(index, socket)| {
        let identity = world.rnode(namespace, &format!("n{index}"));
        let hints = addresses.get(index + 1).copied().into_iter().collect();
        start(world, &identity, socket, hints)
    });
    rnodes.collect()
}

fn document(world: &World, namespace: &str, generation: u64, size: usize) -> Vec<u8> {
    let document = Document {
        namespace: namespace.to_owned(),
        generation,
        application: "x".repeat(size),
        ..Document::default()
    };
    let payload = document.encode_to_vec();
    let (signature, chain) = world
        .owner
        .sign_document(&payload)
        .expect("the operator signs");
    SignedDocument {
        payload,
        signature,
        chain,
    }
    .encode_to_vec()
}

/// Shows in part: FLK-02, FLK-03, FLK-15, KEN-02
#[tokio::test]
async fn ten_rnodes_form_one_flock_and_tell_each_other_everything() {
    let world = World::new();
    let mut rnodes = chain(&world, "stix", 10);
    let leader = same_leader(&rnodes, 10).await;
    for (index, rnode) in rnodes.iter().enumerate() {
        rnode
            .flock
            .publish(&format!("service/s{index}"), &[1; 500])
            .expect("within the limits");
    }
    for rnode in &rnodes {
        until("every entry everywhere", rnode, |flock| {
            flock.entries("service/").len() == 10
        })
        .await;
    }
    let bytes = document(&world, "stix", 1, 200_000);
    rnodes[3]
        .flock
        .put_document(1, &bytes)
        .expect("it is signed");
    for rnode in &rnodes {
        let mut held = rnode.flock.document();
        let held = within(
            "the document everywhere",
            held.wait_for(|held| held.is_some()),
        )
        .await
        .expect("it lives");
        assert_eq!(
            held.as_ref().map(|held| held.bytes.to_vec()),
            Some(bytes.clone())
        );
    }
    let victim = rnodes
        .iter()
        .position(|rnode| rnode.id != leader)
        .expect("not all lead");
    let victim = rnodes.remove(victim);
    let lost = victim.id;
    victim.kill().await;
    let is_lost = |view: &FlockView| {
        view.members
            .iter()
            .any(|member| member.id == lost && member.state == State::Down)
    };
    all("the loss known to all", &rnodes, is_lost).await;
    for rnode in &rnodes {
        until("its entry gone", rnode, |flock| {
            flock.entries("service/").len() == 9
        })
        .await;
    }
    same_leader(&rnodes, 9).await;
}

/// Shows in part: FLK-10, FLK-14, KEN-03
#[tokio::test]
async fn a_leader_that_dies_is_followed_by_another_and_comes_back_under_a_new_incarnation() {
    let world = World::new();
    let mut rnodes = chain(&world, "stix", 4);
    let leader = same_leader(&rnodes, 4).await;
    let at = rnodes
        .iter()
        .position(|rnode| rnode.id == leader)
        .expect("it is one of them");
    let old = rnodes.remove(at);
    old.flock
        .publish("service/a", b"before")
        .expect("within the limits");
    for rnode in &rnodes {
        until("the entry everywhere", rnode, |flock| {
            !flock.entries("service/a").is_empty()
        })
        .await;
    }
    let incarnation = old.flock.view().borrow().incarnation;
    let socket = old.kill().await;
    all("another leader", &rnodes, |view| {
        view.leader.is_some_and(|next| next != leader)
    })
    .await;
    let dir = world.rnode_dir("stix", &format!("n{at}"));
    let identity = RnodeIdentity::open(&dir)
        .expect("it opens")
        .expect("it was claimed");
    let back = start(&world, &identity, socket, vec![rnodes[0].address]);
    assert_eq!(back.id, leader);
    back.flock
        .publish("service/a", b"after")
        .expect("within the limits");
    rnodes.push(back);
    let returned = |view: &FlockView| {
        one_flock(view, 4)
            && view
                .up()
                .any(|member| member.id == leader && member.incarnation > incarnation)
    };
    all("all are there again", &rnodes, returned).await;
    for rnode in &rnodes {
        let is_new = |flock: &Ref| {
            flock
                .entries("service/a")
                .iter()
                .any(|entry| entry.value() == b"after")
        };
        until("the new entry in place of the old", rnode, is_new).await;
    }
}

/// Shows in part: FLK-10
#[tokio::test]
async fn who_quits_is_gone_at_once_and_may_do_nothing_more() {
    let world = World::new();
    let mut rnodes = chain(&world, "stix", 3);
    same_leader(&rnodes, 3).await;
    let gone = rnodes.remove(1);
    within("the end", gone.flock.quit()).await;
    assert_eq!(gone.flock.publish("k", b"v"), Err(Refusal::Ended));
    let left = |view: &FlockView| {
        view.members
            .iter()
            .any(|member| member.id == gone.id && member.state == State::Left)
    };
    all("the departure known to all", &rnodes, left).await;
    gone.task.await.expect("no panic").expect("nothing failed");
}

/// Shows in part: FLK-01, FLK-19, SEC-01
#[tokio::test]
async fn foreign_owners_and_namespaces_change_nothing_and_are_counted() {
    let (world, stranger) = (World::new(), World::new());
    let ours = chain(&world, "stix", 2);
    same_leader(&ours, 2).await;
    let hints = vec![ours[0].address, ours[1].address];
    let before = ours[0].flock.view().borrow().members.clone();
    let foreign = start(
        &stranger,
        &stranger.rnode("stix", "n0"),
        socket(),
        hints.clone(),
    );
    let other = start(&world, &world.rnode("other", "n0"), socket(), hints);
    for rnode in [&foreign, &other] {
        let own = |view: &FlockView| view.leader == Some(view.own);
        within("it leads itself", rnode.flock.view().wait_for(own))
            .await
            .map(|_| ())
            .expect("it lives");
    }
    let counted = async {
        while ours[0].counter("link_refused") == 0 || ours[0].counter("link_foreign") == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within("both are counted", counted).await;
    let after = ours[0].flock.view().borrow().members.clone();
    let names = |members: &[crux_net::flock::MemberView]| {
        members.iter().map(|member| member.id).collect::<Vec<_>>()
    };
    assert_eq!(names(&before), names(&after));
    assert_eq!(
        (
            foreign.flock.view().borrow().up().count(),
            other.flock.view().borrow().up().count()
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn what_needs_a_seated_leader_is_refused_as_unsupported() {
    let world = World::new();
    let rnodes = chain(&world, "stix", 1);
    let key = || "service/one".to_owned();
    let requests = [
        Seated::Claim { key: key() },
        Seated::CompareAndSet {
            key: key(),
            expected: None,
            value: vec![1],
        },
        Seated::Single {
            class: "worker".to_owned(),
        },
    ];
    for request in requests {
        assert_eq!(rnodes[0].flock.seated(request), Err(Refusal::Unsupported));
    }
    assert_eq!(
        rnodes[0].flock.publish("flock/record", b"no"),
        Err(Refusal::Reserved)
    );
    assert_eq!(
        rnodes[0].flock.put_document(1, b"unsigned"),
        Err(Refusal::Signature)
    );
    let foreign = document(&World::new(), "stix", 1, 10);
    assert_eq!(
        rnodes[0].flock.put_document(1, &foreign),
        Err(Refusal::Signature)
    );
    let elsewhere = document(&world, "other", 1, 10);
    assert_eq!(
        rnodes[0].flock.put_document(1, &elsewhere),
        Err(Refusal::Signature)
    );
}

/// Shows in part: FLK-18, BOO-06
#[tokio::test]
async fn all_that_stop_at_once_find_each_other_again_without_hints() {
    let world = World::new();
    let rnodes = chain(&world, "stix", 4);
    same_leader(&rnodes, 4).await;
    let mut sockets = Vec::new();
    for rnode in rnodes {
        sockets.push(rnode.kill().await);
    }
    let again = sockets.into_iter().enumerate().map(|(index, socket)| {
        let dir = world.rnode_dir("stix", &format!("n{index}"));
        let identity = RnodeIdentity::open(&dir)
            .expect("it opens")
            .expect("claimed");
        start(&world, &identity, socket, Vec::new())
    });
    let again: Vec<Rnode> = again.collect();
    same_leader(&again, 4).await;
    for rnode in &again {
        assert_eq!(rnode.flock.view().borrow().incarnation, 2);
    }
}

#[tokio::test]
async fn a_rnode_that_restarts_knowing_nobody_is_met_again_by_those_who_know_it() {
    let world = World::new();
    let mut rnodes = chain(&world, "stix", 2);
    same_leader(&rnodes, 2).await;
    let socket = rnodes.remove(1).kill().await;
    let identity = RnodeIdentity::open(&world.rnode_dir("stix", "n1"));
    let identity = identity.expect("it opens").expect("claimed");
    let peers = world
        .dir
        .join(&format!("flock-{}", identity.id()))
        .join("peers");
    std::fs::remove_file(peers).expect("it was kept");
    let back = start(&world, &identity, socket, Vec::new());
    rnodes.push(back);
    let met =
        |view: &FlockView| one_flock(view, 2) && view.up().any(|member| member.incarnation == 2);
    all("they meet", &rnodes, met).await;
}

/// Shows in part: FLK-19
#[tokio::test]
async fn bytes_that_are_no_message_change_nothing() {
    let world = World::new();
    let rnodes = chain(&world, "stix", 2);
    same_leader(&rnodes, 2).await;
    let stranger = socket();
    let mut bytes = vec![0_u8; 1200];
    for round in 0..2000_usize {
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::try_from((at * 31 + round * 17 + round / 7) % 256).expect("below 256");
        }
        // Every kind of first byte that QUIC knows, and all others.
        bytes[0] = u8::try_from(round % 256).expect("below 256");
        let size = 1 + round % bytes.len();
        stranger
            .send_to(&bytes[..size], rnodes[round % 2].address)
            .expect("loopback takes it");
    }
    rnodes[0]
        .flock
        .publish("still", b"here")
        .expect("within the limits");
    until("an entry after all that", &rnodes[1], |flock| {
        !flock.entries("still").is_empty()
    })
    .await;
    all("nobody came or went", &rnodes, |view| {
        view.members.len() == 2 && one_flock(view, 2)
    })
    .await;
}
