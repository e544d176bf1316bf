//! The key-value server without a flock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use crux_net::error::Error;
use crux_net::task::{Policy, Task, spawn};
use crux_wire::status::Kind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::board::Board;
use super::*;

/// One rnode's view of a blackboard: like the real one it shows one entry a key, of whichever rnode
/// has written it more often.
#[derive(Clone, Default)]
struct Fake {
    rnode: &'static str,
    entries: Arc<Mutex<Entries>>,
}

/// How often each rnode has written each key, and what.
type Entries = BTreeMap<(String, &'static str), (u64, Vec<u8>)>;

#[async_trait]
impl Board for Fake {
    async fn put(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        if key.starts_with("kv/gone") {
            return Err(Error::new(Kind::Unavailable, "put a blackboard entry"));
        }
        let mut entries = self.entries.lock().unwrap();
        let entry = entries.entry((key.to_owned(), self.rnode)).or_default();
        *entry = (entry.0 + 1, value.to_vec());
        Ok(())
    }

    async fn remove(&self, key: &str) -> Result<(), Error> {
        self.entries
            .lock()
            .unwrap()
            .remove(&(key.to_owned(), self.rnode));
        Ok(())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let mut newest: BTreeMap<String, (u64, Vec<u8>)> = BTreeMap::new();
        for ((key, _), entry) in self.entries.lock().unwrap().iter() {
            if key.starts_with(prefix) && newest.get(key).is_none_or(|before| before.0 < entry.0) {
                newest.insert(key.clone(), entry.clone());
            }
        }
        Ok(newest
            .into_iter()
            .map(|(key, (_, value))| (key, value))
            .collect())
    }
}

impl Fake {
    fn keys(&self, rnode: &'static str) -> Keys {
        let board = Self {
            rnode,
            entries: Arc::clone(&self.entries),
        };
        Keys::new(Box::new(board), rnode.to_owned())
    }
}

// Shows in part: KVS-01
#[tokio::test]
async fn the_last_write_wins_whichever_rnode_takes_it() {
    let board = Fake::default();
    let (n1, n2) = (board.keys("n1"), board.keys("n2"));
    for value in [b"1", b"2", b"3"] {
        n1.put("x", value).await.unwrap();
    }
    n2.put("x", b"4").await.unwrap();
    assert_eq!(n1.get("x").await.unwrap().unwrap(), b"4");
    n1.put("x", b"5").await.unwrap();
    assert_eq!(n2.get("x").await.unwrap().unwrap(), b"5");
    n2.put("y", b"6").await.unwrap();
    let all = [
        ("x".to_owned(), b"5".to_vec()),
        ("y".to_owned(), b"6".to_vec()),
    ];
    assert_eq!(n1.list("").await.unwrap(), all);
    n2.remove("x").await.unwrap();
    n2.remove("x").await.unwrap();
    assert_eq!(n1.get("x").await.unwrap(), None);
    assert_eq!(n1.list("").await.unwrap(), all[1..]);
    n1.put("x", b"7").await.unwrap();
    assert_eq!(n2.get("x").await.unwrap().unwrap(), b"7");
}

#[tokio::test]
async fn a_removal_that_concerns_nobody_else_leaves_nothing() {
    let board = Fake::default();
    let n1 = board.keys("n1");
    n1.put("x", b"1").await.unwrap();
    n1.remove("x").await.unwrap();
    assert!(board.entries.lock().unwrap().is_empty());
    // What is not ours is passed over.
    let foreign = Fake {
        rnode: "n2",
        ..board.clone()
    };
    foreign.put("kv/x", b"1").await.unwrap();
    foreign.put("kv/x\nn2", b"short").await.unwrap();
    assert_eq!(n1.list("").await.unwrap(), []);
}

/// A server on loopback that ends with the test.
struct Server(
    SocketAddr,
    #[expect(dead_code, reason = "dropping it ends it")] Task<()>,
);

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let api = Api::new(Role::Server, Fake::default().keys("n1"));
        let task = spawn("kv", Policy::ABORT, async {
            let _ = server::serve(listener, api).await;
        });
        Self(address, task)
    }

    async fn ask(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        self.ask_with(method, path, "", body).await
    }

    async fn ask_with(&self, method: &str, path: &str, more: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(self.0).await.unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}Content-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that has refused need not read on.
        let _ = stream.write_all(body).await;
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.unwrap();
        let text = String::from_utf8(text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (
            head.split(' ').nth(1).unwrap().parse().unwrap(),
            body.trim_end().to_owned(),
        )
    }
}

// Shows in part: KVS-01
#[tokio::test]
async fn what_is_put_can_be_got_listed_and_deleted() {
    let server = Server::start().await;
    assert_eq!(server.ask("GET", "/v1/kv/app/x", b"").await.0, 404);
    assert_eq!(
        server.ask("PUT", "/v1/kv/app/x", b"one").await,
        (200, "true".to_owned())
    );
    assert_eq!(
        server.ask("PUT", "/v1/kv/app/%C3%A9%20y", b"two").await.0,
        200
    );
    assert_eq!(server.ask("PUT", "/v1/kv/other", b"").await.0, 200);
    assert_eq!(
        server.ask("GET", "/v1/kv/app/x?raw", b"").await,
        (200, "one".to_owned())
    );
    let (_, text) = server.ask("GET", "/v1/kv/app/x", b"").await;
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&json[0]["Key"], &json[0]["Value"]),
        (&"app/x".into(), &"b25l".into())
    );
    let (_, text) = server.ask("GET", "/v1/kv/app/?recurse=true", b"").await;
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 2);
    let (_, text) = server.ask("GET", "/v1/kv/?keys", b"").await;
    assert_eq!(text, r#"["app/x","app/é y","other"]"#);
    for _ in 0..2 {
        assert_eq!(
            server.ask("DELETE", "/v1/kv/app/x", b"").await,
            (200, "true".to_owned())
        );
    }
    assert_eq!(server.ask("GET", "/v1/kv/app/x", b"").await.0, 404);
    assert_eq!(server.ask("GET", "/v1/kv/none?recurse", b"").await.0, 404);
}

// Shows: KVS-03
#[tokio::test]
async fn consistency_is_declared_and_what_needs_more_is_unsupported() {
    let server = Server::start().await;
    let (status, text) = server.ask("GET", "/v1/status", b"").await;
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &json["consistency"]), (200, &"eventual".into()));
    for (method, query) in [
        ("PUT", "cas=0"),
        ("PUT", "acquire=1"),
        ("GET", "index=7"),
        ("GET", "consistent"),
        ("DELETE", "recurse"),
    ] {
        let (status, text) = server.ask(method, &format!("/v1/kv/x?{query}"), b"").await;
        assert_eq!(status, 501, "{query}");
        assert!(text.contains("Unsupported"), "{text}");
    }
    assert_eq!(
        server.ask("GET", "/v1/kv/x", b"").await.0,
        404,
        "nothing was written"
    );
}

#[tokio::test]
async fn what_is_too_large_or_wrong_is_refused() {
    let server = Server::start().await;
    let long = "k".repeat(board::KEY_BYTES_MAX);
    assert_eq!(
        server.ask("PUT", &format!("/v1/kv/{long}"), b"").await.0,
        200
    );
    assert_eq!(
        server.ask("PUT", &format!("/v1/kv/{long}k"), b"").await.0,
        413
    );
    let full = vec![b'v'; board::VALUE_BYTES_MAX];
    assert_eq!(server.ask("PUT", "/v1/kv/full", &full).await.0, 200);
    assert_eq!(
        server
            .ask("PUT", "/v1/kv/full", &[&full[..], b"v"].concat())
            .await
            .0,
        413
    );
    assert_eq!(server.ask("PUT", "/v1/kv/", b"v").await.0, 400);
    assert_eq!(server.ask("PUT", "/v1/kv/%FF", b"v").await.0, 400);
    assert_eq!(server.ask("PUT", "/v1/kv/a%0Ab", b"v").await.0, 400);
    assert_eq!(server.ask("POST", "/v1/kv/x", b"v").await.0, 405);
    assert_eq!(server.ask("GET", "/v2", b"").await.0, 404);
    assert_eq!(server.ask("PUT", "/v1/kv/gone", b"v").await.0, 503);
    let from_a_page = server
        .ask_with("PUT", "/v1/kv/x", "Origin: http://evil\r\n", b"v")
        .await;
    assert_eq!(from_a_page.0, 403);
}

#[test]
fn the_library_s_command_lines_are_understood() {
    let parse = |line: &str| {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Flags::parse(&words)
    };
    let flags = parse("-server -rnode n1 -ip 127.0.0.2").unwrap();
    assert_eq!(
        (flags.role, flags.address.to_string().as_str()),
        (Role::Server, "127.0.0.2:8500")
    );
    let flags = parse("-rnode n1 -ip ::1 -port 9").unwrap();
    assert_eq!(
        (flags.role, flags.address.to_string().as_str()),
        (Role::Agent, "[::1]:9")
    );
    for (line, expected) in [
        ("-rnode n1", "-ip is missing"),
        ("-ip x", "x is no IP address"),
        ("-ip", "-ip needs a value"),
        ("-fast", "`-fast` is no flag of kv"),
    ] {
        assert_eq!(parse(line).unwrap_err().to_string(), expected);
    }
}
