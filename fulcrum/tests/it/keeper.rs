//! What a keeper does for its agent while all is well.

use std::fs;
use std::io::{IoSlice, PipeWriter, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crux_wire::keeper::v1::from_keeper::Reply;
use crux_wire::keeper::v1::{
    EnvironmentVariable, Execution, FromKeeper, Limits, OutcomeKind, RefusedKind, User,
};
use fulcrum::keeper::client::CallError;
use prost::Message;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::rig::{
    Agent, NOBODY, Rig, Scratch, Setup, TESTEE, is_root, lives, outcome, receive_descriptors,
    spawn, stderr, stdout, until, within, write_script,
};

#[track_caller]
fn refused<T>(result: Result<T, CallError>, expected: RefusedKind) -> String {
    match result {
        Err(CallError::Refused { kind, reason }) if kind == expected => reason,
        Err(other) => panic!("expected {expected:?}, got {other:?}"),
        Ok(_) => panic!("expected {expected:?}, it was served"),
    }
}

// Shows in part: REX-01
#[tokio::test]
async fn an_execution_leaves_its_output_and_exactly_one_outcome() {
    let rig = Rig::keeper();
    let mut agent = rig.agent().await;
    let welcome = within(agent.keeper.hello()).await.unwrap();
    assert_eq!((welcome.incarnation, welcome.keeper_pid), (1, rig.pid()));
    within(agent.keeper.seal()).await.unwrap();

    let printed = agent.run("e1", &["print", "to out", "to err"]).await;
    assert_eq!(outcome(&printed), (OutcomeKind::Exited, 0));
    assert_eq!(
        (stdout(&printed), stderr(&printed)),
        ("to out\n".to_owned(), "to err\n".to_owned())
    );
    assert_eq!(
        (printed.label.as_slice(), printed.instance.as_str()),
        (b"label\0".as_slice(), "test/e1/1")
    );
    assert!(printed.outcome.as_ref().unwrap().memory_peak_bytes > 0);

    let failed = agent.run("e2", &["exit", "7"]).await;
    assert_eq!(outcome(&failed), (OutcomeKind::Exited, 7));
    let listed = agent.find("e2").await.unwrap();
    assert_eq!(listed, failed);
    assert!(rig.dir.join("keeper/executions/e2/outcome").exists());
}

#[tokio::test]
async fn the_start_is_recorded_before_the_program_runs() {
    let rig = Rig::keeper();
    let mut agent = rig.agent().await;
    // The program reads its own record: it was there before the first of its instructions.
    let record = rig.dir.join("keeper/executions/self/start");
    let execution = agent
        .run("self", &["/bin/cat", record.to_str().unwrap()])
        .await;
    let start: serde_json::Value = serde_json::from_str(&stdout(&execution)).unwrap();
    assert_eq!(
        (start["pid"].as_i64(), start["argv"][0].as_str()),
        (Some(execution.pid.into()), Some("/bin/cat"))
    );
    assert_eq!(start["start_ticks"].as_u64(), Some(execution.start_ticks));
}

/// A program that says so when it executes, and what lets it go.
async fn held(agent: &Agent, name: &str) -> (Execution, PipeWriter) {
    let (hold, gate) = std::io::pipe().unwrap();
    let asked = spawn(name, &["/bin/sh", "-c", "echo executed"]);
    let program = fs::File::open("/bin/sh").unwrap().into();
    let started = agent
        .keeper
        .spawn_held(asked, program, None, Some(hold.into()));
    (within(started).await.unwrap().0, gate)
}

#[tokio::test]
async fn a_held_execution_is_recorded_and_executes_nothing_until_it_is_let_go() {
    let rig = Rig::keeper();
    let mut agent = rig.agent().await;
    let (execution, mut gate) = held(&agent, "held").await;
    assert!(rig.dir.join("keeper/executions/held/start").exists());
    // Other work goes on meanwhile.
    agent.run("other", &["exit", "0"]).await;
    let listed = agent.find("held").await.unwrap();
    assert_eq!((&listed, listed.outcome.is_none()), (&execution, true));
    let words = fs::read_to_string(format!("/proc/{}/cmdline", execution.pid)).unwrap();
    assert!(!words.contains("echo"), "{words}");
    gate.write_all(&[1]).unwrap();
    let ended = agent.exit().await;
    assert_eq!(
        (outcome(&ended), stdout(&ended).as_str()),
        ((OutcomeKind::Exited, 0), "executed\n")
    );
}

#[tokio::test]
async fn what_is_never_let_go_was_never_asked_for() {
    let rig = Rig::keeper();
    let mut agent = rig.agent().await;
    let (execution, gate) = held(&agent, "held").await;
    // One that was forked later is held too, and has a copy of what the first one waits for.
    let (_, other) = held(&agent, "other").await;
    drop(gate);
    // Another test's child may have a copy of the gate until it executes.
    until(async || agent.find("held").await.is_none()).await;
    let (again, mut gate) = held(&agent, "held").await;
    assert_ne!(execution.pid, again.pid);
    until(async || !lives(&execution)).await;
    gate.write_all(&[1]).unwrap();
    let ended = agent.exit().await;
    assert_eq!(
        (ended.pid, outcome(&ended)),
        (again.pid, (OutcomeKind::Exited, 0))
    );
    drop(other);
    until(async || agent.find("other").await.is_none()).await;
    assert!(!rig.dir.join("keeper/executions/other").exists());
    // A signal before that is an end, and told.
    let (_, gate) = held(&agent, "signalled").await;
    within(agent.keeper.signal("signalled", nix::libc::SIGKILL, false))
        .await
        .unwrap();
    let ended = agent.exit().await;
    assert_eq!(outcome(&ended), (OutcomeKind::NotStarted, 0));
    drop(gate);

    // The next agent finds nothing of what its predecessor did not let go.
    let (_, gate) = held(&agent, "last").await;
    drop(gate);
    rig.kill(agent.pid);
    let next = rig.agent().await;
    until(async || next.find("last").await.is_none()).await;
    assert!(!rig.dir.join("keeper/executions/last").exists());
}

#[tokio::test]
async fn a_repeated_start_answers_the_existing_execution() {
    let rig = Rig::keeper();
    let agent = rig.agent().await;
    let first = agent.spawn("once", &["wait"]).await;
    let again = agent.spawn("once", &["exit", "3"]).await;
    assert_eq!(first, again);
    assert_eq!(within(agent.keeper.list()).await.unwrap().len(), 1);
}

// Shows in part: REX-01
#[tokio::test]
async fn signals_reach_a_process_or_its_whole_group() {
    let rig = Rig::keeper();
    let mut agent = rig.agent().await;
    agent.spawn("one", &["wait"]).await;
    within(agent.keeper.signal("one", nix::libc::SIGTERM, false))
        .await
        .unwrap();
    assert_eq!(
        outcome(&agent.exit().await),
        (OutcomeKind::Signalled, nix::libc::SIGTERM)
    );

    agent.spawn("real-time", &["wait"]).await;
    within(agent.keeper.signal("real-time", 40, false))
        .await
        .unwrap();
    assert_eq!(outcome(&agent.exit().await), (OutcomeKind::Signalled, 40));

    agent
        .spawn(
            "group",
            &["/bin/sh", "-c", "trap '' TERM; /bin/sleep 1000; exit 5"],
        )
        .await;
    until(async || {
        fs::read_to_string("/proc/self/stat").is_ok() && agent.find("group").await.is_some()
    })
    .await;
    within(agent.keeper.signal("group", nix::libc::SIGKILL, true))
        .await
        .unwrap();
    assert_eq!(
        outcome(&agent.exit().await),
        (OutcomeKind::Signalled, nix::libc::SIGKILL)
    );

    let gone = agent.keeper.signal("one", 15, false);
    refused(within(gone).await, RefusedKind::NotFound);
    refused(
        within(agent.keeper.signal("never", 15, false)).await,
        RefusedKind::NotFound,
    );
    refused(
        within(agent.keeper.signal("one", 65, false)).await,
        RefusedKind::Invalid,
    );
}

#[tokio::test]
async fn what_a_program_left_in_its_group_ends_with_it() {
    let rig = Rig::keeper();
    let mut agent = rig.agent().await;
    let execution = agent
        .run("leader", &["/bin/sh", "-c", "/bin/sleep 1000 & echo $!"])
        .await;
    let left: i32 = stdout(&execution).trim().parse().unwrap();
    until(async || {
        let stat = fs::read_to_string(format!("/proc/{left}/stat"));
        stat.is_err() || stat.is_ok_and(|stat| stat.contains(") Z "))
    })
    .await;
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_has_an_outcome_with_the_reason() {
    let rig = Rig::keeper();
    let mut agent = rig.agent().await;
    let text = rig.scratch.path().join("text");
    fs::write(&text, "no program").unwrap();
    let execution = agent.run("text", &[text.to_str().unwrap()]).await;
    assert_eq!(outcome(&execution).0, OutcomeKind::NotStarted);
    let reason = execution.outcome.unwrap().reason;
    assert!(reason.starts_with("execute the program:"), "{reason}");

    let mut nowhere = spawn("nowhere", &["exit", "0"]);
    nowhere.working_directory = "/does/not/exist".to_owned();
    agent.spawn_as(nowhere).await;
    let reason = agent.exit().await.outcome.unwrap().reason;
    assert!(
        reason.starts_with("enter the working directory:"),
        "{reason}"
    );
}

// Shows in part: REX-07
#[tokio::test]
async fn the_passed_descriptor_is_executed_whatever_its_path_holds_now() {
    let rig = Rig::keeper();
    let mut agent = rig.agent().await;
    let script = rig.scratch.path().join("script");
    write_script(&script, "#!/bin/sh\necho verified $1\n");
    let opened = fs::File::open(&script).unwrap();
    fs::remove_file(&script).unwrap();
    fs::write(&script, "#!/bin/sh\necho swapped\n").unwrap();
    within(
        agent
            .keeper
            .spawn(spawn("script", &["/script", "once"]), opened.into(), None),
    )
    .await
    .unwrap();
    assert_eq!(stdout(&agent.exit().await), "verified once\n");
}

#[tokio::test]
async fn a_program_gets_the_given_environment_and_descriptors_and_no_others() {
    let rig = Rig::keeper();
    let mut agent = rig.agent().await;
    let mut asked = spawn("environment", &["environment"]);
    let variable = |name: &str, value: &str| EnvironmentVariable {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    asked.env = vec![
        variable("A", "1"),
        variable("RADIX_RNODE", "forged"),
        variable("RADIX_AGENT_FD", "9"),
    ];
    agent.spawn_as(asked).await;
    let text = stdout(&agent.exit().await);
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "A=1",
            "RADIX_EXECUTION=environment",
            &format!("RADIX_RNODE={}", rig.mark())
        ]
    );

    let listing = agent
        .run("descriptors", &["/bin/ls", "/proc/self/fd"])
        .await;
    // The fourth is the listing's own.
    assert_eq!(stdout(&listing), "0\n1\n2\n3\n");
}

#[tokio::test]
async fn a_passed_standard_input_is_read() {
    let rig = Rig::keeper();
    let mut agent = rig.agent().await;
    let input = rig.scratch.path().join("input");
    fs::write(&input, "given").unwrap();
    let (cat, input) = (
        fs::File::open("/bin/cat").unwrap(),
        fs::File::open(input).unwrap(),
    );
    let asked = spawn("input", &["/bin/cat"]);
    within(agent.keeper.spawn(asked, cat.into(), Some(input.into())))
        .await
        .unwrap();
    assert_eq!(stdout(&agent.exit().await), "given");
}

// Shows in part: REX-09
#[tokio::test]
async fn root_runs_a_program_as_another_user_and_others_are_told_they_cannot() {
    let rig = Rig::keeper();
    let mut agent = rig.agent().await;
    let mut asked = spawn(
        "user",
        &[
            "/bin/sh",
            "-c",
            "id -u; id -g; id -G; echo reopened > /dev/stderr",
        ],
    );
    let other = if is_root() {
        NOBODY
    } else {
        nix::unistd::geteuid().as_raw() + 1
    };
    asked.user = Some(User {
        set: true,
        uid: other,
        gid: other,
    });
    asked.env = vec![EnvironmentVariable {
        name: "PATH".to_owned(),
        value: "/usr/bin:/bin".to_owned(),
    }];
    let program = fs::File::open("/bin/sh").unwrap();
    let started = within(agent.keeper.spawn(asked, program.into(), None)).await;
    if is_root() {
        started.unwrap();
        let execution = agent.exit().await;
        assert_eq!(
            stdout(&execution),
            format!("{NOBODY}\n{NOBODY}\n{NOBODY}\n")
        );
        assert_eq!(stderr(&execution), "reopened\n");
    } else {
        let reason = refused(started, RefusedKind::Unsupported);
        assert!(reason.contains("root"), "{reason}");
    }
}

#[tokio::test]
async fn limits_hold_for_the_program() {
    let rig = Rig::keeper();
    let mut agent = rig.agent().await;
    let mut asked = spawn(
        "limits",
        &["/bin/sh", "-c", "ulimit -n; ulimit -t; ulimit -d"],
    );
    asked.limits = Some(Limits {
        memory_bytes: 64 << 20,
        files: 77,
        processes: 0,
        cpu_seconds: 9,
    });
    agent.spawn_as(asked).await;
    assert_eq!(stdout(&agent.exit().await), "77\n9\n65536\n");
}

#[tokio::test]
async fn the_agent_may_open_all_the_files_that_the_keeper_may_and_programs_as_many_as_before() {
    let words = ["sh", "-c", "ulimit -Sn 128; exec \"$@\"", "sh"];
    let setup = Setup {
        wrapper: words.map(str::to_owned).to_vec(),
        ..Setup::default()
    };
    let rig = Rig::start(Scratch::new(), setup);
    let mut agent = rig.agent().await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", agent.pid)).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let fields: Vec<_> = files.unwrap().split_ascii_whitespace().collect();
    assert_eq!(fields[3], fields[4]);
    assert_ne!(fields[3], "128");
    let printed = agent.run("e", &["/bin/sh", "-c", "ulimit -Sn"]).await;
    assert_eq!(stdout(&printed), "128\n");
}

#[tokio::test]
async fn a_request_that_lost_descriptors_on_the_way_is_refused() {
    let rig = Rig::keeper();
    let (_, socket) = within(rig.accept_socket()).await;
    // More than a packet may have: the keeper loses some, as it does with too many files open.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(200))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [socket.as_fd(); 200];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    // `ToKeeper`: request 9, spawn nothing.
    let bytes = [8, 9, 0x1a, 0];
    sendmsg(
        &socket,
        &[IoSlice::new(&bytes)],
        &mut control,
        SendFlags::empty(),
    )
    .unwrap();
    let answer = within(tokio::task::spawn_blocking(move || {
        let mut bytes = [0; 4096];
        let (_, length) = rustix::net::recv(&socket, &mut bytes, RecvFlags::empty()).unwrap();
        FromKeeper::decode(&bytes[..length]).unwrap()
    }));
    let answer = answer.await.unwrap();
    let Some(Reply::Refused(refused)) = answer.reply else {
        panic!("expected a refusal, got {answer:?}");
    };
    assert_eq!((answer.request, refused.kind()), (9, RefusedKind::Limit));
}

#[tokio::test]
async fn malformed_requests_are_refused_and_start_nothing() {
    let rig = Rig::keeper();
    let agent = rig.agent().await;
    let open = || fs::File::open(TESTEE).unwrap().into();
    for name in ["", "..", "a/b", ".hidden", "a\0b", &"x".repeat(200)] {
        let asked = agent.keeper.spawn(spawn(name, &["wait"]), open(), None);
        refused(within(asked).await, RefusedKind::Invalid);
    }
    let mut no_words = spawn("words", &["wait"]);
    no_words.argv.clear();
    refused(
        within(agent.keeper.spawn(no_words, open(), None)).await,
        RefusedKind::Invalid,
    );
    let mut zero = spawn("zero", &["wait"]);
    zero.argv.push("a\0b".to_owned());
    refused(
        within(agent.keeper.spawn(zero, open(), None)).await,
        RefusedKind::Invalid,
    );
    let mut variable = spawn("variable", &["wait"]);
    variable.env = vec![EnvironmentVariable {
        name: "A=B".to_owned(),
        value: String::new(),
    }];
    refused(
        within(agent.keeper.spawn(variable, open(), None)).await,
        RefusedKind::Invalid,
    );
    let long = "x".repeat((4 << 10) + 1);
    for what in ["instance", "configuration", "command", "digest", "label"] {
        let mut asked = spawn(what, &["wait"]);
        match what {
            "instance" => asked.instance.clone_from(&long),
            "configuration" => asked.configuration.clone_from(&long),
            "command" => asked.command.clone_from(&long),
            "digest" => asked.digest.clone_from(&long),
            _ => asked.label = long.clone().into_bytes(),
        }
        let asked = agent.keeper.spawn(asked, open(), None);
        let reason = refused(within(asked).await, RefusedKind::Invalid);
        assert!(reason.contains(what), "{reason}");
    }
    let mut large = spawn("large", &["wait"]);
    large.argv.push("x".repeat(1 << 20));
    let large = within(agent.keeper.spawn(large, open(), None)).await;
    assert!(matches!(large, Err(CallError::TooLarge(_))), "{large:?}");
    assert!(within(agent.keeper.list()).await.unwrap().is_empty());
    assert_eq!(
        fs::read_dir(rig.dir.join("keeper/executions"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn a_process_connects_to_its_agent_over_its_socket() {
    let rig = Rig::keeper();
    let mut agent = rig.agent().await;
    let mut asked = spawn("connected", &["connect", "hello agent"]);
    asked.agent_socket = true;
    let (execution, socket) = agent.spawn_as(asked).await;
    assert!(execution.has_socket);
    let socket = socket.unwrap();
    let (_, mut fds) = receive_descriptors(&socket);
    let mut text = String::new();
    UnixStream::from(fds.remove(0))
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "hello agent");
    let ended = agent.exit().await;
    assert!(!ended.has_socket);
    assert_eq!(outcome(&ended), (OutcomeKind::Exited, 0));
}

#[tokio::test]
async fn a_long_list_comes_whole_and_in_the_order_of_the_starts() {
    let rig = Rig::keeper();
    let mut agent = rig.agent().await;
    let names: Vec<_> = (0..300)
        .map(|number| format!("e{}", 999 - number))
        .collect();
    for name in &names {
        let mut asked = spawn(name, &["wait"]);
        asked.agent_socket = true;
        asked.label = vec![7; 1000];
        let (_, socket) = agent.spawn_as(asked).await;
        assert!(socket.is_some());
    }
    let list = within(agent.keeper.list()).await.unwrap();
    assert_eq!(
        list.iter()
            .map(|(execution, _)| execution.execution.clone())
            .collect::<Vec<_>>(),
        names
    );
    assert!(list.iter().all(|(_, socket)| socket.is_some()));
    for name in &names {
        within(agent.keeper.signal(name, 9, true)).await.unwrap();
    }
    for _ in &names {
        assert_eq!(outcome(&agent.exit().await), (OutcomeKind::Signalled, 9));
    }
}

#[tokio::test]
async fn only_ended_executions_are_forgotten_and_then_nothing_is_left() {
    let rig = Rig::keeper();
    let mut agent = rig.agent().await;
    agent.spawn("e", &["wait"]).await;
    refused(within(agent.keeper.forget("e")).await, RefusedKind::Invalid);
    within(agent.keeper.signal("e", 9, false)).await.unwrap();
    agent.exit().await;
    within(agent.keeper.forget("e")).await.unwrap();
    refused(
        within(agent.keeper.forget("e")).await,
        RefusedKind::NotFound,
    );
    assert_eq!(
        fs::read_dir(rig.dir.join("keeper/executions"))
            .unwrap()
            .count(),
        0
    );
    // The name is free again.
    assert_eq!(
        outcome(&agent.run("e", &["exit", "1"]).await),
        (OutcomeKind::Exited, 1)
    );
}

#[tokio::test]
async fn a_second_keeper_on_a_directory_ends_with_a_named_error() {
    let rig = Rig::keeper();
    let _agent = rig.agent().await;
    let second = rig.command().output().unwrap();
    let text = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success());
    assert!(
        text.contains("take the pen of") && text.contains(&format!("(pid {})", rig.pid())),
        "{text}"
    );
}

#[tokio::test]
async fn a_keeper_without_a_sound_configuration_says_so() {
    let scratch = Scratch::new();
    let run = || {
        std::process::Command::new(TESTEE)
            .args(["keep", "--dir"])
            .arg(scratch.path())
            .output()
            .unwrap()
    };
    let text = String::from_utf8_lossy(&run().stderr).into_owned();
    assert!(text.contains("reach the configuration"), "{text}");
    fs::write(scratch.path().join("rnode.json"), "{\"lable\": 1}").unwrap();
    let text = String::from_utf8_lossy(&run().stderr).into_owned();
    assert!(text.contains("lable"), "{text}");
}

#[tokio::test]
async fn retiring_asks_then_kills_and_leaves_detached_executions_alone() {
    let mut rig = Rig::keeper();
    let mut agent = rig.agent().await;
    agent.spawn("willing", &["wait"]).await;
    let stubborn = agent
        .spawn(
            "stubborn",
            &[
                "/bin/sh",
                "-c",
                "trap '' TERM; echo ready; while :; do /bin/sleep 1000; done",
            ],
        )
        .await;
    until(async || stdout(&stubborn) == "ready\n").await;
    let mut detached = spawn("detached", &["wait"]);
    detached.detached = true;
    let (detached, _) = agent.spawn_as(detached).await;
    within(agent.keeper.retire(Duration::from_millis(100)))
        .await
        .unwrap();
    let mut ends = [agent.exit().await, agent.exit().await];
    ends.sort_by(|one, other| one.execution.cmp(&other.execution));
    assert_eq!(outcome(&ends[0]), (OutcomeKind::Signalled, 9));
    assert_eq!(outcome(&ends[1]), (OutcomeKind::Signalled, 15));
    assert!(rig.ended().await.success());
    assert!(crate::rig::lives(&detached));
    rig.kill(detached.pid);
}

#[tokio::test]
async fn a_keeper_told_to_end_by_signal_ends_its_executions_and_its_agent() {
    let mut rig = Rig::keeper();
    let agent = rig.agent().await;
    let execution = agent.spawn("e", &["wait"]).await;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(rig.pid()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    assert!(rig.ended().await.success());
    assert!(!crate::rig::lives(&execution));
    assert!(nix::sys::signal::kill(nix::unistd::Pid::from_raw(agent.pid), None).is_err());
    let record = rig.dir.join("keeper/executions/e/outcome");
    assert!(fs::read_to_string(record).unwrap().contains("signalled"));
}
