//! REST twins over loopback: the same call both ways, and what is no call at all.

use std::net::SocketAddr;
use std::time::Duration;

use crux_net::identity::{Credentials, Expect};
use crux_net::rpc::{REST_MESSAGE_BYTES_MAX, connect};
use crux_wire::process::v1::process_client::ProcessClient;
use crux_wire::process::v1::{ListRequest, WhoamiRequest};
use crux_wire::rest::{Api, Problem};
use crux_wire::status::{Effect, Kind};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::ServiceExt as _;

use crate::fixture::World;
use crate::rpc::Serving;

const PROCESS: &str = "/radix.process.v1.Process";
/// Far longer than anything here takes; what it bounds would otherwise hang the tests.
const PATIENCE: Duration = Duration::from_secs(60);

struct Rest {
    serving: Serving,
    credentials: Credentials,
    channel: Channel,
    _world: World,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn problem(&self) -> Problem {
        Problem::from_json(self.status, &self.body)
            .unwrap_or_else(|| panic!("no problem: {}", String::from_utf8_lossy(&self.body)))
    }
}

impl Rest {
    async fn start() -> Self {
        let world = World::new();
        let (n1, n2) = (world.rnode("stix", "n1"), world.rnode("stix", "n2"));
        let serving = Serving::start(&n1.credentials().expect("credentials")).await;
        let credentials = n2.credentials().expect("credentials");
        let channel = connect(&serving.address(), &credentials, Expect::Owner)
            .await
            .expect("a channel");
        Self {
            serving,
            credentials,
            channel,
            _world: world,
        }
    }

    async fn send(&self, request: Request<Body>) -> http::Response<Body> {
        let answered = self.channel.clone().oneshot(request);
        tokio::time::timeout(PATIENCE, answered)
            .await
            .expect("in time")
            .expect("an answer")
    }

    /// Over HTTP/2.
    async fn ask(&self, verb: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = Request::builder().method(verb).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Body::new(Full::from(body.to_vec()));
        let response = self.send(request.body(body).expect("a request")).await;
        let (parts, body) = response.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await;
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.expect("in time").expect("a body").to_bytes().to_vec(),
        }
    }

    async fn post(&self, method: &str, json: &str) -> Answer {
        let headers = [("content-type", "application/json")];
        self.ask(
            "POST",
            &format!("{PROCESS}/{method}"),
            &headers,
            json.as_bytes(),
        )
        .await
    }

    async fn http1(&self) -> TlsStream<TcpStream> {
        http1(self.serving.address, &self.credentials).await
    }

    /// Over HTTP/1.1: these bytes, then all that comes back until the end.
    async fn raw(&self, text: &str) -> String {
        let mut stream = self.http1().await;
        stream.write_all(text.as_bytes()).await.expect("it writes");
        all(&mut stream).await
    }
}

async fn http1(address: SocketAddr, credentials: &Credentials) -> TlsStream<TcpStream> {
    let config = credentials
        .client_config(Expect::Owner, &[b"http/1.1"])
        .expect("a configuration");
    let stream = TcpStream::connect(address).await.expect("it connects");
    let name = ServerName::try_from("radix").expect("a name");
    TlsConnector::from(config)
        .connect(name, stream)
        .await
        .expect("a session")
}

async fn all(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    // A cut without good-bye is an end too.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("an end in time");
    String::from_utf8_lossy(&bytes).into_owned()
}

// Shows in part: FUL-05
#[tokio::test]
async fn a_call_gives_the_same_both_ways_over_either_http() {
    let rest = Rest::start().await;
    let mut grpc = ProcessClient::new(rest.channel.clone());
    let who = grpc.whoami(WhoamiRequest {}).await.expect("a reply");
    let method = Api::radix().find("Whoami")[0];
    let json = |wire: Vec<u8>| method.reply_to_json(wire.into()).expect("JSON");
    let expected = json(who.into_inner().encode_to_vec());
    let answer = rest.post("Whoami", "{}").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.body.trim_ascii_end(), expected);
    let text = format!(
        "POST {PROCESS}/Whoami HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         Content-Type: Application/JSON; charset=\"UTF-8\"\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    let answer = rest.raw(&text).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let expected = String::from_utf8(expected).expect("UTF-8");
    assert!(answer.ends_with(&format!("{expected}\n")), "{answer}");

    let request = ListRequest {
        prefix: "a".to_owned(),
    };
    let listed = grpc.list(request).await.expect("a reply").into_inner();
    let answer = rest.post("List", r#"{"prefix":"a"}"#).await;
    let method = Api::radix().find("Process/List")[0];
    let expected = method
        .reply_to_json(listed.encode_to_vec().into())
        .expect("JSON");
    assert_eq!(answer.body.trim_ascii_end(), expected);
    assert!(String::from_utf8_lossy(&expected).contains("\"18446744073709551615\""));
}

// Shows in part: FUL-05
#[tokio::test]
async fn each_kind_of_failure_has_its_http_code_and_says_what_became_of_the_state() {
    let rest = Rest::start().await;
    for kind in Kind::all() {
        let answer = rest
            .post("Put", &format!(r#"{{"key":"{}"}}"#, kind.name()))
            .await;
        assert_eq!(answer.status, kind.http(), "{kind}");
        let problem = answer.problem();
        assert_eq!((problem.kind, problem.effect), (kind, Effect::Done));
        assert_eq!(problem.message, format!("show {kind}"));
    }
}

#[tokio::test]
async fn a_stream_of_replies_comes_line_by_line_while_it_lasts() {
    let rest = Rest::start().await;
    let request = Request::post(format!("{PROCESS}/Watch"))
        .header("content-type", "application/json")
        .body(Body::new(Full::from("{}")))
        .expect("a request");
    let response = rest.send(request).await;
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let mut body = response.into_body();
    let first = tokio::time::timeout(PATIENCE, body.frame()).await;
    let first = first.expect("in time").expect("a line").expect("a frame");
    assert_eq!(first.into_data().expect("data"), "{}\n");
}

#[tokio::test]
async fn what_is_no_call_is_told_why() {
    let rest = Rest::start().await;
    let whoami = format!("{PROCESS}/Whoami");
    let json = ("content-type", "application/json");
    let code = async |verb: &str, path: &str, headers: &[(&str, &str)], body: &[u8]| {
        let answer = rest.ask(verb, path, headers, body).await;
        assert_eq!(answer.problem().effect, Effect::None, "{verb} {path}");
        answer.status
    };
    assert_eq!(code("POST", "/", &[json], b"{}").await, 404);
    assert_eq!(
        code("POST", &format!("{PROCESS}/whoami"), &[json], b"{}").await,
        404
    );
    assert_eq!(code("GET", "/favicon.ico", &[], b"").await, 404);
    for verb in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
        assert_eq!(code(verb, &whoami, &[json], b"").await, 405, "{verb}");
    }
    for media in [
        "text/plain",
        "application/x-ndjson",
        "application/json; charset=latin1",
        "",
    ] {
        let headers = [("content-type", media)];
        assert_eq!(code("POST", &whoami, &headers, b"{}").await, 415, "{media}");
    }
    assert_eq!(code("POST", &whoami, &[], b"{}").await, 415);
    let gzip = [json, ("content-encoding", "gzip")];
    assert_eq!(code("POST", &whoami, &gzip, b"{}").await, 415);
    for wrong in [
        &b""[..],
        b"{",
        b"[]",
        b"{\"x\":1}",
        b"{}{}",
        b"\xff",
        b"null",
    ] {
        assert_eq!(
            code("POST", &whoami, &[json], wrong).await,
            400,
            "{wrong:?}"
        );
    }
    // Known, but not served by this listener.
    let described = "/radix.fulcrum.v1.Fulcrum/Describe";
    assert_eq!(code("POST", described, &[json], b"{}").await, 501);

    let allowed = rest.ask("GET", &whoami, &[], b"").await;
    assert_eq!(allowed.headers["allow"], "POST");
    let misspelt = rest.post("List", "{\n \"prefx\": \"\"}").await.problem();
    assert_eq!(
        misspelt.place.map(|place| place.line),
        Some(2),
        "{misspelt:?}"
    );
    assert!(misspelt.message.contains("prefx"), "{misspelt:?}");
}

// Shows in part: FUL-05
#[tokio::test]
async fn a_browser_page_is_refused_whatever_it_asks() {
    let mut rest = Rest::start().await;
    for media in ["application/json", "application/grpc", "text/plain"] {
        let headers = [("content-type", media), ("origin", "https://page.example")];
        let answer = rest
            .ask("POST", &format!("{PROCESS}/Whoami"), &headers, b"{}")
            .await;
        assert_eq!(answer.status, 403, "{media}");
        assert_eq!(answer.problem().kind, Kind::Refused);
    }
    let preflight = [
        ("origin", "null"),
        ("access-control-request-method", "POST"),
    ];
    let answer = rest.ask("OPTIONS", "/", &preflight, b"").await;
    assert_eq!(answer.status, 403);
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    for _ in 0..4 {
        let told = rest.serving.refused.recv().await.expect("it is told");
        assert_eq!(told.reason, "a request with an Origin");
        assert!(told.address.ip().is_loopback() && told.refusal.is_none());
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_all_read() {
    let rest = Rest::start().await;
    let json = format!(r#"{{"prefix":"{}"}}"#, "x".repeat(REST_MESSAGE_BYTES_MAX));
    let answer = rest.post("List", &json).await;
    assert_eq!(answer.status, 413);
    assert_eq!(answer.problem().kind, Kind::Limit);
    // Below what JSON may have, above what a message may.
    let json = format!(r#"{{"prefix":"{}"}}"#, "x".repeat(5 << 20));
    assert_eq!(rest.post("List", &json).await.status, 413);

    let mut stream = rest.http1().await;
    let head = format!(
        "POST {PROCESS}/List HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: 100000000000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("it writes");
    let (mut reader, mut writer) = tokio::io::split(stream);
    let endless = async {
        let part = [b' '; 1 << 16];
        while writer.write_all(&part).await.is_ok() {}
        std::future::pending::<String>().await
    };
    let answer = tokio::select! {
        answer = all(&mut reader) => answer,
        never = endless => never,
    };
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn whoever_sends_slowly_is_cut_off() {
    let rest = Rest::start().await;
    let head = format!("POST {PROCESS}/List HTTP/1.1\r\nhost: x\r\n");
    let mut half_a_head = rest.http1().await;
    half_a_head
        .write_all(head.as_bytes())
        .await
        .expect("it writes");
    let mut half_a_body = rest.http1().await;
    let text = format!("{head}content-type: application/json\r\ncontent-length: 99\r\n\r\n{{");
    half_a_body
        .write_all(text.as_bytes())
        .await
        .expect("it writes");
    let mut endless_head = rest.http1().await;
    let text = format!("{head}x: {}", "y".repeat(1 << 20));
    // The cut may come while we write.
    let _ = endless_head.write_all(text.as_bytes()).await;
    let (head, body, endless) = tokio::join!(
        all(&mut half_a_head),
        all(&mut half_a_body),
        all(&mut endless_head)
    );
    assert!(!head.contains(" 200 "), "{head}");
    assert!(body.starts_with("HTTP/1.1 408"), "{body}");
    assert!(!endless.contains(" 200 "), "{endless}");
    assert_eq!(rest.post("List", "{}").await.status, 200);
}

#[tokio::test]
async fn plain_http_gets_no_http_answer() {
    let rest = Rest::start().await;
    for text in [
        "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /openapi.json HTTP/1.0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\r\n\r\n\r\n\r\n\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(rest.serving.address)
            .await
            .expect("it connects");
        stream.write_all(text.as_bytes()).await.expect("it writes");
        let answer = all(&mut stream).await;
        assert!(
            !answer.contains("HTTP") && !answer.contains('{'),
            "{answer}"
        );
    }
}
