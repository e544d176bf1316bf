//! The blackboard as a process sees it.

use std::time::Duration;

use crux::wire::status::Kind;
use crux::{Blackboard, KEY_BYTES_MAX, VALUE_BYTES_MAX};

use crate::agent::World;

#[tokio::test]
async fn what_one_process_writes_another_reads() {
    let world = World::new();
    let (one, other) = (world.process("prog1", 0), world.process("prog2", 3));
    let (writes, reads) = (Blackboard::new(&one.agent), Blackboard::new(&other.agent));
    assert_eq!(reads.get("a").await.expect("an answer"), None);
    let mut watch = reads.watch("a", Duration::ZERO);
    assert!(watch.next().await.expect("an answer").is_empty());
    for key in ["ab", "a", "b"] {
        writes.put(key, key.as_bytes()).await.expect("written");
    }
    let found = reads.get("a").await.expect("an answer").expect("an entry");
    assert_eq!(
        (found.value.as_slice(), found.writer.as_str()),
        (b"a".as_slice(), "stix/stix/prog1/0")
    );
    let keys = |entries: Vec<crux::Entry>| {
        entries
            .into_iter()
            .map(|entry| entry.key)
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(reads.list("a").await.expect("an answer")), ["a", "ab"]);
    let mut seen = Vec::new();
    while seen != ["a", "ab"] {
        seen = keys(watch.next().await.expect("an answer"));
    }
    writes.remove("a").await.expect("removed");
    assert_eq!(keys(watch.next().await.expect("an answer")), ["ab"]);
}

#[tokio::test]
async fn what_is_too_long_is_refused_before_it_is_sent() {
    let world = World::new();
    let board = Blackboard::new(&world.process("prog1", 0).agent);
    let long = "k".repeat(KEY_BYTES_MAX + 1);
    for refused in [
        board.put(&long, b"").await,
        board.put("", b"").await,
        board.put("k", &vec![0; VALUE_BYTES_MAX + 1]).await,
        board.remove(&long).await,
        board.get("").await.map(drop),
    ] {
        assert_eq!(refused.expect_err("too long").kind(), Kind::Invalid);
    }
    let (key, value) = ("k".repeat(KEY_BYTES_MAX), vec![0; VALUE_BYTES_MAX]);
    // The agent of this process went with it; another one still answers.
    let process = world.process("prog1", 1);
    Blackboard::new(&process.agent)
        .put(&key, &value)
        .await
        .expect("just short enough");
}
