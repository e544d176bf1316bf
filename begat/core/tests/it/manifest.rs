//! What dictums and executions are known by.

use begat_core::dictum::{Dictum, Form, Need, Paths, Piece, Product, Step, Word, shell_quoted};
use begat_core::manifest::{self, Input, Tool};
use crux_core::adf::Span;
use crux_core::digest::Digest;

fn dictum() -> Dictum {
    let product = |path: &str| Product {
        path: path.to_owned(),
        form: Form::File,
        span: Span::default(),
    };
    let need = |pattern: &str| Need {
        pattern: pattern.to_owned(),
        optional: false,
        span: Span::default(),
    };
    Dictum {
        name: "parse.o".to_owned(),
        container: "host".to_owned(),
        needs: vec![need("src/parse.c"), need("include/*.h")],
        products: vec![product("parse.o"), product("parse.d")],
        steps: vec![Step::Argv(vec![
            Word::text("cc"),
            Word::text("a b%"),
            Word::text(""),
            Word(vec![Piece::Inputs(Some(1))]),
            Word(vec![Piece::Text("-o".to_owned()), Piece::Outputs(None)]),
        ])],
        environment: [("LANG".to_owned(), "C".to_owned())].into(),
        tools: [("cc".to_owned(), Span::default())].into(),
        ..Dictum::default()
    }
}

/// The text is a promise: whoever has it recomputes the digest with `b3sum`.
#[test]
fn the_canonical_text_of_a_dictum_is_as_documented() {
    let text = manifest::dictum(&dictum());
    let expected = "begat-dictum/1\n\
        command 0000 argv cc a%20b%25 % %<{1} -o%>\n\
        container host\n\
        env LANG=C\n\
        order src/parse.c include/*.h %25 parse.o parse.d\n\
        output file parse.d\n\
        output file parse.o\n\
        tool cc\n";
    assert_eq!(text.text, expected);
    assert_eq!(text.digest, Digest::of(expected.as_bytes()));
}

#[test]
fn the_canonical_text_of_an_execution_is_as_documented() {
    let digest = Digest::of(b"x");
    let input = |path: &str, executable| Input {
        path: path.to_owned(),
        digest,
        executable,
    };
    let tool = Tool {
        name: "cc".to_owned(),
        digest,
    };
    let inputs = [input("src/é.c", false), input("gen.sh", true)];
    let text = manifest::execution(digest, &inputs, &[tool]).text;
    let expected = format!(
        "begat-execution/1\ndictum {digest}\ninput gen.sh x {digest}\n\
         input src/%C3%A9.c r {digest}\ntool cc {digest}\n"
    );
    assert_eq!(text, expected);
}

// Shows in part: BEG-03
#[test]
fn identity_changes_with_all_that_matters_and_with_nothing_else() {
    let key = |dictum: &Dictum| manifest::dictum(dictum).digest;
    let base = key(&dictum());
    let same = Dictum {
        name: "other".to_owned(),
        span: Span {
            end: 9,
            ..Span::default()
        },
        ..dictum()
    };
    assert_eq!(key(&same), base);
    let mut variants = Vec::new();
    let mut vary = |change: fn(&mut Dictum)| {
        let mut changed = dictum();
        change(&mut changed);
        variants.push(key(&changed));
    };
    vary(|dictum| dictum.container = "box@1".to_owned());
    vary(|dictum| drop(dictum.environment.insert("LANG".to_owned(), "D".to_owned())));
    vary(|dictum| drop(dictum.limits.insert("seconds".to_owned(), "9".to_owned())));
    vary(|dictum| dictum.tools.extend([("ld".to_owned(), Span::default())]));
    vary(|dictum| dictum.net = "none".to_owned());
    vary(|dictum| dictum.products[0].form = Form::Log);
    vary(|dictum| dictum.products.reverse());
    vary(|dictum| dictum.needs.reverse());
    vary(|dictum| dictum.steps.push(Step::Shell(Word::text("true"))));
    vary(|dictum| dictum.steps[0] = Step::Argv(vec![Word::text("cc a"), Word::text("b%")]));
    variants.push(base);
    let distinct: std::collections::BTreeSet<_> = variants.iter().collect();
    assert_eq!(distinct.len(), variants.len());
    let execution =
        |inputs: &[Input], tools: &[Tool]| manifest::execution(base, inputs, tools).digest;
    let input = |path: &str, bytes: &[u8], executable| Input {
        path: path.to_owned(),
        digest: Digest::of(bytes),
        executable,
    };
    let tool = |bytes: &[u8]| Tool {
        name: "cc".to_owned(),
        digest: Digest::of(bytes),
    };
    let one = [input("a", b"1", false), input("b", b"2", false)];
    let mut reversed = one.clone();
    reversed.reverse();
    assert_eq!(execution(&one, &[]), execution(&reversed, &[]));
    let keys = [
        execution(&one, &[]),
        execution(&one[..1], &[]),
        execution(&one, &[tool(b"1")]),
        execution(&one, &[tool(b"2")]),
        execution(&[input("a", b"2", false), input("b", b"1", false)], &[]),
        execution(&[input("a", b"1", true), input("b", b"2", false)], &[]),
    ];
    let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
}

#[test]
fn words_become_paths() {
    let inputs = ["one".to_owned(), "two words".to_owned()];
    let outputs = ["/work/out/x".to_owned()];
    let paths = Paths {
        inputs: &inputs,
        outputs: &outputs,
    };
    let argv = Step::Argv(vec![
        Word::text("cc"),
        Word(vec![Piece::Inputs(None)]),
        Word(vec![
            Piece::Text("link=".to_owned()),
            Piece::Outputs(Some(1)),
        ]),
    ]);
    assert_eq!(
        argv.argv(paths).unwrap(),
        ["cc", "one", "two words", "link=/work/out/x"]
    );
    let shell = Step::Shell(Word(vec![
        Piece::Text("cat ".to_owned()),
        Piece::Inputs(None),
        Piece::Text(" > ".to_owned()),
        Piece::Outputs(None),
    ]));
    assert_eq!(
        shell.argv(paths).unwrap()[2],
        "cat one 'two words' > /work/out/x"
    );
    assert_eq!(shell_quoted("it's"), r"'it'\''s'");
    let missing = Step::Argv(vec![Word(vec![Piece::Outputs(Some(2))])])
        .argv(paths)
        .unwrap_err();
    assert_eq!(missing.to_string(), "substitute %>2: there are only 1");
}
