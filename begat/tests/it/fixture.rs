//! A tree, a home and a store that are gone when the test is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use begat::{Error, Host, Report, Request, Tree};
use begat_core::convert::Problem;
use begat_core::graph::Graph;
use crux_core::adf::{Application, Source, parse_begat};
use crux_net::store::Store;

static SERIAL: AtomicU64 = AtomicU64::new(0);

pub(crate) struct Fixture {
    root: PathBuf,
    pub(crate) cancel: AtomicBool,
    path: String,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("begat-it-{}-{serial}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("tree")).unwrap();
        let path = format!("{}:/usr/bin:/bin", root.join("bin").display());
        Self {
            root,
            cancel: AtomicBool::new(false),
            path,
        }
    }

    pub(crate) fn tree(&self, path: &str) -> PathBuf {
        self.root.join("tree").join(path)
    }

    pub(crate) fn home(&self, path: &str) -> PathBuf {
        self.root.join("home").join(path)
    }

    pub(crate) fn begat(&self) -> PathBuf {
        self.home("begat")
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(self.home("store")).unwrap()
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.tree(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Puts a program on the PATH that dictums see.
    pub(crate) fn tool(&self, name: &str, script: &str) {
        let path = self.root.join("bin").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn remove_tool(&self, name: &str) {
        fs::remove_file(self.root.join("bin").join(name)).unwrap();
    }

    pub(crate) fn application(text: &str) -> Application {
        let (application, findings) =
            parse_begat("app", &[Source::new("app.begat", text)], &|_: &str| None);
        assert!(findings.is_empty(), "{findings:?}");
        application
    }

    pub(crate) fn graph(&self, text: &str) -> Result<Graph, Vec<Problem>> {
        let tree = Tree::open(&self.tree(""), &self.begat()).unwrap();
        begat::graph(&Self::application(text).begat, &tree)
    }

    pub(crate) fn try_build(&self, text: &str, wanted: &[&str]) -> Result<Report, Error> {
        let graph = self.graph(text).unwrap();
        let tree = Tree::open(&self.tree(""), &self.begat()).unwrap();
        let wanted: Vec<String> = wanted.iter().map(|path| (*path).to_owned()).collect();
        let environment = [("PATH".into(), self.path.clone().into())];
        begat::build(&Request {
            graph: &graph,
            tree: &tree,
            begat: &self.begat(),
            store: &self.store(),
            host: &Host::new(environment.into_iter()),
            wanted: &wanted,
            jobs: 2,
            progress: &|_| {},
            cancel: &self.cancel,
        })
    }

    pub(crate) fn build(&self, text: &str) -> Report {
        self.try_build(text, &[]).unwrap()
    }

    /// What was made at `path`, as text.
    pub(crate) fn made(&self, report: &Report, path: &str) -> String {
        let (output, _) = report.output(path).expect("it was made");
        fs::read_to_string(self.store().path(&output.digest)).unwrap()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Names of the dictums whose commands ran.
pub(crate) fn executed(report: &Report) -> Vec<&str> {
    let built = |made: &&begat::Made| matches!(made.outcome, begat::Outcome::Built(_));
    report
        .dictums
        .iter()
        .filter(built)
        .map(|made| made.name.as_str())
        .collect()
}

/// The only failure of a report.
pub(crate) fn failure(report: &Report) -> &Error {
    let failures: Vec<_> = report.failures().collect();
    assert_eq!(failures.len(), 1, "{failures:?}");
    failures[0].1
}
