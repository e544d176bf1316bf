//! `heal`: from `kill -9` to a replacement, of a process beside supervisord and runit (F6), and of an agent.

use std::process::Command;
use std::time::{Duration, Instant};

use crux_wire::fulcrum::v1::DescribeRequest;
use crux_wire::fulcrum::v1::fulcrum_client::FulcrumClient;

use crate::measure::{median, p99};
use crate::peer::{self, Runit, Supervisor};
use crate::radix::Radix;
use crate::row::{Row, show};
use crate::{process, session};

/// Fewer deaths of one instance than make an agent give it up.
const ROUNDS: usize = 7;
const FOLDER: &str = "dev/bench/heal";
/// How the one process of `FOLDER` is called; nobody else sleeps that long.
const OURS: &[&str] = &["/bin/sleep", "86421"];
const SUPERVISED: &[&str] = &["/bin/sleep", "86422"];
const RUNIT: &[&str] = &["/bin/sleep", "86423"];
/// Longest wait for a replacement.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two deaths, so that none counts as a crash at start, after which all three wait longer.
const PAUSE: Duration = Duration::from_secs(11);

pub(super) fn run() -> Result<Vec<Row>, String> {
    let radix = Radix::fresh()?;
    radix.up(FOLDER)?;
    let folder = peer::folder("heal")?;
    let supervisor = Supervisor::get().and_then(|supervisor| supervisor.run(&folder, SUPERVISED));
    let runit = Runit::run(&folder.join("service"), RUNIT);
    let (mut ours, mut supervised, mut by_runit) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        std::thread::sleep(PAUSE);
        ours.push(replacement(OURS)?);
        if supervisor.is_ok() {
            supervised.push(replacement(SUPERVISED)?);
        }
        if runit.is_ok() {
            by_runit.push(replacement(RUNIT)?);
        }
    }
    let (p50, p99) = (median(ours.clone()), p99(ours));
    let what = format!(
        "kill -9 of a process until its replacement runs, p50 (p99 {})",
        show(p99)
    );
    let beside = |name: &str, peer: Result<(), &String>, theirs: Vec<Duration>| match peer {
        Ok(()) => Row::times(&what, p50, name, median(theirs)),
        Err(reason) => Row::missing(&what, show(p50), name, reason),
    };
    Ok(vec![
        beside("supervisord", supervisor.as_ref().map(drop), supervised),
        beside("runit", runit.as_ref().map(drop), by_runit),
        agents(&radix)?,
    ])
}

/// Kills the one process with this command line; how long until there is another.
fn replacement(command: &[&str]) -> Result<Duration, String> {
    let old = wait(|| process::with_command(command))
        .ok_or_else(|| format!("{command:?} does not run"))?;
    kill(old)?;
    let began = Instant::now();
    wait(|| process::with_command(command).filter(|pid| *pid != old))
        .map(|_| began.elapsed())
        .ok_or_else(|| format!("{command:?} did not come back"))
}

/// The same for the agent of n1, until the next one answers a call over a new session.
fn agents(radix: &Radix) -> Result<Row, String> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        std::thread::sleep(PAUSE);
        let rnodes = radix.json(&["rnodes"])?;
        let n1 = rnodes.as_array().into_iter().flatten();
        let n1 = n1.into_iter().find(|rnode| rnode["label"] == "n1");
        let n1 = n1.ok_or("`radix rnodes` names no n1")?;
        let address = n1["address"].as_str().unwrap_or_default().to_owned();
        let old = n1["agent_pid"].as_i64().ok_or("no pid of n1's agent")?;
        kill(old)?;
        let began = Instant::now();
        session::block_on(async {
            while answering(radix, &address)
                .await
                .is_none_or(|pid| pid == old)
            {
                if began.elapsed() > PATIENCE {
                    return Err("no new agent".to_owned());
                }
            }
            Ok(())
        })?;
        times.push(began.elapsed());
    }
    let what = format!(
        "kill -9 of an agent until the next one answers, p50 (p99 {})",
        show(p99(times.clone()))
    );
    Ok(Row::alone(&what, show(median(times))))
}

/// The pid of the agent that answers there.
async fn answering(radix: &Radix, address: &str) -> Option<i64> {
    let channel = session::open(radix, address).await.ok()?;
    let asked = FulcrumClient::new(channel)
        .describe(DescribeRequest {})
        .await;
    Some(i64::from(asked.ok()?.into_inner().agent_pid))
}

fn kill(pid: i64) -> Result<(), String> {
    let status = Command::new("kill")
        .args(["-KILL", &pid.to_string()])
        .status();
    match status.map_err(|error| error.to_string())? {
        status if status.success() => Ok(()),
        status => Err(format!("kill {pid}: {status}")),
    }
}

fn wait<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if let Some(found) = look() {
            return Some(found);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}
