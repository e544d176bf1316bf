//! Invitations that nobody claims in time are revoked by the base, whatever a claim says of its moment.

use std::time::Duration;

use crux_core::identity::{Denied, Notice};
use crux_core::names::Label;
use crux_net::identity::{
    Credentials, Expect, GrantTerms, Invitation, OwnerStore, Place, RnodeIdentity,
};
use crux_wire::fulcrum::v1::fulcrum_client::FulcrumClient;
use crux_wire::fulcrum::v1::{DescribeRequest, GetAuthorityRequest, PutAuthorityRequest};

use crate::agent_rig::{APP, Base, Nested};
use crate::rig::until;

/// How long the invitations here may be claimed: enough for a loaded machine to make and show all that is to be met.
const LIFE: Duration = Duration::from_secs(10);

fn name(text: &str) -> Label {
    text.parse().unwrap()
}

/// Whether the base answers whoever holds these.
async fn is_let_in(base: &Base, credentials: &Credentials) -> bool {
    let address = format!("127.0.0.1:{}", base.contact().await["port"]);
    let Ok(channel) = crux_net::rpc::connect(&address, credentials, Expect::Owner).await else {
        return false;
    };
    let mut fulcrum = FulcrumClient::new(channel);
    fulcrum.describe(DescribeRequest {}).await.is_ok()
}

/// Someone with a directory of its own who came in by `invitation`, and has shown itself to nobody.
fn enter(base: &Base, directory: &str, invitation: &Invitation) -> Credentials {
    let login = OwnerStore::login(&base.home.join(directory), invitation).unwrap();
    login.credentials().unwrap()
}

fn join(base: &Base, directory: &str, pool: &Invitation, ordinal: u32) -> Credentials {
    let place = Place {
        label: name(directory),
        ordinal,
    };
    let dir = base.home.join(directory);
    let identity = RnodeIdentity::claim(&dir, pool, Some(place)).unwrap();
    identity.credentials().unwrap()
}

/// Waits until the base denies `invitation`, wholly or but for so many.
async fn settled(base: &Base, invitation: &Invitation, kept: Option<usize>) {
    until(async || {
        let mut fulcrum = base.fulcrum().await;
        let held = fulcrum.get_authority(GetAuthorityRequest::default()).await;
        let notices = held.unwrap().into_inner().authority.unwrap().notices;
        let mut notices = notices
            .iter()
            .map(|held| Notice::decode(&held.payload).unwrap());
        notices.any(|notice| match kept {
            None => notice.denied.contains(&Denied::Invitation(invitation.id())),
            Some(kept) => notice.closed.iter().any(|closing| {
                closing.invitation == invitation.id() && closing.claims.len() == kept
            }),
        })
    })
    .await;
}

async fn hand_over(base: &Base, owner: &OwnerStore) {
    let request = PutAuthorityRequest {
        invitations: owner.pending_invitations().unwrap(),
        ..PutAuthorityRequest::default()
    };
    let told = base.fulcrum().await.put_authority(request).await.unwrap();
    assert_eq!(told.into_inner().refused, Vec::<String>::new());
}

// Shows: CRT-04
#[tokio::test]
async fn a_replayed_token_is_refused_and_an_unclaimed_one_is_revoked_in_time() {
    let base = Base::start();
    base.ready().await;
    let brief = OwnerStore::open(&base.home).unwrap().unwrap();
    let brief = brief.claimable_within(LIFE).unwrap();
    let terms = GrantTerms::default();
    let taken = brief.invite_tool(&name("taken"), &terms).unwrap();
    let stolen = brief.invite_operator(&name("stolen"), &terms).unwrap();
    let unused = brief.invite_named(&name(APP), &name("n9")).unwrap();
    // The thief claimed in time, as far as the certificate says: a back-dated one has the same bytes.
    let rightful = enter(&base, "rightful", &taken);
    let replayed = enter(&base, "replayed", &taken);
    let back_dated = enter(&base, "thief", &stolen);
    hand_over(&base, &brief).await;
    assert!(is_let_in(&base, &rightful).await);
    assert!(
        !is_let_in(&base, &replayed).await,
        "the first claim seen stays"
    );

    settled(&base, &stolen, None).await;
    settled(&base, &unused, None).await;
    assert!(
        !is_let_in(&base, &back_dated).await,
        "nobody met it in time"
    );
    assert!(is_let_in(&base, &rightful).await);
    assert!(!is_let_in(&base, &replayed).await);
    let late = OwnerStore::login(&base.home.join("late"), &stolen).unwrap_err();
    assert!(late.to_string().contains("claimed by"), "{late}");
    let records = base.memoir().into_iter();
    let settled = records.filter(|record| record.kind == "invitation.settled");
    assert_eq!(settled.count(), 2, "the claimed one was never denied");
}

// Shows: CRT-04
#[tokio::test]
async fn a_pool_claimed_in_part_is_closed_but_for_those_who_came() {
    let mut base = Base::start();
    base.ready().await;
    let nested = Nested::start(&base, "n1").await;
    // So the base may host the namespace.
    base.apply(&nested, &base.application(1, "wait")).await;
    let brief = OwnerStore::open(&base.home).unwrap().unwrap();
    let brief = brief.claimable_within(LIFE).unwrap();
    let pool = brief.invite_pool(&name(APP), 3).unwrap();
    let came = join(&base, "came", &pool, 0);
    let thief = join(&base, "thief", &pool, 1);
    hand_over(&base, &brief).await;
    assert!(is_let_in(&base, &came).await);
    // Neither is forgotten by a new agent.
    let old = base.contact().await;
    base.kill_keeper();
    fulcrum::mark::end_marked(&base.mark(), Duration::from_secs(10)).unwrap();
    std::fs::remove_file(base.dir.join("agent/contact")).unwrap();
    base.start_keeper();
    assert_ne!(base.contact().await["pid"], old["pid"]);
    settled(&base, &pool, Some(1)).await;
    assert!(is_let_in(&base, &came).await);
    assert!(!is_let_in(&base, &thief).await);
}
