//! Runs the two programs without agents, and asks them over HTTP and gRPC.

#![expect(clippy::unwrap_used, reason = "what a helper cannot do fails its test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A program that is ended with the test.
struct Program(Child);

impl Program {
    fn start(path: &str, arguments: &[&str]) -> Self {
        let child = Command::new(path)
            .args(["-rnode", "n1", "-ip", "127.0.0.1", "--no-agent"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn lines(&mut self) -> impl Iterator<Item = String> + use<> {
        BufReader::new(self.0.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap)
    }

    /// Exit code and what went to standard error.
    fn end(mut self) -> (Option<i32>, String) {
        let code = self.0.wait().unwrap().code();
        let mut text = String::new();
        self.0
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        (code, text)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn worker(port: u16, grpc: u16, csv: &str) -> Program {
    let (port, grpc) = (port.to_string(), grpc.to_string());
    let flags = [
        "-task", "worker1", "-prod", csv, "-port", &port, "-grpc", &grpc,
    ];
    Program::start(env!("CARGO_BIN_EXE_worker"), &flags)
}

/// Asks until somebody listens there.
fn get(port: u16, path: &str) -> (u16, String) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let give_up = Instant::now() + Duration::from_secs(30);
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < give_up, "{error}"),
        }
        std::thread::yield_now();
    };
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        body.to_owned(),
    )
}

const CSV: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/prods.csv");

#[test]
fn a_lookup_tells_the_row_and_where_it_came_from() {
    let (port, grpc) = (free_port(), free_port());
    let _worker = worker(port, grpc, CSV);
    let (status, body) = get(port, "/lookup/p0007");
    assert_eq!(status, 200);
    let answer: stix::answer::Answer = serde_json::from_str(&body).unwrap();
    assert_eq!((answer.key.as_str(), answer.row_number), ("p0007", 7));
    assert_eq!(
        (answer.worker.as_str(), answer.rnode.as_str()),
        ("worker1", "n1")
    );
    let csv = crux::core::digest::Digest::of(&std::fs::read(CSV).unwrap());
    assert_eq!(answer.csv, csv.to_string());
    assert_eq!(answer.row["id"], "p0007");
    assert_eq!(get(port, "/lookup/none").0, 404);
    assert_eq!(get(port, "/elsewhere").0, 404);
    assert_eq!(get(port, "/results"), (200, "[]\n".to_owned()));
    assert!(
        get(port, "/")
            .1
            .starts_with("worker1 on n1: 320 rows of csv ")
    );
}

#[test]
fn a_slave_goes_on_when_its_worker_is_lost_and_comes_back() {
    let (port, grpc) = (free_port(), free_port());
    let address = format!("127.0.0.1:{grpc}");
    let first = worker(port, grpc, CSV);
    let mut slave = Program::start(
        env!("CARGO_BIN_EXE_slave"),
        &["-task", "slave6", "-worker", &address],
    );
    let mut lines = slave.lines();
    let mut until = |wanted: &str| {
        let found = lines.by_ref().take(200).find(|line| line.contains(wanted));
        found.unwrap_or_else(|| panic!("no line with `{wanted}`"))
    };
    let line = until("asked worker1 on n1: row ");
    assert!(line.starts_with("slave6 #"), "{line}");
    drop(first);
    until("no worker answers");
    let _second = worker(port, grpc, CSV);
    until("asked worker1 on n1: row ");
}

#[test]
fn wrong_flags_and_files_end_a_program_with_a_reason() {
    let (code, text) = Program::start(env!("CARGO_BIN_EXE_worker"), &["-task", "t"]).end();
    assert_eq!(
        (code, text.as_str()),
        (Some(2), "worker: -prod is missing\n")
    );
    let (code, text) = worker(0, 0, "/nonexistent.csv").end();
    assert_eq!(code, Some(1));
    assert!(
        text.starts_with("failed to read /nonexistent.csv: No such file"),
        "{text}"
    );
    let broken = std::env::temp_dir().join(format!("stix-broken-{}.csv", std::process::id()));
    std::fs::write(&broken, "id,name\na,b,c\n").unwrap();
    let (code, text) = worker(0, 0, broken.to_str().unwrap()).end();
    std::fs::remove_file(&broken).unwrap();
    assert_eq!(code, Some(1));
    assert!(text.ends_with("line 2: 3 fields, not 2\n"), "{text}");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let (code, text) = worker(port, 0, CSV).end();
    assert_eq!(code, Some(1));
    assert!(
        text.starts_with(&format!("failed to listen on 127.0.0.1:{port}: ")),
        "{text}"
    );
}

/// Else `up` on a fresh clone would compile half of its dependencies twice.
#[test]
fn all_that_stix_links_is_compiled_for_radix_already() {
    let compiled = |package: &str| -> std::collections::BTreeSet<String> {
        let output = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--offline",
                "--locked",
                "-e",
                "normal,build",
                "--prefix",
                "none",
            ])
            .args(["--no-dedupe", "-f", "{p} [{f}]", "-p", package])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    };
    let (stix, radix) = (compiled("stix"), compiled("threshold-console"));
    let more: Vec<_> = stix
        .difference(&radix)
        .filter(|line| !line.starts_with("stix "))
        .collect();
    assert!(
        more.is_empty(),
        "features differ, so set them in the workspace's manifest: {more:?}"
    );
}
