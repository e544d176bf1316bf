//! The tap: counted, refused and stopped calls, also by another hand.

use std::time::Duration;

use underverse_conformance::{Disturbance, Scratch, Tap};

#[tokio::test]
async fn a_tap_counts_fails_and_hangs_at_the_call_that_was_named() {
    let scratch = Scratch::new("tap").unwrap();
    let (ours, theirs) = (Tap::at(scratch.path()), Tap::at(scratch.path()));
    theirs.call("one").await.unwrap();
    ours.disturb(Disturbance::FailAt(2)).unwrap();
    theirs.call("two").await.unwrap();
    assert!(theirs.call("three").await.is_err());
    theirs.call("four").await.unwrap();
    assert_eq!(ours.count().unwrap(), 4);
    ours.disturb(Disturbance::HangAt(1)).unwrap();
    let hanging = tokio::time::timeout(Duration::from_secs(60), theirs.call("five"));
    tokio::select! {
        _ = hanging => panic!("it did not hang"),
        () = ours.hung() => {}
    }
    ours.disturb(Disturbance::None).unwrap();
    theirs.call("six").await.unwrap();
    assert_eq!(ours.count().unwrap(), 6);
    Tap::closed().call("anything").await.unwrap();
    assert!(Tap::closed().count().is_err());
}
