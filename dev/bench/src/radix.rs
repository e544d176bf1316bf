//! The `radix` under measurement, in a state directory of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The workspace root, from this crate's own place in it.
pub(crate) fn root() -> PathBuf {
    let nested = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    nested.canonicalize().unwrap_or(nested)
}

/// Where benches keep what they make, out of the way of everything else.
pub(crate) fn scratch() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target
        .unwrap_or_else(|| root().join("target"))
        .join("bench")
}

/// A built `radix` with an empty state directory; everything it started ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Radix {
    program: PathBuf,
    home: PathBuf,
}

impl Radix {
    /// Takes the binary named by `RADIX_BIN`.
    ///
    /// # Errors
    ///
    /// When there is none, or no empty state directory can be made.
    pub(crate) fn fresh() -> Result<Self, String> {
        let named = std::env::var_os("RADIX_BIN").ok_or("RADIX_BIN names no radix")?;
        let program = PathBuf::from(named);
        let home = scratch().join(format!("home-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&home));
        std::fs::create_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
        Ok(Self { program, home })
    }

    /// The state directory.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// The command with `arguments`, not yet started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("RADIX_HOME", &self.home)
            .current_dir(root());
        command.stdin(Stdio::null());
        command
    }

    /// Runs `radix` to its end and returns its standard output.
    ///
    /// # Errors
    ///
    /// Exit code and standard error, when the code is not 0.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.command(arguments).output();
        let output = output.map_err(|error| format!("{}: {error}", self.program.display()))?;
        succeeded(&format!("radix {}", arguments.join(" ")), output)
    }

    /// Runs a command that prints JSON.
    ///
    /// # Errors
    ///
    /// As `run`, or when it printed something else.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value, String> {
        let text = self.run(&[arguments, &["--format", "json"]].concat())?;
        serde_json::from_str(&text).map_err(|error| format!("{arguments:?}: {error}"))
    }

    /// Brings up the application in `folder` and waits until it is ready.
    ///
    /// # Errors
    ///
    /// What `radix` says.
    pub(crate) fn up(&self, folder: &str) -> Result<(), String> {
        self.run(&["up", folder, "--yes", "--timeout", "10m"])
            .map(drop)
    }

    /// Ends the application in `folder`; binaries and records stay.
    ///
    /// # Errors
    ///
    /// What `radix` says.
    pub(crate) fn down(&self, folder: &str) -> Result<(), String> {
        self.run(&["down", folder, "--yes"]).map(drop)
    }
}

impl Drop for Radix {
    fn drop(&mut self) {
        if let Err(message) = self.run(&["down", "--purge", "--yes"]) {
            eprintln!("bench: {message}");
        }
        drop(std::fs::remove_dir_all(&self.home));
    }
}

/// The standard output of a command that did what it should.
///
/// # Errors
///
/// Its exit code and standard error otherwise.
pub(crate) fn succeeded(name: &str, output: Output) -> Result<String, String> {
    if !output.status.success() {
        let talk = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name}: {}: {}", output.status, talk.trim_end()));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("{name}: {error}"))
}
