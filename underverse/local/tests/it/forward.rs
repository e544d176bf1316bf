//! The forwarder over real sockets on loopback.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::SocketAddr;

use crux_wire::document::v1::ServiceRecord;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use underverse_local::forward::{Followed, run};

/// A member that answers every connection with its own port and then what it read.
async fn member(tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = Vec::new();
            stream.read_to_end(&mut read).await.unwrap();
            let text = format!("{} {}", address.port(), String::from_utf8(read).unwrap());
            stream.write_all(text.as_bytes()).await.unwrap();
        }
    });
    address
}

/// An address at which nobody listens.
async fn deaf() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}

async fn forwarder(
    tasks: &mut JoinSet<()>,
    members: Vec<SocketAddr>,
) -> (SocketAddr, watch::Sender<Vec<SocketAddr>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = watch::channel(members);
    tasks.spawn(run(listener, receiver, pending()));
    (address, sender)
}

/// Sends a line, ends sending, and reads all: works only where the half-closed connection still carries the answer.
async fn ask(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

// Shows: NET-11
#[tokio::test]
async fn three_hundred_requests_spread_evenly_and_a_member_that_does_not_listen_gets_none() {
    let mut tasks = JoinSet::new();
    let mut members = vec![deaf().await];
    for _ in 0..3 {
        members.push(member(&mut tasks).await);
    }
    let (address, _sender) = forwarder(&mut tasks, members.clone()).await;
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..300 {
        let answer = ask(address).await;
        assert!(answer.ends_with(" hello"), "{answer}");
        *counts.entry(answer).or_default() += 1;
    }
    assert_eq!(counts.len(), 3);
    for (member, count) in counts {
        assert!((90..=110).contains(&count), "{member}: {count}");
    }
}

/// Has the child of a test take the test's own part.
const CHILD: &str = "RADIX_TEST_FORWARD_CHILD";

/// A member that answers each byte with the same.
async fn echo(tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    });
    address
}

#[test]
fn connections_are_carried_on_while_no_other_can_be_accepted() {
    let name = "forward::connections_are_carried_on_while_no_other_can_be_accepted";
    if std::env::var_os(CHILD).is_none() {
        // In a process of its own, which runs out of descriptors.
        let child = std::process::Command::new("sh")
            .args(["-c", "ulimit -n 128; exec \"$@\"", "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout);
        let errors = String::from_utf8_lossy(&child.stderr);
        assert!(
            child.status.success() && text.contains("1 passed"),
            "{text}\n{errors}"
        );
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        let member = echo(&mut tasks).await;
        let (address, _members) = forwarder(&mut tasks, vec![member]).await;
        let mut carried = TcpStream::connect(address).await.unwrap();
        let mut byte = [7];
        carried.write_all(&byte).await.unwrap();
        carried.read_exact(&mut byte).await.unwrap();
        // It waits to be accepted from before the descriptors are gone.
        let waiting = std::net::TcpStream::connect(address).unwrap();
        let mut taken = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            taken.push(file);
        }
        // A pause of all at each failure to accept would make this minutes.
        let rounds = async {
            for _ in 0..2_000 {
                carried.write_all(&byte).await.unwrap();
                carried.read_exact(&mut byte).await.unwrap();
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), rounds)
            .await
            .expect("what is carried goes on");
        drop((taken, waiting));
    });
}

#[tokio::test]
async fn a_connection_waits_for_a_member_that_is_not_there_yet() {
    let mut tasks = JoinSet::new();
    let late = member(&mut tasks).await;
    for members in [Vec::new(), vec![deaf().await]] {
        let (address, sender) = forwarder(&mut tasks, members).await;
        let asked = tokio::join!(ask(address), async {
            // Ordering: accepted before there is anybody to carry it to.
            tokio::task::yield_now().await;
            sender.send(vec![late]).unwrap();
        });
        assert_eq!(asked.0, format!("{} hello", late.port()));
    }
}

#[tokio::test]
async fn without_a_member_that_accepts_in_time_a_connection_is_closed() {
    let mut tasks = JoinSet::new();
    for members in [Vec::new(), vec![deaf().await]] {
        let (address, _sender) = forwarder(&mut tasks, members).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.is_empty());
    }
}

#[tokio::test]
async fn members_change_while_it_runs_and_the_last_known_stay_when_their_source_is_gone() {
    let mut tasks = JoinSet::new();
    let (first, second) = (member(&mut tasks).await, member(&mut tasks).await);
    let (address, sender) = forwarder(&mut tasks, vec![first]).await;
    assert_eq!(ask(address).await, format!("{} hello", first.port()));
    sender.send(vec![second]).unwrap();
    drop(sender);
    // The change is seen before or after the next accept; from then on it holds.
    while ask(address).await != format!("{} hello", second.port()) {}
    for _ in 0..3 {
        assert_eq!(ask(address).await, format!("{} hello", second.port()));
    }
}

#[tokio::test]
async fn an_open_connection_stays_with_its_member_when_the_members_change() {
    let mut tasks = JoinSet::new();
    let (first, second) = (member(&mut tasks).await, member(&mut tasks).await);
    let (address, sender) = forwarder(&mut tasks, vec![first]).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"still").await.unwrap();
    // Another connection shows that the first one was carried to its member.
    assert_eq!(ask_pending(address, first).await, first.port());
    sender.send(vec![second]).unwrap();
    while !ask(address).await.starts_with(&second.port().to_string()) {}
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, format!("{} still", first.port()));
}

/// The member of one more connection, which is given up: the first member serves one at a time.
async fn ask_pending(address: SocketAddr, member: SocketAddr) -> u16 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    member.port()
}

#[test]
fn members_are_the_addresses_of_ready_instances_at_the_internal_port() {
    let followed = Followed {
        namespace: "stix".to_owned(),
        class: "prog1".to_owned(),
        port: 45_271,
        exposure: "127.0.0.1:8080".parse().unwrap(),
        carries: underverse_local::Carries::Tcp,
    };
    assert_eq!(followed.name(), "stix/class:prog1");
    let record = |host: &str| ServiceRecord {
        host: host.to_owned(),
        port: 1,
        ..Default::default()
    };
    let records = [
        record("127.64.0.17"),
        record("127.64.0.16"),
        record(""),
        record("127.64.0.16"),
    ];
    let addresses = ["127.64.0.16:45271", "127.64.0.17:45271"].map(|a| a.parse().unwrap());
    assert_eq!(followed.addresses(&records), addresses);
}
