//! What the tests run: a stand-in for `radix` with the words `keep`, `agent` and `cell`, and small programs to execute.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test program"
)]

#[path = "../../src/switch/link.rs"]
#[expect(dead_code, reason = "a machine of a test needs little of it")]
mod link;
#[path = "../../src/switch/netlink.rs"]
mod netlink;
#[path = "testee_network.rs"]
mod network;
mod twins;

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[1..] {
        ["keep", "--dir", dir] => report(fulcrum::keeper::run(Path::new(dir)).map(|()| 0)),
        ["cell", "--dir", dir] => report(fulcrum::cell::run(Path::new(dir))),
        ["cell", "--probe", "--dir", dir] => {
            report(fulcrum::cell::trial(Path::new(dir)).map(|()| 0))
        }
        ["switch", "--trial", "--dir", dir] => {
            report(fulcrum::switch::trial(Path::new(dir)).map(|reason| {
                reason.iter().for_each(|reason| eprintln!("{reason}"));
                0
            }))
        }
        ["network", ref words @ ..] => network::run(words),
        // A rnode with an identity has a real agent; the others have the test in its place.
        ["agent", "--dir", dir]
            if ["identity", "invitation"]
                .iter()
                .any(|name| Path::new(dir).join(name).exists()) =>
        {
            report(fulcrum::agent::run(Path::new(dir)).map(|()| 0))
        }
        ["agent", "--dir", dir] => agent(&PathBuf::from(dir)),
        ["exit", code] => ExitCode::from(code.parse::<u8>().unwrap()),
        ["print", text, ref errors @ ..] => {
            println!("{text}");
            errors.iter().for_each(|text| eprintln!("{text}"));
            ExitCode::SUCCESS
        }
        ["flood", mebibytes] => flood(mebibytes.parse().unwrap()),
        ["environment"] => {
            std::env::vars().for_each(|(name, value)| println!("{name}={value}"));
            ExitCode::SUCCESS
        }
        ["connect", text] => connect(text),
        ["relay", socket] => relay(Path::new(socket)),
        ["serve", name, port] => serve(name, port.parse().unwrap()),
        ["serve", name, port, once] => {
            while !Path::new(once).exists() {
                std::thread::sleep(Duration::from_millis(20));
            }
            let port: u16 = port.parse().unwrap();
            let _listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
            serve(name, port.into())
        }
        ["horde", namespace, port, class] => horde(namespace, port.parse().unwrap(), class),
        ["dissolved", namespace, generation] => dissolved(namespace, generation.parse().unwrap()),
        ["twins"] => ask_twice(),
        ["remember", dir] => remember(Path::new(dir)),
        ["wait"] => wait(),
        ["stay"] => {
            // Ends by KILL alone.
            let term = nix::sys::signal::SigSet::from(nix::sys::signal::Signal::SIGTERM);
            term.thread_block().unwrap();
            wait()
        }
        ref other => {
            eprintln!("unknown words {other:?}");
            ExitCode::from(2)
        }
    }
}

fn report<E: std::error::Error>(result: Result<i32, E>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(255)),
        Err(error) => {
            let first: &dyn std::error::Error = &error;
            let chain: Vec<_> = std::iter::successors(Some(first), |error| error.source())
                .map(ToString::to_string)
                .collect();
            eprintln!("failed to {}", chain.join(": "));
            ExitCode::FAILURE
        }
    }
}

/// Hands its end of the keeper's socket to the test, which then speaks as the agent, and lives on.
fn agent(dir: &Path) -> ExitCode {
    let socket = fulcrum::keeper::client::inherited().unwrap();
    while let Err(error) = hand_over(dir, socket.as_fd()) {
        eprintln!("the test does not listen yet: {error}");
        std::thread::sleep(Duration::from_millis(20));
    }
    wait()
}

fn hand_over(dir: &Path, socket: BorrowedFd<'_>) -> std::io::Result<()> {
    let test = UnixStream::connect(dir.join("test.sock"))?;
    send_descriptor(test.as_fd(), &std::process::id().to_le_bytes(), socket)
}

fn send_descriptor(
    to: BorrowedFd<'_>,
    bytes: &[u8],
    descriptor: BorrowedFd<'_>,
) -> std::io::Result<()> {
    let fds = [descriptor];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
    control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds));
    let flags = rustix::net::SendFlags::empty();
    rustix::net::sendmsg(to, &[std::io::IoSlice::new(bytes)], &mut control, flags)?;
    Ok(())
}

/// The socket to its agent that it inherited.
#[expect(unsafe_code, reason = "the inherited descriptor has no owner yet")]
fn agent_socket() -> BorrowedFd<'static> {
    let number: i32 = std::env::var("RADIX_AGENT_FD").unwrap().parse().unwrap();
    // Safety: the keeper passed this descriptor to us and nothing here closes it.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Passes whoever connects to `socket` on to its agent, as itself.
fn relay(socket: &Path) -> ExitCode {
    let _ = std::fs::remove_file(socket);
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    for stream in listener.incoming() {
        send_descriptor(agent_socket(), &[1], stream.unwrap().as_fd()).unwrap();
    }
    ExitCode::SUCCESS
}

/// Uses the right to connect to its agent: sends one end of a new stream pair and writes to the other.
fn connect(text: &str) -> ExitCode {
    let agent = agent_socket();
    let (mut near, far) = UnixStream::pair().unwrap();
    send_descriptor(agent, b"c", far.as_fd()).unwrap();
    near.write_all(text.as_bytes()).unwrap();
    drop(near);
    ExitCode::SUCCESS
}

/// Registers a service and says on the blackboard that it did, then waits.
fn serve(name: &str, port: u32) -> ExitCode {
    use crux_wire::process::v1::process_client::ProcessClient;
    use crux_wire::process::v1::{PutRequest, RegisterRequest, WhoamiRequest};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let result = runtime.block_on(async {
        let socket = crux_net::rpc::ProcessSocket::inherited().unwrap().unwrap();
        let mut agent = ProcessClient::new(crux_net::rpc::connect_process(&socket));
        let me = agent.whoami(WhoamiRequest {}).await?.into_inner();
        let register = RegisterRequest {
            name: name.to_owned(),
            port,
            ..RegisterRequest::default()
        };
        let registered = agent.register(register).await;
        let text = match registered {
            Ok(_) => format!("{}/{} registered", me.class, me.index),
            Err(status) => status.message().to_owned(),
        };
        let put = PutRequest {
            key: "said".to_owned(),
            value: text.into_bytes(),
            remove: false,
        };
        agent.put(put).await
    });
    result.unwrap();
    wait()
}

/// Calls every method of the process socket both ways and prints what came of it, then waits.
fn ask_twice() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let socket = crux_net::rpc::ProcessSocket::inherited().unwrap().unwrap();
        let channel = crux_net::rpc::connect_process(&socket);
        for method in crux_wire::rest::Api::radix().methods() {
            if method.is_for_processes() {
                let call = process_call(method);
                let compared = twins::compare(async || channel.clone(), &call).await;
                println!("{}", serde_json::to_string(&compared).unwrap());
            }
        }
        println!("end");
    });
    wait()
}

/// What a process may ask of its agent; a method that needs nothing special gets an empty request.
fn process_call(method: &crux_wire::rest::Method) -> twins::Call {
    use serde_json::json;
    let name = method.short_name().trim_start_matches("Process/");
    let request = match name {
        "Register" => json!({"name": "prog1", "port": 4000}),
        "Unregister" | "Lookup" | "Watch" => json!({"name": "prog1"}),
        "Leaf" => {
            let key = crux_net::identity::SecretKey::generate().unwrap();
            json!({"publicKeyDer": twins::base64(&key.public().spki())})
        }
        "Put" => json!({"key": "k", "value": twins::base64(b"v")}),
        "Get" => json!({"key": "k"}),
        _ => json!({}),
    };
    let replies = if name == "Watch" { 1 } else { usize::MAX };
    twins::Call::new(method, vec![request]).reading(replies)
}

/// Acts as a backend: tells of a horde of one rnode, then prints the ready members of a class as they change.
fn horde(namespace: &str, port: u32, class: &str) -> ExitCode {
    use crux_wire::fulcrum::v1::fulcrum_client::FulcrumClient;
    use crux_wire::fulcrum::v1::{HordeRnode, HordeState, PutHordeStateRequest};
    use crux_wire::process::v1::LookupRequest;
    use crux_wire::process::v1::process_client::ProcessClient;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let result: Result<(), tonic::Status> = runtime.block_on(async {
        let socket = crux_net::rpc::ProcessSocket::inherited().unwrap().unwrap();
        let channel = crux_net::rpc::connect_process(&socket);
        let rnode = HordeRnode {
            ordinal: 1,
            label: "n1".to_owned(),
            host: "127.0.0.1".to_owned(),
            port,
            execution: "cell".to_owned(),
            ..HordeRnode::default()
        };
        let state = HordeState {
            namespace: namespace.to_owned(),
            backend: "local".to_owned(),
            generation: 1,
            phase: "done".to_owned(),
            rnodes: vec![rnode],
            ..HordeState::default()
        };
        let put = PutHordeStateRequest {
            state: Some(state),
            events: Vec::new(),
        };
        FulcrumClient::new(channel.clone())
            .put_horde_state(put)
            .await?;
        let name = format!("{namespace}/class:{class}");
        let mut agent = ProcessClient::new(channel);
        let exposure = String::new();
        let request = LookupRequest { name, exposure };
        let mut replies = agent.watch(request).await?.into_inner();
        while let Some(reply) = replies.message().await? {
            let members: Vec<_> = reply
                .services
                .iter()
                .map(|one| format!("{}={}", one.index, one.host))
                .collect();
            println!("ready {}", members.join(" "));
        }
        Ok(())
    });
    result.unwrap();
    ExitCode::SUCCESS
}

/// Reports that nothing is left of a horde, as its backend would.
fn dissolved(namespace: &str, generation: u64) -> ExitCode {
    use crux_wire::fulcrum::v1::fulcrum_client::FulcrumClient;
    use crux_wire::fulcrum::v1::{HordeState, PutHordeStateRequest};
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    let put = PutHordeStateRequest {
        state: Some(HordeState {
            namespace: namespace.to_owned(),
            generation,
            phase: "dissolved".to_owned(),
            ..HordeState::default()
        }),
        events: Vec::new(),
    };
    let reported = runtime.block_on(async {
        let socket = crux_net::rpc::ProcessSocket::inherited().unwrap().unwrap();
        let channel = crux_net::rpc::connect_process(&socket);
        FulcrumClient::new(channel).put_horde_state(put).await
    });
    reported.unwrap();
    ExitCode::SUCCESS
}

/// Writes records until it is killed, and prints the number of each once it is acknowledged.
fn remember(dir: &Path) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let writer = fulcrum::memoir::Writer::open(dir).unwrap();
    loop {
        let record = writer.record_synced("exec.start", fulcrum::memoir::Fields::new());
        println!("{}", runtime.block_on(record).unwrap());
    }
}

fn flood(mebibytes: usize) -> ExitCode {
    let block = vec![b'x'; 1 << 20];
    let mut stdout = std::io::stdout().lock();
    for _ in 0..mebibytes {
        stdout.write_all(&block).unwrap();
    }
    stdout.write_all(b"the end").unwrap();
    stdout.flush().unwrap();
    // Long enough for the keeper to look at the file while we live; ended by the test.
    wait()
}

fn wait() -> ExitCode {
    loop {
        std::thread::park();
    }
}
