//! Tests that run the built `radix` on this machine: that the parts are joined, not what they compute.

mod access;
mod backend;
mod bad_input;
mod beside;
mod boundaries;
mod change;
mod copy;
mod data;
mod deny;
mod direct;
mod first_light;
mod kill;
mod leave_nothing;
mod network;
mod order;
mod rest;
mod rnode;
mod second_home;
mod spawned;
mod tags;
mod told;
mod unbroken;

use e2e::Sandbox;

/// The printed application, fully ready.
const STIX: [(&str, u64); 4] = [("cserver", 3), ("cagent", 3), ("prog1", 2), ("prog2", 6)];

/// A plain HTTP/1.1 GET on loopback; the body, or `None` when nobody answers.
fn get(address: &str, path: &str) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    stream
        .set_read_timeout(Some(std::time::Duration::from_secs(5)))
        .ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    let (head, body) = reply.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}

/// Moves the exposed port to one that is free now, so that tests do not meet.
///
/// It is taken from below the ports that the kernel gives to outgoing connections: those come and go.
#[track_caller]
fn own_port(sandbox: &Sandbox) -> String {
    let port = free_port();
    sandbox.edit("stix.rnodes", "expose 8080", &format!("expose {port}"));
    format!("127.0.0.1:{port}")
}

/// A port that is free now and that no other test of this run is given soon.
#[track_caller]
fn free_port() -> u16 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    (0..PORTS.len())
        .map(|_| {
            let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let offset = (std::process::id() + number) % u32::from(PORTS.end - PORTS.start);
            PORTS.start + u16::try_from(offset).expect("less than the length of a range of ports")
        })
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// Writes a small application that needs no compiler into `tiny`: a server with an exposed port, and two that stay.
///
/// Returns the port.
#[track_caller]
fn tiny(sandbox: &Sandbox, rnodes: u32) -> u16 {
    application(sandbox, "tiny", rnodes)
}

/// The same under another name.
#[track_caller]
fn application(sandbox: &Sandbox, name: &str, rnodes: u32) -> u16 {
    let port = free_port();
    let directory = sandbox.root().join(name);
    std::fs::create_dir_all(&directory).expect("a directory can be made");
    let container = "cmd = /var/radix/bin/fulcrum";
    let shape =
        format!("myriad {{\n  n = {rnodes}\n  {container}\n  expose {port} = cserver:8500\n}}\n");
    let files = [
        ("rnodes", shape.as_str()),
        ("khan", "pick(cserver, 1, ALL)\npick(stay, 2, ALL)\n"),
        ("rexec", "include(consul)\nsleep = /bin/sleep\n"),
        (
            "begat",
            "include(consul)\nstay: rexec/sleep\n      rexec/sleep 1000000\n",
        ),
    ];
    for (ending, text) in files {
        let file = directory.join(format!("{name}.{ending}"));
        std::fs::write(file, text).expect("a file can be written");
    }
    port
}

/// Ports that tests expose.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// Pids by instance name.
fn pids(status: &serde_json::Value) -> std::collections::BTreeMap<String, i64> {
    let instances = status["instances"].as_array().cloned().unwrap_or_default();
    instances
        .iter()
        .map(|instance| {
            let name = instance["instance"].as_str().unwrap_or_default().to_owned();
            (name, instance["pid"].as_i64().unwrap_or(0))
        })
        .collect()
}

/// Keeper and agent of each rnode.
fn keepers(status: &serde_json::Value) -> Vec<[serde_json::Value; 3]> {
    let rnodes = status["rnodes"].as_array().cloned().unwrap_or_default();
    let of = |rnode: &serde_json::Value| {
        let field = |name: &str| rnode[name].clone();
        [field("label"), field("keeper_pid"), field("agent_pid")]
    };
    rnodes.iter().map(of).collect()
}

/// Says why a test did nothing.
fn skipped() {
    skipped_because("only root can become an ordinary user");
}

/// Says why a test did nothing, or not all of it.
#[expect(clippy::print_stdout, reason = "a skip is printed")]
fn skipped_because(why: &str) {
    println!("skipped: {why}");
}
