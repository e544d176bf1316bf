//! Which crate may import which: the table, and the manifests compared with it.
//!
//! The same table stands in ARCHITECTURE.md between two marker comments; `cargo xtask fix` writes it
//! there, and tidy fails when the two differ. A new arrow is an architectural change.

use serde_json::Value;

use super::Findings;
use crate::cargo::{packages, root};
use crate::tree::File;

/// What a crate may import of the house's own.
enum May {
    /// These and nothing else.
    Only(&'static [&'static str]),
    /// Whatever it needs: binaries that join everything, and developers' tools.
    Any,
}

/// One row of the import table.
struct Row {
    package: &'static str,
    folder: &'static str,
    may: May,
    /// For pure crates: every external package they may use, none of which does I/O.
    pure_with: Option<&'static [&'static str]>,
}

use May::{Any, Only};

const CRUX: &[&str] = &["crux", "radix-crux-core", "crux-wire", "crux-net"];

const fn row(package: &'static str, folder: &'static str, may: May) -> Row {
    Row {
        package,
        folder,
        may,
        pure_with: None,
    }
}

const fn pure(
    package: &'static str,
    folder: &'static str,
    may: &'static [&'static str],
    externals: &'static [&'static str],
) -> Row {
    Row {
        package,
        folder,
        may: Only(may),
        pure_with: Some(externals),
    }
}

const TABLE: &[Row] = &[
    pure(
        "radix-crux-core",
        "crux/core",
        &[],
        &["blake3", "ring", "thiserror", "x509-parser"],
    ),
    row("crux-wire", "crux/wire", Only(&["radix-crux-core"])),
    row(
        "crux-net",
        "crux/net",
        Only(&["radix-crux-core", "crux-wire"]),
    ),
    row(
        "crux",
        "crux",
        Only(&["radix-crux-core", "crux-wire", "crux-net"]),
    ),
    pure("khan", "khan", &["radix-crux-core"], &["thiserror"]),
    pure(
        "begat-core",
        "begat/core",
        &["radix-crux-core"],
        &["thiserror"],
    ),
    row(
        "begat",
        "begat",
        Only(&[
            "crux",
            "radix-crux-core",
            "crux-wire",
            "crux-net",
            "begat-core",
        ]),
    ),
    pure(
        "underverse",
        "underverse",
        &["radix-crux-core"],
        &["async-trait", "futures-util", "thiserror"],
    ),
    row(
        "underverse-local",
        "underverse/local",
        Only(&[
            "crux",
            "radix-crux-core",
            "crux-wire",
            "crux-net",
            "underverse",
        ]),
    ),
    row(
        "underverse-conformance",
        "underverse/conformance",
        Only(&["underverse"]),
    ),
    row(
        "underverse-plugin",
        "underverse/plugin",
        Only(&["crux-net", "underverse", "underverse-conformance"]),
    ),
    row(
        "fulcrum",
        "fulcrum",
        Only(&[
            "crux",
            "radix-crux-core",
            "crux-wire",
            "crux-net",
            "khan",
            "begat-core",
        ]),
    ),
    row("threshold-console", "threshold/console", Any),
    row("stix", "examples/stix", Only(CRUX)),
    row(
        "the_shire",
        "examples/the_shire",
        Only(&["underverse", "underverse-local"]),
    ),
    row(
        "toy",
        "examples/toy",
        Only(&["underverse", "underverse-plugin", "underverse-conformance"]),
    ),
    row("xtask", "dev/xtask", Only(&[])),
    row("sim", "dev/sim", Any),
    row("testkit", "dev/testkit", Any),
    row("e2e", "dev/e2e", Any),
    row("bench", "dev/bench", Any),
];

/// What tests may import beyond the table.
const FOR_TESTS: [&str; 1] = ["testkit"];

const BEGIN: &str = "<!-- import table: begin -->\n";
const END: &str = "<!-- import table: end -->";

/// Compares every manifest, and ARCHITECTURE.md, with the table.
///
/// # Errors
///
/// When cargo cannot read the manifests.
pub(super) fn table(files: &[File], findings: &mut Findings) -> Result<(), String> {
    let packages = packages()?;
    let ours: Vec<&str> = packages.iter().map(name).collect();
    for package in &packages {
        dependencies_are_explained(package, &ours, files, findings);
        match TABLE.iter().find(|row| row.package == name(package)) {
            Some(row) => compare(row, package, &ours, findings),
            None => findings.error(format!("{}: not in the import table", name(package))),
        }
    }
    for row in TABLE.iter().filter(|row| !ours.contains(&row.package)) {
        findings.error(format!(
            "{}: in the import table, not in the workspace",
            row.package
        ));
    }
    let architecture = files.iter().find(|file| file.path == "ARCHITECTURE.md");
    let written = architecture
        .and_then(|file| parts(&file.text))
        .map(|(_, table, _)| table);
    if written != Some(render().as_str()) {
        findings.error("ARCHITECTURE.md: its import table is not xtask's, run `cargo xtask fix`");
    }
    Ok(())
}

fn compare(row: &Row, package: &Value, ours: &[&str], findings: &mut Findings) {
    for dependency in list(package, "dependencies") {
        let target = name(dependency);
        let for_tests = dependency["kind"] == "dev";
        if ours.contains(&target) {
            let exempt = for_tests && FOR_TESTS.contains(&target);
            if let Only(allowed) = row.may
                && !allowed.contains(&target)
                && !exempt
            {
                findings.error(format!("{} may not import {target}", row.package));
            }
        } else if let Some(externals) = row.pure_with
            && !externals.contains(&target)
            && !for_tests
        {
            findings.error(format!("{} is pure and may not use {target}", row.package));
        }
    }
}

/// Each external package that a manifest names has a line in docs/dependencies.md.
fn dependencies_are_explained(
    package: &Value,
    ours: &[&str],
    files: &[File],
    findings: &mut Findings,
) {
    let lines = files
        .iter()
        .find(|file| file.path == "docs/dependencies.md");
    for target in list(package, "dependencies")
        .map(name)
        .filter(|target| !ours.contains(target))
    {
        if !lines.is_some_and(|file| file.text.contains(&format!("| `{target}` |"))) {
            let user = name(package);
            findings.error(format!(
                "{user}: `{target}` has no line in docs/dependencies.md"
            ));
        }
    }
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

fn name(value: &Value) -> &str {
    value["name"].as_str().unwrap_or_default()
}

/// What a pure crate's own sources must not reach for.
const IMPURE: [&str; 10] = [
    "std::fs",
    "std::env::",
    "std::process",
    "std::thread",
    "std::net::Tcp",
    "std::net::Udp",
    "Instant::now",
    "SystemTime::now",
    "HashMap::new",
    "SystemRandom",
];

/// Looks for clocks, sockets, files, threads and chance in the sources of pure crates.
pub(super) fn purity(files: &[File], findings: &mut Findings) {
    for row in TABLE.iter().filter(|row| row.pure_with.is_some()) {
        let sources = format!("{}/src/", row.folder);
        for file in files.iter().filter(|file| file.path.starts_with(&sources)) {
            let before_tests = file
                .lines()
                .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
            for (number, line) in before_tests {
                let code = line.split("//").next().unwrap_or_default();
                for word in IMPURE.iter().filter(|word| code.contains(**word)) {
                    findings.error(format!("{}:{number}: {word} in a pure crate", file.path));
                }
            }
        }
    }
}

/// The table as it stands in ARCHITECTURE.md.
fn render() -> String {
    let mut text =
        String::from("| crate | folder | may import of ours | pure, with |\n|---|---|---|---|\n");
    for row in TABLE {
        let may = match row.may {
            Any => "any".to_owned(),
            Only([]) => "nothing".to_owned(),
            Only(names) => names.join(", "),
        };
        let externals = row
            .pure_with
            .map_or_else(String::new, |names| names.join(", "));
        text.push_str(&format!(
            "| `{}` | {}/ | {may} | {externals} |\n",
            row.package, row.folder
        ));
    }
    text
}

/// What stands before, between and after the markers.
fn parts(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (table, after) = rest.split_once(END)?;
    Some((before, table, after))
}

/// Writes the table into ARCHITECTURE.md.
///
/// # Errors
///
/// When the file or its markers are missing.
pub(crate) fn write_table() -> Result<(), String> {
    let path = root().join("ARCHITECTURE.md");
    let text =
        std::fs::read_to_string(&path).map_err(|error| format!("ARCHITECTURE.md: {error}"))?;
    let (before, _, after) = parts(&text).ok_or("ARCHITECTURE.md: no import table markers")?;
    let fresh = format!("{before}{BEGIN}{}{END}{after}", render());
    std::fs::write(&path, fresh).map_err(|error| format!("ARCHITECTURE.md: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(package: &str, dependencies: &Value, expected: &[&str]) {
        let row = TABLE
            .iter()
            .find(|row| row.package == package)
            .expect("a row of the table");
        let ours: Vec<&str> = TABLE.iter().map(|row| row.package).collect();
        let mut findings = Findings::default();
        let manifest = json!({ "name": package, "dependencies": dependencies });
        compare(row, &manifest, &ours, &mut findings);
        assert_eq!(findings.errors, expected);
    }

    #[test]
    fn an_arrow_outside_the_table_is_refused() {
        check(
            "khan",
            &json!([{ "name": "crux-net" }]),
            &["khan may not import crux-net"],
        );
        check("khan", &json!([{ "name": "radix-crux-core" }]), &[]);
    }

    #[test]
    fn a_pure_crate_takes_no_runtime() {
        check(
            "khan",
            &json!([{ "name": "tokio" }]),
            &["khan is pure and may not use tokio"],
        );
        check("khan", &json!([{ "name": "proptest", "kind": "dev" }]), &[]);
    }

    #[test]
    fn tests_may_use_the_fixtures() {
        check(
            "crux-net",
            &json!([{ "name": "testkit", "kind": "dev" }]),
            &[],
        );
        check(
            "crux-net",
            &json!([{ "name": "testkit" }]),
            &["crux-net may not import testkit"],
        );
    }

    #[test]
    fn a_clock_in_a_pure_crate_is_found() {
        let text = "//! A.\nlet now = Instant::now();\n#[cfg(test)]\nuse std::fs;\n";
        let file = File {
            path: "khan/src/a.rs".to_owned(),
            text: text.to_owned(),
        };
        let mut findings = Findings::default();
        purity(&[file], &mut findings);
        assert_eq!(
            findings.errors,
            ["khan/src/a.rs:2: Instant::now in a pure crate"]
        );
    }
}
