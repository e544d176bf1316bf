//! Integration tests of khan.

use std::collections::{BTreeMap, BTreeSet};

use crux_core::adf::{Application, Source, parse};
use khan::{Holder, Placement, Program, Rnode, View, compile};

mod golden;
mod plans;
mod properties;
mod quoted;
mod specs;

/// The placement file as the Chronicles print it.
const STIX: &str = "cserv := pick(cserver, 3, ALL)
pick(cagent, size(ALL)-size(cserv), ~cserv)
pick(prog1, 2, ALL)
pick(prog2, size(ALL), ALL)
";

/// An application with the classes a to f, cserver, cagent, prog1 and prog2 and these picks.
fn application(picks: &str) -> Application {
    let classes = [
        "a", "b", "c", "d", "e", "f", "cserver", "cagent", "prog1", "prog2",
    ];
    let begat: String = classes
        .iter()
        .map(|class| format!("{class}: rexec/{class}\n rexec/{class}\n"))
        .collect();
    let rexec: String = classes
        .iter()
        .map(|class| format!("{class} = /{class}\n"))
        .collect();
    let sources = [
        Source::new("app.begat", begat),
        Source::new("app.rexec", rexec),
        Source::new("app.khan", picks),
        Source::new("app.rnodes", "local {\n n = 1\n cmd = /f\n}\n"),
    ];
    let (application, diagnostics) = parse("app", &sources, &|_| None);
    let error = diagnostics.iter().find(|found| found.is_error());
    assert!(
        error.is_none(),
        "{}",
        error.map(ToString::to_string).unwrap_or_default()
    );
    application
}

fn program(picks: &str) -> Program {
    compile(&application(picks)).expect("these picks are available")
}

/// Members whose permanent names are hashes of their labels.
fn members(labels: impl IntoIterator<Item = u32>) -> Vec<Rnode> {
    let member = |number: u32| {
        let label = format!("n{number}");
        Rnode::new(
            crux_core::digest::Digest::of(label.as_bytes()).to_string(),
            label,
        )
    };
    labels.into_iter().map(member).collect()
}

fn view(rnodes: Vec<Rnode>) -> View {
    View {
        rnodes,
        ..View::default()
    }
}

/// The view after a placement was carried out.
fn carried_out(placement: &Placement, rnodes: Vec<Rnode>) -> View {
    let holder = |placed: khan::Placed| Holder {
        class: placed.class,
        index: placed.index,
        rnode: placed.rnode,
    };
    let holders = placement.instances().into_iter().map(holder).collect();
    View {
        rnodes,
        holders,
        ..View::default()
    }
}

/// How many of each class are placed.
fn counts(placement: &Placement) -> BTreeMap<&str, usize> {
    placement
        .classes
        .iter()
        .map(|class| (class.class.as_str(), class.placed.len()))
        .collect()
}

/// The rnodes that a class is placed on.
fn on<'a>(placement: &'a Placement, class: &str) -> BTreeSet<&'a str> {
    let report = placement.class(class).expect("the class is in the program");
    report
        .placed
        .iter()
        .map(|placed| placed.rnode.as_str())
        .collect()
}
