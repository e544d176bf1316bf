//! Denials among real rnodes: they spread, cut off, outlast restarts, and hold documents back.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crux_core::identity::Denied;
use crux_net::identity::{Expect, GrantTerms, OwnerStore};
use crux_wire::document::v1::{InstanceState, SignedDocument};
use crux_wire::fulcrum::v1::fulcrum_client::FulcrumClient;
use crux_wire::fulcrum::v1::{
    DescribeRequest, EventsRequest, GetAuthorityRequest, HintRequest, PutAuthorityRequest,
    StatusReply,
};
use prost::Message as _;

use crate::agent_rig::{APP, Base, Nested};
use crate::rig::{Scratch, until, within};

fn put(owner: &OwnerStore) -> PutAuthorityRequest {
    PutAuthorityRequest {
        authority: Some(owner.trust().authority()),
        ..PutAuthorityRequest::default()
    }
}

/// Whether `who` could put it to the rnode at `contact`, or the rnode has ended over it.
async fn tell(who: &OwnerStore, contact: &serde_json::Value, request: PutAuthorityRequest) -> bool {
    let address = format!("127.0.0.1:{}", contact["port"]);
    let credentials = who.credentials().unwrap();
    let Ok(channel) = crux_net::rpc::connect(&address, &credentials, Expect::Owner).await else {
        return false;
    };
    let _ = FulcrumClient::new(channel).put_authority(request).await;
    true
}

async fn id(rnode: &Nested) -> String {
    rnode.contact().await["rnode"].as_str().unwrap().to_owned()
}

fn kinds(rnode: &Nested) -> Vec<String> {
    let records = rnode.memoir().into_iter();
    records.map(|record| record.kind).collect()
}

// Shows in part: CRT-05
#[tokio::test]
async fn a_denied_rnode_is_cut_off_by_all_and_its_restart_does_not_bring_it_back() {
    let base = Base::start();
    base.ready().await;
    let first = Nested::start(&base, "n1").await;
    let second = Nested::join(&base, "n2", Some(&first)).await;
    let mut third = Nested::join(&base, "n3", Some(&second)).await;
    for rnode in [&first, &second, &third] {
        rnode
            .status(&base, |status| status.rnodes_running == 3)
            .await;
    }
    // Who denied it no longer talks to it: somebody else does that below.
    let invitation = base
        .owner
        .invite_operator(&"bob".parse().unwrap(), &GrantTerms::default())
        .unwrap();
    let bob = OwnerStore::login(&base.home.join("elsewhere"), &invitation).unwrap();
    let lost = id(&third).await;
    let denied = Denied::Rnode(lost.parse().unwrap());
    // Off while it is denied, or its peers would tell it.
    third.kill();
    base.owner.deny(vec![denied], "its disk was sold").unwrap();
    let told = first
        .fulcrum(&base)
        .await
        .put_authority(put(&base.owner))
        .await
        .unwrap()
        .into_inner();
    assert!(told.changed && told.refused.is_empty(), "{told:?}");
    let without = |status: &StatusReply| {
        status.rnodes_running == 2
            && !status.flock.as_ref().is_some_and(|flock| {
                flock
                    .members
                    .iter()
                    .any(|member| member.id == lost && member.state == "alive")
            })
    };
    for rnode in [&first, &second] {
        rnode.status(&base, without).await;
        until(async || kinds(rnode).iter().any(|kind| kind == "identity.denied")).await;
    }
    // Nobody but an operator told the second one: it heard from the first, and keeps it on disk.
    assert!(second.dir.join("identity/authority").exists());

    third.start_again(&base);
    let old = second.contact().await;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(old["pid"].as_i64().unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    until(async || second.contact().await["pid"] != old["pid"]).await;
    // The second one's new agent knows the third only as denied.
    second.status(&base, without).await;
    // Told itself, the third ends for good: its agent does not start again.
    until(async || tell(&bob, &third.contact().await, put(&base.owner)).await).await;
    until(async || kinds(&third).iter().any(|kind| kind == "identity.ended")).await;
    // Only when all of it is dead is nothing more written down of how it ends.
    third.kill();
    let ended = kinds(&third).len();
    third.start_again(&base);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(
        !third.dir.join("agent/contact").exists(),
        "no agent came up"
    );
    assert_eq!(kinds(&third).len(), ended);
    first.status(&base, without).await;
}

// Shows in part: CRT-05
#[tokio::test]
async fn the_streams_of_a_denied_operator_end_and_its_documents_are_held_back() {
    let base = Base::start();
    base.ready().await;
    let nested = Nested::start(&base, "n1").await;
    // A second operator, on a machine of its own.
    let invitation = base
        .owner
        .invite_operator(&"bob".parse().unwrap(), &GrantTerms::default())
        .unwrap();
    let elsewhere = base.home.join("elsewhere");
    let bob = OwnerStore::login(&elsewhere, &invitation).unwrap();
    let document = base.application(1, "wait");
    let payload = prost::Message::encode_to_vec(&document);
    let (signature, chain) = bob.sign_document(&payload).unwrap();
    let mut request = base.put(&document);
    request.document.as_mut().unwrap().signature = signature;
    request.document.as_mut().unwrap().chain = chain;
    let at_base = base.fulcrum().await.put_document(request.clone()).await;
    assert!(!at_base.unwrap().into_inner().unchanged);
    let at_nested = nested.fulcrum(&base).await.put_document(request).await;
    assert!(!at_nested.unwrap().into_inner().unchanged);
    let ready = |status: &StatusReply| {
        status
            .instances
            .iter()
            .any(|known| known.state() == InstanceState::Ready)
    };
    let before = nested.status(&base, ready).await;
    let contact = nested.contact().await;
    let address = format!("127.0.0.1:{}", contact["port"]);
    let credentials = bob.credentials().unwrap();
    let channel = crux_net::rpc::connect(&address, &credentials, Expect::Owner).await;
    let mut as_bob = FulcrumClient::new(channel.unwrap());
    let follow = EventsRequest {
        follow: true,
        ..EventsRequest::default()
    };
    let mut events = as_bob.events(follow).await.unwrap().into_inner();
    assert!(events.message().await.unwrap().is_some());

    let key = match &bob.credentials().unwrap().principal().unwrap().who {
        crux_core::identity::Who::Operator { id, .. } => *id,
        who => panic!("{who:?}"),
    };
    base.owner
        .deny(vec![Denied::Key(key)], "bob has left")
        .unwrap();
    nested
        .fulcrum(&base)
        .await
        .put_authority(put(&base.owner))
        .await
        .unwrap();
    // In the middle of a stream.
    within(async { while let Ok(Some(_)) = events.message().await {} }).await;
    assert!(
        as_bob
            .status(crux_wire::fulcrum::v1::StatusRequest {})
            .await
            .is_err()
    );
    let held = nested
        .status(&base, |status| {
            status
                .problems
                .iter()
                .any(|problem| problem.contains("held back"))
        })
        .await;
    // What runs goes on.
    let executions = |status: &StatusReply| -> BTreeSet<String> {
        let instances = status.instances.iter();
        instances.map(|known| known.execution.clone()).collect()
    };
    assert_eq!(executions(&held), executions(&before));
    // Bob's signature no longer brings anything in; the owner's does.
    let next = base.application(2, "wait");
    let payload = prost::Message::encode_to_vec(&next);
    let (signature, chain) = bob.sign_document(&payload).unwrap();
    let mut by_bob = base.put(&next);
    by_bob.document.as_mut().unwrap().signature = signature;
    by_bob.document.as_mut().unwrap().chain = chain;
    let mut operator = nested.fulcrum(&base).await;
    let refused = operator.put_document(by_bob).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    base.apply(&nested, &next).await;
    nested
        .status(&base, |status| status.problems.is_empty() && status.settled)
        .await;
}

// Shows in part: CRT-05
#[tokio::test]
async fn what_an_operator_enrolled_outlives_its_denial_where_the_root_vouches() {
    let mut base = Base::start();
    base.ready().await;
    let nested = Nested::start(&base, "n1").await;
    base.apply(&nested, &base.application(1, "wait")).await;
    let before = nested.status(&base, |status| status.settled).await;
    let pids = [base.contact().await, nested.contact().await].map(|at| at["pid"].clone());
    let issued = base.owner.issued().unwrap().into_iter();
    let mut operators =
        issued.filter(|held| matches!(held.grant.role, crux_core::identity::Role::Operator { .. }));
    let key = operators.next().unwrap().key;
    let enrolled = base.owner.enrolled_by(&key).unwrap();
    assert_eq!(enrolled.len(), 2, "the base and n1");
    base.owner.vouch(&enrolled).unwrap();
    let denied = vec![Denied::Key(key.id())];
    base.owner.deny(denied, "its laptop is gone").unwrap();
    // The owner's machine has the root key, and makes itself another operator: that one tells.
    base.owner = OwnerStore::open(&base.home).unwrap().unwrap();
    for mut rnode in [base.fulcrum().await, nested.fulcrum(&base).await] {
        let told = rnode.put_authority(put(&base.owner)).await.unwrap();
        assert_eq!(told.into_inner().refused, Vec::<String>::new());
    }
    let held_back = |status: &StatusReply| {
        let problems = &status.problems;
        problems.iter().any(|problem| problem.contains("held back"))
    };
    let held = nested.status(&base, held_back).await;
    assert_eq!(held.instances[0].execution, before.instances[0].execution);
    // Another operator signs the very same again.
    let mut again = base.application(2, "wait");
    again.digest = base.application(1, "wait").digest;
    base.apply(&nested, &again).await;
    let settled = nested
        .status(&base, |status| status.generation == 2 && status.settled)
        .await;
    assert_eq!(settled.problems, Vec::<String>::new());
    let after = [base.contact().await, nested.contact().await].map(|at| at["pid"].clone());
    assert_eq!(after, pids, "neither agent ended");
    for records in [base.memoir(), nested.memoir()] {
        let kinds: Vec<_> = records.into_iter().map(|record| record.kind).collect();
        for kind in ["identity.vouched", "identity.denied"] {
            assert!(kinds.iter().any(|known| known == kind), "{kind}: {kinds:?}");
        }
    }
}

#[tokio::test]
async fn a_denied_rnode_is_told_by_those_who_knew_it() {
    let base = Base::start();
    base.ready().await;
    let first = Nested::start(&base, "n1").await;
    let second = Nested::join(&base, "n2", Some(&first)).await;
    for rnode in [&first, &second] {
        rnode
            .status(&base, |status| status.rnodes_running == 2)
            .await;
    }
    let denied = Denied::Rnode(id(&second).await.parse().unwrap());
    base.owner.deny(vec![denied], "it was lent").unwrap();
    let mut fulcrum = first.fulcrum(&base).await;
    let told = fulcrum.put_authority(put(&base.owner)).await.unwrap();
    assert!(told.into_inner().changed);
    until(async || kinds(&second).iter().any(|kind| kind == "identity.ended")).await;
}

#[tokio::test]
async fn a_rnode_that_ends_over_its_denial_takes_no_document_any_more() {
    let base = Base::start();
    base.ready().await;
    let nested = Nested::start(&base, "n1").await;
    // What runs holds its end up.
    base.apply(&nested, &base.application(1, "stay")).await;
    nested.status(&base, |status| status.settled).await;
    let terms = GrantTerms::default();
    let invitation = base.owner.invite_operator(&"bob".parse().unwrap(), &terms);
    // Whoever has not heard of the denial talks to it still.
    let bob = OwnerStore::login(&base.home.join("elsewhere"), &invitation.unwrap()).unwrap();
    let address = format!("127.0.0.1:{}", nested.contact().await["port"]);
    let credentials = bob.credentials().unwrap();
    let channel = crux_net::rpc::connect(&address, &credentials, Expect::Owner).await;
    let mut as_bob = FulcrumClient::new(channel.unwrap());
    let denied = Denied::Rnode(id(&nested).await.parse().unwrap());
    base.owner.deny(vec![denied], "it was lent").unwrap();
    let _ = as_bob.put_authority(put(&base.owner)).await;
    until(async || kinds(&nested).iter().any(|kind| kind == "identity.ended")).await;
    let next = base.put(&base.application(2, "stay"));
    let refused = as_bob.put_document(next).await;
    assert!(refused.is_err(), "{refused:?}");
    let records = nested.memoir();
    let is_end = |record: &&fulcrum::memoir::Record| record.kind == "identity.ended";
    let end = records.iter().find(is_end).unwrap();
    assert_eq!(end.fields["text"], "this rnode was denied; it ends");
    let ended = records.iter().skip_while(|record| !is_end(record));
    let kinds: Vec<&str> = ended.map(|record| record.kind.as_str()).collect();
    assert!(!kinds.contains(&"document.accept"), "{kinds:?}");
}

/// Time in office after which a leader makes its flock weigh more, in the verdicts of its members too: 30 s, and the 10 s
/// for which they go by what it weighed before; and some for them to speak.
const TENURE_MS: u64 = 45_000;

/// Two flocks that know nothing of each other, and one invitation that was claimed in both.
// Shows in part: CRT-04
#[tokio::test]
async fn of_two_that_claimed_one_invitation_in_two_flocks_one_stays_when_they_meet() {
    let base = Base::start();
    base.ready().await;
    let namespace = APP.parse().unwrap();
    let invitation = base.owner.invite_named(&namespace, &"n1".parse().unwrap());
    let invitation = invitation.unwrap().encode();
    let here = Nested::start(&base, "here").await;
    let there = Nested::start(&base, "there").await;
    let takers = [
        Nested::by(&base, ("one", "n1"), &invitation, Some(&here)).await,
        Nested::by(&base, ("two", "n1"), &invitation, Some(&there)).await,
    ];
    // The operator meets neither of the two: it would take sides too.
    for rnode in [&here, &there] {
        rnode
            .status(&base, |status| status.rnodes_running == 2)
            .await;
    }
    let ids = [id(&takers[0]).await, id(&takers[1]).await];
    assert_ne!(ids[0], ids[1]);
    let port = here.contact().await["flock_port"].as_u64().unwrap();
    let met = HintRequest {
        address: format!("127.0.0.1:{port}"),
    };
    there.fulcrum(&base).await.hint(met).await.unwrap();

    let verdict = |rnode: &Nested| {
        let mut newest = rnode.memoir().into_iter().rev();
        let last = newest.find(|record| record.kind == "identity.verdict");
        last.map(|record| record.fields["subject"].clone())
    };
    // Each may have heard of the other's verdict first, so what both say for a moment need not be the end of it.
    let ended = |rnode: &Nested| kinds(rnode).iter().any(|kind| kind == "identity.ended");
    until(async || takers.iter().any(ended)).await;
    let gone = usize::from(ended(&takers[1]));
    let stays = 1 - gone;
    for rnode in [&here, &there] {
        assert_eq!(verdict(rnode), Some(ids[gone].as_str().into()));
    }
    let records = takers[gone].memoir().into_iter();
    let end = records
        .filter(|record| record.kind == "identity.ended")
        .map(|record| record.fields["text"].as_str().unwrap().to_owned())
        .next();
    let expected = format!(
        "this rnode lost its invitation to rnode {}, which claimed it too; it ends",
        ids[stays]
    );
    assert_eq!(end, Some(expected), "it was not denied");
    for rnode in [&here, &there] {
        let status = rnode
            .status(&base, |status| {
                status.rnodes_running == 3 && status.problems.is_empty()
            })
            .await;
        let known: BTreeSet<String> = status.rnodes.into_iter().map(|rnode| rnode.id).collect();
        assert!(
            known.contains(&ids[stays]) && !known.contains(&ids[gone]),
            "{known:?}"
        );
    }
    assert!(![&here, &there, &takers[stays]].into_iter().any(ended));
    // The flock that came of them weighs more once its leader has been one for long; what was answered stays so.
    let flock = |status: StatusReply| status.flock.expect("it is in one");
    until(async || {
        let mut tenures = Vec::new();
        for rnode in [&here, &there] {
            tenures.push(flock(rnode.status(&base, |_| true).await).tenure_ms);
        }
        tenures.into_iter().all(|tenure| tenure > TENURE_MS)
    })
    .await;
    for rnode in [&here, &there] {
        assert_eq!(verdict(rnode), Some(ids[gone].as_str().into()));
        let status = rnode.status(&base, |_| true).await;
        assert_eq!((status.rnodes_running, status.problems), (3, vec![]));
    }
    assert!(![&here, &there, &takers[stays]].into_iter().any(ended));
    // The base, which is no member, hears of it from its rnodes.
    until(async || {
        let records = base.memoir().into_iter();
        let mut verdicts = records.filter(|record| record.kind == "identity.verdict");
        verdicts.any(|record| record.fields["subject"] == ids[gone].as_str())
    })
    .await;
}

/// A copied root key makes a second successor of one charter; the recovery key ends it.
#[tokio::test]
async fn rnodes_that_took_rival_charters_say_so_and_agree_once_the_recovery_key_has_spoken() {
    let base = Base::start();
    base.ready().await;
    let first = Nested::start(&base, "n1").await;
    let second = Nested::start(&base, "n2").await;
    let old = base.owner.recovery_key().unwrap().unwrap();
    base.owner.erase_recovery_key().unwrap();
    let copy = base.home.join("copy");
    std::fs::create_dir(&copy).unwrap();
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o700)).unwrap();
    let mut copying = std::process::Command::new("cp");
    copying.args(["-a", "owner", "operator", "copy"]);
    assert!(copying.current_dir(&base.home).status().unwrap().success());
    let homes = [base.home.clone(), copy];
    let opened = |at: usize| OwnerStore::open(&homes[at]).unwrap().unwrap();
    for at in [0, 1] {
        assert!(!opened(at).rotate(None).unwrap().by_recovery);
    }
    let ids = [0, 1].map(|at| opened(at).charter().id().short());
    for (at, rnode) in [&first, &second].into_iter().enumerate() {
        let mut fulcrum = rnode.fulcrum(&base).await;
        fulcrum.put_authority(put(&opened(at))).await.unwrap();
    }
    // Only now do the two meet.
    let port = first.contact().await["flock_port"].as_u64().unwrap();
    let met = HintRequest {
        address: format!("127.0.0.1:{port}"),
    };
    second.fulcrum(&base).await.hint(met).await.unwrap();
    for (at, rnode) in [&first, &second].into_iter().enumerate() {
        let told = rnode
            .status(&base, |status| {
                status.problems.iter().any(|problem| {
                    let held = |at: usize, by: &str| {
                        problem.contains(&format!("{} (generation 2, held by {by})", ids[at]))
                    };
                    held(0, "n1") && held(1, "n2")
                })
            })
            .await;
        let first_named = told
            .problems
            .iter()
            .any(|problem| problem.contains(&format!("charters {} ", ids[at])));
        assert!(first_named, "each keeps its own: {:?}", told.problems);
        until(async || {
            kinds(rnode)
                .iter()
                .any(|kind| kind == "identity.rival_charter")
        })
        .await;
    }
    let rivals = second
        .fulcrum(&base)
        .await
        .get_authority(GetAuthorityRequest::default())
        .await;
    let heard = rivals.unwrap().into_inner().authority.unwrap();
    assert!(opened(0).take_authority(&heard).unwrap().changed);
    OwnerStore::recover(&homes[0], &old).unwrap();
    let mut fulcrum = first.fulcrum(&base).await;
    let told = fulcrum.put_authority(put(&opened(0))).await.unwrap();
    assert_eq!(told.into_inner().refused, Vec::<String>::new());
    let mark = opened(0).trust().authority_mark();
    for rnode in [&first, &second] {
        rnode
            .status(&base, |status| {
                status.rnodes_running == 2 && status.problems.is_empty()
            })
            .await;
        let described = rnode
            .fulcrum(&base)
            .await
            .describe(DescribeRequest {})
            .await;
        assert_eq!(
            described.unwrap().into_inner().authority.as_ref(),
            Some(&mark)
        );
    }
}

// Shows: SEC-02
#[tokio::test]
async fn a_document_on_disk_that_is_unsigned_or_altered_is_rejected_at_load() {
    let base = Base::start();
    base.ready().await;
    let mut nested = Nested::start(&base, "n1").await;
    base.apply(&nested, &base.application(1, "wait")).await;
    nested.status(&base, |status| status.settled).await;
    nested.kill();
    let documents = nested.dir.join("agent/documents");
    let files = || {
        fs::read_dir(&documents)
            .unwrap()
            .map(|file| file.unwrap().path())
    };
    let path = files().next().unwrap();
    let signed = SignedDocument::decode(&*fs::read(&path).unwrap()).unwrap();
    // As if asked for: other words, a later generation, by the same signature; and one by none.
    let other = base.application(9, "exit 0").encode_to_vec();
    let altered = SignedDocument {
        payload: other.clone(),
        ..signed
    };
    let unsigned = SignedDocument {
        payload: other,
        ..SignedDocument::default()
    };
    // A whole one, but of somebody else's; and words under the chain of somebody else, whose signature is of other words.
    let strangers = Scratch::new();
    let stranger = OwnerStore::open_or_create(strangers.path()).unwrap();
    let (signature, chain) = stranger.sign_document(&altered.payload).unwrap();
    let foreign = SignedDocument {
        payload: altered.payload.clone(),
        signature,
        chain: chain.clone(),
    };
    let mixed = SignedDocument {
        chain,
        ..altered.clone()
    };
    fs::write(&path, altered.encode_to_vec()).unwrap();
    for (name, wrong) in [
        ("unsigned", unsigned),
        ("foreign", foreign),
        ("mixed", mixed),
    ] {
        fs::write(path.with_extension(name), wrong.encode_to_vec()).unwrap();
    }
    nested.start_again(&base);
    let status = nested.status(&base, |_| true).await;
    assert_eq!(
        (status.generation, status.instances.len()),
        (0, 0),
        "{status:?}"
    );
    // Neither counts for what was seen: the next one is none too old.
    base.apply(&nested, &base.application(2, "wait")).await;
    nested
        .status(&base, |status| status.settled && status.generation == 2)
        .await;
}
