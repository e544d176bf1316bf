//! The steps of the gate, cheapest first, so that the common mistakes are told early.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::{Depth, Outcome, Step, deny};
use crate::cargo::{self, cargo, line, radix, succeed};
use crate::{openapi, proto, proto_history, services, tidy};

/// The gate in its order.
pub(super) const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        least: Depth::Quick,
        run: fmt,
    },
    Step {
        name: "tidy",
        least: Depth::Quick,
        run: tidy,
    },
    Step {
        name: "generated",
        least: Depth::Quick,
        run: generated,
    },
    Step {
        name: "protos",
        least: Depth::Quick,
        run: protos,
    },
    Step {
        name: "clippy",
        least: Depth::Quick,
        run: clippy,
    },
    Step {
        name: "services",
        least: Depth::Full,
        run: services,
    },
    Step {
        name: "release",
        least: Depth::Full,
        run: release,
    },
    Step {
        name: "tests",
        least: Depth::Quick,
        run: tests,
    },
    Step {
        name: "docs",
        least: Depth::Full,
        run: docs,
    },
    Step {
        name: "packages",
        least: Depth::Full,
        run: packages,
    },
    Step {
        name: "deny",
        least: Depth::Full,
        run: deny,
    },
];

fn fmt(_: Depth) -> Outcome {
    succeed(cargo().args(["fmt", "--all", "--check"])).into()
}

fn tidy(_: Depth) -> Outcome {
    tidy::run().into()
}

fn generated(_: Depth) -> Outcome {
    proto::compare().and_then(|()| openapi::compare()).into()
}

fn protos(_: Depth) -> Outcome {
    match proto_history::compare() {
        Ok(count) => Outcome::Passed(format!("{count} fields and methods as promised")),
        Err(message) => Outcome::Failed(message),
    }
}

fn clippy(_: Depth) -> Outcome {
    let mut command = cargo();
    command.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--keep-going",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]);
    succeed(&mut command).into()
}

fn services(_: Depth) -> Outcome {
    services::for_the_gate()
}

/// Builds the binary that end-to-end tests run, as a user would get it.
fn release(_: Depth) -> Outcome {
    succeed(cargo().args(["build", "--release", "--bin", "radix", "--locked"])).into()
}

/// Runs every test; the full gate adds doc tests and the end-to-end ones.
///
/// The seeds of the simulator are tests of crate `sim`.
fn tests(depth: Depth) -> Outcome {
    let mut command = cargo();
    command.args(["test", "--workspace", "--locked", "--no-fail-fast"]);
    match depth {
        Depth::Full => command.env("RADIX_BIN", radix()),
        Depth::Quick => command.args(["--exclude", "e2e", "--lib", "--bins", "--tests"]),
    };
    run_tests(&mut command)
}

fn docs(_: Depth) -> Outcome {
    let mut command = cargo();
    command
        .args(["doc", "--workspace", "--no-deps", "--locked"])
        .env("RUSTDOCFLAGS", "-D warnings");
    succeed(&mut command).into()
}

/// Packs what is published, without building it again from the packages.
fn packages(_: Depth) -> Outcome {
    let packages = match cargo::packages() {
        Ok(packages) => packages,
        Err(message) => return Outcome::Failed(message),
    };
    // Cargo says `null` of what goes to any registry, and an empty list of what goes nowhere.
    let published = packages
        .iter()
        .filter(|package| package["publish"].is_null());
    let names: Vec<&str> = published
        .filter_map(|package| package["name"].as_str())
        .collect();
    let mut command = cargo();
    command.args([
        "package",
        "--locked",
        "--allow-dirty",
        "--no-verify",
        "--quiet",
    ]);
    for name in &names {
        command.args(["--package", name]);
    }
    match succeed(&mut command) {
        Ok(()) => Outcome::Passed(names.join(", ")),
        Err(message) => Outcome::Failed(message),
    }
}

fn deny(_: Depth) -> Outcome {
    deny::run()
}

/// The sums of cargo's `test result` lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    /// Adds one line of output, which may be anything.
    fn read(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else {
            return;
        };
        let counts = rest.split(['.', ';']).map(str::trim);
        for (number, word) in counts.filter_map(|part| part.split_once(' ')) {
            match (number.parse::<u64>(), word) {
                (Ok(number), "passed") => self.passed += number,
                (Ok(number), "failed") => self.failed += number,
                _ => {}
            }
        }
    }
}

/// Runs tests with their output shown as it comes and their results added up.
fn run_tests(command: &mut Command) -> Outcome {
    let mut child = match command.stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => {
            return Outcome::Failed(format!("failed to start {}: {error}", line(command)));
        }
    };
    let mut tally = Tally::default();
    if let Some(stdout) = child.stdout.take() {
        let mut out = std::io::stdout();
        for text in BufReader::new(stdout).lines().map_while(Result::ok) {
            tally.read(&text);
            // A closed terminal must not stop the count.
            drop(writeln!(out, "{text}"));
        }
    }
    let counted = format!("{} tests passed, {} failed", tally.passed, tally.failed);
    match child.wait() {
        Ok(status) if status.success() => Outcome::Passed(counted),
        Ok(status) => Outcome::Failed(format!("{counted} ({status})")),
        Err(error) => Outcome::Failed(format!("{counted}; lost sight of cargo: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_added_up() {
        let mut tally = Tally::default();
        tally.read("running 3 tests");
        tally.read("test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; finished in 0.01s");
        tally
            .read("test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!(
            tally,
            Tally {
                passed: 7,
                failed: 2
            }
        );
    }
}
