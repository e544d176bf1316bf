//! The forwarder for datagrams over real sockets on loopback.

use std::collections::BTreeSet;
use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use underverse_local::forward::datagrams::{SENDERS_MAX, carry};

/// Time an answer is waited for: what is lost on loopback was never sent.
const ANSWER: Duration = Duration::from_secs(10);

/// A member that answers every datagram with its own port and what it was.
async fn member(tasks: &mut JoinSet<()>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tasks.spawn(async move {
        let mut bytes = vec![0; 65_535];
        loop {
            let (length, from) = socket.recv_from(&mut bytes).await.unwrap();
            let said = String::from_utf8_lossy(&bytes[..length]);
            let text = format!("{} {said}", address.port());
            socket.send_to(text.as_bytes(), from).await.unwrap();
        }
    });
    address
}

/// An address at which nobody listens.
fn deaf() -> SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap()
}

fn door(
    tasks: &mut JoinSet<()>,
    members: Vec<SocketAddr>,
) -> (SocketAddr, watch::Sender<Vec<SocketAddr>>) {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    let (sender, receiver) = watch::channel(members);
    tasks.spawn(async move { carry(socket, receiver, pending()).await.unwrap() });
    (address, sender)
}

async fn sender(door: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(door).await.unwrap();
    socket
}

/// Sends until an answer comes, which must be to this text; returns the member's port.
async fn ask(socket: &UdpSocket, text: &str) -> u16 {
    socket.send(text.as_bytes()).await.unwrap();
    let mut bytes = vec![0; 65_535];
    let length = tokio::time::timeout(ANSWER, socket.recv(&mut bytes));
    let length = length.await.expect("an answer").unwrap();
    let answer = String::from_utf8_lossy(&bytes[..length]).into_owned();
    let (port, echo) = answer.split_once(' ').unwrap();
    assert_eq!(echo, text);
    port.parse().unwrap()
}

// Shows in part: NET-05
#[tokio::test]
async fn senders_are_shared_out_and_each_stays_with_its_member() {
    let mut tasks = JoinSet::new();
    let members = [member(&mut tasks).await, member(&mut tasks).await];
    let (door, _members) = door(&mut tasks, members.to_vec());
    let mut counts = [0; 2];
    // They stay: the system might give a port anew, and who sends from it would be a sender that is known.
    let mut senders = Vec::new();
    for number in 0..20 {
        let socket = sender(door).await;
        let first = ask(&socket, &format!("hello {number}")).await;
        assert_eq!(ask(&socket, &"x".repeat(40_000)).await, first);
        assert_eq!(ask(&socket, "").await, first);
        counts[usize::from(first == members[1].port())] += 1;
        senders.push(socket);
    }
    assert_eq!(counts, [10, 10]);
}

#[tokio::test]
async fn what_nobody_hears_goes_to_the_next_and_a_member_that_left_gets_nothing() {
    let mut tasks = JoinSet::new();
    let (one, two) = (member(&mut tasks).await, member(&mut tasks).await);
    let (door, members) = door(&mut tasks, vec![deaf(), one, deaf(), deaf()]);
    for number in 0..12 {
        let port = ask(&sender(door).await, &format!("hello {number}")).await;
        assert_eq!(port, one.port());
    }
    let stays = sender(door).await;
    assert_eq!(ask(&stays, "before").await, one.port());
    members.send(vec![two]).unwrap();
    // Until the door has heard of it, the old one answers.
    let mut answered = BTreeSet::new();
    while !answered.contains(&two.port()) {
        answered.insert(ask(&stays, "after").await);
    }
    for _ in 0..4 {
        assert_eq!(ask(&stays, "after").await, two.port());
        assert_eq!(ask(&sender(door).await, "new").await, two.port());
    }
}

#[tokio::test]
async fn more_senders_than_there_may_be_get_nothing_and_take_nothing_from_the_others() {
    let mut tasks = JoinSet::new();
    let member = member(&mut tasks).await;
    let (door, _members) = door(&mut tasks, vec![member]);
    let first = sender(door).await;
    ask(&first, "first").await;
    // From few sockets of ours: a sender is an address and a port.
    let mut senders = vec![first];
    while senders.len() < SENDERS_MAX {
        let socket = sender(door).await;
        ask(&socket, "one of many").await;
        senders.push(socket);
    }
    let late = sender(door).await;
    late.send(b"late").await.unwrap();
    assert_eq!(ask(&senders[0], "still there").await, member.port());
    let mut bytes = [0; 64];
    assert!(late.try_recv(&mut bytes).is_err());
}
