//! The description files of a directory: found, read, checked.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crux_core::adf::rnodes::{Carries, Provider};
use crux_core::adf::{Application, Code, Diagnostic, FileKind, Source, nearest, parse};

use crate::connection::Base;
use crate::failure::{Failure, Outcome};
use crate::home::Home;
use crate::library;
use crate::pins::Mount;

/// A description without errors, and where it stands.
#[derive(Debug)]
pub(crate) struct Described {
    /// What it says.
    pub(crate) application: Application,
    /// Its directory, canonical.
    pub(crate) directory: PathBuf,
    /// Its directory as the user wrote it.
    pub(crate) shown: PathBuf,
    /// Host directories that rnodes see, hosts absolute.
    pub(crate) mounts: Vec<Mount>,
    /// The backend that realises it.
    pub(crate) backend: String,
}

/// The backend that is linked in.
const LOCAL: &str = "local";

/// Bytes of one file that are read at most; the parser refuses anything longer with its place.
const READ_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// The application's name: that of the one `.begat` file in `directory`.
pub(crate) fn name_of(directory: &Path) -> Outcome<String> {
    let entries = std::fs::read_dir(directory).map_err(|error| {
        Failure::usage(format!("cannot read the directory {}", directory.display())).because(&error)
    })?;
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| FileKind::of_name(name).is_some())
        .collect();
    names.sort();
    let stems = |kind: FileKind| -> Vec<&str> {
        names
            .iter()
            .filter(|name| FileKind::of_name(name) == Some(kind))
            .filter_map(|name| name.rsplit_once('.').map(|(stem, _)| stem))
            .collect()
    };
    // Included files bring no `.rnodes`, so that is what tells the application from its parts.
    let candidates = [
        stems(FileKind::Rnodes),
        stems(FileKind::Khan),
        stems(FileKind::Begat),
    ];
    let found = candidates.iter().find(|stems| !stems.is_empty());
    match found.map(Vec::as_slice) {
        Some([one]) => Ok((*one).to_owned()),
        Some(several) => Err(Failure::usage(format!(
            "{} describes several applications: {}",
            directory.display(),
            several.join(", ")
        ))
        .hint("keep the four files of one application in a directory of their own")),
        None => Err(Failure::usage(format!("{} has no description files", directory.display()))
            .hint("an application APP is described by APP.begat, APP.rexec, APP.khan and APP.rnodes")
            .hint("try the example: radix up examples/stix")),
    }
}

/// Whether the program of a block stands for the fulcrum in this binary.
fn is_fulcrum(words: &[String]) -> bool {
    let first = words.first().map(String::as_str).unwrap_or_default();
    first.rsplit('/').next() == Some("fulcrum")
}

/// Refuses an application whose name cannot be that of its namespace.
fn refuse_name(name: &str) -> Outcome<()> {
    let hint = "name its four files otherwise: 1 to 63 letters, digits, `_` and `-`, no dash first";
    if name == crate::operator::BASE {
        return Err(Failure::usage(
            "an application cannot be called `base`: that is the namespace of the base rnodes",
        )
        .hint(hint));
    }
    if fulcrum::agent::is_namespace(name) {
        return Ok(());
    }
    Err(Failure::usage(format!("an application cannot be called `{name}`")).hint(hint))
}

/// Every description file of `directory`.
fn sources(directory: &Path) -> Outcome<Vec<Source>> {
    use std::io::Read as _;
    let mut sources = Vec::new();
    let mut entries: Vec<_> = std::fs::read_dir(directory)?
        .filter_map(Result::ok)
        .collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        if FileKind::of_name(&name).is_none() {
            continue;
        }
        let mut bytes = Vec::new();
        let file = std::fs::File::open(entry.path()).map_err(|error| {
            Failure::usage(format!("cannot read {}", entry.path().display())).because(&error)
        })?;
        file.take(READ_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(|error| {
                Failure::usage(format!("cannot read {}", entry.path().display())).because(&error)
            })?;
        sources.push(Source::new(name, bytes));
    }
    Ok(sources)
}

/// Reads and checks the files of `directory`, with every finding.
pub(crate) fn read(directory: &Path) -> Outcome<(Application, Vec<Diagnostic>)> {
    let name = name_of(directory)?;
    refuse_name(&name)?;
    let sources = sources(directory)?;
    let (application, mut diagnostics) = parse(&name, &sources, &library::find);
    if !diagnostics.iter().any(Diagnostic::is_error) {
        // What cannot be placed yet is told by whoever reads the files, not only when it comes to placing.
        diagnostics.extend(khan::compile(&application).err().into_iter().flatten());
    }
    Ok((
        application,
        diagnostics.into_iter().map(offer_library).collect(),
    ))
}

/// Names what the library has where an include was not found.
fn offer_library(diagnostic: Diagnostic) -> Diagnostic {
    if diagnostic.code != Code::MissingInclude || diagnostic.help.is_some() {
        return diagnostic;
    }
    let missing = diagnostic.message.split('`').nth(1).unwrap_or_default();
    let stem = missing.rsplit_once('.').map_or(missing, |(stem, _)| stem);
    let names = library::names();
    let help = match nearest(stem, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`, which is in the library?"),
        None => format!("the library has: {}", names.join(", ")),
    };
    diagnostic.helping(help)
}

impl Described {
    /// Reads and checks the files of `directory`; warnings are said, errors end it.
    pub(crate) fn load(directory: &Path, backend: &str) -> Outcome<Self> {
        let (application, diagnostics) = read(directory)?;
        if diagnostics.iter().any(Diagnostic::is_error) {
            return Err(Failure::diagnostics(&diagnostics));
        }
        for diagnostic in &diagnostics {
            crate::output::talk(&diagnostic.to_string());
        }
        let shown = directory.to_owned();
        let directory = directory.canonicalize()?;
        let (mounts, wrong) = mounts(&application, &directory);
        if !wrong.is_empty() {
            return Err(Failure::diagnostics(&wrong));
        }
        let backend = backend_of(&application, backend);
        Ok(Self {
            application,
            directory,
            shown,
            mounts,
            backend,
        })
    }

    /// How many rnodes the description asks for.
    pub(crate) fn rnodes_wanted(&self) -> u32 {
        let count = self
            .application
            .block()
            .and_then(|block| block.count.as_ref());
        count.map_or(0, |count| count.value)
    }

    /// Refuses a backend that is not there, or that cannot run what is asked.
    pub(crate) fn check_backend(&self) -> Outcome<()> {
        match unavailable(&self.application, &self.backend) {
            None => Ok(()),
            Some(diagnostic) => Err(Failure::diagnostics(&[diagnostic])),
        }
    }

    /// Refuses an exposed port that somebody else has, unless we hold it already.
    pub(crate) async fn check_ports(&self, base: Option<&Base>) -> Outcome<()> {
        let Some(block) = self.application.block() else {
            return Ok(());
        };
        let held = match base {
            Some(base) => base.hordes().await?,
            None => Vec::new(),
        };
        let mut wrong = Vec::new();
        for expose in &block.exposes {
            let at = (Ipv4Addr::LOCALHOST, expose.external.value);
            let address = format!("{}:{}{}", at.0, at.1, expose.carries.suffix());
            let ours = held
                .iter()
                .flat_map(|horde| &horde.exposures)
                .any(|exposure| exposure.address == address);
            if ours {
                continue;
            }
            let bound = match expose.carries {
                Carries::Tcp => std::net::TcpListener::bind(at).map(drop),
                Carries::Udp => std::net::UdpSocket::bind(at).map(drop),
            };
            if let Err(error) = bound {
                let message = format!("{address} cannot be exposed: {error}");
                let diagnostic = self
                    .application
                    .files
                    .error(Code::BadValue, expose.external.span, message)
                    .helping("end what listens there, or expose another port");
                wrong.push(diagnostic);
            }
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(Failure::diagnostics(&wrong))
        }
    }
}

/// The backend that realises `application`, `myriad` being the one called `named`.
fn backend_of(application: &Application, named: &str) -> String {
    match application.block().map(|block| block.provider.value) {
        Some(Provider::Myriad) | None => named.to_owned(),
        Some(provider) => provider.word().to_owned(),
    }
}

/// Why `backend` cannot be had here, or not what is asked of it.
fn unavailable(application: &Application, backend: &str) -> Option<Diagnostic> {
    let block = application.block()?;
    let files = &application.files;
    if backend != LOCAL {
        let message = format!("there is no backend `{backend}` in this radix");
        let found = files.error(Code::UnknownProvider, block.provider.span, message);
        return Some(found.helping(
            "descriptions name `local` so far; `radix backend check NAME` tells what another can do",
        ));
    }
    let command = block.command.as_ref();
    let other = command.filter(|command| !is_fulcrum(&command.value))?;
    let message = "a rnode runs fulcrum here, and nothing else";
    let found = files.error(Code::Unsupported, other.span, message);
    Some(found.expecting("cmd = /var/radix/bin/fulcrum: it stands for this radix"))
}

/// What a description without errors asks for and this machine has not: backend, mounts, files that no dictum makes.
pub(crate) fn absent(application: &Application, directory: &Path) -> Outcome<Vec<Diagnostic>> {
    let directory = directory.canonicalize()?;
    let (mounts, mut wrong) = mounts(application, &directory);
    wrong.extend(unavailable(application, &backend_of(application, LOCAL)));
    let cache = crate::build::begat_directory(&Home::locate()?);
    let graph = crate::build::graph(application, &directory, &cache)?;
    let is_made = |host: &Path| {
        let relative = host.strip_prefix(&directory).ok();
        let relative = relative.and_then(Path::to_str);
        relative.is_some_and(|relative| graph.maker(relative).is_some())
    };
    // Below a mount that is not there nothing is.
    if wrong.iter().all(|found| found.code != Code::MissingFile) {
        wrong.extend(crate::pins::missing(application, &mounts, &is_made));
    }
    Ok(wrong)
}

/// The mount table with absolute hosts that are there, and what is said of those that are not.
fn mounts(application: &Application, directory: &Path) -> (Vec<Mount>, Vec<Diagnostic>) {
    let mut mounts = Vec::new();
    let mut wrong = Vec::new();
    for mount in application.block().iter().flat_map(|block| &block.mounts) {
        let host = directory.join(&mount.host.value);
        match host.canonicalize() {
            Ok(host) => mounts.push(Mount {
                host,
                target: PathBuf::from(&mount.path.value),
            }),
            Err(error) => {
                let message = format!("cannot mount {}: {error}", host.display());
                wrong.push(
                    application
                        .files
                        .error(Code::MissingFile, mount.host.span, message),
                );
            }
        }
    }
    (mounts, wrong)
}
