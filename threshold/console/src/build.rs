//! Builds what an application needs, and says what it does meanwhile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use begat::{Host, Kind, Made, Report, Request, Tree};
use begat_core::record::{Exit, Record};
use crux_core::adf::{Application, Code, Diagnostic};
use crux_core::digest::Digest;
use crux_net::store::Store;
use crux_wire::document::v1::Build;

use crate::application::Described;
use crate::failure::{Failure, Outcome};
use crate::home::Home;
use crate::output::{self, Progress};

/// Lines of a failed dictum's output that are shown.
const LINES_SHOWN_MAX: usize = 40;
/// How often a person sees how long a build takes already.
const TICK: Duration = Duration::from_secs(1);
/// Dictums run at once: cargo uses all cores by itself, and two of it wait for each other.
const JOBS: usize = 1;

/// What was built or found.
#[derive(Debug, Default)]
pub(crate) struct Products {
    /// Digest by path on this machine.
    pub(crate) built: BTreeMap<PathBuf, Digest>,
    /// Which execution made which digest.
    pub(crate) builds: Vec<Build>,
}

/// Where begat keeps its records.
pub(crate) fn begat_directory(home: &Home) -> PathBuf {
    home.join("begat")
}

/// Builds `wanted` (paths on this machine; empty: everything), as far as dictums make them.
pub(crate) fn products(
    home: &Home,
    described: &Described,
    store: &Store,
    wanted: Option<&[PathBuf]>,
) -> Outcome<Products> {
    if described.application.begat.builds.is_empty() {
        return Ok(Products::default());
    }
    let begat = begat_directory(home);
    let tree = open_tree(&described.directory, &begat)?;
    let graph = graph_of(&described.application, &tree)?;
    let makes = |path: &PathBuf| {
        let relative = path
            .strip_prefix(&described.directory)
            .ok()?
            .to_str()?
            .to_owned();
        graph.maker(&relative).map(|_| relative)
    };
    let wanted: Option<Vec<String>> = wanted.map(|paths| paths.iter().filter_map(makes).collect());
    if wanted.as_ref().is_some_and(Vec::is_empty) {
        return Ok(Products::default());
    }
    let host = Host::new(std::env::vars_os());
    let building = Arc::new(Mutex::new(Building::default()));
    let begin = Instant::now();
    let ticking = Ticking::start(&building, begin);
    let report = begat::build(&Request {
        graph: &graph,
        tree: &tree,
        begat: &begat,
        store,
        host: &host,
        wanted: &wanted.unwrap_or_default(),
        jobs: JOBS,
        progress: &|event| tell(&building, &event),
        cancel: &AtomicBool::new(false),
    });
    drop((ticking, building));
    let report = report.map_err(|error| failed("", &error, described))?;
    if let Some((name, error)) = report.failures().next() {
        return Err(failed(name, error, described));
    }
    if report.executed() > 0 {
        output::talk(&format!(
            "built {} of {} dictums in {:.1} s",
            report.executed(),
            report.dictums.len(),
            begin.elapsed().as_secs_f32()
        ));
    }
    Ok(collect(&report, described))
}

fn open_tree(directory: &Path, begat: &Path) -> Outcome<Tree> {
    Tree::open(directory, begat)
        .map_err(|error| Failure::failed("cannot read the application's directory").because(&error))
}

/// The dictums of an application, as they are found in `directory`; nothing is built or written.
pub(crate) fn graph(
    application: &Application,
    directory: &Path,
    begat: &Path,
) -> Outcome<begat_core::graph::Graph> {
    graph_of(application, &open_tree(directory, begat)?)
}

fn graph_of(application: &Application, tree: &Tree) -> Outcome<begat_core::graph::Graph> {
    begat::graph(&application.begat, tree).map_err(|problems| {
        let located = problems.iter().map(|problem| {
            let files = &application.files;
            let found = files.error(Code::BadValue, problem.span, problem.message.clone());
            match &problem.help {
                Some(help) => found.helping(help.clone()),
                None => found,
            }
        });
        Failure::diagnostics(&located.collect::<Vec<Diagnostic>>())
    })
}

/// What is being built, and the line that says so.
#[derive(Debug, Default)]
struct Building {
    dictum: String,
    progress: Progress,
}

/// Shows a person how long a build takes already, until it is dropped.
struct Ticking {
    /// Dropped first: that ends the thread.
    going: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticking {
    fn start(building: &Arc<Mutex<Building>>, begin: Instant) -> Self {
        let (going, ended) = channel::<()>();
        let building = Arc::clone(building);
        let tick = move || {
            while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                if let Ok(mut building) = building.lock() {
                    let seconds = begin.elapsed().as_secs();
                    let text = format!("  {}: {seconds} s", building.dictum);
                    building.progress.show(&text);
                }
            }
        };
        let thread = output::watched().then(|| {
            let named = std::thread::Builder::new().name("build-time".to_owned());
            named.spawn(tick).ok()
        });
        Self {
            going: Some(going),
            thread: thread.flatten(),
        }
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        drop(self.going.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it has lost a line of progress.
            let _ = thread.join();
        }
    }
}

/// Says what starts and what has been built.
fn tell(building: &Mutex<Building>, event: &begat::Progress<'_>) {
    let Ok(mut building) = building.lock() else {
        return;
    };
    match event {
        begat::Progress::Started { dictum } => {
            building.progress.clear();
            output::talk(&format!("building {dictum}"));
            (*dictum).clone_into(&mut building.dictum);
        }
        begat::Progress::Ended { dictum, .. } => {
            building.progress.show(&format!("{dictum} is done"));
        }
    }
}

fn collect(report: &Report, described: &Described) -> Products {
    let mut products = Products::default();
    for kept in report.dictums.iter().filter_map(Made::record) {
        for made in &kept.record.outputs {
            products
                .built
                .insert(described.directory.join(&made.path), made.digest);
            products.builds.push(Build {
                digest: made.digest.to_string(),
                record: kept.digest.to_string(),
                path: made.path.clone(),
                ..execution(&kept.record)
            });
        }
    }
    products.builds.sort_by(|a, b| a.digest.cmp(&b.digest));
    products
}

/// What a document tells of an execution besides what it made.
fn execution(record: &Record) -> Build {
    let lines = record.inputs.iter();
    let lines: String = lines
        .map(|input| format!("{} {}\n", input.path, input.digest))
        .collect();
    Build {
        dictum: record.key.to_string(),
        name: record.name.clone(),
        dictum_digest: record.dictum.to_string(),
        inputs_digest: Digest::of(lines.as_bytes()).to_string(),
        inputs: u32::try_from(record.inputs.len()).unwrap_or(u32::MAX),
        exit: match record.exit {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        },
        started_unix_ms: record.started_unix_ms,
        duration_ms: record.duration_ms,
        ..Build::default()
    }
}

/// A failed dictum: where it stands, and what it said last.
fn failed(name: &str, error: &begat::Error, described: &Described) -> Failure {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    // Most say themselves what they failed to build.
    let text = match message.strip_prefix(&format!("build `{name}`: ")) {
        Some(why) => format!("dictum `{name}`: {why}"),
        None => format!("dictum `{name}`: failed to {message}"),
    };
    let message = match error.span() {
        Some(span) => {
            let found = described.application.files.error(Code::Recipe, span, text);
            match error.help() {
                Some(help) => found.helping(help).to_string(),
                None => found.to_string(),
            }
        }
        None => text,
    };
    let mut text = message;
    if let Some(said) = error.output() {
        let lines: Vec<&str> = said.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LINES_SHOWN_MAX)..];
        text.push_str("\nits last words:\n");
        for line in shown {
            text.push_str("  | ");
            text.push_str(line);
            text.push('\n');
        }
    }
    let text = text.trim_end().to_owned();
    match error.kind() {
        Kind::Missing | Kind::Unsupported | Kind::TooLarge => Failure::usage(text),
        _ => Failure::failed(text),
    }
}
