//! Instances of an application on a real nested rnode that leads itself.

use crux_wire::document::v1::{InstanceRecord, InstanceState};
use crux_wire::fulcrum::v1::StatusReply;

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
