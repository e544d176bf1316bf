//! Calls over loopback: who gets in, who is met, and what happens as leaves, agents and servers come and go.

mod refused;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crux_core::identity::{Denied, Principal, Refusal, Who};
use crux_core::names::Label;
use crux_net::identity::{ALPN_GRPC, Credentials, Expect, SecretKey, WallClock};
use crux_net::rpc::{
    AGENT_FD_VARIABLE, Answers, Fate, HANDSHAKES_MAX, ProcessListener, ProcessSocket, RefusedPeer,
    Server, connect, connect_over, connect_process, fate, repeat_unsent, serve_stream,
};
use crux_net::task::{self, Policy, Task};
use crux_wire::process::v1::process_client::ProcessClient;
use crux_wire::process::v1::{LookupRequest, WhoamiRequest};
use crux_wire::rest::Api;
use crux_wire::status::Kind;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;
use tonic::transport::Channel;

use crate::fixture::{WhoCalls, World, label};

/// A server that stops with the test.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    pub(crate) refused: mpsc::UnboundedReceiver<RefusedPeer>,
    stop: Option<oneshot::Sender<()>>,
    task: Task<()>,
}

impl Serving {
    pub(crate) async fn start(credentials: &Credentials) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (tell, refused) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let answers = Answers::new(WhoCalls::routes()).twins(Api::radix);
        let server = Server::new(credentials.clone(), answers).on_refusal(move |peer| {
            let _ = tell.send(peer);
        });
        let task = task::spawn("test server", Policy::ABORT, async move {
            let stopped = async { drop(stopped.await) };
            server.serve(listener, stopped).await.expect("it serves");
        });
        Self {
            address,
            refused,
            stop: Some(stop),
            task,
        }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }
}

async fn who(channel: &Channel) -> Result<String, Status> {
    let mut client = ProcessClient::new(channel.clone());
    client
        .whoami(WhoamiRequest {})
        .await
        .map(|reply| reply.into_inner().namespace)
}

fn at(namespace: &str, name: &str) -> Expect {
    Expect::Label {
        namespace: label(namespace),
        label: label(name),
    }
}

// Shows in part: SEC-01
#[tokio::test]
async fn each_side_knows_the_other_by_its_key() {
    let world = World::new();
    let (n1, n2) = (world.rnode("stix", "n1"), world.rnode("stix", "n2"));
    let serving = Serving::start(&n1.credentials().expect("credentials")).await;
    let credentials = n2.credentials().expect("credentials");
    for expect in [Expect::Rnode(n1.id()), at("stix", "n1"), Expect::Owner] {
        let channel = connect(&serving.address(), &credentials, expect)
            .await
            .expect("n1");
        assert_eq!(
            who(&channel).await.expect("a reply"),
            format!("rnode stix/n2 ({})", n2.id().short())
        );
    }
    for expect in [Expect::Rnode(n2.id()), at("stix", "n2"), at("base", "n1")] {
        let error = connect(&serving.address(), &credentials, expect)
            .await
            .expect_err("it is n1");
        assert_eq!(error.kind(), Kind::Unauthenticated);
        assert!(
            matches!(error.refusal(), Some(Refusal::Unexpected { .. })),
            "{error:?}"
        );
    }
    let operator = connect(
        &serving.address(),
        &world.owner.credentials().expect("credentials"),
        at("stix", "n1"),
    )
    .await;
    assert!(
        who(&operator.expect("n1"))
            .await
            .expect("a reply")
            .starts_with("operator ")
    );
}

// Shows in part: SEC-01
#[tokio::test]
async fn no_certificate_and_a_foreign_one_are_refused_and_told() {
    let (ours, theirs) = (World::new(), World::new());
    let mut serving =
        Serving::start(&ours.rnode("stix", "n1").credentials().expect("credentials")).await;
    let foreign = theirs
        .rnode("stix", "n1")
        .credentials()
        .expect("credentials");
    // The foreigner refuses us as well, so it must not look.
    let channel = connect(&serving.address(), &foreign, Expect::Owner)
        .await
        .expect_err("it meets a foreigner");
    assert!(matches!(channel.refusal(), Some(Refusal::ForeignOwner(_))));
    // One that does not look, and shows a foreign chain or none.
    let proper = foreign
        .client_config(Expect::Owner, &ALPN_GRPC)
        .expect("a config");
    for shown in [Some(proper.client_auth_cert_resolver.clone()), None] {
        let reply = careless(&serving, shown).await;
        assert!(reply.is_err(), "a reply came: {reply:?}");
    }
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(serving.refused.recv().await.expect("each is told"));
    }
    assert!(
        told.iter()
            .any(|peer| matches!(peer.refusal, Some(Refusal::ForeignOwner(_)))),
        "{told:?}"
    );
    assert!(told.iter().any(|peer| peer.refusal.is_none()), "{told:?}");
    // Neither is plain text let in.
    let mut plain = TcpStream::connect(serving.address)
        .await
        .expect("it listens");
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"POST / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("sent");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

/// Talks TLS to a server without judging it, showing what it is given, and answers what the server then says.
async fn careless(
    serving: &Serving,
    shown: Option<Arc<dyn rustls::client::ResolvesClientCert>>,
) -> std::io::Result<usize> {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    #[derive(Debug)]
    struct Careless;
    impl ServerCertVerifier for Careless {
        fn verify_server_cert(
            &self,
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &[rustls::pki_types::CertificateDer<'_>],
            _: &rustls::pki_types::ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    }
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_protocol_versions(&[&rustls::version::TLS13])
    .expect("TLS 1.3")
    .dangerous()
    .with_custom_certificate_verifier(Arc::new(Careless));
    let config = match shown {
        Some(resolver) => builder.with_client_cert_resolver(resolver),
        None => builder.with_no_client_auth(),
    };
    let stream = TcpStream::connect(serving.address).await?;
    let name = rustls::pki_types::ServerName::try_from("radix").expect("a name");
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    // The beginning of HTTP/2, with empty settings: a server that lets us in answers with its own.
    let greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    tokio::io::AsyncWriteExt::write_all(&mut stream, greeting).await?;
    let mut byte = [0; 1];
    let read = stream.read(&mut byte).await?;
    if read == 0 {
        Err(std::io::ErrorKind::UnexpectedEof.into())
    } else {
        Ok(read)
    }
}

// Shows in part: SEC-01
#[tokio::test]
async fn a_chain_without_its_key_opens_nothing() {
    let world = World::new();
    let mut serving = Serving::start(
        &world
            .rnode("stix", "n1")
            .credentials()
            .expect("credentials"),
    )
    .await;
    // n2 shows the chain of n3, which anyone sees who was ever called by it.
    let n3 = world
        .rnode("stix", "n3")
        .credentials()
        .expect("credentials");
    let stolen = n3
        .chain()
        .expect("a leaf")
        .into_iter()
        .map(Into::into)
        .collect();
    let key = fresh_key();
    let signing = rustls::crypto::ring::sign::any_ecdsa_type(&key).expect("a key");
    let shown = rustls::sign::CertifiedKey::new(stolen, signing);
    let reply = careless(&serving, Some(Arc::new(Stolen(Arc::new(shown))))).await;
    assert!(reply.is_err(), "a reply came: {reply:?}");
    let told = serving.refused.recv().await.expect("it is told");
    assert!(
        told.refusal.is_none(),
        "the chain is good, the signature is not: {told:?}"
    );
    // With its key, the same chain gets an answer.
    let proper = n3
        .client_config(Expect::Owner, &ALPN_GRPC)
        .expect("a config");
    let resolver = proper.client_auth_cert_resolver.clone();
    careless(&serving, Some(resolver)).await.expect("an answer");
}

fn fresh_key() -> rustls::pki_types::PrivateKeyDer<'static> {
    let random = ring::rand::SystemRandom::new();
    let algorithm = &ring::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
    let document =
        ring::signature::EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
    rustls::pki_types::PrivatePkcs8KeyDer::from(document.as_ref().to_vec()).into()
}

#[derive(Debug)]
struct Stolen(Arc<rustls::sign::CertifiedKey>);

impl rustls::client::ResolvesClientCert for Stolen {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }
    fn has_certs(&self) -> bool {
        true
    }
}

// Shows in part: CRT-04
#[tokio::test]
async fn a_second_taker_is_refused_at_the_door() {
    let world = World::new();
    let invitation = world
        .owner
        .invite_named(&label("stix"), &label("n1"))
        .expect("an invitation");
    let claim = |name: &str| {
        let rnode =
            crux_net::identity::RnodeIdentity::claim(&world.dir.join(name), &invitation, None)
                .expect("a claim");
        rnode.credentials().expect("credentials")
    };
    let (first, thief) = (claim("first"), claim("thief"));
    let member = world.rnode("stix", "n2");
    let serving = Serving::start(&member.credentials().expect("credentials")).await;
    let channel = connect(&serving.address(), &first, at("stix", "n2"))
        .await
        .expect("a member");
    assert!(who(&channel).await.is_ok());
    let channel = connect(&serving.address(), &thief, at("stix", "n2"))
        .await
        .expect("it shows at the first call");
    let refused = who(&channel).await.expect_err("refused");
    assert!(
        matches!(fate(&refused), Fate::Refused | Fate::Unknown),
        "{refused:?}"
    );
    assert_eq!(member.trust().take_reports().len(), 1);
}

#[tokio::test]
async fn leaves_rotate_under_an_open_channel() {
    let world = World::new();
    let clock = WallClock::manual(WallClock::system().now());
    let n1 = world.with_clock(&world.rnode("stix", "n1"), &clock);
    let n2 = world.with_clock(&world.rnode("stix", "n2"), &clock);
    let serving = Serving::start(&n1.credentials().expect("credentials")).await;
    let credentials = n2.credentials().expect("credentials");
    let channel = connect(&serving.address(), &credentials, at("stix", "n1"))
        .await
        .expect("n1");
    let mut stream = ProcessClient::new(channel.clone())
        .watch(LookupRequest::default())
        .await
        .expect("a stream")
        .into_inner();
    assert!(stream.message().await.expect("a message").is_some());
    let mut leaves = std::collections::BTreeSet::new();
    for _ in 0..6 {
        leaves.insert(credentials.chain().expect("a leaf"));
        repeat_unsent(|| who(&channel))
            .await
            .expect("each call passes");
        clock.set(clock.now().plus(1_500));
    }
    assert!(
        leaves.len() >= 3,
        "{} leaves in two and a half hours",
        leaves.len()
    );
    // The stream opened with the first leaf is still there; it waits.
    assert!(futures_util::FutureExt::now_or_never(stream.message()).is_none());
    // Nobody called for long: what comes first is turned away unexecuted, and the next goes through.
    clock.set(clock.now().plus(90_000));
    repeat_unsent(|| who(&channel))
        .await
        .expect("with the next leaf");
}

// Shows: CRT-05
#[tokio::test]
async fn no_call_fails_over_a_day_of_leaves_and_a_denied_caller_has_none_left() {
    let world = World::new();
    let clock = WallClock::manual(WallClock::system().now());
    let [n1, n2, n3] = ["n1", "n2", "n3"].map(|name| {
        let rnode = world.rnode("stix", name);
        world.with_clock(&rnode, &clock)
    });
    let serving = Serving::start(&n1.credentials().expect("credentials")).await;
    let mut callers = Vec::new();
    for rnode in [&n2, &n3] {
        let credentials = rnode.credentials().expect("credentials");
        let channel = connect(&serving.address(), &credentials, at("stix", "n1")).await;
        callers.push((credentials, channel.expect("n1")));
    }
    let mut leaves = std::collections::BTreeSet::new();
    // A day, five minutes a step: a leaf lives an hour, and half of it is over long before it is shown for the last time.
    for _ in 0..288 {
        for (credentials, channel) in &callers {
            let leaf = credentials.chain().expect("a leaf").swap_remove(0);
            let valid = crux_core::identity::validity_of_certificate(&leaf).expect("a leaf");
            assert!(valid.until > clock.now(), "renewed before it ends");
            leaves.insert(leaf);
            repeat_unsent(|| who(channel)).await.expect("no call fails");
        }
        clock.set(clock.now().plus(300));
    }
    assert!(leaves.len() >= 2 * 24, "{} leaves in a day", leaves.len());

    // What the owner denies is known where the list was fetched, once, and is over there with the next call.
    let denied = vec![Denied::Rnode(n3.id())];
    world.owner.deny(denied, "sold").expect("the owner may");
    let list = world.owner.trust().authority();
    assert!(n1.trust().take_authority(&list).expect("kept").changed);
    let (kept, refused) = (&callers[0], &callers[1]);
    for _ in 0..24 {
        let failed = repeat_unsent(|| who(&refused.1)).await;
        assert!(failed.is_err(), "a denied caller got through");
        repeat_unsent(|| who(&kept.1)).await.expect("no call fails");
        clock.set(clock.now().plus(300));
    }
    let channel = connect(&serving.address(), &refused.0, at("stix", "n1")).await;
    if let Ok(channel) = channel {
        assert!(who(&channel).await.is_err(), "a new connection, a new leaf");
    }
}

#[tokio::test]
async fn a_denied_peer_is_cut_off_in_the_middle_of_a_stream() {
    let world = World::new();
    let (n1, n2) = (world.rnode("stix", "n1"), world.rnode("stix", "n2"));
    let serving = Serving::start(&n1.credentials().expect("credentials")).await;
    let channel = connect(
        &serving.address(),
        &n2.credentials().expect("credentials"),
        at("stix", "n1"),
    )
    .await
    .expect("n1");
    let mut stream = ProcessClient::new(channel.clone())
        .watch(LookupRequest::default())
        .await
        .expect("a stream")
        .into_inner();
    assert!(stream.message().await.expect("a message").is_some());
    n1.trust().deny(Denied::Rnode(n2.id())).expect("denied");
    assert!(stream.message().await.is_err());
    assert!(who(&channel).await.is_err());
}

#[tokio::test]
async fn tls_runs_end_to_end_inside_a_tunnel() {
    let world = World::new();
    let n1 = world.rnode("stix", "n1");
    let serving = Serving::start(&n1.credentials().expect("credentials")).await;
    let (near, mut far) = tokio::io::duplex(4_096);
    let mut tcp = TcpStream::connect(serving.address)
        .await
        .expect("it listens");
    let _relay = task::spawn("test relay", Policy::ABORT, async move {
        let _ = tokio::io::copy_bidirectional(&mut far, &mut tcp).await;
    });
    let operator = world.owner.credentials().expect("credentials");
    let channel = connect_over(near, &operator, at("stix", "n1"))
        .await
        .expect("n1");
    assert!(
        who(&channel)
            .await
            .expect("a reply")
            .starts_with("operator ")
    );
}

#[tokio::test]
async fn calls_before_any_connection_are_known_not_to_have_arrived() {
    let world = World::new();
    let n1 = world.rnode("stix", "n1");
    let mut serving = Serving::start(&n1.credentials().expect("credentials")).await;
    let operator = world.owner.credentials().expect("credentials");
    let channel = connect(&serving.address(), &operator, Expect::Owner)
        .await
        .expect("n1");
    who(&channel).await.expect("a reply");
    drop(serving.stop.take());
    (&mut serving.task).await.expect("it drains");
    let status = who(&channel).await.expect_err("nobody is there");
    assert_eq!(fate(&status), Fate::NotArrived, "{status:?}");
    let error = connect(&serving.address(), &operator, Expect::Owner)
        .await
        .expect_err("nobody is there");
    assert_eq!(
        (error.kind(), error.effect()),
        (Kind::Unavailable, crux_wire::status::Effect::None)
    );
}

#[tokio::test]
async fn a_silent_stranger_does_not_keep_others_out() {
    let world = World::new();
    let n1 = world.rnode("stix", "n1");
    let serving = Serving::start(&n1.credentials().expect("credentials")).await;
    let mut silent = Vec::new();
    for _ in 0..HANDSHAKES_MAX {
        silent.push(
            TcpStream::connect(serving.address)
                .await
                .expect("it listens"),
        );
    }
    let operator = world.owner.credentials().expect("credentials");
    let channel = connect(&serving.address(), &operator, Expect::Owner)
        .await
        .expect("n1");
    who(&channel).await.expect("a reply");
}

#[tokio::test]
async fn strangers_hold_no_more_descriptors_than_there_are_places_for_handshakes() {
    crux_net::process::raise_open_files().expect("more descriptors");
    let world = World::new();
    let n1 = world.rnode("stix", "n1");
    let mut serving = Serving::start(&n1.credentials().expect("credentials")).await;
    let mut silent = Vec::new();
    // The server runs in this process, so both ends of each are ours; what was not accepted has one.
    for _ in 0..HANDSHAKES_MAX + 32 {
        silent.push(
            TcpStream::connect(serving.address)
                .await
                .expect("it listens"),
        );
    }
    let accepted = || {
        let table = std::fs::read_to_string("/proc/self/net/tcp").expect("a table of sockets");
        let ours = format!("0100007F:{:04X}", serving.address.port());
        // A socket that nobody took yet has no inode; one may be listed twice while others come and go.
        let open = table.lines().skip(1).filter_map(|line| {
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            let taken = fields[1] == ours && fields[3] == "01" && fields[9] != "0";
            taken.then(|| fields[9].to_owned())
        });
        open.collect::<std::collections::BTreeSet<_>>().len()
    };
    let mut most = 0;
    while serving.refused.try_recv().is_err() {
        most = most.max(accepted());
        assert!(most <= HANDSHAKES_MAX, "{most} are held");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(most > 0, "none was seen");
}

/// An agent that serves process sockets until it is dropped.
fn agent(listener: std::os::fd::OwnedFd, principal: Principal) -> Task<()> {
    task::spawn("test agent", Policy::ABORT, async move {
        let listener = ProcessListener::new(listener).expect("a listener");
        let mut tasks = tokio::task::JoinSet::new();
        while let Ok(stream) = listener.accept().await {
            tasks.spawn(serve_stream(stream, principal.clone(), WhoCalls::routes()));
        }
    })
}

fn local_app(world: &World, class: &str) -> Principal {
    let (namespace, application) = (label("stix"), label("stix"));
    let rnode = world.rnode("stix", class).id();
    let who = Who::App {
        namespace,
        application,
        class: Label::new(class).expect("a label"),
        index: 2,
        rnode,
    };
    Principal::local_app(world.owner.owner(), who)
}

#[tokio::test]
async fn a_process_socket_outlives_the_agent_that_serves_it() {
    let world = World::new();
    let (process, ours) = ProcessSocket::pair().expect("a pair");
    let principal = local_app(&world, "prog1");
    // The keeper's duplicate.
    let kept = ours.try_clone().expect("a duplicate");
    let first = agent(ours, principal.clone());
    let channel = connect_process(&ProcessSocket::new(process));
    assert_eq!(who(&channel).await.expect("a reply"), "stix/stix/prog1/2");
    first.abort();
    assert!(first.await.is_err());
    // No agent: the call waits, and the next agent answers it.
    let waiting = {
        let channel = channel.clone();
        task::spawn("test caller", Policy::ABORT, async move {
            loop {
                match who(&channel).await {
                    Ok(name) => return name,
                    Err(status) => assert_ne!(fate(&status), Fate::Failed, "{status:?}"),
                }
            }
        })
    };
    let second = agent(kept, principal);
    assert_eq!(waiting.await.expect("a name"), "stix/stix/prog1/2");
    assert_eq!(who(&channel).await.expect("a reply"), "stix/stix/prog1/2");
    drop(second);
}

#[tokio::test]
async fn packets_that_are_no_connections_are_dropped() {
    let world = World::new();
    let (process, ours) = ProcessSocket::pair().expect("a pair");
    rustix::net::send(&process, b"junk", rustix::net::SendFlags::empty()).expect("sent");
    rustix::net::send(&process, &[1], rustix::net::SendFlags::empty()).expect("sent");
    let _agent = agent(ours, local_app(&world, "prog1"));
    let channel = connect_process(&ProcessSocket::new(process));
    assert_eq!(who(&channel).await.expect("a reply"), "stix/stix/prog1/2");
}

#[tokio::test]
async fn a_listener_learns_that_its_process_is_gone_and_a_process_that_its_keeper_is() {
    let (process, ours) = ProcessSocket::pair().expect("a pair");
    let listener = ProcessListener::new(ours).expect("a listener");
    drop(process);
    assert!(
        listener
            .accept()
            .await
            .is_err_and(|error| error.kind() == std::io::ErrorKind::UnexpectedEof)
    );
    let (process, ours) = ProcessSocket::pair().expect("a pair");
    drop(ours);
    let error = ProcessSocket::new(process)
        .connect()
        .await
        .expect_err("nobody can take it");
    assert!(
        matches!(
            error.kind(),
            std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset
        ),
        "{error:?}"
    );
}

/// In the parent: starts this very test again as a child with an agent socket. In the child: asks that agent.
#[tokio::test]
async fn a_child_finds_the_socket_it_inherited() {
    if let Some(socket) = ProcessSocket::inherited().expect("a right socket") {
        let name = who(&connect_process(&socket)).await.expect("a reply");
        assert_eq!(name, "stix/stix/prog1/2");
        // A second client in the same process is as good.
        let again = ProcessSocket::inherited()
            .expect("a right socket")
            .expect("still there");
        who(&connect_process(&again)).await.expect("a reply");
        return;
    }
    let world = World::new();
    let (process, ours) = ProcessSocket::pair().expect("a pair");
    let _agent = agent(ours, local_app(&world, "prog1"));
    rustix::io::fcntl_setfd(&process, rustix::io::FdFlags::empty()).expect("to be inherited");
    let number = std::os::fd::AsRawFd::as_raw_fd(&process);
    let run = |number: String| {
        tokio::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "rpc::a_child_finds_the_socket_it_inherited"])
            .env(AGENT_FD_VARIABLE, number)
            .kill_on_drop(true)
            .output()
    };
    let child = run(number.to_string()).await.expect("it ran");
    assert!(
        child.status.success(),
        "{}",
        String::from_utf8_lossy(&child.stdout)
    );
    for wrong in ["", "2", "-1", "999", "x"] {
        assert!(
            !run(wrong.to_owned())
                .await
                .expect("it ran")
                .status
                .success(),
            "{wrong:?}"
        );
    }
}

#[tokio::test]
async fn quic_takes_the_same_identities() {
    let world = World::new();
    let (n1, n2) = (world.rnode("stix", "n1"), world.rnode("stix", "n2"));
    let endpoint = |rnode: &crux_net::identity::RnodeIdentity| {
        let credentials = rnode.credentials().expect("credentials");
        let server = quinn::ServerConfig::with_crypto(
            credentials
                .quic_server_config(b"radix-test")
                .expect("a config"),
        );
        (
            quinn::Endpoint::server(server, "127.0.0.1:0".parse().expect("an address"))
                .expect("a port"),
            credentials,
        )
    };
    let ((one, one_credentials), (two, two_credentials)) = (endpoint(&n1), endpoint(&n2));
    let dial = |expect| {
        let crypto = two_credentials
            .quic_client_config(expect, b"radix-test")
            .expect("a config");
        two.connect_with(
            quinn::ClientConfig::new(crypto),
            one.local_addr().expect("bound"),
            "radix",
        )
        .expect("dialled")
    };
    let (dialled, accepted) = tokio::join!(dial(Expect::Rnode(n1.id())), async {
        one.accept().await.expect("one").await
    });
    let (dialled, accepted) = (
        dialled.expect("a connection"),
        accepted.expect("a connection"),
    );
    let seen = one_credentials
        .principal_of_connection(&accepted)
        .expect("n2");
    assert_eq!(seen.rnode(), Some(n2.id()));
    assert_eq!(
        two_credentials
            .principal_of_connection(&dialled)
            .expect("n1")
            .rnode(),
        Some(n1.id())
    );
    n1.trust().deny(Denied::Rnode(n2.id())).expect("denied");
    assert!(one_credentials.recheck(&accepted).is_err());
    let (dialled, _) = tokio::join!(dial(Expect::Rnode(n2.id())), async {
        one.accept().await.expect("one").await
    });
    assert!(dialled.is_err(), "it is n1");
}

#[tokio::test]
async fn an_application_meets_another_by_class() {
    let world = World::new();
    let rnode = world.rnode("stix", "n1");
    let process = |class: &str| {
        let key = SecretKey::generate().expect("a key");
        let leaf = rnode
            .leaf_issuer()
            .issue(&label("stix"), &label(class), 0, &key.public().spki())
            .expect("a leaf");
        Credentials::for_app(&leaf.chain, &key, rnode.trust().charter().encoded()).expect("good")
    };
    let serving = Serving::start(&process("prog1")).await;
    let class = |class: &str| Expect::Class {
        namespace: label("stix"),
        application: label("stix"),
        class: label(class),
    };
    let channel = connect(&serving.address(), &process("prog2"), class("prog1"))
        .await
        .expect("prog1");
    assert_eq!(who(&channel).await.expect("a reply"), "stix/stix/prog2/0");
    assert!(
        connect(&serving.address(), &process("prog2"), class("prog2"))
            .await
            .is_err()
    );
    assert!(
        connect(
            &serving.address(),
            &process("prog2"),
            Expect::Rnode(rnode.id())
        )
        .await
        .is_err()
    );
}

#[tokio::test]
async fn http_1_is_served_beside_grpc_under_the_same_rules() {
    let world = World::new();
    let serving = Serving::start(
        &world
            .rnode("stix", "n1")
            .credentials()
            .expect("credentials"),
    )
    .await;
    let operator = world.owner.credentials().expect("credentials");
    let config = operator
        .client_config(at("stix", "n1"), &[b"http/1.1"])
        .expect("a config");
    let tcp = TcpStream::connect(serving.address)
        .await
        .expect("it listens");
    let name = rustls::pki_types::ServerName::try_from("radix").expect("a name");
    let mut tls = tokio_rustls::TlsConnector::from(config)
        .connect(name, tcp)
        .await
        .expect("n1");
    let request = b"GET /nothing HTTP/1.1\r\nhost: radix\r\nconnection: close\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut tls, request)
        .await
        .expect("sent");
    let answer = Arc::new(Mutex::new(Vec::new()));
    let mut bytes = Vec::new();
    let _ = tls.read_to_end(&mut bytes).await;
    answer.lock().expect("ours").extend_from_slice(&bytes);
    assert!(
        bytes.starts_with(b"HTTP/1.1 "),
        "{:?}",
        String::from_utf8_lossy(&bytes)
    );
}
