//! Every case, on the sound model and on its faulty twin.

use underverse_conformance::{Choice, Report, Verdict, all, run};

use crate::ground::ModelFixture;

/// Cases about what is absent or weak, which are judged where something is.
const LEAN: [&str; 2] = ["capabilities.absent-refuses", "realise.weaker"];

async fn report(fixture: ModelFixture, only: &str) -> Report {
    let choice = Choice {
        only: only.to_owned(),
        at_once: 16,
    };
    run(&fixture, &choice, &mut |_| {}).await
}

fn verdict(report: &Report, name: &str) -> Verdict {
    let row = report.rows.iter().find(|row| row.name == name);
    row.map_or_else(
        || Verdict::Skipped("not run".to_owned()),
        |row| row.verdict.clone(),
    )
}

#[test]
fn there_are_enough_cases_and_no_name_stands_twice() {
    let names: std::collections::BTreeSet<&str> = all().iter().map(|case| case.name).collect();
    assert_eq!(names.len(), all().len());
    assert!(names.len() >= 60, "{}", names.len());
}

// Shows in part: HRD-09, NET-06
#[tokio::test(start_paused = true)]
async fn every_case_is_green_on_the_sound_one() {
    let full = report(
        ModelFixture {
            fault: "",
            lean: false,
        },
        "",
    )
    .await;
    let lean = report(
        ModelFixture {
            fault: "",
            lean: true,
        },
        "",
    )
    .await;
    assert!(lean.is_sound(), "\n{lean}");
    for case in all() {
        let report = if LEAN.contains(&case.name) {
            &lean
        } else {
            &full
        };
        assert_eq!(
            verdict(report, case.name),
            Verdict::Passed,
            "{}\n{report}",
            case.name
        );
    }
}

#[tokio::test(start_paused = true)]
async fn every_case_is_red_on_its_faulty_twin() {
    let mut green = Vec::new();
    for case in all() {
        let fixture = ModelFixture {
            fault: case.name,
            lean: LEAN.contains(&case.name),
        };
        let report = report(fixture, case.name).await;
        if !matches!(verdict(&report, case.name), Verdict::Failed(_)) {
            green.push((case.name, verdict(&report, case.name)));
        }
    }
    assert!(
        green.is_empty(),
        "{} cases cannot fail: {green:#?}",
        green.len()
    );
}
