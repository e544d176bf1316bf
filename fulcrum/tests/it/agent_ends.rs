//! Ends of executions that no agent saw: the memoir tells each once, whenever agents and keepers die.

use std::fs;
use std::path::{Path, PathBuf};

use crux_net::boundary::{CONSENT, CONSENT_FILE, VARIABLE};
use crux_wire::keeper::v1::Execution;
use crux_wire::rexec::v1::{ListRequest, StartRequest};
use fulcrum::memoir::Record;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::agent::start;
use crate::agent_rig::Base;
use crate::rig::until;

fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// Starts the testee, and waits until it runs: who asks is told of a start while the program begins.
async fn started(base: &Base, request: StartRequest) -> Execution {
    let word = request.args[0].clone();
    let reply = base.rexec().await.start(request).await.unwrap();
    let execution = reply.into_inner().execution.unwrap();
    let cmdline = format!("/proc/{}/cmdline", execution.pid);
    until(async || {
        let words = fs::read(&cmdline).unwrap_or_default();
        words
            .split(|byte| *byte == 0)
            .any(|own| own == word.as_bytes())
    })
    .await;
    execution
}

async fn listed(base: &Base, execution: &str) -> Execution {
    let everything = ListRequest {
        finished: true,
        ..ListRequest::default()
    };
    let reply = base.rexec().await.list(everything).await.unwrap();
    let mut listed = reply.into_inner().executions.into_iter();
    listed.find(|known| known.execution == execution).unwrap()
}

/// Agents that have begun.
fn agents(base: &Base) -> usize {
    of(&base.memoir(), "agent.start").count()
}

fn of<'a>(records: &'a [Record], kind: &'a str) -> impl Iterator<Item = &'a Record> {
    records.iter().filter(move |record| record.kind == kind)
}

/// Records of that kind about an execution.
fn about(base: &Base, kind: &str, execution: &str) -> Vec<Record> {
    let records = base.memoir();
    let about = of(&records, kind).filter(|record| record.fields["execution"] == execution);
    about.cloned().collect()
}

async fn agent_pid(base: &Base) -> i32 {
    let pid = base.contact().await["pid"].as_i64().unwrap();
    i32::try_from(pid).unwrap()
}

/// Kills the agent, and waits for the next one to answer.
async fn next_agent(base: &Base) {
    let (before, old) = (agents(base), agent_pid(base).await);
    send(old, Signal::SIGKILL);
    until(async || agents(base) > before && agent_pid(base).await != old).await;
    listed_anything(base).await;
}

/// Waits until an agent answers: what is told late is in the memoir by then. One that is to end itself may do so meanwhile.
async fn listed_anything(base: &Base) {
    until(async || {
        let mut rexec = base.rexec().await;
        rexec.list(ListRequest::default()).await.is_ok()
    })
    .await;
}

fn outcome(base: &Base, execution: &str) -> PathBuf {
    base.dir
        .join("keeper/executions")
        .join(execution)
        .join("outcome")
}

/// An agent that is stopped hears of nothing: what is done now is done while no agent lives.
async fn deafen(base: &Base) {
    send(agent_pid(base).await, Signal::SIGSTOP);
}

async fn ended(base: &Base, execution: &str) {
    let outcome = outcome(base, execution);
    until(async || outcome.exists()).await;
}

fn is_late(record: &Record) -> bool {
    record.fields.get("late").is_some_and(|late| late == true)
}

#[tokio::test]
async fn what_ended_while_no_agent_lived_is_told_once_by_the_next() {
    let base = Base::start();
    base.ready().await;
    let seen = started(&base, start("seen", &["wait"])).await;
    let missed = started(&base, start("missed", &["wait"])).await;
    started(&base, start("lives", &["wait"])).await;
    let limited = StartRequest {
        timeout_ms: 3_600_000,
        ..start("limited", &["wait"])
    };
    started(&base, limited).await;
    let late = StartRequest {
        timeout_ms: 4_000,
        ..start("late", &["wait"])
    };
    send(seen.pid, Signal::SIGKILL);
    until(async || !about(&base, "exec.end", "seen").is_empty()).await;
    started(&base, late).await;
    deafen(&base).await;
    send(missed.pid, Signal::SIGKILL);
    for execution in ["missed", "late"] {
        ended(&base, execution).await;
        assert_eq!(about(&base, "exec.end", execution), []);
    }

    for _ in 0..4 {
        next_agent(&base).await;
        for (execution, timeouts) in [("missed", 0), ("late", 1)] {
            let ends = about(&base, "exec.end", execution);
            assert_eq!(ends.len(), 1, "{execution}");
            assert!(is_late(&ends[0]), "{execution}");
            let outcome = listed(&base, execution).await.outcome.unwrap();
            assert_eq!(ends[0].fields["ended_unix_ms"], outcome.ended_unix_ms);
            assert!(ends[0].time_unix_ms >= outcome.ended_unix_ms);
            let told = about(&base, "exec.timeout", execution);
            assert_eq!(told.len(), timeouts, "{execution}");
            assert!(told.iter().all(is_late));
        }
        let seen = about(&base, "exec.end", "seen");
        assert!(seen.len() == 1 && !is_late(&seen[0]));
        for lives in ["lives", "limited"] {
            assert_eq!(about(&base, "exec.end", lives), []);
        }
    }
    // What ends under the newest agent is no news of before.
    let lives = listed(&base, "lives").await;
    send(lives.pid, Signal::SIGKILL);
    until(async || !about(&base, "exec.end", "lives").is_empty()).await;
    assert!(!is_late(&about(&base, "exec.end", "lives")[0]));
    fulcrum::memoir::verify(&base.home.join("memoirs/base/base")).unwrap();
}

#[tokio::test]
async fn what_a_dead_keeper_left_is_told_once_by_the_agents_of_the_next() {
    let mut base = Base::start();
    base.ready().await;
    started(&base, start("attached", &["wait"])).await;
    let detached = StartRequest {
        detached: true,
        ..start("detached", &["wait"])
    };
    let detached = started(&base, detached).await;
    let before = agents(&base);
    base.kill_keeper();
    base.start_keeper();
    until(async || agents(&base) > before).await;
    listed_anything(&base).await;
    let ends = about(&base, "exec.end", "attached");
    assert!(ends.len() == 1 && is_late(&ends[0]), "{ends:?}");
    assert_eq!(ends[0].fields["outcome"], "lost (its keeper died)");
    assert_eq!(about(&base, "exec.end", "detached"), []);

    deafen(&base).await;
    send(detached.pid, Signal::SIGKILL);
    ended(&base, "detached").await;
    for _ in 0..2 {
        next_agent(&base).await;
        for execution in ["attached", "detached"] {
            let ends = about(&base, "exec.end", execution);
            assert!(ends.len() == 1 && is_late(&ends[0]), "{ends:?}");
        }
    }
}

/// Where crossings are counted, and where one is chosen.
struct Boundaries(PathBuf);

impl Boundaries {
    fn in_home(base: &Base) -> Self {
        let dir = base.home.join("boundaries");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(CONSENT_FILE), CONSENT).unwrap();
        Self(dir)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    /// The next agent is to end itself before it does its `number`th thing, from 1.
    fn choose(&self, number: usize) {
        fs::write(self.0.join("agent.log"), "").unwrap();
        fs::write(self.0.join("agent.arm"), number.to_string()).unwrap();
    }

    /// Takes the choice back; whether an agent had come so far before.
    fn was_reached(&self) -> bool {
        fs::remove_file(self.0.join("agent.arm")).is_err()
    }

    /// What was done so far.
    fn crossed(&self) -> Vec<String> {
        let log = fs::read_to_string(self.0.join("agent.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn an_agent_that_dies_beside_any_record_leaves_each_end_to_be_told_once() {
    let mut base = Base::start();
    base.ready().await;
    let boundaries = Boundaries::in_home(&base);
    base.kill_keeper();
    base.start_keeper_with(Some((VARIABLE, boundaries.path())));
    listed_anything(&base).await;

    // Where an agent that has something to tell writes to the memoir, and what it does right after.
    let missed = started(&base, start("first", &["wait"])).await;
    deafen(&base).await;
    send(missed.pid, Signal::SIGKILL);
    ended(&base, "first").await;
    fs::write(boundaries.path().join("agent.log"), "").unwrap();
    next_agent(&base).await;
    assert_eq!(about(&base, "exec.end", "first").len(), 1);
    let crossed = boundaries.crossed();
    let memoir = |line: &String| line.starts_with("write ") && line.ends_with("memoirs/base/base");
    let writes = crossed.iter().enumerate().filter(|(_, line)| memoir(line));
    let beside = writes.flat_map(|(at, _)| [at + 1, at + 2]);
    let beside: std::collections::BTreeSet<_> = beside.collect();
    assert!(beside.len() >= 3, "{crossed:#?}");

    let mut told = vec!["first".to_owned()];
    let mut reached = 0;
    for number in beside {
        let execution = format!("missed-{number}");
        let missed = started(&base, start(&execution, &["wait"])).await;
        let old = agent_pid(&base).await;
        deafen(&base).await;
        send(missed.pid, Signal::SIGKILL);
        ended(&base, &execution).await;
        boundaries.choose(number);
        send(old, Signal::SIGKILL);
        // One that got by has answered; one that did not is followed by the next.
        until(async || !about(&base, "exec.end", &execution).is_empty()).await;
        listed_anything(&base).await;
        reached += usize::from(boundaries.was_reached());
        listed_anything(&base).await;
        told.push(execution);
    }
    next_agent(&base).await;
    for execution in &told {
        let ends = about(&base, "exec.end", execution);
        assert!(
            ends.len() == 1 && is_late(&ends[0]),
            "{execution}: {ends:?}"
        );
    }
    assert!(reached >= 2, "no agent was ended where it should be");
}
