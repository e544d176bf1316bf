//! What is left, and what is not, when agent or keeper are killed.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;

use crux_wire::keeper::v1::{Execution, OutcomeKind, RefusedKind, Spawn};
use fulcrum::keeper::client::CallError;

use crate::rig::{
    Rig, Scratch, Setup, TESTEE, lives, outcome, receive_descriptors, spawn, stdout, until, within,
};

/// Kills of a keeper, and the most of them.
const ROUNDS: u32 = 12;
const ROUNDS_MAX: u32 = 500;

// Shows in part: RND-02
#[tokio::test]
async fn an_agent_killed_at_any_moment_loses_no_execution_no_output_and_no_exit_status() {
    let rig = Rig::keeper();
    let first = rig.agent().await;
    let fifo = rig.scratch.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!(
        "echo before; read x < {}; echo after; exit 9",
        fifo.display()
    );
    let before = first.spawn("ends-alone", &["/bin/sh", "-c", &script]).await;
    let lasting = first.spawn("lasting", &["wait"]).await;
    until(async || stdout(&before) == "before\n").await;
    rig.kill(first.pid);
    // It ends while no agent lives, or the next one has only begun.
    fs::write(&fifo, "go\n").unwrap();

    let second = rig.agent().await;
    assert_eq!(within(second.keeper.hello()).await.unwrap().incarnation, 2);
    until(async || second.find("ends-alone").await.unwrap().outcome.is_some()).await;
    let after = second.find("ends-alone").await.unwrap();
    assert_eq!(outcome(&after), (OutcomeKind::Exited, 9));
    assert_eq!(
        (stdout(&after), after.pid),
        ("before\nafter\n".to_owned(), before.pid)
    );
    assert_eq!(second.find("lasting").await.unwrap(), lasting);
    assert!(lives(&lasting));
}

// Shows in part: REX-01
#[tokio::test]
async fn a_time_limit_holds_over_the_deaths_of_agent_and_keeper() {
    let mut rig = Rig::keeper();
    let first = rig.agent().await;
    let limited = |name: &str, words: &[&str]| Spawn {
        time_limit_ms: 300,
        ..spawn(name, words)
    };
    let deaf = "trap '' TERM; echo deaf; while :; do /bin/sleep 1; done";
    let (deaf, _) = first
        .spawn_as(limited("deaf", &["/bin/sh", "-c", deaf]))
        .await;
    let (idle, _) = first.spawn_as(limited("idle", &["wait"])).await;
    let long = Spawn {
        time_limit_ms: u64::MAX,
        ..spawn("long", &["wait"])
    };
    let (long, _) = first.spawn_as(long).await;
    rig.kill(first.pid);
    let second = rig.agent().await;
    for (name, signal) in [("idle", nix::libc::SIGTERM), ("deaf", nix::libc::SIGKILL)] {
        until(async || second.find(name).await.unwrap().outcome.is_some()).await;
        let ended = second.find(name).await.unwrap();
        assert_eq!(outcome(&ended), (OutcomeKind::Signalled, signal));
        assert!(ended.outcome.unwrap().timed_out, "{name}");
    }
    assert!(!lives(&deaf) && !lives(&idle) && lives(&long));

    let detached = Spawn {
        detached: true,
        time_limit_ms: 2_000,
        ..spawn("detached", &["wait"])
    };
    let (detached, _) = second.spawn_as(detached).await;
    rig.kill_process();
    rig.start_process();
    let third = rig.agent().await;
    until(async || third.find("detached").await.unwrap().outcome.is_some()).await;
    let ended = third.find("detached").await.unwrap();
    assert_eq!(outcome(&ended).0, OutcomeKind::Lost);
    assert!(ended.outcome.unwrap().timed_out && !lives(&detached));
}

#[tokio::test]
async fn agents_killed_in_a_row_each_find_every_execution() {
    let rig = Rig::keeper();
    for round in 1..=5 {
        let agent = rig.agent().await;
        assert_eq!(
            within(agent.keeper.hello()).await.unwrap().incarnation,
            round
        );
        agent.spawn(&format!("e{round}"), &["wait"]).await;
        // Killed in the midst of a request whose answer nobody takes.
        let last = spawn(&format!("late{round}"), &["wait"]);
        let program = fs::File::open(crate::rig::TESTEE).unwrap();
        let late = agent.keeper.spawn(last, program.into(), None);
        let (_, ()) = tokio::join!(late, async { rig.kill(agent.pid) });
    }
    let agent = rig.agent().await;
    let list = within(agent.keeper.list()).await.unwrap();
    for round in 1..=5 {
        assert!(
            list.iter().any(
                |(execution, _)| execution.execution == format!("e{round}") && lives(execution)
            )
        );
    }
}

#[tokio::test]
async fn the_right_to_connect_outlives_the_agent() {
    let rig = Rig::keeper();
    let first = rig.agent().await;
    let fifo = rig.scratch.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!(
        "read x < {}; exec {} connect 'hello again'",
        fifo.display(),
        crate::rig::TESTEE
    );
    let mut asked = spawn("connected", &["/bin/sh", "-c", &script]);
    asked.agent_socket = true;
    drop(first.spawn_as(asked).await);
    rig.kill(first.pid);
    let second = rig.agent().await;
    let list = within(second.keeper.list()).await.unwrap();
    let (execution, socket) = list.into_iter().next().unwrap();
    assert!(execution.has_socket);
    fs::write(&fifo, "go\n").unwrap();
    let socket = socket.unwrap();
    let (_, mut fds) = within(tokio::task::spawn_blocking(move || {
        receive_descriptors(&socket)
    }))
    .await
    .unwrap();
    let mut text = String::new();
    UnixStream::from(fds.remove(0))
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "hello again");
}

#[tokio::test]
async fn a_new_keeper_adopts_detached_executions_and_ends_what_else_was_left() {
    let mut rig = Rig::keeper();
    let mut first = rig.agent().await;
    let done = first.run("done", &["exit", "4"]).await;
    let left = first
        .spawn(
            "left",
            &["/bin/sh", "-c", "setsid /bin/sleep 1000 & echo $!; wait"],
        )
        .await;
    until(async || !stdout(&left).is_empty()).await;
    let stray: i32 = stdout(&left).trim().parse().unwrap();
    let mut asked = spawn("detached", &["wait"]);
    asked.detached = true;
    let (detached, _) = first.spawn_as(asked).await;
    let mut asked = spawn("detached-2", &["wait"]);
    asked.detached = true;
    let (dies_alone, _) = first.spawn_as(asked).await;
    rig.kill_process();
    until(async || !lives(&left)).await;
    rig.kill(dies_alone.pid);
    until(async || !lives(&dies_alone)).await;

    rig.start_process();
    let mut second = rig.agent().await;
    assert_eq!(within(second.keeper.hello()).await.unwrap().incarnation, 2);
    assert_eq!(second.find("done").await.unwrap(), done);
    assert_eq!(
        outcome(&second.find("left").await.unwrap()).0,
        OutcomeKind::Lost
    );
    assert_eq!(
        outcome(&second.find("detached-2").await.unwrap()).0,
        OutcomeKind::Lost
    );
    let stat = fs::read_to_string(format!("/proc/{stray}/stat"));
    assert!(
        stat.is_err() || stat.is_ok_and(|stat| stat.contains(") Z ")),
        "what it had started is left"
    );

    let adopted = second.find("detached").await.unwrap();
    assert_eq!(
        (adopted.pid, adopted.start_ticks),
        (detached.pid, detached.start_ticks)
    );
    assert!(adopted.outcome.is_none() && lives(&detached));
    within(second.keeper.signal("detached", 15, false))
        .await
        .unwrap();
    let ended = second.exit().await;
    assert_eq!(
        (ended.execution.as_str(), outcome(&ended).0),
        ("detached", OutcomeKind::Lost)
    );
    // Order goes on: what is started now comes last.
    second.run("later", &["exit", "0"]).await;
    let last = within(second.keeper.list()).await.unwrap().pop().unwrap();
    assert_eq!(last.0.execution, "later");
}

#[tokio::test]
async fn a_killed_keeper_takes_its_agent_and_attached_executions_with_it() {
    let mut rig = Rig::keeper();
    let agent = rig.agent().await;
    let execution = agent.spawn("e", &["wait"]).await;
    rig.kill_process();
    until(async || !lives(&execution)).await;
    let agent_stat = format!("/proc/{}/stat", agent.pid);
    until(async || fs::read_to_string(&agent_stat).map_or(true, |stat| stat.contains(") Z ")))
        .await;
}

#[tokio::test]
async fn an_execution_cut_off_before_its_start_was_recorded_never_was() {
    let mut rig = Rig::keeper();
    drop(rig.agent().await);
    rig.kill_process();
    let executions = rig.dir.join("keeper/executions");
    for (name, start) in [
        ("empty", ""),
        ("torn", "{\"execution\":\"to"),
        (".forgotten-x", "{}"),
    ] {
        fs::create_dir(executions.join(name)).unwrap();
        fs::write(executions.join(name).join("start"), start).unwrap();
    }
    rig.start_process();
    let agent = rig.agent().await;
    assert!(within(agent.keeper.list()).await.unwrap().is_empty());
    assert_eq!(fs::read_dir(executions).unwrap().count(), 0);
}

// Shows in part: MEM-01
#[tokio::test]
async fn a_full_disk_loses_no_outcome_and_stops_no_agent() {
    let scratch = Scratch::new();
    let place = scratch.path().join("rnode/keeper");
    fs::create_dir_all(&place).unwrap();
    // A disk of its own for the keeper, small, seen by it alone.
    let script = r#"mount -t tmpfs -o size=512k tmpfs "$0" && exec "$@""#;
    let words = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "/bin/sh",
        "-c",
        script,
    ];
    let mut wrapper: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    wrapper.push(place.display().to_string());
    let mut trial = std::process::Command::new("unshare");
    if !trial
        .args(&wrapper[1..])
        .arg("true")
        .status()
        .is_ok_and(|status| status.success())
    {
        eprintln!("skipped: this user cannot mount a small disk");
        return;
    }
    let rig = Rig::start(
        scratch,
        Setup {
            wrapper,
            ..Setup::default()
        },
    );
    let mut agent = rig.agent().await;
    agent.spawn("waits", &["wait"]).await;
    let filled = agent.run("fills", &["/bin/cat", "/dev/zero"]).await;
    assert_eq!(outcome(&filled), (OutcomeKind::Exited, 1));

    let program = || fs::File::open(TESTEE).unwrap().into();
    let refused = within(
        agent
            .keeper
            .spawn(spawn("more", &["wait"]), program(), None),
    )
    .await;
    let reason = match refused {
        Err(CallError::Refused {
            kind: RefusedKind::Io,
            reason,
        }) => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason.contains("No space left"), "{reason}");
    within(agent.keeper.signal("waits", 9, false))
        .await
        .unwrap();
    assert_eq!(outcome(&agent.exit().await), (OutcomeKind::Signalled, 9));
    let inside = format!("/proc/{}/root{}", rig.pid(), place.display());
    let record = fs::read_to_string(format!("{inside}/executions/waits/outcome")).unwrap();
    assert!(record.contains("signalled"), "{record}");

    rig.kill(agent.pid);
    let mut agent = rig.agent().await;
    assert_eq!(within(agent.keeper.hello()).await.unwrap().incarnation, 2);
    within(agent.keeper.forget("fills")).await.unwrap();
    agent.run("more", &["exit", "0"]).await;
}

#[tokio::test]
async fn an_outcome_that_was_durable_but_not_yet_in_its_place_is_the_outcome() {
    let mut rig = Rig::keeper();
    let mut first = rig.agent().await;
    let done = first.run("done", &["exit", "4"]).await;
    rig.kill_process();
    let record = rig.dir.join("keeper/executions/done/outcome");
    fs::remove_file(&record).unwrap();
    rig.start_process();
    let second = rig.agent().await;
    assert_eq!(second.find("done").await.unwrap(), done);
    assert!(record.exists());
}

#[tokio::test]
async fn an_execution_whose_directory_lost_its_name_with_the_power_is_still_known() {
    let mut rig = Rig::keeper();
    let mut first = rig.agent().await;
    let spares = rig.dir.join("keeper/spares");
    let count = || fs::read_dir(&spares).unwrap().count();
    let ended = first.run("ended", &["exit", "3"]).await;
    until(async || count() == 1).await;
    first.spawn("waits", &["wait"]).await;
    assert_eq!(count(), 0, "it was started in the one made ahead");
    rig.kill_process();
    for execution in ["ended", "waits"] {
        let named = rig.dir.join("keeper/executions").join(execution);
        fs::rename(named, spares.join(execution)).unwrap();
    }
    fs::create_dir(spares.join("blank")).unwrap();
    rig.start_process();
    let second = rig.agent().await;
    let lost = outcome(&second.find("waits").await.unwrap());
    assert_eq!(lost.0, OutcomeKind::Lost);
    assert_eq!(second.find("ended").await.unwrap(), ended);
    assert_eq!(count(), 0);
}

/// Makes the records of an execution those of a keeper that kept the outcome in a file of its own; its start is returned.
fn as_an_older_keeper(rig: &Rig, execution: &str, outcome: &str) -> std::path::PathBuf {
    let dir = rig.dir.join("keeper/executions").join(execution);
    let text = fs::read(dir.join("start")).unwrap();
    let mut values = serde_json::Deserializer::from_slice(&text).into_iter::<serde_json::Value>();
    let start = values.next().unwrap().unwrap().to_string();
    let ended = values
        .next()
        .map_or_else(String::new, |ended| ended.unwrap().to_string());
    let _ = fs::remove_file(dir.join("outcome"));
    fs::remove_file(dir.join("start")).unwrap();
    fs::write(dir.join("start"), start).unwrap();
    fs::write(dir.join(outcome), format!("{ended:4096}")).unwrap();
    dir.join("start")
}

#[tokio::test]
async fn what_an_older_keeper_recorded_is_taken_over_and_ended() {
    let mut rig = Rig::keeper();
    let mut first = rig.agent().await;
    let told = first.run("told", &["exit", "4"]).await;
    let durable = first.run("durable", &["exit", "5"]).await;
    first.spawn("attached", &["wait"]).await;
    let detached = Spawn {
        detached: true,
        ..spawn("detached", &["wait"])
    };
    let (detached, _) = first.spawn_as(detached).await;
    rig.kill_process();
    as_an_older_keeper(&rig, "told", "outcome");
    as_an_older_keeper(&rig, "durable", "outcome.new");
    as_an_older_keeper(&rig, "attached", "outcome.new");
    as_an_older_keeper(&rig, "detached", "outcome.new");
    rig.start_process();
    let mut second = rig.agent().await;
    for ended in [told, durable] {
        assert_eq!(second.find(&ended.execution).await.unwrap(), ended);
    }
    let lost = |execution: &Execution| outcome(execution).0 == OutcomeKind::Lost;
    assert!(lost(&second.find("attached").await.unwrap()));
    rig.kill(detached.pid);
    let ended = second.exit().await;
    assert!(ended.execution == "detached" && lost(&ended), "{ended:?}");
    rig.kill_process();
    rig.start_process();
    let third = rig.agent().await;
    assert_eq!(third.find("detached").await.unwrap(), ended);
}

#[tokio::test]
async fn a_label_that_an_older_keeper_took_keeps_no_agent_from_its_list() {
    let mut rig = Rig::keeper();
    let mut agent = rig.agent().await;
    agent.run("before", &["exit", "0"]).await;
    agent.run("long", &["exit", "7"]).await;
    rig.kill_process();
    let record = as_an_older_keeper(&rig, "long", "outcome");
    let mut start: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&record).unwrap()).unwrap();
    start["label"] = "07".repeat(170 << 10).into();
    fs::write(&record, start.to_string()).unwrap();
    rig.start_process();
    let agent = rig.agent().await;
    let long = agent.find("long").await.unwrap();
    assert_eq!(outcome(&long), (OutcomeKind::Exited, 7));
    assert!(long.label.is_empty());
    assert!(agent.find("before").await.is_some());
}

#[tokio::test]
async fn a_keeper_killed_at_any_moment_leaves_each_execution_one_record_and_none_running() {
    let mut rig = Rig::keeper();
    let mut told = Vec::new();
    let mut round = 0;
    // On a busy machine it takes more rounds until a start is answered before the kill.
    while round < ROUNDS || told.is_empty() {
        assert!(round < ROUNDS_MAX, "no start is ever answered");
        let agent = rig.agent().await;
        let list = within(agent.keeper.list()).await.unwrap();
        for (execution, _) in &list {
            assert!(
                execution.outcome.is_some() && !lives(execution),
                "{execution:?}"
            );
        }
        for name in &told {
            let count = list
                .iter()
                .filter(|(execution, _)| execution.execution == *name)
                .count();
            assert_eq!(count, 1, "{name} after round {round}");
        }
        // Each round the keeper gets a little further before it is killed.
        let pid = rig.pid();
        let killer = std::thread::Builder::new().spawn(move || {
            std::thread::sleep(std::time::Duration::from_micros(700) * round);
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            )
        });
        for number in 0.. {
            let name = format!("r{round}-{number}");
            let words: &[&str] = if number % 2 == 0 {
                &["wait"]
            } else {
                &["exit", "3"]
            };
            let program = fs::File::open(TESTEE).unwrap();
            match within(
                agent
                    .keeper
                    .spawn(spawn(&name, words), program.into(), None),
            )
            .await
            {
                Ok(_) => told.push(name),
                Err(CallError::Lost) => break,
                Err(error) => panic!("{error}"),
            }
        }
        killer.unwrap().join().unwrap().unwrap();
        rig.kill_process();
        rig.start_process();
        round += 1;
    }
}

#[tokio::test]
async fn an_agent_whose_program_is_missing_is_back_when_the_program_is() {
    let rig = Rig::keeper();
    let first = rig.agent().await;
    let execution = first.spawn("e", &["wait"]).await;
    let (program, away) = (
        rig.scratch.path().join("radix"),
        rig.scratch.path().join("away"),
    );
    fs::rename(&program, &away).unwrap();
    rig.kill(first.pid);
    // Several incarnations are spent on tries.
    let count = rig.dir.join("keeper/incarnation");
    until(async || {
        fs::read_to_string(&count)
            .unwrap()
            .trim()
            .parse::<u64>()
            .unwrap()
            >= 4
    })
    .await;
    fs::rename(&away, &program).unwrap();
    let second = rig.agent().await;
    assert!(within(second.keeper.hello()).await.unwrap().incarnation >= 4);
    assert_eq!(second.find("e").await.unwrap(), execution);
}

#[tokio::test]
async fn an_agent_that_talks_nonsense_or_does_not_listen_harms_nobody() {
    let mut rig = Rig::keeper();
    let (pid, socket) = within(rig.accept_socket()).await;
    let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
    // No message, an unknown action, a request number without action, and a list whose answers nobody takes.
    let packets: [&[u8]; 4] = [&[0xff; 40], &[8, 7, 0xfa, 1, 0], &[8, 9], &[8, 1, 0x2a, 0]];
    for round in 0..20_000 {
        let sent = rustix::net::send(&socket, packets[round % packets.len()], flags);
        if sent.is_err() {
            break;
        }
    }
    rig.kill(pid);
    let mut agent = rig.agent().await;
    agent.run("e", &["exit", "0"]).await;
    drop(socket);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(rig.pid()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    assert!(rig.ended().await.success());
}
