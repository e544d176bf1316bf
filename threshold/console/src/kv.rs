//! `radix kv`: a key-value server over the application's blackboard, for `include(consul)`.
//!
//! Consistency is eventual: every server shows what its rnode has heard, the last write of a key
//! wins, and what a rnode has written goes with it. What needs more than that, compare-and-set
//! above all, is refused as unsupported. Read `kv/api.rs` for what is answered.
//!
//! Tasks: one a connection, inside [`run`] and ended with it.

mod api;
mod board;
mod server;

use std::net::SocketAddr;

use crux::{Agent, Blackboard, Offer, Registered};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use api::{Api, Role};
use board::Keys;

/// Port of the HTTP API, as Consul has it.
const PORT: u16 = 8500;

/// Name that the library file lets servers answer to (`serves=consul:8500`).
const SERVICE: &str = "consul";

/// Why the server ended. Reads as one sentence.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// The address cannot be listened on.
    #[error("failed to listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The agent did not answer, or refused.
    #[error("failed to {0}")]
    Agent(&'static str, #[source] crux_net::error::Error),
    /// Signals cannot be received, or the listener failed.
    #[error("failed to serve")]
    Serve(#[source] std::io::Error),
}

/// What the command line says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Flags {
    role: Role,
    rnode: String,
    address: SocketAddr,
}

impl Flags {
    /// `[server|agent|-server] -rnode NAME -ip ADDRESS [-port PORT]`.
    fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let (mut role, mut rnode, mut ip, mut port) = (Role::Agent, None, None, PORT);
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || {
                let missing = || Failure::Usage(format!("{argument} needs a value"));
                arguments.next().ok_or_else(missing)
            };
            match argument.as_str() {
                "server" | "-server" | "--server" => role = Role::Server,
                "agent" | "-agent" | "--agent" => role = Role::Agent,
                "-rnode" | "--rnode" => rnode = Some(value()?.clone()),
                "-ip" | "--ip" => {
                    let text = value()?;
                    let parsed = text.parse();
                    ip = Some(
                        parsed.map_err(|_| Failure::Usage(format!("{text} is no IP address")))?,
                    );
                }
                "-port" | "--port" => {
                    let text = value()?;
                    port = text
                        .parse()
                        .map_err(|_| Failure::Usage(format!("{text} is no port")))?;
                }
                other => return Err(Failure::Usage(format!("`{other}` is no flag of kv"))),
            }
        }
        let missing = |name: &str| Failure::Usage(format!("{name} is missing"));
        let ip: std::net::IpAddr = ip.ok_or_else(|| missing("-ip"))?;
        let rnode = rnode.ok_or_else(|| missing("-rnode"))?;
        Ok(Self {
            role,
            rnode,
            address: SocketAddr::new(ip, port),
        })
    }
}

/// Serves until this process is asked to end.
///
/// It registers once it listens, which is also when it is ready.
///
/// # Errors
/// By what could not be done; nothing is served then.
///
/// # Cancel safety
/// Dropping it cuts every connection.
pub(crate) async fn run(arguments: Vec<String>) -> Result<(), Failure> {
    let flags = Flags::parse(&arguments)?;
    let agent = Agent::inherited().map_err(|error| Failure::Agent("find the agent", error))?;
    let address = flags.address;
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| Failure::Listen { address, source })?;
    let who = agent.whoami().await;
    let who = who.map_err(|error| Failure::Agent("learn who this process is", error))?;
    let keys = Keys::new(Box::new(Blackboard::new(&agent)), flags.rnode);
    let api = Api::new(flags.role, keys);
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::Serve)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::Serve)?;
    // Connections wait in the kernel until the server below takes them: it listens already.
    let registered = register(&agent, flags.role, &who.class, address.port()).await?;
    tokio::select! {
        ended = server::serve(listener, api) => ended.map_err(Failure::Serve)?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    for service in registered {
        // The end of this process withdraws it as well.
        let _ = service.withdraw().await;
    }
    Ok(())
}

/// Offers what applications look for: servers as `consul`, all under the name of their class.
async fn register(
    agent: &Agent,
    role: Role,
    class: &str,
    port: u16,
) -> Result<Vec<Registered>, Failure> {
    let offer = |name: &str| Offer {
        name: name.to_owned(),
        port,
        version: String::new(),
        tls: false,
    };
    let mut registered = Vec::new();
    if role == Role::Server {
        // Another description file may not offer it (`serves=consul:PORT`), which is its choice.
        registered.extend(agent.register(offer(SERVICE)).await.ok());
    }
    let own = agent.register(offer(class)).await;
    registered.push(own.map_err(|error| Failure::Agent("register", error))?);
    Ok(registered)
}

#[cfg(test)]
mod tests;
