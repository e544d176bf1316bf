//! Three real rnodes on one address: they flock, one leads and places, and a lost one is replaced.

use std::collections::BTreeSet;

use crux_wire::document::v1::{Document, InstanceState};
use crux_wire::fulcrum::v1::{EntriesRequest, StatusReply};

use crate::agent_rig::{Base, Nested};
use crate::rig::until;

/// Two instances of `prog1` on three rnodes.
fn two_of_three(base: &Base) -> Document {
    let mut document = base.application(1, "wait");
    document.rnodes_wanted = 3;
    for file in &mut document.files {
        if file.name == "app.khan" {
            file.text = "pick(prog1, 2, ALL)\n".to_owned();
        }
        file.text = file.text.replace("n = 1", "n = 3");
    }
    document
}

fn places(status: &StatusReply) -> BTreeSet<String> {
    let ready = status
        .instances
        .iter()
        .filter(|known| known.state() == InstanceState::Ready);
    ready.map(|known| known.rnode.clone()).collect()
}

// Shows in part: RND-05, RND-06, KHN-02
#[tokio::test]
async fn rnodes_that_share_an_address_flock_and_replace_one_that_is_lost() {
    let base = Base::start();
    base.ready().await;
    let first = Nested::start(&base, "n1").await;
    let second = Nested::join(&base, "n2", Some(&first)).await;
    let third = Nested::join(&base, "n3", Some(&second)).await;
    // One is told; the flock tells the others.
    base.apply(&first, &two_of_three(&base)).await;
    let mut rnodes = [first, second, third];
    let mut leaders = BTreeSet::new();
    for rnode in &rnodes {
        let status = rnode.status(&base, |status| status.settled).await;
        assert_eq!(status.rnodes_running, 3);
        assert_eq!(places(&status).len(), 2);
        leaders.insert(status.flock.unwrap().leader);
        let request = EntriesRequest {
            prefix: "rnode".into(),
        };
        let entries = rnode
            .fulcrum(&base)
            .await
            .entries(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(entries.entries.len(), 3);
    }
    assert_eq!(leaders.len(), 1);

    let status = rnodes[0].status(&base, |status| status.settled).await;
    let lost = status.instances[0].rnode.clone();
    let label = status
        .rnodes
        .iter()
        .find(|rnode| rnode.id == lost)
        .unwrap()
        .label
        .clone();
    let at = rnodes
        .iter()
        .position(|rnode| rnode.label == label)
        .unwrap();
    rnodes[at].kill();
    let other = &rnodes[(at + 1) % 3];
    let healed = other
        .status(&base, |status| {
            places(status).len() == 2
                && !places(status).contains(&lost)
                && status.rnodes_running == 2
        })
        .await;
    assert_eq!(healed.problems, ["2 of 3 rnodes are in the flock"]);
    let kept = status
        .instances
        .iter()
        .find(|known| known.rnode != lost)
        .unwrap();
    let now = healed
        .instances
        .iter()
        .find(|known| known.rnode == kept.rnode)
        .unwrap();
    assert_eq!(now.execution, kept.execution);
}

// Shows in part: RND-07
#[tokio::test]
async fn a_rnode_at_a_new_address_is_the_same_rnode() {
    let base = Base::start();
    base.ready().await;
    let first = Nested::start(&base, "n1").await;
    let second = Nested::join(&base, "n2", Some(&first)).await;
    let two = |status: &StatusReply| status.rnodes_running == 2;
    let before = first.status(&base, two).await;
    let old = second.contact().await;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(old["pid"].as_i64().unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    until(async || second.contact().await["pid"] != old["pid"]).await;
    let new = second.contact().await;
    assert_eq!(new["rnode"], old["rnode"]);
    assert_ne!(new["port"], old["port"]);
    let address = format!("127.0.0.1:{}", new["port"]);
    let after = first
        .status(&base, |status| {
            status.rnodes.iter().any(|rnode| rnode.address == address)
        })
        .await;
    let ids = |status: &StatusReply| -> BTreeSet<String> {
        status.rnodes.iter().map(|rnode| rnode.id.clone()).collect()
    };
    assert_eq!(ids(&after), ids(&before));
    assert_eq!(after.rnodes.len(), 2);
}
