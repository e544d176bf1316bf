//! Real components for live tests and benches: what is known, what is here, what would bring it.
//!
//! A component is one row of [`COMPONENTS`]. One that live tests need has a function that brings it; the gate calls
//! that itself on CI, and on a person's machine only says what would.

mod python;

use std::path::PathBuf;

use crate::cargo::{find, is_ci, target_dir};
use crate::check::Outcome;

/// What a component is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Tests need it: with `CI=true` its absence is a failure.
    LiveTests,
    /// A bench sets Radix beside it: its absence is reported, never estimated.
    Peer,
}

/// One component that is not ours.
struct Component {
    name: &'static str,
    purpose: Use,
    of: &'static str,
    locate: fn() -> Option<PathBuf>,
    bring: &'static str,
    up: Option<fn() -> Result<(), String>>,
}

const COMPONENTS: &[Component] = &[
    Component {
        name: "openssh-server",
        purpose: Use::Peer,
        of: "bench exec, bench files",
        locate: || find("sshd"),
        bring: "apt-get install openssh-server",
        up: None,
    },
    Component {
        name: "openssh-client",
        purpose: Use::Peer,
        of: "bench exec, bench files",
        locate: || find("ssh"),
        bring: "apt-get install openssh-client",
        up: None,
    },
    Component {
        name: "rsync",
        purpose: Use::Peer,
        of: "bench files",
        locate: || find("rsync"),
        bring: "apt-get install rsync",
        up: None,
    },
    Component {
        name: "supervisor",
        purpose: Use::Peer,
        of: "bench up",
        locate: || Some(target_dir().join("bench/venv/bin/supervisord")).filter(|it| it.is_file()),
        bring: "`cargo xtask bench up` makes a venv under target/ (needs python3)",
        up: None,
    },
    Component {
        name: "schemathesis",
        purpose: Use::LiveTests,
        of: "the REST twins",
        locate: python::schemathesis,
        bring: "`cargo xtask services up` makes a venv under target/ (needs python3)",
        up: Some(python::bring_schemathesis),
    },
];

/// Runs `services up`, `down` or `status`.
///
/// # Errors
///
/// When a component that live tests need cannot be had.
pub(crate) fn run(word: &str) -> Result<(), String> {
    if word == "status" {
        for component in COMPONENTS {
            println!("{}", describe(component));
        }
        return Ok(());
    }
    if word == "down" {
        println!("nothing to do: no component runs between tests");
        return Ok(());
    }
    up()
}

/// Brings what is missing of all that live tests need.
fn up() -> Result<(), String> {
    for component in needed().filter(|component| (component.locate)().is_none()) {
        println!("bringing {}", component.name);
        let up = component.up.ok_or(component.bring)?;
        up().map_err(|message| format!("{}: {message}", component.name))?;
    }
    Ok(())
}

fn needed() -> impl Iterator<Item = &'static Component> {
    COMPONENTS
        .iter()
        .filter(|component| component.purpose == Use::LiveTests)
}

fn describe(component: &Component) -> String {
    let state = match (component.locate)() {
        Some(path) => format!("here: {}", path.display()),
        None => format!("missing: {}", component.bring),
    };
    let what = match component.purpose {
        Use::LiveTests => "tests",
        Use::Peer => "peer of",
    };
    format!(
        "{:<16} {what:<8} {:<14} {state}",
        component.name, component.of
    )
}

/// What the gate says of components: all that tests need is here, or which are not.
pub(crate) fn for_the_gate() -> Outcome {
    if is_ci()
        && let Err(message) = up()
    {
        return Outcome::Failed(message);
    }
    let missing: Vec<_> = needed()
        .filter(|component| (component.locate)().is_none())
        .map(describe)
        .collect();
    match (missing.is_empty(), is_ci()) {
        (true, _) => Outcome::Passed(format!("{} needed", needed().count())),
        (false, true) => Outcome::Failed(missing.join("; ")),
        (false, false) => Outcome::Skipped(missing.join("; ")),
    }
}
