//! Every file that a description names, resolved through the mount table and pinned to a digest.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crux_core::adf::rexec::Program;
use crux_core::adf::{Application, Code, Diagnostic, Span};
use crux_core::digest::Digest;
use crux_net::store::Store;
use crux_wire::document::v1::Pin;

use crate::base_start::Ourselves;
use crate::document::BUILTIN;

/// One file that instances need.
#[derive(Debug, Clone)]
pub(crate) struct Need {
    /// What the description says: a path in the cell, `blake3:…` or a built-in.
    pub(crate) value: Value,
    /// The rexec command it stands for; `None` for data.
    pub(crate) command: Option<String>,
    /// Where the description says so.
    pub(crate) span: Span,
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Command,
    Data,
}

impl Use {
    const fn of(need: &Need) -> Self {
        match need.command {
            Some(_) => Self::Command,
            None => Self::Data,
        }
    }
}

/// The bits of a file's mode of which a program has at least one.
const EXECUTABLE: u32 = 0o111;

/// What a description calls a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// A path as the application sees it.
    Path(String),
    /// Content.
    Content(Digest),
    /// This executable.
    Ourselves(String),
}

/// A host directory seen at another path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) host: PathBuf,
    pub(crate) target: PathBuf,
}

/// Every file that the run rules of `application` need, in the order of the files, without repeats.
pub(crate) fn needs(application: &Application) -> Vec<Need> {
    let mut needs: Vec<Need> = Vec::new();
    let mut add = |need: Need| {
        if !needs
            .iter()
            .any(|known| known.value == need.value && known.command == need.command)
        {
            needs.push(need);
        }
    };
    for rule in &application.begat.runs {
        for name in &rule.needs {
            if let Some(entry) = application.rexec.command(&name.value) {
                let value = match &entry.program.value {
                    Program::Path(path) => Value::Path(path.clone()),
                    Program::Digest(digest) => Value::Content(*digest),
                    Program::Builtin(name) => Value::Ourselves(name.clone()),
                };
                let span = entry.program.span;
                add(Need {
                    value,
                    command: Some(entry.name.value.clone()),
                    span,
                });
            }
        }
        for file in rule.files() {
            let value = match file
                .value
                .strip_prefix("blake3:")
                .and_then(|hex| hex.parse().ok())
            {
                Some(digest) => Value::Content(digest),
                None => Value::Path(file.value.to_owned()),
            };
            add(Need {
                value,
                command: None,
                span: file.span,
            });
        }
    }
    needs
}

/// The host's path of a path in the cell; itself when no mount covers it.
pub(crate) fn on_host(mounts: &[Mount], path: &str) -> PathBuf {
    let path = Path::new(path);
    let deepest = mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.target))
        .max_by_key(|mount| mount.target.components().count());
    match deepest {
        Some(mount) => path
            .strip_prefix(&mount.target)
            .map_or_else(|_| path.to_owned(), |rest| mount.host.join(rest)),
        None => path.to_owned(),
    }
}

/// What resolving reads from and puts into.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    /// The mount table.
    pub(crate) mounts: &'a [Mount],
    /// Products of the build by their path on the host.
    pub(crate) built: &'a BTreeMap<PathBuf, Digest>,
    /// Where contents are kept.
    pub(crate) store: &'a Store,
    /// This executable.
    pub(crate) ourselves: &'a Ourselves,
}

/// Pins every need; all that cannot be found are reported at once.
pub(crate) fn resolve(
    application: &Application,
    needs: &[Need],
    sources: &Sources<'_>,
) -> Result<Vec<Pin>, Vec<Diagnostic>> {
    let mut pins = Vec::new();
    let mut wrong = Vec::new();
    for need in needs {
        match pin(need, sources) {
            Ok(pin) => pins.push(pin),
            Err(message) => {
                wrong.push(
                    application
                        .files
                        .error(Code::MissingFile, need.span, message),
                );
            }
        }
    }
    if wrong.is_empty() {
        Ok(pins)
    } else {
        Err(wrong)
    }
}

fn pin(need: &Need, sources: &Sources<'_>) -> Result<Pin, String> {
    let (path, digest) = match &need.value {
        Value::Path(path) => {
            let host = on_host(sources.mounts, path);
            let digest = match sources.built.get(&host) {
                Some(digest) => *digest,
                None => take(sources.store, (&host, path), Use::of(need))?,
            };
            (path.clone(), digest)
        }
        Value::Content(digest) => {
            if !sources.store.has(digest) {
                return Err(format!(
                    "no file with the content blake3:{digest} is in the store"
                ));
            }
            (String::new(), *digest)
        }
        Value::Ourselves(name) => (format!("{BUILTIN}{name}"), sources.ourselves.digest),
    };
    let (_, size) = sources
        .store
        .open_verified(&digest)
        .map_err(|error| format!("the store cannot give back `{path}`: {error}"))?;
    Ok(Pin {
        path,
        digest: digest.to_string(),
        size,
        executable: need.command.is_some(),
        command: need.command.clone().unwrap_or_default(),
    })
}

/// How a file is called towards people: by both its paths where they differ.
fn place(host: &Path, path: &str) -> String {
    if host == Path::new(path) {
        format!("`{path}`")
    } else {
        format!("`{path}` ({} on this machine)", host.display())
    }
}

/// Why a file of the host cannot be what is needed.
fn check(host: &Path, path: &str, use_: Use) -> Result<(), String> {
    let place = place(host, path);
    let metadata = std::fs::metadata(host).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("{place} is not there, and no dictum makes it")
        }
        _ => format!("{place} cannot be read: {error}"),
    })?;
    if !metadata.is_file() {
        return Err(format!("{place} is not a file"));
    }
    if use_ == Use::Command && metadata.permissions().mode() & EXECUTABLE == 0 {
        return Err(format!(
            "{place} may not be executed by anybody: chmod +x {}",
            host.display()
        ));
    }
    Ok(())
}

/// What of `needs` is not on this machine as it has to be, apart from what `is_made` here.
pub(crate) fn missing(
    application: &Application,
    mounts: &[Mount],
    is_made: &dyn Fn(&Path) -> bool,
) -> Vec<Diagnostic> {
    let wrong = needs(application).into_iter().filter_map(|need| {
        let Value::Path(path) = &need.value else {
            return None;
        };
        let host = on_host(mounts, path);
        let checked = match is_made(&host) {
            true => Ok(()),
            false => check(&host, path, Use::of(&need)),
        };
        let message = checked.err()?;
        Some(
            application
                .files
                .error(Code::MissingFile, need.span, message),
        )
    });
    wrong.collect()
}

/// Puts a file of the host into the store.
fn take(store: &Store, (host, path): (&Path, &str), use_: Use) -> Result<Digest, String> {
    check(host, path, use_)?;
    let stored = store.put_file(host);
    stored.map(|info| info.digest).map_err(|error| {
        let mut text = format!("{} cannot be stored: {error}", place(host, path));
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_through_the_deepest_mount() {
        let mount = |host: &str, target: &str| Mount {
            host: host.into(),
            target: target.into(),
        };
        let mounts = [
            mount("/home/a", "/var/stix"),
            mount("/data", "/var/stix/data"),
        ];
        let check = |path: &str, expected: &str| {
            assert_eq!(on_host(&mounts, path), Path::new(expected));
        };
        check("/var/stix/bin/worker", "/home/a/bin/worker");
        check("/var/stix/data/x", "/data/x");
        check("/var/stixx", "/var/stixx");
        check("/etc/hosts", "/etc/hosts");
    }
}
