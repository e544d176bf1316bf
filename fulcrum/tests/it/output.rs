//! Reading and following what executions write.

use crux_wire::keeper::v1::OutcomeKind;
use fulcrum::output::{Follower, Piece, Stream};

use crate::rig::{Rig, spawn, until, within};

// Shows in part: REX-01
#[tokio::test]
async fn a_follower_sees_everything_and_then_the_end() {
    let rig = Rig::keeper();
    let agent = rig.agent().await;
    let script = "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done; exit 6";
    let execution = agent.spawn("e", &["/bin/sh", "-c", script]).await;
    let mut follower = Follower::open(&execution, 0, 4).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let end = loop {
        match within(follower.next()).await.unwrap().unwrap() {
            Piece::Data {
                stream: Stream::Stdout,
                offset,
                bytes,
            } => {
                assert_eq!(offset, out.len() as u64);
                out.extend(bytes);
            }
            Piece::Data { bytes, .. } => err.extend(bytes),
            Piece::Gap { .. } => panic!("nothing was given back"),
            Piece::Ended(outcome) => break outcome,
        }
    };
    assert_eq!((end.kind(), end.code), (OutcomeKind::Exited, 6));
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "out 1\nout 2\nout 3\nout 4\nout 5\n"
    );
    assert_eq!(
        String::from_utf8(err).unwrap(),
        "1\nerr 2\nerr 3\nerr 4\nerr 5\n"
    );
    assert_eq!(within(follower.next()).await.unwrap(), None);
}

#[tokio::test]
async fn output_beyond_its_cap_keeps_head_and_tail() {
    let rig = Rig::keeper();
    let agent = rig.agent().await;
    let mut asked = spawn("flood", &["flood", "16"]);
    asked.output_bytes_max = 2 << 20;
    let (execution, _) = agent.spawn_as(asked).await;
    let total = (16 << 20) + 7;
    let held = || {
        let metadata = std::fs::metadata(&execution.stdout_path).unwrap();
        (
            metadata.len(),
            std::os::unix::fs::MetadataExt::blocks(&metadata) * 512,
        )
    };
    until(async || held().0 == total && held().1 <= 2 << 20).await;
    within(agent.keeper.signal("flood", 9, true)).await.unwrap();
    let mut follower = Follower::open(&execution, 0, 0).unwrap();
    let (mut seen, mut gaps, mut last) = (0, 0, Vec::new());
    loop {
        match within(follower.next()).await.unwrap().unwrap() {
            Piece::Data { offset, bytes, .. } => {
                assert_eq!(offset, seen + gaps);
                seen += bytes.len() as u64;
                last = bytes;
            }
            Piece::Gap { from, to, .. } => gaps += to - from,
            Piece::Ended(_) => break,
        }
    }
    assert_eq!(seen + gaps, total);
    assert!(last.ends_with(b"the end") && gaps > 0);
}
