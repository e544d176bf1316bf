//! Who may act on an application that runs: no process of one, nor a tool that may look; a tool with `lifecycle` may.

use crux_core::identity::Verb;
use crux_core::names::Label;
use crux_net::identity::{Credentials, Expect, GrantTerms, OwnerStore, RnodeIdentity, SecretKey};
use crux_wire::document::v1::InstanceRecord;
use crux_wire::fulcrum::v1::{ExitRequest, StatusReply};
use crux_wire::keeper::v1::EnvironmentVariable;
use crux_wire::rexec::v1::rexec_client::RexecClient;
use crux_wire::rexec::v1::{RunInput, SignalRequest, StartRequest, run_input};
use tonic::Code;
use tonic::transport::Channel;

use crate::agent_rig::{APP, Base, Nested};
use crate::rig::until;

const OTHER: &str = "other";

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

/// A process of the application of `namespace`, vouched for by a rnode of it.
fn process(base: &Base, namespace: &str) -> Credentials {
    let dir = base.home.join(format!("elsewhere/rnode-{namespace}"));
    std::fs::create_dir_all(&dir).unwrap();
    let invitation = base.owner.invite_named(&label(namespace), &label("n9"));
    let rnode = RnodeIdentity::claim(&dir, &invitation.unwrap(), None).unwrap();
    let key = SecretKey::generate().unwrap();
    let issuer = rnode.leaf_issuer();
    let leaf = issuer.issue(&label(namespace), &label("prog1"), 3, &key.public().spki());
    let charter = rnode.trust().charter();
    Credentials::for_app(&leaf.unwrap().chain, &key, charter.encoded()).unwrap()
}

fn tool(base: &Base, name: &str, namespace: &str, verbs: &[Verb]) -> Credentials {
    let terms = GrantTerms {
        verbs: verbs.to_vec(),
        ..GrantTerms::over(Some(&label(namespace)))
    };
    let invitation = base.owner.invite_tool(&label(name), &terms).unwrap();
    let home = base.home.join("elsewhere").join(name);
    let store = OwnerStore::login(&home, &invitation).unwrap();
    store.credentials().unwrap()
}

async fn rexec(nested: &Nested, who: &Credentials) -> RexecClient<Channel> {
    let address = format!("127.0.0.1:{}", nested.contact().await["port"]);
    let channel = crux_net::rpc::connect(&address, who, Expect::Owner).await;
    RexecClient::new(channel.unwrap())
}

fn end(instance: &InstanceRecord) -> SignalRequest {
    SignalRequest {
        execution: instance.execution.clone(),
        signal: 9,
        group: true,
    }
}

// Shows: SEC-03
#[tokio::test]
async fn an_application_may_not_act_on_another_and_a_tool_with_the_verb_may() {
    let base = Base::start();
    base.ready().await;
    let nested = Nested::start(&base, "n1").await;
    base.apply(&nested, &base.application(1, "wait")).await;
    let settled = |status: &StatusReply| status.settled && status.instances.len() == 1;
    let first = nested.status(&base, settled).await.instances[0].clone();
    let start = StartRequest {
        configuration: APP.to_owned(),
        command: "worker".to_owned(),
        args: vec!["wait".to_owned()],
        ..StartRequest::default()
    };
    std::fs::create_dir_all(base.home.join("elsewhere")).unwrap();
    for who in [
        process(&base, OTHER),
        process(&base, APP),
        tool(&base, "watcher", APP, &[]),
        tool(&base, "stranger", OTHER, &[Verb::Lifecycle]),
    ] {
        let mut rexec = rexec(&nested, &who).await;
        let signal = rexec.signal(end(&first)).await.unwrap_err();
        assert_eq!(signal.code(), Code::PermissionDenied, "{signal}");
        let started = rexec.start(start.clone()).await.unwrap_err();
        assert_eq!(started.code(), Code::PermissionDenied, "{started}");
    }
    let still = nested.status(&base, settled).await.instances[0].clone();
    assert_eq!(still.execution, first.execution);

    let tuner = tool(&base, "tuner", APP, &[Verb::Lifecycle]);
    let mut as_tuner = rexec(&nested, &tuner).await;
    as_tuner.signal(end(&first)).await.unwrap();
    let other =
        |status: &StatusReply| settled(status) && status.instances[0].execution != first.execution;
    nested.status(&base, other).await;
    as_tuner.start(start.clone()).await.unwrap();
    // As it is described: a variable would make another program of it.
    let preloaded = StartRequest {
        execution: "preloaded".to_owned(),
        env: vec![EnvironmentVariable {
            name: "LD_PRELOAD".to_owned(),
            value: "/tmp/other.so".to_owned(),
        }],
        ..start.clone()
    };
    let refused = as_tuner.start(preloaded.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains("LD_PRELOAD"), "{refused}");
    let run = RunInput {
        input: Some(run_input::Input::Start(preloaded.clone())),
    };
    let refused = as_tuner.run(tokio_stream::iter([run])).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let by_operator = rexec(&nested, &base.operator())
        .await
        .start(preloaded)
        .await;
    assert!(!by_operator.unwrap().into_inner().existed);
    // What runs at the base is no application.
    let whole = GrantTerms {
        verbs: vec![Verb::Lifecycle],
        ..GrantTerms::default()
    };
    let invitation = base.owner.invite_tool(&label("all"), &whole).unwrap();
    let all = OwnerStore::login(&base.home.join("elsewhere/all"), &invitation).unwrap();
    let channel = base.connect(&all.credentials().unwrap()).await;
    let refused = RexecClient::new(channel).signal(end(&first)).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);

    // Both stand in the memoir, by name. Refusals are summed by the minute, and written when an agent ends.
    let mut operator = nested.fulcrum(&base).await;
    operator.exit(ExitRequest::default()).await.unwrap();
    let recorded = |kind: &str, who: &str| {
        let records = nested.memoir();
        records.iter().any(|record| {
            let fields = serde_json::to_string(&record.fields).unwrap();
            record.kind.contains(kind) && fields.contains(who)
        })
    };
    for refused in ["other/other/prog1/3", "app/app/prog1/3", "tool watcher"] {
        until(async || recorded("refus", refused)).await;
    }
    for done in ["exec.signal", "exec.start"] {
        assert!(recorded(done, "tool tuner"), "{done}");
    }
}
