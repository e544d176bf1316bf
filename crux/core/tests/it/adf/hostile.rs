//! Inputs made to break the parser: bounded in time and depth, told where.

use crux_core::adf::limits::{DIAGNOSTICS_MAX, FILE_BYTES_MAX, FILES_MAX};
use crux_core::adf::{Code, Diagnostic, FileKind, FileTree, Source, format, parse};
use proptest::prelude::*;

use super::{GOOD, parsed};

fn with(name: &str, text: &str) -> Vec<Diagnostic> {
    let files: Vec<(&str, &str)> = GOOD
        .iter()
        .map(|(other, good)| (*other, if *other == name { text } else { good }))
        .collect();
    parsed("app", &files).1
}

#[test]
fn a_file_of_ten_megabytes_is_refused_with_its_place() {
    let text = "# filler\n".repeat(10 << 20 >> 3);
    for (name, _) in GOOD {
        let found = with(name, &text);
        assert_eq!(found.len(), 1, "{name}");
        assert_eq!(
            (found[0].code, found[0].place.line),
            (Code::FileTooLarge, 1)
        );
        assert_eq!(found[0].file, name);
    }
}

#[test]
fn deep_nesting_ends_in_an_error_and_not_in_the_stack() {
    let open = "(".repeat(200_000);
    for text in [
        format!("x := {open}"),
        format!("x := {open}1{}", ")".repeat(200_000)),
        format!("x := {}1", "-".repeat(200_000)),
        format!("x := {}ALL", "~".repeat(200_000)),
        format!("x := {}ALL{}", "size(".repeat(150_000), ")".repeat(200_000)),
        format!("pick(web, {open}, ALL)"),
    ] {
        let found = with("app.khan", &text);
        assert!(
            found.iter().any(|one| one.code == Code::TooDeep),
            "{}",
            found[0]
        );
    }
    for text in [
        format!("local {}", "{".repeat(200_000)),
        "{\n".repeat(200_000),
        open,
    ] {
        assert!(with("app.rnodes", &text).iter().any(Diagnostic::is_error));
    }
    for (name, _) in GOOD {
        let text: String = "[({<\"'".repeat(100_000);
        assert!(with(name, &text).iter().any(Diagnostic::is_error));
    }
}

#[test]
fn long_sums_end_in_an_error_and_not_in_the_stack() {
    let text = format!("x := 1{}", "+1".repeat(400_000));
    assert!(
        with("app.khan", &text)
            .iter()
            .any(|one| one.code == Code::TooDeep)
    );
}

#[test]
fn many_errors_are_counted_and_the_first_hundred_shown() {
    let text = "pikc(web)\n".repeat(100_000);
    let found = with("app.khan", &text);
    assert_eq!(found.len(), DIAGNOSTICS_MAX);
    let last = found
        .last()
        .and_then(|one| one.help.clone())
        .unwrap_or_default();
    assert!(last.contains("more are not shown"), "{last}");
}

#[test]
fn long_chains_of_names_are_walked_without_recursion() {
    let mut text = String::from("pick(web, n0, ALL)\n");
    for index in 0..9_000 {
        text.push_str(&format!("n{index} := n{} + 1\n", index + 1));
    }
    text.push_str("n9000 := 1\n");
    assert!(with("app.khan", &text).iter().all(|one| !one.is_error()));
    let circle = text.replace("n9000 := 1", "n9000 := n0");
    assert!(
        with("app.khan", &circle)
            .iter()
            .any(|one| one.code == Code::Cycle)
    );
}

#[test]
fn values_that_double_do_not_eat_the_memory() {
    let mut text = String::from("let v0 = xxxxxxxx\n");
    for index in 0..64 {
        text.push_str(&format!("let v{} = %v{index}%v{index}\n", index + 1));
    }
    text.push_str("web: rexec/web\n  rexec/web %v64\njob: rexec/job\n  rexec/job\n");
    assert!(
        with("app.begat", &text)
            .iter()
            .any(|one| one.code == Code::TooMany)
    );
}

#[test]
fn a_line_of_a_megabyte_of_errors_takes_bounded_time() {
    for unit in ["%", "%{", "\\", "$ ", "=", ": ", "> "] {
        for (name, _) in GOOD {
            let text = unit.repeat(FILE_BYTES_MAX / unit.len());
            assert!(!with(name, &text).is_empty(), "{name} {unit:?}");
        }
    }
    let text = format!("web: rexec/web\n  rexec/web {}\n", "%{ ".repeat(300_000));
    assert!(with("app.begat", &text).len() <= DIAGNOSTICS_MAX);
}

#[test]
fn escape_sequences_in_a_file_never_reach_the_terminal() {
    let found = with("app.khan", "pick(web\u{1b}[31m, 2, ALL)\u{202e}\n");
    assert!(!found.is_empty());
    for one in found {
        assert!(!one.to_string().contains(['\u{1b}', '\u{202e}']));
    }
}

#[test]
fn any_bytes_are_parsed_or_refused_and_never_panic() {
    let pieces = prop::sample::select(vec![
        "pick",
        "(",
        ")",
        ",",
        "ALL",
        ":=",
        "=",
        " ",
        "\n",
        "\t",
        "web",
        "rexec/web",
        ":",
        "<",
        ">",
        "%",
        "%{",
        "}",
        "{",
        "\"",
        "'",
        "#",
        "\\",
        "\\\n",
        "include(",
        "let ",
        "each ",
        "1",
        "99999999999",
        "-",
        "~",
        "\r\n",
        "é",
        "after ready",
        ">=",
        "%%",
        "env ",
        "sh:",
        "local {\n",
        "mount ",
        "blake3:",
        "[",
        "]",
    ]);
    let texts = prop::collection::vec(pieces, 0..60).prop_map(|parts| parts.concat());
    proptest!(|(text in texts)| {
        for kind in FileKind::ALL {
            let (tree, found) = FileTree::parse(kind, "x", &text);
            for one in &found {
                let _ = one.to_string();
            }
            if found.iter().all(|one| !one.is_error()) {
                let (again, found) = FileTree::parse(kind, "x", &tree.to_string());
                prop_assert!(found.is_empty(), "{tree}\n{}", found[0]);
                prop_assert_eq!(&again, &tree, "{}", tree);
                let formatted = format(kind, "x", &text).expect("it parses");
                let (same, _) = FileTree::parse(kind, "x", &formatted);
                prop_assert_eq!(&same, &tree, "{}", formatted);
                prop_assert_eq!(format(kind, "x", &formatted).expect("it parses"), formatted);
            }
        }
    });
}

#[test]
fn a_long_chain_of_includes_ends_in_an_error() {
    let library = |name: &str| {
        let number: u32 = name
            .strip_prefix('f')?
            .strip_suffix(".begat")?
            .parse()
            .ok()?;
        Some(format!("include(f{})\n", number + 1).into_bytes())
    };
    let mut sources: Vec<Source> = GOOD
        .iter()
        .map(|(name, text)| Source::new(*name, *text))
        .collect();
    sources[0].bytes.splice(0..0, *b"include(f0)\n");
    let (application, found) = parse("app", &sources, &library);
    assert!(found.iter().any(|one| one.code == Code::TooMany));
    assert!(application.files.files().len() <= FILES_MAX + 3);
}

#[test]
fn any_four_files_are_checked_without_a_panic() {
    let begat = prop::sample::select(vec![
        "web: rexec/web",
        "job: rexec/job a=%b",
        "\n",
        "\n  rexec/web",
        " %rnode",
        " %<1",
        "let a = %a x\n",
        "x: host\n > y\n cp",
        "each z: host for=*.c\n < %it\n > %stem.o\n cc",
        " a=1",
        " single",
        "include(app)\n",
    ]);
    let khan = prop::sample::select(vec![
        "a := ",
        "b := ",
        "pick(web, ",
        "pick(job, ",
        "a",
        "b",
        "size(a)",
        " + ",
        " - ",
        "2",
        ", ",
        "ALL)",
        "~",
        "\n",
        " after ready(web) >= 50%",
        " after ready(job) >= 1",
        "size(ALL) / 0",
    ]);
    let rnodes = prop::sample::select(vec![
        "local {\n",
        "}\n",
        "n = 3\n",
        "cmd = /f\n",
        "expose 80 = web:80\n",
        "mount a = /b\n",
        "ec2 {\n",
        "x",
        "=",
    ]);
    let text = |strategy| {
        prop::collection::vec(strategy, 0..20).prop_map(|parts: Vec<&str>| parts.concat())
    };
    proptest!(|(begat in text(begat), khan in text(khan), rnodes in text(rnodes))| {
        let rexec = "web = /srv/web [-a *]\njob = builtin:kv\n";
        let files = [
            ("app.begat", begat.as_str()), ("app.rexec", rexec), ("app.khan", khan.as_str()), ("app.rnodes", rnodes.as_str()),
        ];
        let (application, found) = parsed("app", &files);
        let _ = application.khan.order();
        prop_assert!(found.len() <= DIAGNOSTICS_MAX);
        for one in found {
            prop_assert!(one.place.line >= 1 && one.place.column >= 1 && one.place.width >= 1);
            prop_assert!(!one.to_string().is_empty());
        }
    });
}
