//! Who is refused in the handshake, and asks why.

use crux_core::identity::Denied;
use crux_net::rpc::refusal;

use super::{Serving, World, at};

#[tokio::test]
async fn a_refusal_in_the_handshake_is_read_each_time_it_is_asked_for() {
    let world = World::new();
    let (n1, n2) = (world.rnode("stix", "n1"), world.rnode("stix", "n2"));
    let mut serving = Serving::start(&n1.credentials().expect("credentials")).await;
    let theirs = n2.credentials().expect("credentials");
    let (address, n1_only) = (serving.address(), || at("stix", "n1"));
    assert!(refusal(&address, &theirs, n1_only()).await.is_none());
    n1.trust().deny(Denied::Rnode(n2.id())).expect("denied");
    for _ in 0..50 {
        let alert = refusal(&address, &theirs, n1_only()).await;
        let alert = alert.expect("no call is there to take it away");
        assert_eq!(alert.kind(), std::io::ErrorKind::InvalidData, "{alert}");
    }
    drop(serving.stop.take());
    (&mut serving.task).await.expect("it drains");
    assert!(refusal(&address, &theirs, n1_only()).await.is_none());
}
