//! `exec`: a command on a rnode, beside ssh over a shared connection and a bare fsync (F1, F2).
//!
//! Once as a person types it, with a process that starts, speaks to the other end, and ends; and once as
//! a program does it, over a session that is open already or is opened for it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crux_wire::rexec::v1::rexec_client::RexecClient;
use crux_wire::rexec::v1::{RunInput, StartRequest, run_input, run_output};
use tonic::transport::Channel;

use crate::measure::{cost, median, p99};
use crate::peer::ssh::Ssh;
use crate::radix::Radix;
use crate::row::{Row, show};
use crate::session;

const ROUNDS: usize = 100;

/// Six rnodes whose one allowed command does nothing.
const FOLDER: &str = "dev/bench/idle";

pub(super) fn run() -> Result<Vec<Row>, String> {
    let radix = Radix::fresh()?;
    radix.up(FOLDER)?;
    let mut rows = typed(&radix)?;
    rows.extend(session::block_on(called(&radix))?);
    Ok(rows)
}

/// What a person types.
fn typed(radix: &Radix) -> Result<Vec<Row>, String> {
    let ssh = Ssh::start();
    let (mut ours, mut theirs, mut synced) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(wall(|| {
            radix.run(&["exec", "n1", "idle/nothing"]).map(drop)
        })?);
        if let Ok(ssh) = &ssh {
            theirs.push(wall(|| ssh.run(&["/bin/true"]))?);
        }
        synced.push(wall(|| append_and_sync(&radix.home().join("bench-fsync")))?);
    }
    let (p50, p99) = (median(ours.clone()), p99(ours));
    let what = format!("radix exec of /bin/true, synced, p50 (p99 {})", show(p99));
    Ok(vec![
        match ssh {
            Ok(_) => Row::times(&what, p50, "ssh, shared connection", median(theirs)),
            Err(reason) => Row::missing(&what, show(p50), "ssh, shared connection", &reason),
        },
        Row::times(&what, p50, "append of 200 B with fsync", median(synced)),
    ])
}

/// What a program calls, at the rnode itself.
async fn called(radix: &Radix) -> Result<Vec<Row>, String> {
    let address = address(radix)?;
    let open = session::open(radix, &address).await?;
    let (mut warm, mut cold, mut local) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        call(&open).await?;
        warm.push(began.elapsed());
        let began = Instant::now();
        call(&session::open(radix, &address).await?).await?;
        cold.push(began.elapsed());
        local.push(wall(spawn)?);
    }
    let row = |name: &str, ours: Vec<Duration>| {
        let p99 = show(p99(ours.clone()));
        let what = format!("rexec of /bin/true over {name}, synced, p50 (p99 {p99})");
        let local = median(local.clone());
        Row::times(&what, median(ours), "a local spawn", local)
    };
    Ok(vec![
        row("an open session", warm),
        row("a new session", cold),
    ])
}

/// Where n1 listens.
fn address(radix: &Radix) -> Result<String, String> {
    let rnodes = radix.json(&["rnodes"])?;
    let rnodes = rnodes.as_array().into_iter().flatten();
    rnodes
        .filter(|rnode| rnode["label"] == "n1")
        .find_map(|rnode| rnode["address"].as_str().map(str::to_owned))
        .ok_or_else(|| "`radix rnodes` names no n1".to_owned())
}

/// Starts the command and follows it to its one terminal record.
async fn call(channel: &Channel) -> Result<(), String> {
    let start = RunInput {
        input: Some(run_input::Input::Start(StartRequest {
            configuration: "idle".to_owned(),
            command: "nothing".to_owned(),
            ..StartRequest::default()
        })),
    };
    let mut rexec = RexecClient::new(channel.clone());
    let mut replies = rexec
        .run(tokio_stream::once(start))
        .await
        .map_err(|status| status.to_string())?
        .into_inner();
    while let Some(reply) = replies
        .message()
        .await
        .map_err(|status| status.to_string())?
    {
        if let Some(run_output::Output::Outcome(outcome)) = reply.output {
            return match outcome.code {
                0 => Ok(()),
                _ => Err(format!("{outcome:?}")),
            };
        }
    }
    Err("the stream ended without an outcome".to_owned())
}

/// The same command without anyone in between.
fn spawn() -> Result<(), String> {
    let status = Command::new("/bin/true").stdin(Stdio::null()).status();
    match status.map_err(|error| error.to_string())? {
        status if status.success() => Ok(()),
        status => Err(format!("/bin/true: {status}")),
    }
}

fn wall(work: impl FnOnce() -> Result<(), String>) -> Result<Duration, String> {
    cost(work).map(|(_, cost)| cost.wall)
}

/// What a synced record costs by itself on this disk.
fn append_and_sync(path: &Path) -> Result<(), String> {
    use std::io::Write as _;
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)?;
        file.write_all(&[b'x'; 200])?;
        file.sync_data()
    };
    write().map_err(|error| format!("{}: {error}", path.display()))
}
