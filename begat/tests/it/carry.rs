//! Executions carried to another machine.

use crate::fixture::Fixture;

const TEXT: &str = "\
a: host
      < in
      > a.txt
      tool gen
      gen %< %>
";

fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.write("in", "same everywhere\n");
    fixture
}

// Shows in part: BEG-02
#[test]
fn a_machine_without_the_tool_uses_what_another_one_made() {
    let here = fixture();
    here.tool(
        "gen",
        "[ \"$1\" = --version ] && echo gen 7 && exit; rev \"$1\" > \"$2\"",
    );
    let report = here.build(TEXT);
    assert_eq!(report.executed(), 1);
    let kept: Vec<_> = report
        .dictums
        .iter()
        .filter_map(begat::Made::record)
        .cloned()
        .collect();
    let mut stream = Vec::new();
    let carried = begat::export(&here.begat(), &here.store(), &kept, &mut stream).unwrap();
    assert_eq!((carried.records, carried.blobs), (1, 2));

    let there = fixture();
    assert!(
        !there.build(TEXT).succeeded(),
        "without the tool and the stream it cannot be made"
    );
    for _ in 0..2 {
        let carried =
            begat::import(&there.begat(), &there.store(), &mut stream.as_slice()).unwrap();
        assert_eq!(carried.records, 1);
    }
    assert_eq!(begat::Records::open(&there.begat()).unwrap().all().len(), 1);
    let report = there.build(TEXT);
    assert!(report.succeeded() && report.executed() == 0);
    assert_eq!(there.made(&report, "a.txt"), "erehwyreve emas\n");
    let (_, kept) = report.output("a.txt").unwrap();
    assert_eq!(kept.record.tools[0].version, "gen 7");
    // Other inputs are another thing.
    there.write("in", "changed\n");
    assert!(!there.build(TEXT).succeeded());
}

#[test]
fn another_version_of_the_tool_makes_its_own() {
    let here = fixture();
    here.tool(
        "gen",
        "[ \"$1\" = --version ] && echo gen 7 && exit; cp \"$1\" \"$2\"",
    );
    here.build(TEXT);
    here.tool(
        "gen",
        "[ \"$1\" = --version ] && echo gen 8 && exit; cp \"$1\" \"$2\"",
    );
    assert_eq!(here.build(TEXT).executed(), 1);
    here.remove_tool("gen");
    let (_, kept) = here
        .build(TEXT)
        .output("a.txt")
        .map(|(out, kept)| (out.clone(), kept.clone()))
        .unwrap();
    assert_eq!(
        kept.record.tools[0].version, "gen 8",
        "the newest one is taken"
    );
}

#[test]
fn a_damaged_stream_is_refused_and_leaves_no_record_without_its_blobs() {
    let here = fixture();
    here.tool("gen", "cp \"$1\" \"$2\" 2>/dev/null || echo gen");
    let report = here.build(TEXT);
    let kept: Vec<_> = report
        .dictums
        .iter()
        .filter_map(begat::Made::record)
        .cloned()
        .collect();
    let mut stream = Vec::new();
    begat::export(&here.begat(), &here.store(), &kept, &mut stream).unwrap();
    let there = fixture();
    for cut in [10, stream.len() / 2, stream.len() - 1] {
        assert!(begat::import(&there.begat(), &there.store(), &mut &stream[..cut]).is_err());
    }
    for kept in begat::Records::open(&there.begat()).unwrap().all() {
        let store = there.store();
        assert!(
            kept.record
                .outputs
                .iter()
                .all(|made| store.has(&made.digest))
        );
    }
    let forged = String::from_utf8_lossy(&stream).replace("a.txt", "b.txt");
    assert!(begat::import(&there.begat(), &there.store(), &mut forged.as_bytes()).is_err());
}
