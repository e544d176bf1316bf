//! Instances of an application on a real nested rnode that leads itself.

use crux_wire::document::v1::{InstanceRecord, InstanceState, ServiceRecord};
use crux_wire::fileio::v1::file_io_client::FileIoClient;
use crux_wire::fileio::v1::{NeedRequest, ScanRequest};
use crux_wire::fulcrum::v1::{EntriesRequest, ServicesRequest, StatusReply};
use crux_wire::rexec::v1::rexec_client::RexecClient;
use crux_wire::rexec::v1::{StartRequest, WaitRequest};
use tonic::Code;

use crate::agent_rig::{Base, Nested};
use crate::rig::until;

fn one(status: &StatusReply) -> &InstanceRecord {
    assert_eq!(status.instances.len(), 1, "{status:#?}");
    &status.instances[0]
}

fn kill(pid: i32) {
    assert!(pid > 1);
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

// Shows in part: KHN-03, KHN-10, REX-05, FIO-06
#[tokio::test]
async fn a_document_is_carried_out_and_a_killed_instance_is_back() {
    let base = Base::start();
    base.ready().await;
    let nested = Nested::start(&base, "n1").await;
    base.apply(&nested, &base.application(1, "wait")).await;
    let settled = nested.status(&base, |status| status.settled).await;
    let first = one(&settled).clone();
    assert_eq!(first.state(), InstanceState::Ready);
    assert_eq!(settled.problems, Vec::<String>::new());
    assert!(nested.dir.join("cell/var/app/bin/worker").exists());

    kill(first.pid);
    let back = nested
        .status(&base, |status| {
            status.settled && one(status).execution != first.execution
        })
        .await;
    assert_eq!(one(&back).restarts, 1);

    // A new document with other arguments: the instance is replaced.
    base.apply(&nested, &base.application(2, "wait %rnode"))
        .await;
    let failing = nested
        .status(&base, |status| {
            status.generation == 2 && one(status).state() == InstanceState::GaveUp
        })
        .await;
    assert!(
        failing.problems[0].contains("was given up"),
        "{:?}",
        failing.problems
    );
    assert!(!failing.settled);

    base.apply(&nested, &base.application(3, "wait")).await;
    let again = nested
        .status(&base, |status| status.generation == 3 && status.settled)
        .await;
    assert_eq!(one(&again).restarts, 0);

    let mut end = base.application(4, "wait");
    end.dissolved = true;
    base.apply(&nested, &end).await;
    nested.status(&base, |status| status.ended).await;
    until(async || !std::path::Path::new(&format!("/proc/{}", one(&again).pid)).exists()).await;
}

#[tokio::test]
async fn a_new_agent_adopts_its_instances_without_restarting_them() {
    let base = Base::start();
    base.ready().await;
    let nested = Nested::start(&base, "n1").await;
    base.apply(&nested, &base.application(1, "wait")).await;
    let before = nested.status(&base, |status| status.settled).await;
    let contact = nested.contact().await;
    kill(i32::try_from(contact["pid"].as_i64().unwrap()).unwrap());
    until(async || nested.contact().await["pid"] != contact["pid"]).await;
    let after = nested.status(&base, |status| status.settled).await;
    assert_eq!(one(&after).pid, one(&before).pid);
    assert_eq!(one(&after).execution, one(&before).execution);
    assert_eq!(one(&after).restarts, 0);

    // An instance that ends while no agent lives is started again.
    let contact = nested.contact().await;
    let agent = i32::try_from(contact["pid"].as_i64().unwrap()).unwrap();
    kill(agent);
    kill(one(&after).pid);
    let back = nested
        .status(&base, |status| {
            status.settled && one(status).pid != one(&after).pid
        })
        .await;
    assert_eq!(one(&back).restarts, 1);
}

async fn said(base: &Base, nested: &Nested) -> String {
    let mut value = String::new();
    until(async || {
        let request = EntriesRequest {
            prefix: "bb/app/said".into(),
        };
        let entries = nested
            .fulcrum(base)
            .await
            .entries(request)
            .await
            .unwrap()
            .into_inner();
        value = entries
            .entries
            .first()
            .map(|entry| String::from_utf8_lossy(&entry.value).into_owned())
            .unwrap_or_default();
        !value.is_empty()
    })
    .await;
    value
}

async fn listed(base: &Base, nested: &Nested) -> Vec<ServiceRecord> {
    let request = ServicesRequest {
        name: "lookup".into(),
    };
    let reply = nested.fulcrum(base).await.services(request).await;
    reply.unwrap().into_inner().services
}

// Shows: SVC-02
#[tokio::test]
async fn a_service_is_listed_only_once_its_server_is_ready_and_answers_from_then_on() {
    let base = Base::start();
    base.ready().await;
    let nested = Nested::start(&base, "n1").await;
    let once = base.home.join("ready");
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let head = format!(" serves=lookup:{port} ready=register");
    let words = format!("serve lookup {port} {}", once.display());
    base.apply(&nested, &base.application_with(1, &head, &words))
        .await;
    let running = |status: &StatusReply| status.instances.first().is_some_and(|one| one.pid > 0);
    let status = nested.status(&base, running).await;
    assert_eq!(one(&status).state(), InstanceState::Starting);
    assert_eq!(listed(&base, &nested).await, []);

    std::fs::write(&once, "").unwrap();
    let mut services = Vec::new();
    until(async || {
        services = listed(&base, &nested).await;
        !services.is_empty()
    })
    .await;
    std::net::TcpStream::connect((services[0].host.as_str(), port)).unwrap();
    nested.status(&base, |status| status.settled).await;
}

// Shows in part: SVC-01
#[tokio::test]
async fn an_instance_is_ready_once_it_has_registered_what_its_class_offers() {
    let base = Base::start();
    base.ready().await;
    let nested = Nested::start(&base, "n1").await;
    let head = " serves=lookup:45271 ready=register";
    base.apply(
        &nested,
        &base.application_with(1, head, "serve lookup 45271"),
    )
    .await;
    let settled = nested.status(&base, |status| status.settled).await;
    assert_eq!(said(&base, &nested).await, "prog1/0 registered");
    let services = listed(&base, &nested).await;
    assert_eq!(services.len(), 1);
    assert_eq!(
        (services[0].port, services[0].host.as_str()),
        (45271, "127.0.0.1")
    );
    assert_eq!(services[0].principal, "app/app/prog1/0");
    assert_eq!(services[0].checksum, base.worker.to_string());

    // It stays registered over its agent's death.
    let kept = nested.dir.join("agent/blackboard");
    until(async || kept.exists()).await;
    let contact = nested.contact().await;
    kill(i32::try_from(contact["pid"].as_i64().unwrap()).unwrap());
    until(async || nested.contact().await["pid"] != contact["pid"]).await;
    let after = nested.status(&base, |status| status.settled).await;
    assert_eq!(one(&after).execution, one(&settled).execution);
    assert_eq!(listed(&base, &nested).await, services);
    // What it wrote on the blackboard was written once, and is there.
    assert_eq!(said(&base, &nested).await, "prog1/0 registered");
}

#[tokio::test]
async fn an_instance_cannot_register_what_its_class_does_not_offer() {
    let base = Base::start();
    base.ready().await;
    let nested = Nested::start(&base, "n1").await;
    let head = " serves=lookup:45271 ready=register";
    base.apply(
        &nested,
        &base.application_with(1, head, "serve lookup 1234"),
    )
    .await;
    let text = said(&base, &nested).await;
    assert_eq!(
        text,
        "register lookup: class prog1 offers it on another port"
    );
    let status = nested
        .status(&base, |status| !status.instances.is_empty())
        .await;
    assert_eq!(one(&status).state(), InstanceState::Starting);
}

// Shows in part: REX-02, REX-06
#[tokio::test]
async fn a_command_of_the_application_runs_by_rexec_once_its_file_has_come() {
    let base = Base::start();
    base.ready().await;
    let nested = Nested::start(&base, "n1").await;
    let document = base.application(1, "wait");
    let mut rexec = RexecClient::new(nested.channel(&base).await);
    let start = |command: &str, args: &[&str]| StartRequest {
        configuration: "app".to_owned(),
        command: command.to_owned(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        instance: "app/prog1/7".to_owned(),
        ..StartRequest::default()
    };
    let early = rexec
        .start(start("worker", &["exit", "3"]))
        .await
        .unwrap_err();
    assert_eq!(early.code(), Code::NotFound);
    base.apply(&nested, &document).await;
    let started = rexec
        .start(start("worker", &["exit", "3"]))
        .await
        .unwrap()
        .into_inner();
    let execution = started.execution.unwrap();
    assert_eq!(execution.instance, "");
    let wait = WaitRequest {
        execution: execution.execution,
    };
    let ended = rexec
        .wait(wait)
        .await
        .unwrap()
        .into_inner()
        .execution
        .unwrap();
    assert_eq!(ended.outcome.unwrap().code, 3);
    let shell = rexec.start(start("sh", &[])).await.unwrap_err();
    assert_eq!(shell.code(), Code::NotFound);
    let status = nested.status(&base, |status| status.settled).await;
    assert_eq!(one(&status).index, 0);

    // Other bytes at the path are put right before the next instance, and never run.
    let path = nested.dir.join("cell/var/app/bin/worker");
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"other").unwrap();
    let changed = rexec
        .start(start("worker", &["exit", "0"]))
        .await
        .unwrap_err();
    assert_eq!(changed.code(), Code::FailedPrecondition);
    kill(one(&status).pid);
    let execution = one(&status).execution.clone();
    nested
        .status(&base, |status| {
            status.settled && one(status).execution != execution
        })
        .await;
    rexec.start(start("worker", &["exit", "0"])).await.unwrap();
}

// Shows in part: FIO-05, FIO-06, REX-05
#[tokio::test]
async fn a_rnode_brings_what_is_needed_and_names_what_it_has() {
    let base = Base::start();
    base.ready().await;
    let nested = Nested::start(&base, "n1").await;
    let mut files = FileIoClient::new(nested.channel(&base).await);
    // Only the base has the document yet, so only it knows that the file may be had.
    let mut fulcrum = base.fulcrum().await;
    fulcrum
        .put_document(base.put(&base.application(1, "wait")))
        .await
        .unwrap();
    let worker = base.worker.to_string();
    let nothing = crux_core::digest::Digest::of(b"nobody has this").to_string();
    let need = NeedRequest {
        digests: vec![worker.clone(), nothing.clone()],
        deadline_ms: 30_000,
        ..NeedRequest::default()
    };
    let reply = files.need(need).await.unwrap().into_inner();
    assert_eq!(reply.present, std::slice::from_ref(&worker));
    assert_eq!(reply.missing[0].digest, nothing);
    assert!(
        reply.missing[0]
            .reason
            .contains("no document that we share pins it"),
        "{reply:?}"
    );

    nested
        .fulcrum(&base)
        .await
        .put_document(base.put(&base.application(1, "wait")))
        .await
        .unwrap();
    let request = ScanRequest {
        prefix: "/var/app".into(),
    };
    let mut found = files.scan(request).await.unwrap().into_inner();
    let info = found.message().await.unwrap().unwrap();
    assert_eq!(
        (info.name.as_str(), info.digest),
        ("/var/app/bin/worker", worker)
    );
    assert_eq!(
        (info.kind.as_str(), info.executable, info.persistent),
        ("local", true, false)
    );
    assert_eq!(found.message().await.unwrap(), None);
}
