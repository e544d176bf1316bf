//! What is built, and what is reused.

use std::fs;

use begat_core::record::Exit;

use crate::fixture::{Fixture, executed};

const TWO_STEPS: &str = "\
upper: host
      < src/*.txt
      > gen/upper.txt
      sh: cat %< | tr a-z A-Z > %>

page: host
      < gen/upper.txt title
      > page.txt
      tool cat
      sh: cat %<2 %<1 > %>

other: host
      < title
      > other.txt
      cp %< %>
";

fn two_steps() -> Fixture {
    let fixture = Fixture::new();
    fixture.write("src/a.txt", "alpha\n");
    fixture.write("src/b.txt", "beta\n");
    fixture.write("title", "Title\n");
    fixture
}

// Shows: BEG-02
#[test]
fn a_second_build_executes_nothing_and_an_edit_only_what_depends_on_it() {
    let fixture = two_steps();
    let report = fixture.build(TWO_STEPS);
    assert!(report.succeeded());
    assert_eq!(executed(&report).len(), 3);
    assert_eq!(fixture.made(&report, "page.txt"), "Title\nALPHA\nBETA\n");
    let again = fixture.build(TWO_STEPS);
    assert!(again.succeeded() && again.executed() == 0);
    assert_eq!(fixture.made(&again, "page.txt"), "Title\nALPHA\nBETA\n");
    fixture.write("src/b.txt", "gamma\n");
    assert_eq!(executed(&fixture.build(TWO_STEPS)), ["upper", "page"]);
    fixture.write("src/c.txt", "new\n");
    assert_eq!(executed(&fixture.build(TWO_STEPS)), ["upper", "page"]);
    fixture.write("title", "Other\n");
    assert_eq!(executed(&fixture.build(TWO_STEPS)), ["other", "page"]);
    fixture.write("title", "Title\n");
    assert_eq!(
        fixture.build(TWO_STEPS).executed(),
        0,
        "what was made before is found again"
    );
}

// Shows in part: BEG-03
#[test]
fn the_same_bytes_with_other_times_are_found_again() {
    let fixture = two_steps();
    fixture.build(TWO_STEPS);
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    fs::File::options()
        .append(true)
        .open(fixture.tree("title"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    assert_eq!(fixture.build(TWO_STEPS).executed(), 0);
    let edited = TWO_STEPS.replace("cp %< %>", "cp -f %< %>");
    assert_eq!(executed(&fixture.build(&edited)), ["other"]);
}

/// A product that is the same as before stops the rebuild there.
#[test]
fn an_edit_that_changes_no_product_goes_no_further() {
    let fixture = two_steps();
    fixture.build(TWO_STEPS);
    fixture.write("src/a.txt", "ALPHA\n");
    assert_eq!(executed(&fixture.build(TWO_STEPS)), ["upper"]);
}

#[test]
fn nothing_is_written_into_the_tree() {
    let fixture = two_steps();
    let list = || {
        let tree = begat::Tree::open(&fixture.tree(""), &fixture.begat()).unwrap();
        tree.matches("**").unwrap()
    };
    let before = list();
    fixture.build(TWO_STEPS);
    assert_eq!(list(), before);
    assert!(!fixture.tree("gen").exists());
    assert_eq!(
        fs::read_dir(fixture.begat().join("work")).unwrap().count(),
        0
    );
}

#[test]
fn only_what_is_wanted_is_built() {
    let fixture = two_steps();
    let report = fixture.try_build(TWO_STEPS, &["other.txt"]).unwrap();
    assert_eq!(executed(&report), ["other"]);
    let nothing = fixture.try_build(TWO_STEPS, &["title"]).unwrap();
    assert!(nothing.dictums.is_empty() && nothing.succeeded());
}

#[test]
fn a_record_tells_what_was_made_of_what() {
    let fixture = two_steps();
    let report = fixture.build(TWO_STEPS);
    let (output, kept) = report.output("page.txt").unwrap();
    let record = &kept.record;
    assert_eq!(record.exit, Exit::Code(0));
    assert_eq!(record.outputs.as_slice(), std::slice::from_ref(output));
    let inputs: Vec<&str> = record
        .inputs
        .iter()
        .map(|input| input.path.as_str())
        .collect();
    assert_eq!(inputs, ["gen/upper.txt", "title"]);
    assert_eq!(
        record.inputs[0].digest,
        report.output("gen/upper.txt").unwrap().0.digest
    );
    assert_eq!(record.tools[0].name, "cat");
    let json = fs::read(fixture.begat().join("records").join(&kept.name)).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["format"], "begat-record/1");
    assert_eq!(json["isolation"], "none");
    assert_eq!(json["not_seen"][0], "undeclared reads of files");
    assert!(
        json["dictum_text"]
            .as_str()
            .unwrap()
            .starts_with("begat-dictum/1\n")
    );
    let key = crux_core::digest::Digest::of(json["execution_text"].as_str().unwrap().as_bytes());
    assert_eq!(json["key"], key.to_string());
}

#[test]
fn a_new_version_of_a_tool_is_another_execution() {
    let fixture = Fixture::new();
    fixture.tool(
        "gen",
        "[ \"$1\" = --version ] && echo gen 1 && exit; echo one > \"$1\"",
    );
    let text = "a: host\n      > a.txt\n      tool gen\n      gen %>\n";
    assert_eq!(fixture.build(text).executed(), 1);
    assert_eq!(fixture.build(text).executed(), 0);
    fixture.tool(
        "gen",
        "[ \"$1\" = --version ] && echo gen 2 && exit; echo two > \"$1\"",
    );
    let report = fixture.build(text);
    assert_eq!(
        (report.executed(), fixture.made(&report, "a.txt").as_str()),
        (1, "two\n")
    );
}

#[test]
fn directories_optional_files_and_executables_are_kept() {
    let fixture = Fixture::new();
    fixture.write("in", "x");
    let text = "\
all: host
      < in
      > run.sh
      > dir d
      > opt maybe
      sh: echo 'echo hi' > %>1; chmod +x %>1; mkdir %>2/sub; cp in %>2/sub/one; cp in %>2/two

use: host
      < d/sub/one run.sh
      > used
      sh: cat %<1 > %>; test -x %<2
";
    let report = fixture.build(text);
    assert!(
        report.succeeded(),
        "{:?}",
        report.failures().collect::<Vec<_>>()
    );
    let (_, kept) = report.output("run.sh").unwrap();
    let made: Vec<(&str, bool)> = kept
        .record
        .outputs
        .iter()
        .map(|out| (out.path.as_str(), out.executable))
        .collect();
    assert_eq!(
        made,
        [("d/sub/one", false), ("d/two", false), ("run.sh", true)]
    );
    assert_eq!(fixture.made(&report, "used"), "x");
}

#[test]
fn dictums_see_the_declared_environment_only() {
    let fixture = Fixture::new();
    let text = "e: host\n      > e.txt\n      env COLOUR=red\n      sh: env > %>\n";
    let report = fixture.build(text);
    let made = fixture.made(&report, "e.txt");
    let mut names: Vec<&str> = made
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    names.retain(|name| !["PWD", "SHLVL", "_", "OLDPWD"].contains(name));
    names.sort_unstable();
    assert_eq!(names, ["COLOUR", "PATH"]);
}

#[test]
fn a_lost_blob_is_made_again() {
    let fixture = two_steps();
    let report = fixture.build(TWO_STEPS);
    let digest = report.output("other.txt").unwrap().0.digest;
    fixture.store().remove(&digest).unwrap();
    let again = fixture.build(TWO_STEPS);
    assert_eq!(executed(&again), ["other"]);
    assert!(
        again
            .output("other.txt")
            .unwrap()
            .1
            .name
            .ends_with(".1.json")
    );
}

#[test]
fn globs_pass_over_hidden_files_and_caches() {
    let fixture = Fixture::new();
    for path in [
        "a.rs",
        "x/b.rs",
        "x/.h/c.rs",
        ".d.rs",
        "target/e.rs",
        "x/y/z/f.rs",
        "x/g.txt",
    ] {
        fixture.write(path, "");
    }
    fixture.write("target/CACHEDIR.TAG", "");
    let tree = begat::Tree::open(&fixture.tree("x"), &fixture.begat()).unwrap();
    assert_eq!(tree.matches("**/*.rs").unwrap(), ["b.rs", "y/z/f.rs"]);
    let up = ["../a.rs", "../x/b.rs", "../x/y/z/f.rs"];
    assert_eq!(tree.matches("../**/*.rs").unwrap(), up);
    assert_eq!(tree.matches("../target/e.rs").unwrap(), ["../target/e.rs"]);
    assert!(tree.matches("none/*").unwrap().is_empty());
    // Many `**` cost no more than one, and a file is found once.
    let many = format!("../{}*.rs", "**/".repeat(40));
    assert_eq!(tree.matches(&many).unwrap(), up);
}

#[test]
fn an_edit_that_keeps_length_and_time_is_noticed() {
    let fixture = two_steps();
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let set_back = || {
        let file = fs::File::options()
            .append(true)
            .open(fixture.tree("title"))
            .unwrap();
        file.set_modified(old).unwrap();
    };
    set_back();
    fixture.build(TWO_STEPS);
    fixture.write("title", "Elbow\n");
    set_back();
    assert_eq!(executed(&fixture.build(TWO_STEPS)), ["other", "page"]);
}

#[test]
fn what_dead_builds_left_is_swept_and_what_runs_is_not() {
    let fixture = two_steps();
    let work = fixture.begat().join("work");
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    for name in ["dead", "alive"] {
        fs::create_dir_all(work.join(name)).unwrap();
        fs::write(work.join(name).join("lock"), "").unwrap();
        fs::File::open(work.join(name))
            .unwrap()
            .set_modified(old)
            .unwrap();
    }
    let held = fs::File::open(work.join("alive/lock")).unwrap();
    held.lock().unwrap();
    fixture.build(TWO_STEPS);
    assert!(work.join("alive").exists() && !work.join("dead").exists());
}
