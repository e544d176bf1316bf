//! What a build says when it cannot be done.

use std::sync::atomic::Ordering;

use begat::Kind;

use crate::fixture::{Fixture, executed, failure};

/// The text that an error points at.
fn pointed(text: &str, error: &begat::Error) -> String {
    let application = Fixture::application(text);
    application
        .files
        .text(error.span().expect("it has a place"))
        .to_owned()
}

#[test]
fn a_failing_command_shows_its_last_words_and_stops_only_what_needs_it() {
    let fixture = Fixture::new();
    let text = "\
bad: host
      > bad.txt
      sh: echo on the way; echo to ruin >&2; exit 3

after: host
      < bad.txt
      > after.txt
      cp %< %>

good: host
      > good.txt
      sh: echo fine > %>
";
    let report = fixture.build(text);
    let error = failure(&report);
    assert_eq!(error.kind(), Kind::Failed);
    assert_eq!(error.to_string(), "build `bad`: its command ended with 3");
    assert_eq!(error.output(), Some("on the way\nto ruin"));
    assert_eq!(pointed(text, error), "bad");
    assert_eq!(executed(&report), ["good"]);
    assert!(
        report
            .dictums
            .iter()
            .any(|made| matches!(made.outcome, begat::Outcome::Skipped))
    );
    assert!(!report.succeeded());
    // A failure is recorded, and tried again.
    let records = begat::Records::open(&fixture.begat()).unwrap();
    assert!(
        records
            .all()
            .iter()
            .any(|kept| kept.record.name == "bad" && !kept.record.succeeded())
    );
    assert_eq!(failure(&fixture.build(text)).kind(), Kind::Failed);
}

#[test]
fn a_missing_input_is_pointed_at() {
    let fixture = Fixture::new();
    let text = "a: host\n      < src/*.c\n      > a\n      cp %< %>\n";
    let report = fixture.build(text);
    let error = failure(&report);
    assert_eq!(error.kind(), Kind::Missing);
    assert_eq!(pointed(text, error), "src/*.c");
    assert!(error.help().unwrap().contains("tree"));
    let optional = "a: host\n      <? src/*.c\n      > a\n      sh: echo > %>\n";
    assert!(fixture.build(optional).succeeded());
}

#[test]
fn a_missing_program_is_named() {
    let fixture = Fixture::new();
    let text = "a: host\n      > a\n      tool no-such-tool\n      no-such-tool\n";
    let report = fixture.build(text);
    let error = failure(&report);
    assert_eq!(error.kind(), Kind::Missing);
    assert!(
        error
            .to_string()
            .contains("no program `no-such-tool` on PATH"),
        "{error}"
    );
    assert_eq!(pointed(text, error), "no-such-tool");
    let undeclared = "a: host\n      > a\n      no-such-tool\n";
    assert_eq!(failure(&fixture.build(undeclared)).kind(), Kind::Missing);
}

#[test]
fn a_dictum_that_makes_too_little_or_too_much_is_refused() {
    let fixture = Fixture::new();
    let little = "a: host\n      > one two\n      sh: echo wrote one; echo > %>1\n";
    let report = fixture.build(little);
    let error = failure(&report);
    assert!(error.to_string().ends_with("did not make `two`"), "{error}");
    assert_eq!(pointed(little, error), "two");
    assert_eq!(error.output(), Some("wrote one"));
    let much = "a: host\n      > d/one\n      sh: echo > %>1; echo > %>1.more\n";
    let report = fixture.build(much);
    let error = failure(&report);
    assert!(
        error
            .to_string()
            .contains("made `d/one.more`, which it does not declare"),
        "{error}"
    );
}

#[test]
fn an_input_that_changes_meanwhile_is_noticed() {
    let fixture = Fixture::new();
    fixture.write("in", "before");
    let text = "a: host\n      < in\n      > a\n      sh: cp in %>; echo after > in\n";
    let report = fixture.build(text);
    assert_eq!(failure(&report).kind(), Kind::Changed);
}

#[test]
fn an_endless_dictum_is_ended_by_its_limit_or_from_outside() {
    let fixture = Fixture::new();
    let text =
        "a: host\n      > a\n      limit seconds=1\n      sh: echo still here; exec sleep 600\n";
    let report = fixture.build(text);
    let error = failure(&report);
    assert_eq!(
        (error.kind(), error.output()),
        (Kind::TooLarge, Some("still here"))
    );
    fixture.cancel.store(true, Ordering::Relaxed);
    assert_eq!(failure(&fixture.build(text)).kind(), Kind::Cancelled);
}

#[test]
fn what_begat_cannot_do_yet_is_said() {
    let fixture = Fixture::new();
    let report = fixture.build("a: alpine\n      > a\n      true\n");
    assert_eq!(failure(&report).kind(), Kind::Unsupported);
    let report = fixture.build("a: host\n      > a\n      limit cores=3\n      true\n");
    assert_eq!(failure(&report).kind(), Kind::Unsupported);
}

#[test]
fn circles_are_found_before_anything_runs() {
    let fixture = Fixture::new();
    let text =
        "a: host\n      < b\n      > a\n      true\n\nb: host\n      < a\n      > b\n      true\n";
    let problems = fixture.graph(text).unwrap_err();
    assert!(problems[0].message.contains("in a circle"), "{problems:?}");
    assert_eq!(Fixture::application(text).files.text(problems[0].span), "b");
}

#[test]
fn an_unusable_directory_is_an_error_of_the_whole_build() {
    let fixture = Fixture::new();
    std::fs::create_dir_all(fixture.begat()).unwrap();
    std::fs::write(fixture.begat().join("records"), "in the way").unwrap();
    let error = fixture
        .try_build("a: host\n      > a\n      true\n", &[])
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Io);
    assert!(error.path().unwrap().ends_with("records"));
}
