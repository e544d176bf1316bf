//! `idle`: what keepers and agents cost while nothing happens (F5, M4).

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::process::{Usage, loopback_bytes, usage};
use crate::radix::Radix;
use crate::row::Row;

/// Six rnodes and no application, so that every byte on loopback is Radix's own.
const FOLDER: &str = "dev/bench/idle";

/// After `up`, caches and timers settle.
const SETTLE: Duration = Duration::from_secs(10);
const WATCHED: Duration = Duration::from_secs(30);

pub(super) fn run() -> Result<Vec<Row>, String> {
    if !alone_on_loopback() {
        return in_a_network_of_its_own();
    }
    let radix = Radix::fresh()?;
    radix.up(FOLDER)?;
    std::thread::sleep(SETTLE);
    let status = radix.json(&["status"])?;
    let (keepers, agents) = (pids(&status, "keeper_pid"), pids(&status, "agent_pid"));
    if keepers.is_empty() || agents.is_empty() {
        return Err("`radix status` names no keeper or no agent".to_owned());
    }
    let before = [sum(&keepers), sum(&agents)];
    let bytes = loopback_bytes();
    eprintln!(
        "watching {} rnodes for {} s",
        agents.len(),
        WATCHED.as_secs()
    );
    std::thread::sleep(WATCHED);
    let bytes = loopback_bytes() - bytes;
    let after = [sum(&keepers), sum(&agents)];
    let mut rows = Vec::new();
    for (name, count, before, after) in [
        ("keeper", keepers.len(), before[0], after[0]),
        ("agent", agents.len(), before[1], after[1]),
    ] {
        rows.push(Row::alone(
            &format!("idle {name}: memory"),
            memory(after, count),
        ));
        rows.push(Row::alone(
            &format!("idle {name}: processor"),
            share(before, after, count),
        ));
    }
    let rate = per(bytes as f64 / WATCHED.as_secs_f64(), agents.len());
    rows.push(Row::alone(
        "idle rnode: sent, with IP headers",
        format!("{rate:.0} B/s"),
    ));
    Ok(rows)
}

/// Whether nobody else has sent anything over our loopback yet.
fn alone_on_loopback() -> bool {
    loopback_bytes() < 10_000
}

/// Runs this scenario again in a network namespace, so that others' bytes are not counted as ours.
fn in_a_network_of_its_own() -> Result<Vec<Row>, String> {
    let ourselves = std::env::current_exe().map_err(|error| error.to_string())?;
    let script = "ip link set lo up && exec \"$0\" idle";
    let status = Command::new("unshare")
        .args(["--net", "sh", "-c", script])
        .arg(ourselves)
        .status();
    match status {
        Ok(status) if status.success() => Ok(Vec::new()),
        Ok(status) => Err(format!(
            "in a network namespace: {status}; needs root and iproute2"
        )),
        Err(error) => Err(format!("unshare: {error}")),
    }
}

fn pids(status: &Value, key: &str) -> Vec<i64> {
    let rnodes = status["rnodes"].as_array().into_iter().flatten();
    rnodes
        .filter_map(|rnode| rnode[key].as_i64())
        .filter(|pid| *pid > 0)
        .collect()
}

fn sum(pids: &[i64]) -> Usage {
    pids.iter()
        .map(|pid| usage(*pid))
        .fold(Usage::default(), |sum, one| Usage {
            resident_kib: sum.resident_kib + one.resident_kib,
            share_kib: sum.share_kib + one.share_kib,
            cpu: sum.cpu + one.cpu,
        })
}

fn memory(usage: Usage, count: usize) -> String {
    let mib = |kib: u64| per(kib as f64 / 1024.0, count);
    format!(
        "{:.1} MiB resident, {:.1} MiB its share",
        mib(usage.resident_kib),
        mib(usage.share_kib)
    )
}

fn share(before: Usage, after: Usage, count: usize) -> String {
    let used = after.cpu.saturating_sub(before.cpu).as_secs_f64();
    format!(
        "{:.2} % of a core",
        per(100.0 * used / WATCHED.as_secs_f64(), count)
    )
}

fn per(sum: f64, count: usize) -> f64 {
    sum / count.max(1) as f64
}
