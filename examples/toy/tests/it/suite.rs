//! The conformance suite on the toy, both ways.

use toy::ToyBelow;
use underverse_conformance::{Choice, DirectoryFixture, Fixture, Report, run};
use underverse_plugin::{Launch, PluginBelow};

/// Counts that are expected: passed, refused, skipped, failed.
fn check(report: &Report, counts: [usize; 4]) {
    let found = ["passed", "refused", "skipped", "failed"].map(|word| report.count(word));
    assert_eq!(found, counts, "\n{report}");
}

async fn suite(fixture: &dyn Fixture) -> Report {
    run(fixture, &Choice::default(), &mut |_| {}).await
}

pub(crate) fn launch() -> Launch {
    Launch::at("toy", env!("CARGO_BIN_EXE_radix-underverse-toy"))
}

// Shows: UND-02
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_toy_passes_the_mandatory_part_linked_in() {
    let _turn = crate::TURN.lock().await;
    let report = suite(&DirectoryFixture::new("toy, linked in", ToyBelow)).await;
    check(&report, [64, 35, 19, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_toy_passes_the_mandatory_part_as_a_plug_in() {
    let _turn = crate::TURN.lock().await;
    let below = PluginBelow::new(launch()).await.unwrap();
    let report = suite(&DirectoryFixture::new("toy, as a plug-in", below)).await;
    check(&report, [64, 35, 19, 0]);
}

#[test]
fn the_toy_is_under_200_lines() {
    let lines = include_str!("../../src/lib.rs").lines().count();
    assert!(lines < 200, "{lines} lines");
}
