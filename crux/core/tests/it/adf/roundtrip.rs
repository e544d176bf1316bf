//! Printing and formatting change nothing but looks.

use crux_core::adf::{FileKind, FileTree, format};
use proptest::prelude::*;

/// The tree of a text that must be without errors.
fn tree(kind: FileKind, text: &str) -> Result<FileTree, TestCaseError> {
    let (tree, found) = FileTree::parse(kind, "x", text);
    match found.iter().find(|one| one.is_error()) {
        Some(found) => Err(TestCaseError::fail(format!("{found}\nin:\n{text}"))),
        None => Ok(tree),
    }
}

fn same(kind: FileKind, text: &str) -> Result<(), TestCaseError> {
    let first = tree(kind, text)?;
    let printed = first.to_string();
    prop_assert_eq!(&tree(kind, &printed)?, &first, "printed:\n{}", printed);
    let formatted = format(kind, "x", text).expect("a tree without errors can be formatted");
    prop_assert_eq!(
        &tree(kind, &formatted)?,
        &first,
        "formatted:\n{}",
        formatted
    );
    let again = format(kind, "x", &formatted).expect("what was formatted can be formatted");
    prop_assert_eq!(&again, &formatted);
    let comments = |text: &str| text.matches("# note").count();
    prop_assert_eq!(comments(text), comments(&formatted));
    Ok(())
}

fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9_]{0,6}".prop_filter("no keyword", |name| {
        ![
            "in", "tag", "size", "pick", "after", "and", "near", "apart", "ready", "limits", "let",
            "each", "include", "spread", "requests", "env", "tool", "net", "limit", "single", "sh",
            "opt", "log", "dir",
        ]
        .contains(&name.as_str())
    })
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9_./+-]{1,8}"
            .prop_filter("no mark", |word| word != "->" && !word.starts_with("sh")),
        "\"[a-z =:*#<>\\[\\]]{0,8}\"",
        "'[a-z\"%\\\\ ]{0,8}'",
        Just("%rnode".to_owned()),
        Just("%{ip}x".to_owned()),
        Just("50%%".to_owned()),
        Just("\"a\\n\\t\\\"%ip\"".to_owned()),
    ]
}

fn gap() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just(" "), 1 => Just("\t"), 1 => Just("   "), 1 => Just(" \\\n ")]
}

fn end() -> impl Strategy<Value = &'static str> {
    prop_oneof![6 => Just("\n"), 1 => Just("  # note\n"), 1 => Just("\r\n"), 1 => Just("\n\n\n  # note\n")]
}

fn words() -> impl Strategy<Value = String> {
    prop::collection::vec((gap(), word()), 0..5).prop_map(|words| {
        words
            .iter()
            .map(|(gap, word)| format!("{gap}{word}"))
            .collect()
    })
}

fn run_rule() -> impl Strategy<Value = String> {
    let attribute = prop_oneof![
        Just("serves=x:80".to_owned()),
        Just("ready=http:8080/a/b?c".to_owned()),
        Just("ready=tcp:1".to_owned()),
        Just("state=rnode".to_owned()),
        Just("on_isolation=stop".to_owned()),
        Just("single".to_owned()),
        Just("restart=on_failure".to_owned()),
        (name(), word()).prop_map(|(name, word)| format!("p_{name}={word}")),
        (name(), word()).prop_map(|(name, word)| format!("p_{name}=str:{word}")),
    ];
    let attributes = prop::collection::vec((gap(), attribute), 0..4).prop_map(|list| {
        list.iter()
            .map(|(gap, one)| format!("{gap}{one}"))
            .collect::<String>()
    });
    (name(), attributes, end(), words(), end()).prop_map(
        |(name, attributes, first, words, last)| {
            format!("{name}: rexec/do-it{attributes}{first}\trexec/do-it{words}{last}")
        },
    )
}

fn build_rule() -> impl Strategy<Value = String> {
    let clause = prop_oneof![
        words().prop_map(|words| format!("  < a{words}")),
        words().prop_map(|words| format!("  <? *.c{words}")),
        words().prop_map(|words| format!("  > log l{words}")),
        (name(), word()).prop_map(|(name, word)| format!("  env {name}={word} B=c")),
        Just("  tool cc ld".to_owned()),
        Just("  limit memory=1".to_owned()),
        Just("  sh: a 'b # %< %>1 50%% | c".to_owned()),
        Just("  sh: a \\\n     b".to_owned()),
        words().prop_map(|words| format!("  run %< %<2 -o %>{words}")),
    ];
    let body = prop::collection::vec((clause, end()), 0..5).prop_map(|clauses| {
        clauses.iter().fold(String::new(), |text, (clause, end)| {
            let plain = clause.contains("sh:");
            text + clause + if plain { "\n" } else { end }
        })
    });
    (name(), body)
        .prop_map(|(name, body)| format!("out/{name}.o :  host x=y\n > o %x\n{body}  cc -c\n"))
}

fn begat() -> impl Strategy<Value = String> {
    let item = prop_oneof![
        (name(), words(), end())
            .prop_map(|(name, words, end)| format!("let {name} = {words}{end}")),
        (name(), end()).prop_map(|(name, end)| format!("include({name}){end}")),
        run_rule(),
        build_rule(),
        Just("# note\n\n\n".to_owned()),
    ];
    prop::collection::vec(item, 0..6).prop_map(|items| items.concat())
}

fn number() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (0..100_u32).prop_map(|number| number.to_string()),
        Just("size(ALL)".to_owned()),
        name(),
    ];
    leaf.prop_recursive(4, 20, 3, |inner| {
        prop_oneof![
            (inner.clone(), "[-+*/]", inner.clone())
                .prop_map(|(a, sign, b)| format!("{a}{sign}{b}")),
            inner.clone().prop_map(|inner| format!("( {inner} )")),
            inner.prop_map(|inner| format!("-{inner}")),
        ]
    })
}

fn set() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("ALL".to_owned()),
        Just("tag(\"GPU\")".to_owned()),
        Just("in(\"rack 1\")".to_owned()),
        name(),
    ];
    leaf.prop_recursive(4, 20, 3, |inner| {
        prop_oneof![
            (inner.clone(), "[-+&]", inner.clone())
                .prop_map(|(a, sign, b)| format!("{a} {sign} {b}")),
            inner.clone().prop_map(|inner| format!("({inner}\n )")),
            inner.clone().prop_map(|inner| format!("~{inner}")),
            inner.prop_map(|inner| format!("! {inner}")),
        ]
    })
}

fn khan() -> impl Strategy<Value = String> {
    let clause = prop_oneof![
        Just(" after ready(a)>=50% and ready(b) >= 2"),
        Just(" requests(cpu=500m,memory = 2Gi)"),
        Just(" limits(storage=1k)"),
        Just(" spread(\"rack\")"),
        Just(" near(a,b) apart(c)"),
        Just(""),
    ];
    let pick = (name(), number(), set(), clause)
        .prop_map(|(class, count, set, clause)| format!("pick({class},{count} ,\n  {set}){clause}"))
        .boxed();
    let item = prop_oneof![
        (pick.clone(), end()).prop_map(|(pick, end)| format!("{pick}{end}")),
        (name(), pick, end()).prop_map(|(name, pick, end)| format!("{name}:={pick}{end}")),
        (name(), number(), end())
            .prop_map(|(name, number, end)| format!("{name} := {number}{end}")),
    ];
    prop::collection::vec(item, 0..5).prop_map(|items| items.concat())
}

fn rexec() -> impl Strategy<Value = String> {
    let program = prop_oneof![
        Just("/a/b c".replace(' ', "-")),
        Just("\"/with space/x\"".to_owned()),
        Just(format!("blake3:{}", "ab".repeat(32))),
        Just("builtin:kv".to_owned()),
    ];
    let pattern = prop_oneof![
        Just(""),
        Just(" [ -a * \"]\" 'x y' ... ]"),
        Just(" []"),
        Just(" [a=*]")
    ];
    let item =
        (name(), gap(), program, pattern, end()).prop_map(|(name, gap, program, pattern, end)| {
            format!("{name}{gap}={gap}{program}{pattern}{end}")
        });
    prop::collection::vec(item, 0..6).prop_map(|items| items.concat())
}

fn rnodes() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just("n = 6".to_owned()),
        Just("cmd=/f -x \"a b\"".to_owned()),
        (
            word().prop_filter("plain", |word| !word.contains('%') && word.len() > 2),
            name()
        )
            .prop_map(|(host, name)| format!("mount {host} = /{name}")),
        name().prop_map(|name| format!("expose 80= {name}:8080")),
        name().prop_map(|name| format!("expose 80/udp= {name}:8080")),
        name().prop_map(|name| format!("user {name} =auto")),
        name().prop_map(|name| format!("server {name} = GPU 'very fast'")),
        Just("tags = a b".to_owned()),
        Just("isolation = none".to_owned()),
    ];
    let lines = prop::collection::vec((line, end()), 0..6);
    let once = |lines: Vec<(String, &'static str)>| {
        let mut seen = std::collections::BTreeSet::new();
        let key = |line: &str| line.split([' ', '=']).next().unwrap_or("").to_owned();
        let single = |key: &str| matches!(key, "n" | "cmd" | "isolation");
        let kept = lines
            .into_iter()
            .filter(|(line, _)| !single(&key(line)) || seen.insert(key(line)));
        kept.map(|(line, end)| format!("\t{line}{end}"))
            .collect::<String>()
    };
    lines.prop_map(move |lines| format!("local{{\n{}}}\n", once(lines)))
}

// Shows in part: ADF-03
#[test]
fn printing_and_formatting_keep_a_begat_file() {
    proptest!(|(text in begat())| same(FileKind::Begat, &text)?);
}

// Shows in part: ADF-03
#[test]
fn printing_and_formatting_keep_a_khan_file() {
    proptest!(|(text in khan())| same(FileKind::Khan, &text)?);
}

// Shows in part: ADF-03
#[test]
fn printing_and_formatting_keep_a_rexec_file() {
    proptest!(|(text in rexec())| same(FileKind::Rexec, &text)?);
}

// Shows in part: ADF-03
#[test]
fn printing_and_formatting_keep_a_rnodes_file() {
    proptest!(|(text in rnodes())| same(FileKind::Rnodes, &text)?);
}

#[test]
fn the_house_form_is_as_people_write_it() {
    for (kind, text, expected) in [
        (
            FileKind::Khan,
            "a:=pick(x,size( ALL )-size(b),~ b&!c)after ready(y)>=50%#",
            None,
        ),
        (
            FileKind::Khan,
            "a:=pick(x,size( ALL )- -size(b)*2,~ b&!c) after ready(y)>=50%  # why\n\n\n# end",
            Some(
                "a := pick(x, size(ALL) - -size(b) * 2, ~b & !c) after ready(y) >= 50%  # why\n\n# end\n",
            ),
        ),
        (
            FileKind::Rexec,
            "include( consul )\nworker = /w  [-a   *]\nslave=/s # s\n",
            Some("include(consul)\nworker = /w [-a *]\nslave  = /s  # s\n"),
        ),
        (
            FileKind::Begat,
            "web :rexec/web   port=80\n\trexec/web \\\n  %port\nout:host\n <  a  b\n > c\n sh:  x  'y\n",
            Some(
                "web: rexec/web port=80\n      rexec/web \\\n          %port\nout: host\n      < a b\n      > c\n      sh: x  'y\n",
            ),
        ),
        (
            FileKind::Rnodes,
            "\nlocal{\nn=6\n   # here\ncmd = /f  -x\n expose 80=web:81\n}\n\n",
            Some("local {\n  n = 6\n  # here\n  cmd = /f -x\n  expose 80 = web:81\n}\n"),
        ),
    ] {
        assert_eq!(format(kind, "x", text).ok().as_deref(), expected, "{text}");
    }
}
