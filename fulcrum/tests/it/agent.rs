//! A real keeper and agent, spoken to by an operator over mutual TLS.

use crux_core::names::Label;
use crux_net::identity::RnodeIdentity;
use crux_wire::fileio::v1::file_io_client::FileIoClient;
use crux_wire::fileio::v1::{GetRequest, HaveRequest, PutChunk};
use crux_wire::fulcrum::v1::fulcrum_client::FulcrumClient;
use crux_wire::fulcrum::v1::{
    DescribeRequest, EventsRequest, ExitRequest, FlockRequest, HintRequest, StatusRequest,
};
use crux_wire::keeper::v1::{Execution, OutcomeKind};
use crux_wire::rexec::v1::run_input::Input;
use crux_wire::rexec::v1::run_output::Output;
use crux_wire::rexec::v1::{
    ListRequest, OutputRequest, RunInput, SignalRequest, StartRequest, WaitRequest,
};
use fulcrum::config::RnodeConfig;
use fulcrum::memoir::Record;
use nix::fcntl::{FallocateFlags, fallocate};
use tonic::Code;

use crate::agent_rig::Base;
use crate::rig::{until, within};

pub(crate) fn start(execution: &str, args: &[&str]) -> StartRequest {
    StartRequest {
        execution: execution.to_owned(),
        configuration: "radix".to_owned(),
        command: "radix".to_owned(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        ..StartRequest::default()
    }
}

/// Runs a command to its end: what it wrote, and how it ended.
async fn run(base: &Base, request: StartRequest) -> (Execution, Vec<u8>, Vec<u8>, Vec<(i32, i32)>) {
    let input = RunInput {
        input: Some(Input::Start(request)),
    };
    let mut rexec = base.rexec().await;
    let mut outputs = rexec
        .run(tokio_stream::iter([input]))
        .await
        .unwrap()
        .into_inner();
    let (mut started, mut stdout, mut stderr) = (Execution::default(), Vec::new(), Vec::new());
    let mut outcomes = Vec::new();
    while let Some(output) = within(outputs.message()).await.unwrap() {
        match output.output.unwrap() {
            Output::Started(execution) => started = execution,
            Output::Stdout(bytes) => stdout.extend(bytes),
            Output::Stderr(bytes) => stderr.extend(bytes),
            Output::Gap(gap) => panic!("nothing was given back: {gap:?}"),
            Output::Outcome(outcome) => outcomes.push((outcome.kind, outcome.code)),
        }
    }
    (started, stdout, stderr, outcomes)
}

// Shows in part: FUL-02, RND-08
#[tokio::test]
async fn a_base_rnode_describes_itself_with_its_three_services() {
    let base = Base::start();
    let described = base
        .fulcrum()
        .await
        .describe(DescribeRequest {})
        .await
        .unwrap()
        .into_inner();
    let contact = base.contact().await;
    let address = format!("127.0.0.1:{}", contact["port"]);
    let names: Vec<_> = described
        .directory
        .iter()
        .map(|listing| listing.name.as_str())
        .collect();
    assert_eq!(names, ["base/fulcrum", "base/rexec/radix", "base/fileio"]);
    assert!(
        described
            .directory
            .iter()
            .all(|listing| listing.address == address)
    );
    std::net::TcpStream::connect(&address).unwrap();
    let rnode = described.rnode.unwrap();
    assert_eq!(rnode.label, "base");
    assert!(rnode.resources.unwrap().memory_bytes > 0);
    assert_eq!(described.owner, base.owner.owner().to_string());
    assert!(!base.dir.join("invitation").exists());
}

// Shows: FUL-04
#[tokio::test]
async fn the_port_that_is_asked_for_is_bound_and_one_that_nobody_asked_for_is_published() {
    let mut base = Base::start();
    let chosen = base.contact().await["port"].as_u64().unwrap();
    assert_ne!(chosen, 0);
    assert_eq!(listed(&base).await, [format!("127.0.0.1:{chosen}")]);

    base.kill_keeper();
    fulcrum::mark::end_marked(&base.mark(), std::time::Duration::from_secs(10)).unwrap();
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let mut config = RnodeConfig::load(&base.dir).unwrap();
    config.tcp_port = port;
    config.save(&base.dir).unwrap();
    base.start_keeper();
    until(async || base.contact().await["port"] == port).await;
    assert_eq!(listed(&base).await, [format!("127.0.0.1:{port}")]);
}

/// The addresses in a base's directory, each once.
async fn listed(base: &Base) -> Vec<String> {
    let mut fulcrum = base.fulcrum().await;
    let described = fulcrum.describe(DescribeRequest {}).await.unwrap();
    let directory = described.into_inner().directory.into_iter();
    let mut addresses: Vec<String> = directory.map(|listing| listing.address).collect();
    addresses.dedup();
    addresses
}

// Shows in part: REX-01, REX-02, REX-04, FUL-06
#[tokio::test]
async fn a_command_of_the_signed_configuration_runs_and_any_other_is_refused() {
    let base = Base::start();
    let before = base
        .rexec()
        .await
        .start(start("early", &["exit", "0"]))
        .await;
    assert_eq!(before.unwrap_err().code(), Code::NotFound);
    base.ready().await;

    let (started, stdout, stderr, outcomes) =
        run(&base, start("hello", &["print", "out", "err"])).await;
    assert_eq!(started.execution, "hello");
    assert_eq!(
        (stdout.as_slice(), stderr.as_slice()),
        (&b"out\n"[..], &b"err\n"[..])
    );
    assert_eq!(outcomes, [(OutcomeKind::Exited as i32, 0)]);

    let shell = StartRequest {
        command: "sh".to_owned(),
        ..start("shell", &[])
    };
    let refused = base.rexec().await.start(shell).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let foreign = StartRequest {
        configuration: "stix".to_owned(),
        ..start("foreign", &[])
    };
    assert_eq!(
        base.rexec().await.start(foreign).await.unwrap_err().code(),
        Code::NotFound
    );

    until(async || {
        base.memoir()
            .iter()
            .any(|record| record.kind == "exec.end" && record.fields["execution"] == "hello")
    })
    .await;
    let kinds: Vec<_> = base
        .memoir()
        .into_iter()
        .filter(|record| {
            record
                .fields
                .get("execution")
                .is_none_or(|id| id == "hello")
        })
        .map(|record| record.kind)
        .filter(|kind| kind != "refused" && kind != "assign")
        .collect();
    assert_eq!(
        kinds,
        ["agent.start", "document.accept", "exec.start", "exec.end"]
    );
}

// Shows: REX-01
#[tokio::test]
async fn an_execution_can_be_listed_signalled_waited_for_and_read_again() {
    let base = Base::start();
    base.ready().await;
    let mut rexec = base.rexec().await;
    let first = rexec
        .start(start("waiting", &["wait"]))
        .await
        .unwrap()
        .into_inner();
    let again = rexec
        .start(start("waiting", &["wait"]))
        .await
        .unwrap()
        .into_inner();
    assert!(!first.existed && again.existed);
    assert_eq!(first.execution.unwrap().pid, again.execution.unwrap().pid);
    let listed = rexec
        .list(ListRequest::default())
        .await
        .unwrap()
        .into_inner()
        .executions;
    assert!(listed.iter().any(|known| known.execution == "waiting"));
    let signal = SignalRequest {
        execution: "waiting".into(),
        signal: 15,
        group: true,
    };
    rexec.signal(signal).await.unwrap();
    let wait = WaitRequest {
        execution: "waiting".into(),
    };
    let ended = within(rexec.wait(wait))
        .await
        .unwrap()
        .into_inner()
        .execution
        .unwrap();
    let outcome = ended.outcome.unwrap();
    assert_eq!((outcome.kind(), outcome.code), (OutcomeKind::Signalled, 15));

    run(&base, start("text", &["print", "0123456789"])).await;
    let request = OutputRequest {
        execution: "text".into(),
        tail_bytes: 4,
        ..OutputRequest::default()
    };
    let mut chunks = rexec.output(request).await.unwrap().into_inner();
    let chunk = chunks.message().await.unwrap().unwrap();
    assert_eq!((chunk.offset, chunk.bytes.as_slice()), (7, &b"789\n"[..]));
    assert!(chunks.message().await.unwrap().unwrap().end);
}

#[tokio::test]
async fn output_that_was_given_back_is_told_and_not_made_up() {
    let base = Base::start();
    base.ready().await;
    let word = "w".repeat(100_000);
    let (started, ..) = run(&base, start("long", &["print", &word])).await;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(started.stdout_path)
        .unwrap();
    // As the keeper does with the middle of what is too long.
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(&file, flags, 8192, 65_536).unwrap();

    let mut rexec = base.rexec().await;
    let request = OutputRequest {
        execution: "long".into(),
        ..OutputRequest::default()
    };
    let mut chunks = rexec.output(request).await.unwrap().into_inner();
    let (mut at, mut gaps) = (0, Vec::new());
    while let Some(chunk) = within(chunks.message()).await.unwrap() {
        if chunk.offset > at {
            gaps.push((at, chunk.offset));
        }
        assert!(!chunk.bytes.contains(&0));
        at = chunk.offset + chunk.bytes.len() as u64;
    }
    assert_eq!((at, gaps), (100_001, vec![(8192, 73_728)]));

    let attach = RunInput {
        input: Some(Input::Attach("long".into())),
    };
    let outputs = rexec.run(tokio_stream::iter([attach])).await;
    let mut outputs = outputs.unwrap().into_inner();
    let (mut at, mut gaps) = (0, Vec::new());
    while let Some(output) = within(outputs.message()).await.unwrap() {
        match output.output.unwrap() {
            Output::Stdout(bytes) => {
                assert!(!bytes.contains(&0));
                at += bytes.len() as u64;
            }
            Output::Gap(gap) => {
                assert_eq!(gap.from, at);
                gaps.push((gap.stderr, gap.to - gap.from));
                at = gap.to;
            }
            _ => {}
        }
    }
    assert_eq!((at, gaps), (100_001, vec![(false, 65_536)]));
}

#[tokio::test]
async fn a_documents_generation_rules_are_kept_over_the_agents_death() {
    let base = Base::start();
    let mut fulcrum = base.fulcrum().await;
    fulcrum
        .put_document(base.put(&base.document(3, 0)))
        .await
        .unwrap();
    let mut same = base.document(4, 3);
    same.digest = "content 3".into();
    let reply = fulcrum
        .put_document(base.put(&same))
        .await
        .unwrap()
        .into_inner();
    assert!(reply.unchanged && reply.generation == 3);
    let stale = fulcrum
        .put_document(base.put(&base.document(5, 2)))
        .await
        .unwrap_err();
    assert_eq!(stale.code(), Code::FailedPrecondition);
    assert!(stale.message().starts_with("stale:"), "{}", stale.message());

    let old = base.contact().await;
    kill(old["pid"].as_i64().unwrap());
    until(async || base.contact().await["pid"] != old["pid"]).await;
    let mut fulcrum = base.fulcrum().await;
    let stale = fulcrum.put_document(base.put(&base.document(3, 0))).await;
    assert!(stale.unwrap().into_inner().unchanged);
    let lower = fulcrum
        .put_document(base.put(&base.document(2, 1)))
        .await
        .unwrap_err();
    assert!(lower.message().starts_with("stale:"));

    let mut forged = base.put(&base.document(9, 3));
    forged.document.as_mut().unwrap().payload.push(0);
    assert_eq!(
        fulcrum.put_document(forged).await.unwrap_err().code(),
        Code::PermissionDenied
    );
}

fn kill(pid: i64) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

// Shows: MEM-01
#[tokio::test]
async fn an_execution_and_its_output_outlive_the_agent() {
    let base = Base::start();
    base.ready().await;
    let started = base
        .rexec()
        .await
        .start(start("waiting", &["wait"]))
        .await
        .unwrap();
    let pid = started.into_inner().execution.unwrap().pid;
    let (_, text, ..) = run(&base, start("done", &["print", "kept"])).await;
    let old = base.contact().await;
    kill(old["pid"].as_i64().unwrap());
    // What was answered is written down, though nobody had time to.
    for id in ["waiting", "done"] {
        let of_it =
            |record: &Record| record.kind == "exec.start" && record.fields["execution"] == id;
        assert!(base.memoir().iter().any(of_it), "{id}");
    }
    until(async || base.contact().await["pid"] != old["pid"]).await;

    let mut rexec = base.rexec().await;
    let request = ListRequest {
        finished: true,
        ..ListRequest::default()
    };
    let listed = rexec.list(request).await.unwrap().into_inner().executions;
    let find = |id: &str| listed.iter().find(|known| known.execution == id).unwrap();
    assert_eq!(find("waiting").pid, pid);
    assert!(find("waiting").outcome.is_none());
    assert_eq!(find("done").outcome.as_ref().unwrap().code, 0);
    let mut named = async |prefixes: &[&str]| {
        let request = ListRequest {
            finished: true,
            prefixes: prefixes.iter().map(|&prefix| prefix.to_owned()).collect(),
            ..ListRequest::default()
        };
        let listed = rexec.list(request).await.map(|reply| reply.into_inner());
        listed.map(|reply| reply.executions.into_iter().map(|known| known.execution))
    };
    let found = named(&["wait", "waiting", "none"]).await.unwrap();
    assert_eq!(found.collect::<Vec<_>>(), ["waiting"]);
    let found = named(&["wait", "don"]).await.unwrap();
    assert_eq!(found.collect::<Vec<_>>(), ["done", "waiting"]);
    let refused = named(&["x"; 65]).await.err().unwrap();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    let attach = RunInput {
        input: Some(Input::Attach("done".into())),
    };
    let mut outputs = rexec
        .run(tokio_stream::iter([attach]))
        .await
        .unwrap()
        .into_inner();
    let mut stdout = Vec::new();
    while let Some(output) = within(outputs.message()).await.unwrap() {
        if let Some(Output::Stdout(bytes)) = output.output {
            stdout.extend(bytes);
        }
    }
    assert_eq!(stdout, text);
    let flock = base
        .fulcrum()
        .await
        .flock(FlockRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(flock.members.len(), 1);
}

#[tokio::test]
async fn a_rnodes_certificate_cannot_act_as_the_operator() {
    let base = Base::start();
    base.ready().await;
    let invitation = base
        .owner
        .invite_named(&"stix".parse().unwrap(), &"n1".parse().unwrap())
        .unwrap();
    let rnode = RnodeIdentity::claim(&base.home.join("n1"), &invitation, None).unwrap();
    assert_eq!(*rnode.namespace(), Label::new("stix").unwrap());
    let channel = base.connect(&rnode.credentials().unwrap()).await;
    let mut rexec = crux_wire::rexec::v1::rexec_client::RexecClient::new(channel.clone());
    let refused = rexec
        .start(start("stolen", &["exit", "0"]))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let mut fulcrum = FulcrumClient::new(channel.clone());
    assert_eq!(
        fulcrum.status(StatusRequest {}).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    let put = fulcrum.put_document(base.put(&base.document(2, 1))).await;
    assert_eq!(put.unwrap_err().code(), Code::PermissionDenied);

    // It may fetch the radix that we run, and nothing that no shared document pins.
    let secret = base.store().put_bytes(b"not for n1").unwrap().digest;
    let mut files = FileIoClient::new(channel);
    let digests = vec![secret.to_string(), base.testee.to_string()];
    let have = files
        .have(HaveRequest { digests })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(have.present, [base.testee.to_string()]);
    let get = GetRequest {
        digest: secret.to_string(),
        offset: 0,
    };
    assert_eq!(
        files.get(get).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    let get = GetRequest {
        digest: base.testee.to_string(),
        offset: 0,
    };
    let mut chunks = files.get(get).await.unwrap().into_inner();
    let mut size = 0;
    while let Some(chunk) = within(chunks.message()).await.unwrap() {
        size += chunk.bytes.len() as u64;
    }
    assert_eq!(size, base.store().info(&base.testee).unwrap().size);
}

// Shows in part: FIO-01
#[tokio::test]
async fn a_file_is_put_only_under_its_own_digest() {
    let base = Base::start();
    let mut files = FileIoClient::new(base.connect(&base.operator()).await);
    let digest = crux_core::digest::Digest::of(b"content").to_string();
    let chunk = |bytes: &[u8], total| PutChunk {
        digest: digest.clone(),
        total,
        bytes: bytes.to_vec(),
        ..PutChunk::default()
    };
    let wrong = files
        .put(tokio_stream::iter([chunk(b"CONTENT", 7)]))
        .await
        .unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    let short = files
        .put(tokio_stream::iter([chunk(b"con", 7)]))
        .await
        .unwrap_err();
    assert_eq!(short.code(), Code::InvalidArgument);
    assert!(!base.store().has(&digest.parse().unwrap()));
    let pieces = [chunk(b"con", 7), chunk(b"tent", 0)];
    assert!(
        !files
            .put(tokio_stream::iter(pieces))
            .await
            .unwrap()
            .into_inner()
            .existed
    );
    let again = files
        .put(tokio_stream::iter([chunk(b"content", 7)]))
        .await
        .unwrap();
    assert!(again.into_inner().existed);
    let get = GetRequest {
        digest: digest.clone(),
        offset: 3,
    };
    let mut chunks = files.get(get).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(chunk) = within(chunks.message()).await.unwrap() {
        bytes.extend(chunk.bytes);
    }
    assert_eq!(bytes, b"tent");
}

#[tokio::test]
async fn events_are_told_once_and_resumed_by_token() {
    let base = Base::start();
    base.ready().await;
    let mut fulcrum = base.fulcrum().await;
    let request = EventsRequest {
        after: String::new(),
        follow: true,
    };
    let mut events = fulcrum.events(request).await.unwrap().into_inner();
    let token = loop {
        let event = within(events.message()).await.unwrap().unwrap();
        if event.kind == "document" {
            break event.token;
        }
    };
    fulcrum
        .put_document(base.put(&base.document(2, 1)))
        .await
        .unwrap();
    let request = EventsRequest {
        after: token,
        follow: true,
    };
    let mut later = fulcrum.events(request).await.unwrap().into_inner();
    loop {
        let event = within(later.message()).await.unwrap().unwrap();
        if event.kind == "document" {
            assert_eq!(event.text, "generation 2 is accepted");
            break;
        }
    }
}

// Shows: FUL-06
// Shows: MEM-03
#[tokio::test]
async fn a_session_of_twelve_operations_is_in_the_memoir_in_order() {
    let base = Base::start();
    let mut fulcrum = base.fulcrum().await;
    let mut rexec = base.rexec().await;
    let mut expected = Vec::new();
    for generation in 1..=3 {
        let document = base.document(generation, generation - 1);
        fulcrum.put_document(base.put(&document)).await.unwrap();
        expected.push(("document.accept", generation.to_string()));
    }
    for execution in ["first", "second", "third", "fourth"] {
        rexec.start(start(execution, &["wait"])).await.unwrap();
        expected.push(("exec.start", execution.to_owned()));
    }
    for execution in ["second", "fourth"] {
        let signal = SignalRequest {
            execution: execution.into(),
            signal: 15,
            group: true,
        };
        rexec.signal(signal).await.unwrap();
        expected.push(("exec.signal", execution.to_owned()));
    }
    let address = "127.0.0.1:9".to_owned();
    fulcrum
        .hint(HintRequest {
            address: address.clone(),
        })
        .await
        .unwrap();
    expected.push(("hint", address));
    let mut files = FileIoClient::new(base.connect(&base.operator()).await);
    for content in [&b"one"[..], b"two"] {
        let digest = crux_core::digest::Digest::of(content).to_string();
        let chunk = PutChunk {
            digest: digest.clone(),
            total: content.len() as u64,
            bytes: content.to_vec(),
            ..PutChunk::default()
        };
        files.put(tokio_stream::iter([chunk])).await.unwrap();
        expected.push(("file.put", digest));
    }
    assert_eq!(expected.len(), 12);

    let subject = |record: &fulcrum::memoir::Record| {
        let field = match record.kind.as_str() {
            "document.accept" => "generation",
            // The base starts its backend by itself.
            "exec.start" if record.fields["caller"] == "base" => return None,
            "exec.start" | "exec.signal" => "execution",
            "hint" => "address",
            "file.put" => "digest",
            _ => return None,
        };
        let value = &record.fields[field];
        Some(
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned),
        )
    };
    let told: Vec<(String, String)> = base
        .memoir()
        .iter()
        .filter_map(|record| Some((record.kind.clone(), subject(record)?)))
        .collect();
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(kind, subject)| (kind.to_owned(), subject))
        .collect();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn an_agent_told_to_exit_is_followed_by_another_and_a_rnode_by_none() {
    let mut base = Base::start();
    base.ready().await;
    base.rexec()
        .await
        .start(start("waiting", &["wait"]))
        .await
        .unwrap();
    // An open stream does not hold it back.
    let mut watcher = base.fulcrum().await;
    let follow = EventsRequest {
        after: String::new(),
        follow: true,
    };
    let _events = watcher.events(follow).await.unwrap();
    let old = base.contact().await;
    base.fulcrum()
        .await
        .exit(ExitRequest::default())
        .await
        .unwrap();
    until(async || base.contact().await["pid"] != old["pid"]).await;
    let listed = base
        .rexec()
        .await
        .list(ListRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(
        listed
            .executions
            .iter()
            .any(|known| known.execution == "waiting")
    );

    let mut fulcrum = base.fulcrum().await;
    let end = ExitRequest {
        end_rnode: true,
        only_idle: true,
    };
    fulcrum.exit(end).await.unwrap();
    // What it took now would be deleted with it; it may be gone before it can say so.
    let put = fulcrum.put_document(base.put(&base.document(1, 0))).await;
    let refused = put.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(base.keeper_ended().await.success());
    let ends = base
        .memoir()
        .into_iter()
        .filter(|record| record.kind == "exit")
        .count();
    assert_eq!(ends, 2);
}
