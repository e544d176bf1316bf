//! External addresses by id.

use std::collections::BTreeSet;

use underverse::{AddressId, HordeName, Kind, Underverse as _};

use crate::fake::World;

// Shows: NET-07
#[tokio::test]
async fn addresses_are_distinct_stable_exhausted_and_can_be_had_again() {
    let world = World::new();
    let local = world.local();
    let shire = HordeName::new("the_shire").unwrap();
    let mut ids = BTreeSet::new();
    let mut hosts = BTreeSet::new();
    let exhausted = loop {
        match local
            .acquire_address(&shire, &format!("door-{}", ids.len()))
            .await
        {
            Ok((id, host)) => {
                assert!(host.is_loopback());
                assert!(ids.insert(id) && hosts.insert(host));
            }
            Err(error) => break error,
        }
    };
    assert_eq!((exhausted.kind(), ids.len()), (Kind::Limit, 32));
    // Another process of the same home finds the same ones.
    let again = world.local();
    let (first, host) = again.acquire_address(&shire, "door-0").await.unwrap();
    assert!(ids.contains(&first) && hosts.contains(&host));
    assert_eq!(
        local.acquire_address(&shire, "door-0").await.unwrap(),
        (first.clone(), host)
    );
    again.release_address(&first).await.unwrap();
    again.release_address(&first).await.unwrap();
    local
        .release_address(&AddressId::from_backend("never-given"))
        .await
        .unwrap();
    let (next, host_again) = local.acquire_address(&shire, "door-0").await.unwrap();
    assert_eq!(host_again, host, "the address can be had again");
    assert!(!ids.contains(&next), "its id is never used again");
}
