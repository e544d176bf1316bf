//! Programs of the host: where they are, and what version they say they are.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use begat_core::record::UsedTool;
use crux_core::digest::Digest;

/// Variables of the caller's environment that dictums are given: what finds programs, and what
/// cargo and rustup need. All else is left out, `RUSTFLAGS` above all: it breaks proc-macros.
const PASSED: [&str; 18] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "CARGO_HOME",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_JOBS",
    "CARGO_NET_OFFLINE",
    "CARGO_HTTP_CAINFO",
    "CARGO_HTTP_PROXY",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "http_proxy",
    "https_proxy",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// The host as dictums see it: environment passed on, and the versions of its programs.
#[derive(Debug)]
pub struct Host {
    environment: BTreeMap<String, String>,
    /// `None`: looked for and not found.
    known: Mutex<BTreeMap<String, Option<UsedTool>>>,
}

impl Host {
    /// Takes over what dictums may see of `environment`.
    #[must_use]
    pub fn new(environment: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let passed = environment.filter_map(|(name, value)| {
            let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
            PASSED.contains(&name.as_str()).then_some((name, value))
        });
        Self {
            environment: passed.collect(),
            known: Mutex::default(),
        }
    }

    /// The environment that is passed on.
    #[must_use]
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// The environment as records show it: addresses of proxies may hold passwords.
    pub(crate) fn recorded(&self) -> BTreeMap<String, String> {
        let secret = |name: &str| name.to_ascii_uppercase().ends_with("_PROXY");
        let shown = |(name, value): (&String, &String)| {
            let value = if secret(name) {
                "(set)"
            } else {
                value.as_str()
            };
            (name.clone(), value.to_owned())
        };
        self.environment.iter().map(shown).collect()
    }

    /// The program `name`: itself if it holds a `/`, else the first of that name on `PATH`.
    #[must_use]
    pub fn find(&self, name: &str, tree: &Path) -> Option<PathBuf> {
        let may_run = |path: &Path| {
            path.metadata()
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        };
        if name.contains('/') {
            return Some(tree.join(name)).filter(|path| may_run(path));
        }
        let folders = std::env::split_paths(self.environment.get("PATH")?);
        // A relative folder of PATH would mean another program in every tree.
        folders
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(name))
            .find(|path| may_run(path))
    }

    /// What `name` says of itself, asked once; `None` if it is not there.
    #[must_use]
    pub fn tool(&self, name: &str, tree: &Path) -> Option<UsedTool> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tool) = known.get(name) {
            return tool.clone();
        }
        let tool = self
            .find(name, tree)
            .and_then(|path| self.ask(name, &path, tree));
        known.insert(name.to_owned(), tool.clone());
        tool
    }

    fn ask(&self, name: &str, path: &Path, tree: &Path) -> Option<UsedTool> {
        let question = if matches!(name, "rustc" | "cargo") {
            "-vV"
        } else {
            "--version"
        };
        let answer = Command::new(path)
            .arg(question)
            .env_clear()
            .envs(&self.environment)
            .current_dir(tree)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()
            .filter(|output| output.status.success());
        // A program that does not tell its version is known by its bytes.
        let said = match answer {
            Some(output) => output.stdout,
            // A toolchain's proxy without a toolchain fails: that is no tool at all.
            None if matches!(name, "rustc" | "cargo") => return None,
            None => std::fs::read(path).ok()?,
        };
        let first = said.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let version = String::from_utf8_lossy(&first[..first.len().min(120)]).into_owned();
        Some(UsedTool {
            name: name.to_owned(),
            path: path.display().to_string(),
            version,
            digest: Digest::of(&said),
        })
    }
}
