//! Every method of a real agent, asked by every kind of caller, as gRPC and as REST: the table, and nothing else.
//!
//! The methods are those of the descriptor set, so a new one is asked without a change here. Callers come over TCP, and
//! processes, of the application and of the base, over the sockets they inherited.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crux_core::identity::{Denied, Verb};
use crux_core::names::Label;
use crux_net::identity::{
    Credentials, Expect, GrantTerms, Invitation, OwnerStore, RnodeIdentity, SecretKey, WallClock,
};
use crux_wire::fulcrum::v1::fulcrum_client::FulcrumClient;
use crux_wire::fulcrum::v1::{HintRequest, PutAuthorityRequest};
use crux_wire::rest::{Api, Method};
use crux_wire::rexec::v1::StartRequest;
use crux_wire::rexec::v1::rexec_client::RexecClient;
use fulcrum::authority::{self, Kind};
use hyper::body::Body as _;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt as _;

use crate::agent_rig::{APP, Base, Nested};
use crate::rig::{until, within};

/// Far longer than a refusal, or the beginning of an answer, takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a caller shows who it is.
#[derive(Clone)]
enum Shows {
    /// TLS without a certificate.
    Nothing,
    /// What is in this file, to whoever answers.
    File(PathBuf),
    /// What our own client shows.
    Credentials(Credentials),
    /// Nothing, on this socket: every connection to it goes over the socket that a process inherited.
    Process(PathBuf),
}

struct Caller {
    name: &'static str,
    shows: Shows,
    /// What it is to the base, and to the nested rnode.
    kinds: [Option<Kind>; 2],
}

/// What became of a call.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// No connection, or none that answered.
    Shut,
    /// The table refused it.
    Refused,
    /// It reached the service.
    Reached,
    /// No such service is there.
    NotServed,
}

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

/// A rnode that exists as keys only.
fn rnode(base: &Base, namespace: &str, name: &str) -> (PathBuf, RnodeIdentity) {
    let dir = base.home.join(format!("callers/{namespace}-{name}"));
    std::fs::create_dir_all(&dir).unwrap();
    let invitation = base.owner.invite_named(&label(namespace), &label(name));
    let claimed = RnodeIdentity::claim(&dir, &invitation.unwrap(), None);
    (dir, claimed.unwrap())
}

fn exported(credentials: &Credentials, base: &Base, name: &str) -> Shows {
    let file = base.home.join(format!("callers/{name}.pem"));
    credentials.export_leaf(&file).unwrap();
    Shows::File(file)
}

/// Whoever this invitation lets in, on a machine of their own.
fn logged_in(base: &Base, place: &str, invitation: &Invitation) -> Credentials {
    let home = base.home.join("callers").join(place);
    let store = OwnerStore::login(&home, invitation).unwrap();
    store.credentials().unwrap()
}

fn app(of: &RnodeIdentity) -> Shows {
    let key = SecretKey::generate().unwrap();
    let app = label(APP);
    let leaf = of
        .leaf_issuer()
        .issue(&app, &label("prog1"), 0, &key.public().spki())
        .unwrap();
    let charter = of.trust().charter();
    let credentials = Credentials::for_app(&leaf.chain, &key, charter.encoded());
    Shows::Credentials(credentials.unwrap())
}

type Named = (&'static str, Shows, [Option<Kind>; 2]);

/// Everyone there is. The one denied is told of by the caller of this.
fn callers(base: &Base) -> (Vec<Caller>, Denied) {
    let (mut all, denied) = nobodies(base);
    all.extend(people_and_tools(base));
    all.extend(rnodes_and_processes(base));
    let callers = all
        .into_iter()
        .map(|(name, shows, kinds)| Caller { name, shows, kinds });
    (callers.collect(), denied)
}

/// Those who may nothing at all.
fn nobodies(base: &Base) -> (Vec<Named>, Denied) {
    let (old_dir, old) = rnode(base, APP, "old");
    let (_, denied) = rnode(base, APP, "denied");
    let foreign = OwnerStore::open_or_create(&base.home.join("foreign")).unwrap();
    let past = WallClock::manual(old.trust().clock().now().minus(10_000));
    let expired = RnodeIdentity::open_with(&old_dir, past).unwrap().unwrap();
    let shown = [
        ("another owner's operator", "foreign", foreign.credentials()),
        ("an expired peer", "expired", expired.credentials()),
        ("a denied peer", "denied", denied.credentials()),
    ];
    let shown = shown.map(|(name, file, credentials)| {
        let shows = exported(&credentials.unwrap(), base, file);
        (name, shows, [None, None])
    });
    let mut nobodies = vec![("no certificate", Shows::Nothing, [None, None])];
    nobodies.extend(shown);
    (nobodies, Denied::Rnode(denied.id()))
}

/// Operators and tools: of everything, of the namespace, of another.
fn people_and_tools(base: &Base) -> Vec<Named> {
    let terms = |namespace: Option<&Label>, verbs: &[Verb]| GrantTerms {
        verbs: verbs.to_vec(),
        ..GrantTerms::over(namespace)
    };
    let tool = |place: &str, terms: &GrantTerms| {
        let invitation = base.owner.invite_tool(&label("tuner"), terms);
        Shows::Credentials(logged_in(base, place, &invitation.unwrap()))
    };
    let operator = |place: &str, namespace: &Label| {
        let invitation = base
            .owner
            .invite_operator(&label("bob"), &terms(Some(namespace), &[]));
        Shows::Credentials(logged_in(base, place, &invitation.unwrap()))
    };
    let (nested, elsewhere) = (label(APP), label("other"));
    vec![
        (
            "an operator",
            Shows::Credentials(base.operator()),
            [Some(Kind::Operator); 2],
        ),
        (
            "an operator with a careless client",
            exported(&base.operator(), base, "operator"),
            [Some(Kind::Operator); 2],
        ),
        (
            "an operator of the namespace",
            operator("operator-app", &nested),
            [Some(Kind::NarrowOperator), Some(Kind::Operator)],
        ),
        (
            "an operator of another namespace",
            operator("operator-other", &elsewhere),
            [Some(Kind::NarrowOperator), None],
        ),
        (
            "a tool",
            tool("tool", &terms(None, &[])),
            [Some(Kind::Tool); 2],
        ),
        (
            "a tool that may act",
            tool("steward", &terms(None, &[Verb::Lifecycle])),
            [Some(Kind::Tool), Some(Kind::Steward)],
        ),
        (
            "a tool that may act on the namespace",
            tool("steward-app", &terms(Some(&nested), &[Verb::Lifecycle])),
            [Some(Kind::NarrowTool), Some(Kind::Steward)],
        ),
        (
            "a tool that may act on another namespace",
            tool(
                "steward-other",
                &terms(Some(&elsewhere), &[Verb::Lifecycle]),
            ),
            [Some(Kind::NarrowTool), None],
        ),
        (
            "a tool of the namespace",
            tool("tool-app", &terms(Some(&nested), &[])),
            [Some(Kind::NarrowTool), Some(Kind::Tool)],
        ),
        (
            "a tool of another namespace",
            tool("tool-other", &terms(Some(&elsewhere), &[])),
            [Some(Kind::NarrowTool), None],
        ),
    ]
}

/// Those in the cluster.
fn rnodes_and_processes(base: &Base) -> Vec<Named> {
    let (_, peer) = rnode(base, APP, "peer");
    let (_, other) = rnode(base, "other", "n1");
    let (_, second_base) = rnode(base, "base", "second");
    let host = base
        .owner
        .grant_host(&second_base.public_key().spki(), &label(APP))
        .unwrap();
    second_base.add_host_grant(&label(APP), &host).unwrap();
    let host = second_base.host_credentials(&label(APP)).unwrap().unwrap();
    let own = |rnode: &RnodeIdentity| Shows::Credentials(rnode.credentials().unwrap());
    vec![
        (
            "a host of the namespace",
            Shows::Credentials(host),
            [None, Some(Kind::Host)],
        ),
        (
            "a rnode of the namespace",
            own(&peer),
            [Some(Kind::Nested), Some(Kind::Peer)],
        ),
        (
            "a rnode of another namespace",
            own(&other),
            [Some(Kind::Nested), None],
        ),
        (
            "a base rnode",
            own(&second_base),
            [Some(Kind::Peer), Some(Kind::Base)],
        ),
        (
            "a process of the application",
            app(&peer),
            [None, Some(Kind::App)],
        ),
        (
            "a process of another application",
            app(&other),
            [None, None],
        ),
    ]
}

/// TLS that judges nobody.
async fn careless(address: &str, file: Option<&PathBuf>) -> Option<Channel> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Careless));
    let mut config = match file {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let chain = CertificateDer::pem_file_iter(file).unwrap();
            let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
            let key = PrivateKeyDer::from_pem_file(file).unwrap();
            // rustls would look at our extension and refuse to show it.
            let key = rustls::crypto::ring::sign::any_ecdsa_type(&key).unwrap();
            let shown = rustls::sign::CertifiedKey::new(chain, key);
            let shown = rustls::sign::SingleCertAndKey::from(shown);
            builder.with_client_cert_resolver(Arc::new(shown))
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let address = address.to_owned();
    Endpoint::from_static("http://radix")
        .connect_with_connector(tower::service_fn(move |_| {
            let (connector, address) = (connector.clone(), address.clone());
            async move {
                let stream = tokio::net::TcpStream::connect(address).await?;
                let name = ServerName::try_from("radix").unwrap();
                Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
            }
        }))
        .await
        .ok()
}

#[derive(Debug)]
struct Careless;

impl rustls::client::danger::ServerCertVerifier for Careless {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Grpc,
    Rest,
}

async fn connected(shows: &Shows, address: &str) -> Option<Channel> {
    match shows {
        Shows::Nothing => careless(address, None).await,
        Shows::File(file) => careless(address, Some(file)).await,
        Shows::Credentials(credentials) => {
            let connecting = crux_net::rpc::connect(address, credentials, Expect::Owner);
            connecting.await.ok()
        }
        Shows::Process(socket) => {
            let socket = socket.clone();
            let connector = tower::service_fn(move |_| {
                let socket = socket.clone();
                async move {
                    let stream = tokio::net::UnixStream::connect(socket).await?;
                    Ok::<_, std::io::Error>(TokioIo::new(stream))
                }
            });
            let endpoint = Endpoint::from_static("http://radix");
            let connecting = endpoint.connect_with_connector(connector);
            connecting.await.ok()
        }
    }
}

/// Asks with an empty message: enough to meet the table, too little to change anything.
async fn ask(channel: Channel, method: &Method, way: Way) -> Fate {
    let (media, body) = match way {
        // A frame of gRPC: not compressed, of no bytes.
        Way::Grpc => ("application/grpc", "\0\0\0\0\0"),
        Way::Rest => (method.requests().media_type(), "{}"),
    };
    let request = http::Request::post(format!("http://radix{}", method.path()))
        .header("content-type", media)
        .header("te", "trailers")
        .body(Body::new(body.to_owned()))
        .unwrap();
    let asked = tokio::time::timeout(PATIENCE, channel.oneshot(request)).await;
    let Ok(response) =
        asked.unwrap_or_else(|_| panic!("{} does not begin to answer", method.path()))
    else {
        return Fate::Shut;
    };
    let code = response.headers().get("grpc-status").cloned();
    let code = code.map(|code| code.to_str().unwrap().to_owned());
    match (way, code.as_deref(), response.status().as_u16()) {
        // A service that says so itself says what.
        (Way::Grpc, Some("12"), _) if !response.headers().contains_key("grpc-message") => {
            Fate::NotServed
        }
        (Way::Rest, _, 501) => {
            let text = text_of(response.into_body()).await;
            if text.contains("seated leader") {
                Fate::Reached
            } else {
                Fate::NotServed
            }
        }
        (Way::Grpc, Some("7"), _) => {
            let told = response.headers()["grpc-message"].to_str().unwrap();
            by_the_table(told.ends_with("may%20not"))
        }
        (Way::Rest, _, 403) => {
            by_the_table(text_of(response.into_body()).await.contains("may not\""))
        }
        _ => Fate::Reached,
    }
}

fn by_the_table(table: bool) -> Fate {
    if table { Fate::Refused } else { Fate::Reached }
}

async fn text_of(mut body: Body) -> String {
    let mut bytes = Vec::new();
    let frame = async |body: &mut Body| {
        std::future::poll_fn(|context| std::pin::Pin::new(&mut *body).poll_frame(context)).await
    };
    while let Some(Ok(frame)) = frame(&mut body).await {
        bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
    }
    String::from_utf8(bytes).unwrap()
}

/// What should become of it.
fn wanted(method: &Method, kind: Option<Kind>, shows: &Shows) -> Vec<Fate> {
    let on_socket = matches!(shows, Shows::Process(_));
    match kind {
        None => vec![Fate::Shut, Fate::Refused],
        Some(_) if method.is_for_processes() && !on_socket => vec![Fate::NotServed],
        // On the socket of an application stands the process service alone.
        Some(Kind::App) if on_socket && !method.is_for_processes() => vec![Fate::NotServed],
        Some(kind) if authority::allows(method.path(), kind) => vec![Fate::Reached],
        Some(_) => vec![Fate::Refused],
    }
}

/// Asks every method both ways; answers what went another way than the table says, and how many were asked.
async fn ask_all(shows: &Shows, address: &str, kind: Option<Kind>) -> (Vec<String>, usize) {
    let (mut wrong, mut asked) = (Vec::new(), 0);
    let mut channel = None;
    for method in Api::radix().methods() {
        let ends_it = method.short_name() == "Fulcrum/Exit";
        if ends_it && kind.is_some_and(|kind| authority::allows(method.path(), kind)) {
            continue;
        }
        for way in [Way::Grpc, Way::Rest] {
            if channel.is_none() {
                channel = connected(shows, address).await;
            }
            let fate = match &channel {
                Some(channel) => ask(channel.clone(), method, way).await,
                None => Fate::Shut,
            };
            if fate == Fate::Shut {
                channel = None;
            }
            asked += 1;
            let served = kind.is_some() || fate != Fate::NotServed;
            if served && !wanted(method, kind, shows).contains(&fate) {
                wrong.push(format!(
                    "{} by {way:?} at {address}: {fate:?}",
                    method.path()
                ));
            }
        }
    }
    (wrong, asked)
}

/// The callers at both rnodes, told of whom the owner denies.
async fn told(base: &Base, nested: &Nested) -> Vec<Caller> {
    let (callers, denied) = callers(base);
    base.owner.deny(vec![denied], "to see it refused").unwrap();
    let told = PutAuthorityRequest {
        authority: Some(base.owner.trust().authority()),
        ..PutAuthorityRequest::default()
    };
    for mut rnode in [base.fulcrum().await, nested.fulcrum(base).await] {
        rnode.put_authority(told.clone()).await.unwrap();
    }
    callers
}

fn port(contact: &serde_json::Value) -> String {
    format!("127.0.0.1:{}", contact["port"])
}

// Shows: SEC-01, CRT-01
// Shows in part: SEC-03
#[tokio::test]
async fn every_method_and_every_caller_meet_the_table_and_nothing_else() {
    let base = Base::start();
    base.ready().await;
    let nested = Nested::start(&base, "n1").await;
    let callers = told(&base, &nested).await;
    let before = base.contact().await;
    let addresses = [port(&before), port(&nested.contact().await)];
    let (mut wrong, mut asked) = (Vec::new(), 0);
    for caller in &callers {
        for (address, kind) in addresses.iter().zip(caller.kinds) {
            let (other, count) = ask_all(&caller.shows, address, kind).await;
            wrong.extend(other.into_iter().map(|text| (caller.name, text)));
            asked += count;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let methods = Api::radix().methods().count();
    assert!(
        asked > callers.len() * methods * 3,
        "{asked} of {methods} methods"
    );
    // The one call left out: it ends the agent, and its keeper starts another.
    let exit = Api::radix().find("Fulcrum/Exit")[0];
    let operator = Shows::Credentials(base.operator());
    let channel = connected(&operator, &addresses[0]).await.unwrap();
    assert_eq!(within(ask(channel, exit, Way::Grpc)).await, Fate::Reached);
    until(async || base.contact().await["pid"] != before["pid"]).await;
    // Who was refused by the table stands in the memoir, by name.
    let refused = |record: &fulcrum::memoir::Record| {
        let text = serde_json::to_string(&record.fields).unwrap();
        record.kind.contains("refus") && text.contains("tool tuner")
    };
    until(async || base.memoir().iter().any(refused)).await;
    // So are those who did not get that far: strangers, by where they came from and why.
    let strangers = || {
        let records = base.memoir().into_iter();
        let strangers = records.filter(|record| record.kind == "refused");
        let told = strangers.map(|record| serde_json::to_string(&record.fields).unwrap());
        told.collect::<Vec<_>>()
    };
    for why in ["no certificate", "another owner"] {
        let told = strangers();
        assert!(
            told.iter().any(|text| text.contains(why)),
            "{why}: {told:#?}"
        );
    }
}

// Shows in part: SEC-03
#[tokio::test]
async fn every_method_meets_the_table_on_the_sockets_of_processes_too() {
    let base = Base::start();
    base.ready().await;
    let nested = Nested::start(&base, "n1").await;
    let socket = |name: &str| base.home.join(name);
    let words = |name: &str| ["relay".to_owned(), socket(name).display().to_string()];
    base.apply(&nested, &base.application(1, &words("instance").join(" ")))
        .await;
    let start = |configuration: &str, command: &str, name: &str| StartRequest {
        configuration: configuration.to_owned(),
        command: command.to_owned(),
        args: words(name).to_vec(),
        ..StartRequest::default()
    };
    let mut at_base = base.rexec().await;
    let backend = start("radix", "radix", "backend");
    at_base.start(backend).await.unwrap();
    let mut at_nested = RexecClient::new(nested.channel(&base).await);
    until(async || socket("instance").exists()).await;
    let command = start(APP, "worker", "command");
    at_nested.start(command).await.unwrap();
    let callers = [
        ("an instance", "instance", Kind::App),
        ("a command of the application", "command", Kind::App),
        ("a command of the base", "backend", Kind::Backend),
    ];
    let mut wrong = Vec::new();
    for (name, at, kind) in callers {
        until(async || socket(at).exists()).await;
        let shows = Shows::Process(socket(at));
        let (other, asked) = ask_all(&shows, at, Some(kind)).await;
        wrong.extend(other.into_iter().map(|text| (name, text)));
        assert!(asked > Api::radix().methods().count());
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The certificates of one file with the key of another, as a file.
fn assembled(base: &Base, certificates: &PathBuf, key: &PathBuf) -> PathBuf {
    let blocks = |file: &PathBuf, kind: &str| -> String {
        let text = std::fs::read_to_string(file).unwrap();
        let (begin, end) = (format!("-----BEGIN {kind}"), "-----END ");
        let found = text.split(&begin).skip(1).map(|rest| {
            let body = rest.split_once(end).unwrap().0;
            format!("{begin}{body}{end}{kind}-----\n")
        });
        found.collect()
    };
    let whole = blocks(certificates, "CERTIFICATE") + &blocks(key, "PRIVATE KEY");
    let file = base.home.join("callers/assembled.pem");
    std::fs::write(&file, whole).unwrap();
    file
}

// Shows: SEC-04
#[tokio::test]
async fn an_operator_has_a_session_by_its_key_alone_and_stands_in_the_memoir() {
    let base = Base::start();
    base.ready().await;
    let invitation = base
        .owner
        .invite_operator(&label("bob"), &GrantTerms::default());
    std::fs::create_dir_all(base.home.join("callers")).unwrap();
    let bob = logged_in(&base, "bob", &invitation.unwrap());
    let address = port(&base.contact().await);
    let describe = Api::radix().find("Fulcrum/Describe")[0];

    let (Shows::File(his), Shows::File(other)) = (
        exported(&bob, &base, "bob"),
        exported(&base.operator(), &base, "another"),
    ) else {
        panic!("they are shown by file");
    };

    // Bob's certificates with a key that is not his: nothing is answered, whatever the client makes of it.
    for (key, fate) in [(&other, Fate::Shut), (&his, Fate::Reached)] {
        let shown = assembled(&base, &his, key);
        let asked = match careless(&address, Some(&shown)).await {
            Some(channel) => ask(channel, describe, Way::Grpc).await,
            None => Fate::Shut,
        };
        assert_eq!(asked, fate);
    }
    let mut fulcrum = FulcrumClient::new(base.connect(&bob).await);
    let hint = HintRequest {
        address: "127.0.0.1:9".to_owned(),
    };
    fulcrum.hint(hint).await.unwrap();
    let by_bob = |record: &fulcrum::memoir::Record| {
        let caller = record.fields.get("caller").map(ToString::to_string);
        record.kind == "hint" && caller.is_some_and(|caller| caller.contains("operator bob ("))
    };
    assert!(base.memoir().iter().any(by_bob));

    // Nor does the console get as far as a session with a key that its grant is not for.
    let home = base.home.join("callers/bob");
    assert!(OwnerStore::open(&home).unwrap().is_some());
    let key = "operator/operator.key";
    std::fs::copy(base.home.join(key), home.join(key)).unwrap();
    assert!(OwnerStore::open(&home).is_err());
}
