//! Hidden programs of the conformance suite: one that looks from where a container is, and one that takes what it can.
//!
//! ```text
//! look - | PID[,PID…]  tcp ADDRESS      what is answered; nothing if there is no connection
//! look - | PID         udp ADDRESS TEXT  what is answered to a datagram; nothing if nothing is
//! look PID             name NAME        its addresses, each with the milliseconds it may be kept, by the name server told there
//! look PID[,PID…]      hold ADDRESS     how many of the connections, one from each, were answered while all were kept
//! take PORT  memory BYTES | processes COUNT | cpu MILLISECONDS
//! ```
//! Whoever is on this machine's own network asks no router: nothing leaves the machine.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fulcrum::switch::Network;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};
use nix::time::ClockId;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, TYPE};
use underverse_conformance::Resolved;

/// Time a connection and its answer may take, in seconds.
const ANSWER_SECONDS_MAX: i64 = 2;
/// Most bytes of a datagram that is read.
const DATAGRAM_BYTES_MAX: usize = 2048;
/// Port of names.
const NAMES_PORT: u16 = 53;
/// Number of the one question that is asked.
const QUESTION: u16 = 1;
/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 256;
/// Pages are written to one by one; the smallest there are.
const PAGE_BYTES: usize = 4096;
/// How long a process that only counts as one sleeps.
const SLEEP_SECONDS: &str = "1000";

/// Looks from one vantage after the other.
pub(crate) fn look(rest: &[String]) -> Result<u8, String> {
    let (from, what, target) = match rest {
        [from, what, target] => (from, what, target),
        [from, what, target, text] if what == "udp" => return datagram(from, target, text),
        _ => return Err("a vantage, what to try, and an address are needed".to_owned()),
    };
    if what == "name" {
        return name(from, target);
    }
    let to: SocketAddr = target.parse().map_err(|_| "no address")?;
    // Ordering: opened before any is entered, since from inside the others are not seen.
    let from = from
        .split(',')
        .map(network)
        .collect::<Result<Vec<_>, _>>()?;
    let mut kept = Vec::new();
    for network in &from {
        let inside = network.as_ref().is_some_and(Network::is_foreign);
        if let Some(network) = network {
            network.enter().map_err(crate::hidden::chain)?;
        }
        kept.extend(connect(to, inside).ok());
    }
    let answers = kept.iter_mut().filter_map(answer);
    match what.as_str() {
        "tcp" => answers.for_each(|answer| crate::output::line(&answer)),
        "hold" => crate::output::line(&answers.count().to_string()),
        other => return Err(format!("{other} is neither `tcp` nor `hold`")),
    }
    Ok(0)
}

/// Sends a datagram from where a container is, or from this machine over its own links.
fn datagram(from: &str, to: &str, text: &str) -> Result<u8, String> {
    let to: SocketAddr = to.parse().map_err(|_| "no address")?;
    let network = network(from)?;
    if let Some(network) = &network {
        network.enter().map_err(crate::hidden::chain)?;
    }
    let inside = network.is_some_and(|network| network.is_foreign());
    if let Ok(answer) = exchange(to, inside, text.as_bytes()) {
        crate::output::line(&String::from_utf8_lossy(&answer));
    }
    Ok(0)
}

/// Answers every datagram with a label, a space, and what it was.
pub(crate) fn echo(socket: &UdpSocket, label: &str) {
    let mut bytes = vec![0; DATAGRAM_BYTES_MAX];
    while let Ok((length, from)) = socket.recv_from(&mut bytes) {
        let answer = [label.as_bytes(), b" ", &bytes[..length]].concat();
        // Whoever went away before the answer does not want it.
        let _ = socket.send_to(&answer, from);
    }
}

/// Asks the name server that a container is told of, from inside it.
fn name(pid: &str, name: &str) -> Result<u8, String> {
    let failed = |error: io::Error| error.to_string();
    let told = std::fs::read_to_string(format!("/proc/{pid}/root/etc/resolv.conf"));
    let told = told.map_err(failed)?;
    let mut servers = told
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver "));
    let server: IpAddr = servers
        .next()
        .and_then(|server| server.trim().parse().ok())
        .ok_or("no name server is told")?;
    let network = network(pid)?.ok_or("no pid")?;
    if !network.is_foreign() {
        return Err("names are asked for in networks of hordes only".to_owned());
    }
    network.enter().map_err(crate::hidden::chain)?;
    let mut question = Packet::new_query(QUESTION);
    let asked = Name::new(name).map_err(|error| error.to_string())?;
    let (kind, class) = (QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN));
    question
        .questions
        .push(Question::new(asked, kind, class, false));
    let question = question
        .build_bytes_vec()
        .map_err(|error| error.to_string())?;
    // Nobody there yet is no answer; the suite asks again.
    let Ok(reply) = exchange(SocketAddr::new(server, NAMES_PORT), true, &question) else {
        return Ok(0);
    };
    let reply = Packet::parse(&reply).map_err(|error| error.to_string())?;
    for record in &reply.answers {
        if let RData::A(a) = &record.rdata {
            let address = Ipv4Addr::from(a.address).into();
            let keep = Duration::from_secs(record.ttl.into());
            crate::output::line(&Resolved { address, keep }.to_string());
        }
    }
    Ok(0)
}

/// Sends a datagram, from this machine's own network over its own links only, and returns the one that answers it.
fn exchange(to: SocketAddr, inside: bool, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket::setsockopt(&socket, sockopt::DontRoute, &!inside)?;
    socket.set_read_timeout(Some(Duration::from_secs(ANSWER_SECONDS_MAX.unsigned_abs())))?;
    socket.connect(to)?;
    socket.send(bytes)?;
    let mut answer = vec![0; DATAGRAM_BYTES_MAX];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

/// The network of a process; `None` for this machine's own.
fn network(pid: &str) -> Result<Option<Network>, String> {
    if pid == "-" {
        return Ok(None);
    }
    let pid = pid.parse().map_err(|_| "no pid")?;
    let network = Network::of(pid).map_err(|error| format!("{pid}: {error}"))?;
    Ok(Some(network))
}

/// A connection; from this machine's own network over its own links only.
fn connect(to: SocketAddr, inside: bool) -> io::Result<TcpStream> {
    let family = match to.ip() {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let made = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    socket::setsockopt(&made, sockopt::DontRoute, &!inside)?;
    let time = TimeVal::seconds(ANSWER_SECONDS_MAX);
    // The time to send is the time to connect, too.
    socket::setsockopt(&made, sockopt::SendTimeout, &time)?;
    socket::setsockopt(&made, sockopt::ReceiveTimeout, &time)?;
    socket::connect(made.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(TcpStream::from(made))
}

/// The first line of what is answered, or what came until nothing more did.
fn answer(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while (bytes.len() as u64) < ANSWER_BYTES_MAX && matches!(stream.read(&mut byte), Ok(1)) {
        if byte == *b"\n" {
            break;
        }
        bytes.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    (!text.is_empty()).then_some(text)
}

/// Takes what it can and then tells whoever connects how much that was.
pub(crate) fn take(rest: &[String]) -> Result<u8, String> {
    let words: Vec<&str> = rest.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().map_err(|_| "no number".to_owned());
    let [port, kind, wanted] = words[..] else {
        return match words[..] {
            ["held", bytes] => hold_memory(number(bytes)?),
            _ => Err("a port, a kind and a number are needed".to_owned()),
        };
    };
    let wanted = number(wanted)?;
    let got = match kind {
        "memory" => memory(wanted),
        "processes" => processes(wanted),
        "cpu" => processor(Duration::from_millis(wanted)),
        other => return Err(format!("{other} cannot be taken")),
    };
    let got = got.map_err(|error| error.to_string())?;
    let host = std::env::var("RADIX_IP").map_err(|_| "RADIX_IP is not set")?;
    let host: IpAddr = host.parse().map_err(|_| "RADIX_IP is no address")?;
    let port = port.parse().map_err(|_| "no port")?;
    let listener = TcpListener::bind((host, port)).map_err(|error| error.to_string())?;
    for stream in listener.incoming() {
        // Whoever went away before the answer does not want it.
        let _ = stream.and_then(|mut stream| writeln!(stream, "{got}"));
    }
    Ok(0)
}

/// In a process of its own, which is what ends where there is not so much.
fn memory(wanted: u64) -> io::Result<u64> {
    let mut child = Command::new(std::env::current_exe()?);
    child.args(["take", "held", &wanted.to_string()]);
    let status = child.stdin(Stdio::null()).status()?;
    Ok(if status.success() { wanted } else { 0 })
}

fn hold_memory(bytes: u64) -> Result<u8, String> {
    let count = usize::try_from(bytes).map_err(|error| error.to_string())?;
    let mut held = Vec::new();
    held.try_reserve_exact(count)
        .map_err(|error| error.to_string())?;
    held.resize(count, 0_u8);
    for at in (0..count).step_by(PAGE_BYTES) {
        held[at] = 1;
    }
    let written = held.iter().step_by(PAGE_BYTES).all(|&byte| byte == 1);
    Ok(u8::from(!written))
}

fn processes(wanted: u64) -> io::Result<u64> {
    let sleep = |_| Command::new("sleep").arg(SLEEP_SECONDS).spawn().ok();
    let mut held: Vec<Child> = (0..wanted).map_while(sleep).collect();
    for child in &mut held {
        child.kill()?;
        child.wait()?;
    }
    Ok(held.len() as u64)
}

fn processor(time: Duration) -> io::Result<u64> {
    let used = || ClockId::CLOCK_PROCESS_CPUTIME_ID.now();
    let (begun, before) = (Instant::now(), used()?);
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
    let used = Duration::from(used()?).saturating_sub(before.into());
    let thousandths = used.as_millis() * 1000 / begun.elapsed().as_millis().max(1);
    Ok(u64::try_from(thousandths).unwrap_or(u64::MAX))
}
