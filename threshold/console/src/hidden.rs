//! The programs inside this binary that rnodes are made of, and the other names it answers to.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use crux_net::identity::Invitation;
use crux_net::order::Order;
use crux_net::rpc::ProcessSocket;
use fulcrum::config::{Executable, Isolation, RnodeConfig};
use underverse_local::forward::{Followed, Outer};
use underverse_local::{BaseClient, Carries, Local, Settings, ThisMachine};

/// Exit code of a hidden program that was called wrongly or failed to begin.
const HIDDEN_FAILED: u8 = 1;

/// Turns argv\[0\] into a first word: called as `begat`, `radix begat …` is meant.
pub(crate) fn name_to_word(words: &mut Vec<OsString>) {
    let name = words.first().map(PathBuf::from);
    let name = name
        .as_deref()
        .and_then(|path| path.file_name())
        .and_then(|name| name.to_str());
    let word = match name {
        Some("fulcrum") => "fulcrum",
        Some("begat") => "begat",
        Some("khan") => "khan",
        Some("myriad") => "myriad",
        Some("radix-underverse-local") => crate::command::backend::PLUGIN_WORD,
        _ => return,
    };
    if let Some(first) = words.first_mut() {
        *first = OsString::from("radix");
    }
    words.insert(1, OsString::from(word));
}

/// Runs the hidden program that the first word names; `None` when it names none.
pub(crate) fn run(words: &[OsString]) -> Option<ExitCode> {
    let rest: Vec<String> = words
        .iter()
        .skip(2)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let result = match words.get(1)?.to_str()? {
        "keep" => keep(&rest),
        "cell" => cell(&rest),
        "agent" => agent(&rest),
        "fulcrum" => fulcrum(&rest),
        "backend" if rest.first().is_some_and(|word| word == "local") => backend(),
        "forward" => forward(&rest),
        "switch" => switch(&rest),
        "uplink" => uplink(&rest),
        "names" => names(&rest),
        "kv" => kv(rest),
        "answer" => answer(&rest),
        "look" => crate::vantage::look(&rest),
        "take" => crate::vantage::take(&rest),
        crate::command::backend::PLUGIN_WORD => return Some(crate::suite::plugin(&rest)),
        _ => return None,
    };
    Some(match result {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            crate::output::talk(&format!("radix {}: {message}", words[1].to_string_lossy()));
            ExitCode::from(HIDDEN_FAILED)
        }
    })
}

/// The value behind `--name`.
fn option(rest: &[String], name: &str) -> Result<String, String> {
    let at = rest.iter().position(|word| word == name);
    at.and_then(|at| rest.get(at + 1))
        .cloned()
        .ok_or_else(|| format!("{name} is missing"))
}

fn directory(rest: &[String]) -> Result<PathBuf, String> {
    option(rest, "--dir").map(PathBuf::from)
}

fn keep(rest: &[String]) -> Result<u8, String> {
    if rest.iter().any(|word| word == "--detach") {
        nix::unistd::setsid().map_err(|error| format!("failed to leave the session: {error}"))?;
    }
    fulcrum::keeper::run(&directory(rest)?)
        .map(|()| 0)
        .map_err(chain)
}

fn cell(rest: &[String]) -> Result<u8, String> {
    let directory = directory(rest)?;
    if rest.iter().any(|word| word == "--probe") {
        return fulcrum::cell::trial(&directory).map(|()| 0).map_err(chain);
    }
    let code = fulcrum::cell::run(&directory).map_err(chain)?;
    Ok(u8::try_from(code).unwrap_or(HIDDEN_FAILED))
}

fn agent(rest: &[String]) -> Result<u8, String> {
    crate::log();
    fulcrum::agent::run(&directory(rest)?)
        .map(|()| 0)
        .map_err(chain)
}

/// `fulcrum -rnode NAME -ip ADDRESS [-resource DIR]`: a rnode from flags, joined by `DIR/invitation`.
fn fulcrum(rest: &[String]) -> Result<u8, String> {
    let label = option(rest, "-rnode")?;
    let host = option(rest, "-ip")?
        .parse()
        .map_err(|_| "-ip is not an address".to_owned())?;
    let home = crate::home::Home::open().map_err(|failure| failure.to_string())?;
    let directory = option(rest, "-resource").map_or_else(
        |_| home.join(crate::living::RNODES).join(&label),
        PathBuf::from,
    );
    if !directory.join(fulcrum::config::FILE).exists() {
        let start = RnodeStart {
            home: &home,
            directory: &directory,
            label: &label,
            host,
        };
        start.write()?;
    }
    fulcrum::keeper::run(&directory).map(|()| 0).map_err(chain)
}

/// What a rnode started by hand is made from.
struct RnodeStart<'a> {
    home: &'a crate::home::Home,
    directory: &'a Path,
    label: &'a str,
    host: std::net::IpAddr,
}

impl RnodeStart<'_> {
    /// Writes the configuration; the namespace is the invitation's.
    fn write(&self) -> Result<(), String> {
        let file = self.directory.join("invitation");
        let text = std::fs::read_to_string(&file).map_err(|error| {
            format!(
                "{} cannot be read ({error}); `radix ca invite {}` makes one",
                file.display(),
                self.label
            )
        })?;
        let invitation = Invitation::decode(text.trim()).map_err(chain)?;
        let namespace = invitation
            .namespace()
            .map_or("base", |label| label.as_str())
            .to_owned();
        let ourselves = crate::base_start::Ourselves::stored(self.home)
            .map_err(|failure| failure.to_string())?;
        let memoir_dir = self.home.join("memoirs").join(&namespace).join(self.label);
        std::fs::create_dir_all(&memoir_dir).map_err(chain)?;
        let hints = invitation
            .hints()
            .iter()
            .filter_map(|hint| hint.parse().ok())
            .collect();
        let config = RnodeConfig {
            label: self.label.to_owned(),
            namespace,
            host: self.host,
            tcp_port: 0,
            flock_port: 0,
            hints,
            base: None,
            memoir_dir,
            store_dir: self.directory.join("store"),
            executable: Executable {
                path: ourselves.path,
                digest: ourselves.digest,
            },
            mounts: Vec::new(),
            isolation: Isolation::None,
            user_range_start: None,
            tags: Vec::new(),
            network: None,
            quota_bytes: None,
        };
        config.save(self.directory).map_err(chain)
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("failed to start the runtime: {error}"))
}

/// Our agent, over the socket that we inherited.
fn agent_channel() -> Result<tonic::transport::Channel, String> {
    let socket = ProcessSocket::inherited().map_err(chain)?;
    let socket = socket.ok_or("no agent started this process")?;
    Ok(crux_net::rpc::connect_process(&socket))
}

/// Ends when we are asked to end.
async fn asked_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            terminate.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

fn backend() -> Result<u8, String> {
    crux_net::boundary::begin("backend");
    crate::log();
    let home = std::env::var_os("RADIX_HOME").ok_or("RADIX_HOME is not set")?;
    let home = PathBuf::from(home);
    let base = RnodeConfig::load(&home.join("base")).map_err(chain)?;
    let probe = fulcrum::cell::probe(&base.executable.path, &home.join("base/trial"));
    let _ = std::fs::remove_dir(home.join("base/trial"));
    let isolation = match probe.isolation {
        Isolation::PidMount => underverse_local::Isolation::PidMount,
        Isolation::None => underverse_local::Isolation::None,
    };
    if let Some(reason) = &probe.reason {
        crate::output::talk(&format!("radix backend: no namespaces here: {reason}"));
    }
    let executable = underverse_local::Executable {
        path: base.executable.path.clone(),
        digest: base.executable.digest.to_string(),
    };
    let settings = Settings {
        order: Order::from_environment(),
        ..Settings::new(underverse_local::Home::new(home), executable, isolation)
    };
    runtime()?.block_on(async {
        let base = Arc::new(BaseClient::new(agent_channel()?));
        let local = Local::new(settings, base, Arc::new(ThisMachine));
        underverse_local::backend::run(local, asked_to_end()).await;
        Ok(0)
    })
}

fn forward(rest: &[String]) -> Result<u8, String> {
    let wrong = |name: &str| format!("{name} cannot be read");
    let listen: SocketAddr = option(rest, "--listen")?
        .parse()
        .map_err(|_| wrong("--listen"))?;
    let port = option(rest, "--port")?
        .parse()
        .map_err(|_| wrong("--port"))?;
    if let Ok(leases) = option(rest, "--leases") {
        return forward_on_leases(rest, (listen, port), Path::new(&leases));
    }
    let followed = Followed {
        namespace: option(rest, "--namespace")?,
        class: option(rest, "--class")?,
        port,
        exposure: listen,
        carries: carries(rest),
    };
    runtime()?.block_on(async {
        let channel = agent_channel()?;
        underverse_local::forward::run_on_agent(followed, channel, asked_to_end())
            .await
            .map(|()| 0)
            .map_err(chain)
    })
}

/// `switch --trial`: tells by its exit and stderr what this machine grants; `switch --probe`: tries a horde's network.
fn switch(rest: &[String]) -> Result<u8, String> {
    let directory = directory(rest)?;
    if rest.iter().any(|word| word == "--trial") {
        let weaker = fulcrum::switch::trial(&directory).map_err(chain)?;
        weaker.iter().for_each(|reason| crate::output::talk(reason));
        return Ok(0);
    }
    let found = fulcrum::switch::probe(&fulcrum::switch::Probes {
        dir: &directory,
        from: parsed(rest, "--from")?,
        to: parsed(rest, "--to")?,
        outbound: parsed(rest, "--outbound")?,
    });
    let fulcrum::switch::Found {
        members,
        outside,
        outbound,
        outbound_ended: ended,
    } = found.map_err(chain)?;
    crate::output::line(&format!(
        "{{\"members\":{members},\"outside\":{outside},\"outbound\":{outbound},\"outbound_ended\":{ended}}}"
    ));
    Ok(0)
}

/// `uplink --dir SWITCH --number K [--limit N]`: carries a horde's connections out of its switch.
fn uplink(rest: &[String]) -> Result<u8, String> {
    crate::log();
    let limit = match option(rest, "--limit") {
        Ok(_) => Some(parsed(rest, "--limit")?),
        Err(_) => None,
    };
    // Ordering: before any thread, since what holds the switch for us is forked.
    let uplink = fulcrum::switch::open_uplink(&directory(rest)?, parsed(rest, "--number")?);
    let uplink = uplink.map_err(chain)?;
    runtime()?
        .block_on(fulcrum::switch::carry(uplink, limit, asked_to_end()))
        .map(|()| 0)
        .map_err(chain)
}

/// `names --dir SWITCH --number K --home DIR --horde NAME`: answers for the names of a horde on a switch.
fn names(rest: &[String]) -> Result<u8, String> {
    crate::log();
    let (home, horde) = (option(rest, "--home")?, option(rest, "--horde")?);
    let home = underverse_local::Home::new(PathBuf::from(home));
    // Ordering: before any thread, since a switch is entered by a process of one thread only.
    let names = fulcrum::switch::open_names(&directory(rest)?, parsed(rest, "--number")?);
    let names = names.map_err(chain)?;
    runtime()?
        .block_on(underverse_local::names::serve(
            (names.socket, names.listener),
            (&home, &horde),
            asked_to_end(),
        ))
        .map(|()| 0)
        .map_err(chain)
}

/// The value behind `--name`, read.
fn parsed<T: std::str::FromStr>(rest: &[String], name: &str) -> Result<T, String> {
    option(rest, name)?
        .parse()
        .map_err(|_| format!("{name} cannot be read"))
}

/// `forward --listen ADDRESS --port PORT --leases FILE [--switch DIR] [--udp]`: a door to every member.
fn forward_on_leases(
    rest: &[String],
    (listen, port): (SocketAddr, u16),
    leases: &Path,
) -> Result<u8, String> {
    // Ordering: the door is made on this machine's network; then we enter the switch, and members are reached from there.
    let outer = Outer::open(listen, carries(rest)).map_err(chain)?;
    if let Ok(switch) = option(rest, "--switch") {
        fulcrum::switch::Switch::enter(Path::new(&switch)).map_err(chain)?;
    }
    runtime()?
        .block_on(underverse_local::forward::run_on_leases(
            outer,
            leases,
            port,
            asked_to_end(),
        ))
        .map(|()| 0)
        .map_err(chain)
}

/// What a door carries.
fn carries(rest: &[String]) -> Carries {
    match rest.iter().any(|word| word == "--udp") {
        true => Carries::Udp,
        false => Carries::Tcp,
    }
}

/// `answer PORT`: tells whoever connects which container answers, and whoever sends a datagram that and what it sent; what the conformance suite runs.
fn answer(rest: &[String]) -> Result<u8, String> {
    let port: u16 = rest
        .first()
        .and_then(|port| port.parse().ok())
        .ok_or("no port")?;
    let variable = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let host: std::net::IpAddr = variable("RADIX_IP")?
        .parse()
        .map_err(|_| "RADIX_IP is no address")?;
    let label = variable("RADIX_NAME")?;
    let listener = std::net::TcpListener::bind((host, port)).map_err(chain)?;
    let socket = std::net::UdpSocket::bind((host, port)).map_err(chain)?;
    let echo = {
        let label = label.clone();
        move || crate::vantage::echo(&socket, &label)
    };
    let echo = std::thread::Builder::new()
        .name("echo".to_owned())
        .spawn(echo);
    echo.map_err(chain)?;
    for stream in listener.incoming() {
        // Whoever went away before the answer does not want it.
        let _ =
            stream.and_then(|mut stream| std::io::Write::write_all(&mut stream, label.as_bytes()));
    }
    Ok(0)
}

fn kv(rest: Vec<String>) -> Result<u8, String> {
    runtime()?
        .block_on(crate::kv::run(rest))
        .map(|()| 0)
        .map_err(chain)
}

/// An error and its sources on one line.
pub(crate) fn chain(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
