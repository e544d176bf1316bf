//! What makes an instance another one.

use std::collections::BTreeMap;

use crux_core::adf::{Application, Source, parse};
use crux_core::digest::Digest;
use khan::spec::{Spec, SpecError, digest};
use khan::{Placed, Side, plan};

const BEGAT: &str = "let level = 3
web: rexec/web prod=/srv/prods.csv ready=tcp:80 userid=stix
  env LEVEL=%level
  rexec/web -rnode %rnode -ip %ip -index %index -prod %prod
kv: rexec/kv
  rexec/kv
";

fn application(begat: &str) -> Application {
    let sources = [
        Source::new("app.begat", begat),
        Source::new("app.rexec", "web = /srv/web\nkv = builtin:kv\n"),
        Source::new("app.khan", "pick(web, 1, ALL)\npick(kv, 1, ALL)\n"),
        Source::new(
            "app.rnodes",
            "local {\n n = 1\n cmd = /f\n user stix = auto\n}\n",
        ),
    ];
    let (application, diagnostics) = parse("app", &sources, &|_| None);
    assert!(diagnostics.is_empty(), "{}", diagnostics[0]);
    application
}

fn pins() -> BTreeMap<String, Digest> {
    let pin = |path: &str| (path.to_owned(), Digest::of(path.as_bytes()));
    ["/srv/web", "/srv/prods.csv"].map(pin).into()
}

#[test]
fn a_spec_changes_with_what_is_run_and_with_nothing_else() {
    let spec = |begat: &str, user: &str, pins: &BTreeMap<String, Digest>| {
        Spec::of(&application(begat), "web", Some(user), pins).expect("all is pinned")
    };
    let first = spec(BEGAT, "stix", &pins());
    let moved = BEGAT.replace("\n", "\n\n").replace("  rexec", "\t\trexec");
    assert_eq!(first.difference(&spec(&moved, "stix", &pins())), None);
    assert_eq!(first.digest(), spec(&moved, "stix", &pins()).digest());
    let mut other = pins();
    other.insert("/srv/web".to_owned(), Digest::of(b"new"));
    for (changed, reason) in [
        (spec(BEGAT, "stix", &other), "its executable changed"),
        (spec(BEGAT, "root", &pins()), "its user changed"),
        (
            spec(&BEGAT.replace("tcp:80", "tcp:81"), "stix", &pins()),
            "its attributes changed",
        ),
        (
            spec(&BEGAT.replace("-ip %ip", "-ip x"), "stix", &pins()),
            "its arguments changed",
        ),
        (
            spec(&BEGAT.replace("level = 3", "level = 4"), "stix", &pins()),
            "its environment changed",
        ),
    ] {
        assert_eq!(first.difference(&changed).as_deref(), Some(reason));
        assert_ne!(first.digest(), changed.digest());
    }
    other = pins();
    other.insert("/srv/prods.csv".to_owned(), Digest::of(b"new"));
    let changed = spec(BEGAT, "stix", &other);
    assert_eq!(
        first.difference(&changed).as_deref(),
        Some("its data changed")
    );
}

#[test]
fn a_file_that_is_not_pinned_is_named() {
    let mut pins = pins();
    pins.remove("/srv/prods.csv");
    let refused = digest(&application(BEGAT), "web", None, &pins);
    let expected = SpecError::NotPinned {
        class: "web".to_owned(),
        path: "/srv/prods.csv".to_owned(),
    };
    assert_eq!(refused, Err(expected));
    assert!(digest(&application(BEGAT), "kv", None, &pins).is_ok());
}

#[test]
fn a_literal_that_looks_like_a_value_is_not_that_value() {
    let literal = BEGAT.replace("-ip %ip", "-ip %%ip");
    let spec = |begat: &str| digest(&application(begat), "web", None, &pins());
    assert_ne!(spec(BEGAT), spec(&literal));
}

#[test]
fn a_changed_spec_replaces_in_place_and_says_why() {
    let placed = Placed {
        class: "web".to_owned(),
        index: 0,
        rnode: "id".to_owned(),
        label: "n1".to_owned(),
    };
    let side = |user: &str| {
        let spec =
            Spec::of(&application(BEGAT), "web", Some(user), &pins()).expect("all is pinned");
        Side {
            instances: vec![placed.clone()],
            specs: [("web".to_owned(), spec)].into(),
        }
    };
    let plan = plan(&side("a"), &side("b"));
    assert_eq!(
        plan.to_string(),
        "replace web/0 on n1 (its user changed)\n0 to start, 0 to stop, 1 to replace, 0 to move\n"
    );
}

#[test]
fn a_count_that_goes_to_or_from_0_is_told_as_that_where_the_class_stays() {
    let placed = Placed {
        class: "web".to_owned(),
        index: 0,
        rnode: "id".to_owned(),
        label: "n1".to_owned(),
    };
    let spec = Spec::of(&application(BEGAT), "web", None, &pins()).expect("all is pinned");
    let side = |count: usize, known: bool| Side {
        instances: vec![placed.clone(); count],
        specs: known
            .then(|| ("web".to_owned(), spec.clone()))
            .into_iter()
            .collect(),
    };
    let check = |before: Side, after: Side, reason: &str| {
        assert_eq!(plan(&before, &after).actions[0].reason, reason);
    };
    check(side(1, true), side(0, true), "from 1 to 0");
    check(side(0, true), side(1, true), "from 0 to 1");
    check(side(1, true), side(0, false), "its class is gone");
    check(side(0, false), side(1, true), "its class is new");
}
