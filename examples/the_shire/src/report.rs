//! What is told: who runs, what was obtained and how strongly, who answered.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use underverse::{Effective, End, Error, Failure, Horde, Obtained, Underverse};

/// Between two tries while nobody answers yet.
const RETRY: Duration = Duration::from_millis(100);
/// Time one answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Prints a line at once.
pub(crate) fn say(line: &str) {
    let mut out = io::stdout();
    // A reader that has gone away is no reason to end before everything is given back.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Prints the parts that were not obtained.
pub(crate) fn failures(failures: &[Failure]) {
    for failure in failures {
        say(&format!(
            "missing: {}: {}",
            failure.subject,
            failure.error.chain()
        ));
    }
}

/// Prints who runs, and what was obtained of what was asked.
pub(crate) async fn obtained(
    horde: &Horde,
    underverse: &dyn Underverse,
    end: &End,
) -> Result<(), Error> {
    for one in horde.running(underverse).await? {
        let address = one
            .address
            .map_or_else(|| "none".to_owned(), |ip| ip.to_string());
        say(&format!(
            "  {} ({}) on {} at {address}: {:?}",
            one.role, one.id, one.server, one.state
        ));
    }
    if let End::Partial(_, missing) = end {
        failures(missing);
    }
    let effective = underverse.effective(horde.name()).await?;
    network(horde, &effective)?;
    say("storage:");
    for one in &effective.storage {
        let whose = one.container.as_deref().unwrap_or("all");
        say(&format!(
            "  {} for {whose}: {} in {} (size enforced: {})",
            one.id, one.capacity, one.source, one.size
        ));
    }
    if !effective.weaker.is_empty() {
        say("weaker than asked:");
    }
    for weaker in &effective.weaker {
        say(&format!("  {weaker}"));
    }
    Ok(())
}

fn network(horde: &Horde, effective: &Effective) -> Result<(), Error> {
    let (asked, got) = (&horde.spec()?.network, &effective.network);
    let yes = |name: &str, asked: bool, got: &Obtained<bool>| {
        say(&format!(
            "  {name}: asked {asked}, obtained {} ({})",
            got.value, got.strength
        ));
    };
    say("network:");
    yes("horde private", asked.horde_private, &got.horde_private);
    yes("flock private", asked.flock_private, &got.flock_private);
    yes(
        "horde connected",
        asked.horde_connected,
        &got.horde_connected,
    );
    let limit = |limit: Option<u32>| limit.map_or_else(|| "no limit".to_owned(), |n| n.to_string());
    let most = &got.external_connections_max;
    say(&format!(
        "  connections to the internet: asked {}, obtained {} ({})",
        limit(asked.external_connections_max),
        limit(most.value),
        most.strength
    ));
    for port in &got.ports {
        say(&format!(
            "  door {} to port {}: {:?}",
            port.address, port.internal_port, port.state
        ));
    }
    Ok(())
}

/// Asks so many times through the door and prints each answer, once `hobbits` of them answer in turn or `first` is over.
pub(crate) async fn visits(address: SocketAddr, (visits, hobbits): (u32, usize), first: Duration) {
    let begun = Instant::now();
    let mut last: Vec<String> = Vec::new();
    // One that begins to listen late is passed over for a while.
    while begun.elapsed() < first && last.iter().collect::<BTreeSet<_>>().len() < hobbits {
        match tokio::time::timeout(ANSWER, ask(address)).await {
            Ok(Ok(text)) => last.push(text.split(' ').next().unwrap_or_default().to_owned()),
            Ok(Err(_)) | Err(_) => tokio::time::sleep(RETRY).await,
        }
        last.drain(..last.len().saturating_sub(hobbits));
    }
    let mut answered = 0;
    while answered < visits {
        let asked = tokio::time::timeout(ANSWER, ask(address)).await;
        match asked {
            Ok(Ok(text)) => {
                answered += 1;
                say(&format!("answer: {}", text.trim()));
            }
            Ok(Err(_)) | Err(_) if begun.elapsed() < first => tokio::time::sleep(RETRY).await,
            Ok(Err(error)) => return say(&format!("no answer: {error}")),
            Err(_) => return say("no answer in time"),
        }
    }
}

/// One HTTP request; the body of the answer.
async fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    match reply.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(io::Error::other("nobody answered")),
    }
}
