//! The files as the Chronicles print them.

use crux_core::adf::khan::{Body, Expression};
use crux_core::adf::rnodes::Provider;
use crux_core::adf::{Code, FileKind, FileTree, Source, Values, parse};

const BEGAT: &str = "include(consul)    # defines cserver and cagent
prog1: rexec/worker prod=/var/stix/prods.csv userid=stix
      rexec/worker -rnode %rnode -ip %ip -task worker1 -prod %prod
prog2: rexec/slave  userid=stix
      rexec/slave  -rnode %rnode -ip %ip -task slave6
";
const REXEC: &str = "include(consul)
worker = /var/stix/bin/worker
slave  = /var/stix/bin/slave
";
const KHAN: &str = "cserv := pick(cserver, 3, ALL)
pick(cagent, size(ALL)-size(cserv), ~cserv)
pick(prog1, 2, ALL)
pick(prog2, size(ALL), ALL)
";
const RNODES: &str = "myriad {
  n = 6
  cmd = /var/radix/bin/fulcrum
  mount /user/andrew/code/stix = /var/stix
}
";

fn sources() -> Vec<Source> {
    let files = [
        ("begat", BEGAT),
        ("rexec", REXEC),
        ("khan", KHAN),
        ("rnodes", RNODES),
    ];
    files
        .iter()
        .map(|(kind, text)| Source::new(format!("stix.{kind}"), *text))
        .collect()
}

fn library(name: &str) -> Option<Vec<u8>> {
    let root = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../threshold/console/library/"
    );
    std::fs::read(format!("{root}{name}")).ok()
}

// Shows: ADF-03
#[test]
fn the_quoted_files_parse_byte_for_byte_as_printed() {
    let (stix, diagnostics) = parse("stix", &sources(), &library);
    // The printed block leaves it open who `stix` is.
    let told: Vec<_> = diagnostics
        .iter()
        .map(|one| (one.code, one.is_error()))
        .collect();
    assert_eq!(told, [(Code::UnknownUser, false); 2]);
    let classes: Vec<&str> = stix
        .begat
        .runs
        .iter()
        .map(|rule| rule.class.as_str())
        .collect();
    assert_eq!(classes, ["cserver", "cagent", "prog1", "prog2"]);
    let prog1 = stix.class("prog1").expect("prog1 is a class");
    assert_eq!(prog1.user_id(), Some("stix"));
    assert_eq!(
        prog1.files().map(|file| file.value).collect::<Vec<_>>(),
        ["/var/stix/prods.csv"]
    );
    let program = stix.program(prog1).expect("its command is allowed");
    assert_eq!(program.program.to_string(), "/var/stix/bin/worker");
    let block = stix.block().expect("there is a block");
    assert_eq!(block.provider.value, Provider::Myriad);
    assert_eq!(block.count.as_ref().map(|count| count.value), Some(6));
    assert_eq!(
        block.host_path("/var/stix/bin/worker").as_deref(),
        Some("/user/andrew/code/stix/bin/worker")
    );
    let [Body::Pick(first), ..] = &stix
        .khan
        .statements
        .iter()
        .map(|one| one.body.clone())
        .collect::<Vec<_>>()[..]
    else {
        panic!("the first statement is a pick");
    };
    assert_eq!(first.count.value, Expression::Number(3));
}

#[test]
fn tabs_and_other_indents_mean_the_same_as_six_spaces() {
    for indent in ["\t", " ", "  ", "\t \t"] {
        let text = BEGAT.replace("      ", indent);
        let (tree, diagnostics) = FileTree::parse(FileKind::Begat, "stix.begat", &text);
        assert!(diagnostics.is_empty());
        assert_eq!(
            tree,
            FileTree::parse(FileKind::Begat, "stix.begat", BEGAT).0
        );
        let (tree, diagnostics) =
            FileTree::parse(FileKind::Begat, "stix.begat", &text.replace('\n', "\r\n"));
        assert!(diagnostics.is_empty());
        assert_eq!(
            tree,
            FileTree::parse(FileKind::Begat, "stix.begat", BEGAT).0
        );
    }
}

// Shows: REX-08
#[test]
fn a_recipe_differs_between_two_rnodes_in_name_and_address_only() {
    let (stix, _) = parse("stix", &sources(), &library);
    let prog1 = stix.class("prog1").expect("prog1 is a class");
    let on = |rnode: &str, ip: &str| {
        let mut values = Values::new();
        values.set("rnode", rnode).set("ip", ip);
        stix.begat
            .arguments(prog1, values)
            .expect("all values are set")
    };
    let first = on("n1", "127.0.0.1");
    assert_eq!(
        first,
        [
            "-rnode",
            "n1",
            "-ip",
            "127.0.0.1",
            "-task",
            "worker1",
            "-prod",
            "/var/stix/prods.csv"
        ]
    );
    let second = on("n2", "127.0.0.2");
    let differing: Vec<usize> = (0..first.len())
        .filter(|index| first[*index] != second[*index])
        .collect();
    assert_eq!(differing, [1, 3]);
}

// Shows in part: ADF-05
#[test]
fn other_providers_parse() {
    let text =
        "k8s {\n n = 2\n cmd = /f\n image = radix:1\n}\nec2 {\n n = 2\n cmd = /f\n region = a\n}\n";
    let (tree, diagnostics) = FileTree::parse(FileKind::Rnodes, "x.rnodes", text);
    assert!(diagnostics.is_empty());
    let FileTree::Rnodes(file) = tree else {
        panic!("a rnodes file")
    };
    let providers: Vec<Provider> = file
        .blocks
        .iter()
        .map(|block| block.provider.value)
        .collect();
    assert_eq!(providers, [Provider::Kubernetes, Provider::Ec2]);
}
