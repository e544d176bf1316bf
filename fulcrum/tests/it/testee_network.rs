//! Somebody on a network, told what to do by lines: a member of a switch, a way out, or a machine with an outside address.
//!
//! `serve PORT`, `connect HOST:PORT`, `hold HOST:PORT`, `release`; each is answered with one line.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use fulcrum::switch::{Probes, Switch};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// Time a connection is given.
const CONNECT: Duration = Duration::from_secs(5);

pub(crate) fn run(words: &[&str]) -> ExitCode {
    match *words {
        // In a container plugged into the switch.
        ["member", dir, address] => {
            let (_switch, plugged) =
                Switch::plug(Path::new(dir), address.parse().unwrap()).unwrap();
            // The process stays in the switch, as a cell does; a thread lives in the container.
            let inside = std::thread::Builder::new().spawn(move || {
                plugged.enter().unwrap();
                obey();
            });
            inside.unwrap().join().unwrap();
        }
        // In the switch itself, as a forwarder is.
        ["door", dir] => {
            let _switch = Switch::enter(Path::new(dir)).unwrap();
            obey();
        }
        // Where this process was started.
        ["outside"] => obey(),
        ["uplink", dir, number, limit] => return uplink(dir, number, limit),
        ["uplink", dir, number, limit, soft, hard] => {
            let files = nix::sys::resource::Resource::RLIMIT_NOFILE;
            let [soft, hard] = [soft, hard].map(|files| files.parse().unwrap());
            nix::sys::resource::setrlimit(files, soft, hard).unwrap();
            return uplink(dir, number, limit);
        }
        ["probe", dir, from, to, outbound] => {
            let found = fulcrum::switch::probe(&Probes {
                dir: Path::new(dir),
                from: from.parse().unwrap(),
                to: to.parse().unwrap(),
                outbound: outbound.parse().unwrap(),
            });
            println!("{:?}", found.unwrap());
        }
        // A machine of its own with one outside address; runs the rest of the words there.
        ["machine", address, ref rest @ ..] => return machine(address.parse().unwrap(), rest),
        ref other => panic!("unknown words {other:?}"),
    }
    ExitCode::SUCCESS
}

fn uplink(dir: &str, number: &str, limit: &str) -> ExitCode {
    let uplink = fulcrum::switch::open_uplink(Path::new(dir), number.parse().unwrap()).unwrap();
    println!("ready");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let carried = fulcrum::switch::carry(uplink, limit.parse().ok(), std::future::pending());
    eprintln!("{:?}", runtime.block_on(carried));
    ExitCode::FAILURE
}

fn machine(address: Ipv4Addr, rest: &[&str]) -> ExitCode {
    let (uid, gid) = (geteuid(), getegid());
    let mut flags = CloneFlags::CLONE_NEWNET;
    flags.set(CloneFlags::CLONE_NEWUSER, !uid.is_root());
    unshare(flags).unwrap();
    if !uid.is_root() {
        std::fs::write("/proc/self/setgroups", "deny").unwrap();
        std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).unwrap();
        std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).unwrap();
    }
    crate::link::up("lo").unwrap();
    crate::link::add_address("lo", address, 32).unwrap();
    let status = std::process::Command::new(rest[0])
        .args(&rest[1..])
        .status();
    ExitCode::from(u8::try_from(status.unwrap().code().unwrap_or(255)).unwrap())
}

fn obey() {
    println!("ready");
    let mut held = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match words[..] {
            ["serve", port] => serve(port.parse().unwrap()),
            ["connect", address] => match connect(address.parse().unwrap()) {
                Ok((_, text)) => format!("yes {text}"),
                Err(error) => format!("no {:?}", error.kind()),
            },
            ["hold", address] => match connect(address.parse().unwrap()) {
                Ok((stream, _)) => {
                    held.push(stream);
                    "yes".to_owned()
                }
                Err(error) => format!("no {:?}", error.kind()),
            },
            ["release"] => {
                held.pop();
                "released".to_owned()
            }
            ref other => panic!("unknown words {other:?}"),
        };
        println!("{answer}");
        std::io::stdout().flush().unwrap();
    }
}

/// Answers every connection with the address it came to and holds it until the other side goes.
fn serve(port: u16) -> String {
    let listener = match TcpListener::bind(("0.0.0.0", port)) {
        Ok(listener) => listener,
        Err(error) => return format!("no {:?}", error.kind()),
    };
    let serve_one = |mut stream: TcpStream| {
        let own = stream.local_addr().unwrap().ip();
        let _ = stream.write_all(format!("{own}\n").as_bytes());
        let _ = stream.read(&mut [0; 16]);
    };
    let accept = move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::Builder::new()
                .spawn(move || serve_one(stream))
                .unwrap();
        }
    };
    std::thread::Builder::new().spawn(accept).unwrap();
    "yes".to_owned()
}

/// A connection and the line the other side begins with. No router is ever asked: a test sends nothing off its machine.
fn connect(address: SocketAddr) -> std::io::Result<(TcpStream, String)> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT)?;
    stream.set_read_timeout(Some(CONNECT))?;
    let mut line = String::new();
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(char::from(byte[0]));
    }
    if line.is_empty() {
        return Err(std::io::ErrorKind::ConnectionReset.into());
    }
    Ok((stream, line))
}
