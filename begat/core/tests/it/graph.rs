//! The order of dictums, and what cannot be ordered.

use begat_core::dictum::{Dictum, Form, Need, Product};
use begat_core::graph::{Graph, GraphError};
use crux_core::adf::{FileId, Span};

/// `name < needs > products`, at a span that tells the dictum.
fn dictum(number: u32, name: &str, needs: &[&str], products: &[&str]) -> Dictum {
    let span = |start| Span {
        file: FileId(0),
        start,
        end: start + 1,
    };
    let need = |(at, pattern): (usize, &&str)| Need {
        pattern: (*pattern).to_owned(),
        optional: false,
        span: span(number * 100 + u32::try_from(at).unwrap()),
    };
    let product = |path: &&str| Product {
        path: path.trim_end_matches('/').to_owned(),
        form: if path.ends_with('/') {
            Form::Dir
        } else {
            Form::File
        },
        span: span(number * 100 + 50),
    };
    Dictum {
        name: name.to_owned(),
        needs: needs.iter().enumerate().map(need).collect(),
        products: products.iter().map(product).collect(),
        ..Dictum::default()
    }
}

fn names(graph: &Graph) -> Vec<&str> {
    graph
        .dictums()
        .iter()
        .map(|dictum| dictum.name.as_str())
        .collect()
}

fn chain() -> Vec<Dictum> {
    vec![
        dictum(1, "link", &["obj/*.o"], &["bin/app"]),
        dictum(2, "one", &["src/one.c", "gen/x.h"], &["obj/one.o"]),
        dictum(3, "two", &["src/two.c"], &["obj/two.o"]),
        dictum(4, "headers", &["src/x.in"], &["gen/"]),
        dictum(5, "pack", &["bin/app", "doc/**"], &["app.tar"]),
    ]
}

// Shows: BEG-01
#[test]
fn shuffled_dictums_give_the_same_order_and_circles_the_same_report() {
    let straight = Graph::new(chain()).unwrap();
    assert_eq!(names(&straight), ["headers", "one", "two", "link", "pack"]);
    let mut shuffled = chain();
    for _ in 0..shuffled.len() {
        shuffled.rotate_left(1);
        shuffled.swap(0, 2);
        let graph = Graph::new(shuffled.clone()).unwrap();
        let mut round = shuffled.clone();
        round.push(dictum(6, "loop", &["app.tar"], &["src/x.in"]));
        let errors = Graph::new(round).unwrap_err();
        assert!(matches!(&errors[..], [GraphError::Cycle(links)] if links.len() == 5));
        assert_eq!(names(&graph), names(&straight));
        for index in 0..graph.dictums().len() {
            assert!(graph.needs(index).iter().all(|needed| *needed < index));
        }
    }
}

// Shows in part: BEG-01
#[test]
fn a_circle_is_reported_with_each_place_that_makes_it() {
    let mut dictums = chain();
    dictums.push(dictum(6, "loop", &["app.tar"], &["src/x.in"]));
    let errors = Graph::new(dictums).unwrap_err();
    let [GraphError::Cycle(links)] = errors.as_slice() else {
        panic!("{errors:?}")
    };
    let round: Vec<(&str, &str)> = links
        .iter()
        .map(|link| (link.dictum.as_str(), link.path.as_str()))
        .collect();
    assert_eq!(round.len(), 5, "{round:?}");
    assert!(round.contains(&("link", "obj/*.o")) && round.contains(&("loop", "app.tar")));
    assert!(links.iter().all(|link| link.span.start >= 100));
    let text = errors[0].to_string();
    assert!(text.contains("`loop` needs `app.tar`"), "{text}");
}

#[test]
fn a_dictum_that_needs_what_it_makes_is_a_circle() {
    let errors = Graph::new(vec![dictum(1, "self", &["a"], &["a"])]).unwrap_err();
    assert!(matches!(&errors[..], [GraphError::Cycle(links)] if links.len() == 1));
    // A glob over its own folder does not mean what it makes itself.
    assert!(Graph::new(vec![dictum(1, "self", &["out/*"], &["out/a"])]).is_ok());
}

#[test]
fn a_product_that_is_made_twice_is_refused() {
    for (first, second) in [("a", "a"), ("a/", "a/b"), ("a", "a/b/c"), ("a/", "a/b/")] {
        let dictums = vec![
            dictum(1, "x", &[], &[first]),
            dictum(2, "y", &[], &[second]),
        ];
        let errors = Graph::new(dictums).unwrap_err();
        assert!(
            matches!(errors[..], [GraphError::MadeTwice { .. }]),
            "{first} {second}: {errors:?}"
        );
    }
    let apart = vec![
        dictum(1, "x", &[], &["a/b"]),
        dictum(2, "y", &[], &["a/c", "a-b"]),
    ];
    assert!(Graph::new(apart).is_ok());
}

#[test]
fn only_what_is_wanted_and_what_it_needs_is_built() {
    let graph = Graph::new(chain()).unwrap();
    let closure = |wanted: &[&str]| {
        let wanted: Vec<String> = wanted.iter().map(|path| (*path).to_owned()).collect();
        let closure = graph.closure(&wanted);
        closure
            .iter()
            .map(|index| graph.dictums()[*index].name.as_str())
            .collect::<Vec<_>>()
    };
    assert_eq!(closure(&["obj/one.o"]), ["headers", "one"]);
    assert_eq!(closure(&["bin/app"]), ["headers", "one", "two", "link"]);
    assert_eq!(closure(&["gen/y.h"]), ["headers"]);
    assert_eq!(closure(&["prods.csv"]), Vec::<&str>::new());
    assert_eq!(closure(&[]).len(), 5);
}

#[test]
fn a_long_chain_is_ordered_soon() {
    let count = 20_000;
    let dictums: Vec<Dictum> = (0..count)
        .map(|at| {
            let need = format!("f{:05}", at + 1);
            dictum(0, &format!("d{at}"), &[&need], &[&format!("f{at:05}")])
        })
        .collect();
    let graph = Graph::new(dictums).unwrap();
    assert_eq!(graph.dictums()[0].name, format!("d{}", count - 1));
}
