//! From the tree of a file to dictums.

use begat_core::convert::dictums;
use begat_core::dictum::{Dictum, Paths};
use crux_core::adf::{Source, parse_begat};

fn convert(text: &str) -> (Vec<Dictum>, Vec<String>) {
    let sources = [Source::new("app.begat", text)];
    let (application, findings) = parse_begat("app", &sources, &|_: &str| None);
    assert!(findings.is_empty(), "{findings:?}");
    let mut matches = |pattern: &str| match pattern {
        "src/*.c" => Ok(vec!["src/a.c".to_owned(), "src/b.c".to_owned()]),
        _ => Ok(Vec::new()),
    };
    let (dictums, problems) = dictums(&application.begat, &mut matches);
    (
        dictums,
        problems
            .into_iter()
            .map(|problem| problem.message)
            .collect(),
    )
}

#[test]
fn each_becomes_one_dictum_a_match() {
    let (dictums, problems) = convert(
        "let opt = -O2 -g\n\
         each obj/%stem.o: host for=src/*.c\n\
         \x20     < %it ../x.h\n\
         \x20     > obj/%stem.o\n\
         \x20     cc %opt -c %it -o %>\n",
    );
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(dictums.len(), 2);
    let second = &dictums[1];
    assert_eq!(
        (second.name.as_str(), second.first_product()),
        ("obj/b.o", "obj/b.o")
    );
    let needs: Vec<&str> = second
        .needs
        .iter()
        .map(|need| need.pattern.as_str())
        .collect();
    assert_eq!(needs, ["src/b.c", "../x.h"]);
    let outputs = ["out".to_owned()];
    let argv = second.steps[0]
        .argv(Paths {
            inputs: &[],
            outputs: &outputs,
        })
        .unwrap();
    assert_eq!(argv, ["cc", "-O2", "-g", "-c", "src/b.c", "-o", "out"]);
}

#[test]
fn several_words_of_a_let_are_several_inputs() {
    let (dictums, problems) = convert(
        "let house = ../../Cargo.toml ../../crux/**/*.rs\n\
         worker: host\n\
         \x20     < src/worker.rs %house\n\
         \x20     > bin/worker\n\
         \x20     tool cargo\n\
         \x20     cargo rustc -- --emit link=%>\n",
    );
    assert!(problems.is_empty(), "{problems:?}");
    let needs: Vec<&str> = dictums[0]
        .needs
        .iter()
        .map(|need| need.pattern.as_str())
        .collect();
    assert_eq!(
        needs,
        ["src/worker.rs", "../../Cargo.toml", "../../crux/**/*.rs"]
    );
    assert!(dictums[0].tools.contains_key("cargo"));
}

#[test]
fn an_each_without_a_match_is_a_problem() {
    let (dictums, problems) = convert(
        "each %stem.o: host for=lib/*.c\n      < %it\n      > %stem.o\n      cc %it -o %>\n",
    );
    assert!(dictums.is_empty());
    assert_eq!(problems, ["unfold `each`: nothing matches `lib/*.c`"]);
}

#[test]
fn the_dictums_of_stix_are_read() {
    let sources = [
        Source::new(
            "stix.begat",
            include_str!("../../../../examples/stix/stix.begat"),
        ),
        Source::new("consul.begat", "cserver: rexec/c\n      rexec/c\n"),
    ];
    let (application, findings) = parse_begat("stix", &sources, &|_: &str| None);
    assert!(findings.is_empty(), "{findings:?}");
    let (dictums, problems) = dictums(&application.begat, &mut |_| Ok(Vec::new()));
    assert!(problems.is_empty(), "{problems:?}");
    let products: Vec<&str> = dictums.iter().map(Dictum::first_product).collect();
    assert_eq!(products, ["bin/worker", "bin/slave"]);
}
