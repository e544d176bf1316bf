//! Builds what is wanted: reuses what has been made of the same, runs the rest in order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use begat_core::dictum::{Dictum, Need, Paths};
use begat_core::graph::Graph;
use begat_core::manifest::{self, Input, Manifest, Tool};
use begat_core::record::{Exit, Output, Record, UsedTool};
use crux_net::store::Store;

use crate::error::{Error, Kind};
use crate::execute::{Run, Work, collect, missing_program};
use crate::records::{Kept, Records};
use crate::tools::Host;
use crate::tree::{Seen, Tree};

/// What to build, and with what.
pub struct Request<'a> {
    /// The dictums.
    pub graph: &'a Graph,
    /// The files they read; also the directory they run in.
    pub tree: &'a Tree,
    /// Begat's own directory: `$RADIX_HOME/begat`.
    pub begat: &'a Path,
    /// Where outputs go.
    pub store: &'a Store,
    /// Programs and environment of this machine.
    pub host: &'a Host,
    /// Outputs that must be there in the end, relative to the tree; empty: all.
    pub wanted: &'a [String],
    /// Dictums run at once, at least 1.
    pub jobs: usize,
    /// Told of each dictum as it starts and ends, from several threads.
    pub progress: &'a (dyn Fn(Progress<'_>) + Sync),
    /// Set from outside to stop early.
    pub cancel: &'a AtomicBool,
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Request")
            .field("tree", &self.tree.root())
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}

/// What is going on.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// The commands of a dictum are about to run.
    Started {
        /// Its name.
        dictum: &'a str,
    },
    /// A dictum is done with.
    Ended {
        /// Its name.
        dictum: &'a str,
        /// How.
        outcome: &'a Outcome,
        /// How long that took.
        duration: Duration,
    },
}

/// What became of a dictum.
#[derive(Debug)]
pub enum Outcome {
    /// Its commands ran.
    Built(Kept),
    /// It had been executed before with the same inputs and tools.
    Reused(Kept),
    /// It failed; nothing of it is used.
    Failed(Error),
    /// Something that it needs failed.
    Skipped,
}

/// One dictum of a [`Report`].
#[derive(Debug)]
pub struct Made {
    /// Its name.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
    /// How long that took.
    pub duration: Duration,
}

/// What became of everything that was wanted, in the graph's order.
#[derive(Debug, Default)]
pub struct Report {
    /// The dictums without which the wanted outputs cannot be there.
    pub dictums: Vec<Made>,
}

impl Made {
    /// The record of its execution, if it is of use.
    #[must_use]
    pub fn record(&self) -> Option<&Kept> {
        match &self.outcome {
            Outcome::Built(kept) | Outcome::Reused(kept) => Some(kept),
            Outcome::Failed(_) | Outcome::Skipped => None,
        }
    }
}

impl Report {
    /// What was made or found at `path`, with the record of how.
    #[must_use]
    pub fn output(&self, path: &str) -> Option<(&Output, &Kept)> {
        let kept = self.dictums.iter().filter_map(Made::record);
        kept.flat_map(|kept| kept.record.outputs.iter().map(move |output| (output, kept)))
            .find(|(output, _)| output.path == path)
    }

    /// The errors, each with its dictum's name.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &Error)> {
        self.dictums.iter().filter_map(|made| match &made.outcome {
            Outcome::Failed(error) => Some((made.name.as_str(), error)),
            Outcome::Built(_) | Outcome::Reused(_) | Outcome::Skipped => None,
        })
    }

    /// Number of dictums whose commands ran.
    #[must_use]
    pub fn executed(&self) -> usize {
        let built = |made: &&Made| matches!(made.outcome, Outcome::Built(_));
        self.dictums.iter().filter(built).count()
    }

    /// Whether everything wanted is there.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.dictums.iter().all(|made| made.record().is_some())
    }
}

/// Builds what is wanted. What fails is in the report; what does not depend on it is still built.
///
/// # Errors
/// Only if begat's own directory cannot be used; nothing has been executed then.
pub fn build(request: &Request<'_>) -> Result<Report, Error> {
    let records = Records::open(request.begat)?;
    Work::sweep(request.begat);
    let closure = request.graph.closure(request.wanted);
    let builder = Builder {
        request,
        records,
        state: Mutex::default(),
        wake: Condvar::new(),
    };
    builder.lock().open.clone_from(&closure);
    let jobs = request.jobs.clamp(1, closure.len().max(1));
    std::thread::scope(|scope| {
        for _ in 1..jobs {
            scope.spawn(|| builder.work());
        }
        builder.work();
    });
    request.tree.remember();
    let mut state = builder
        .state
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    Ok(Report {
        dictums: closure
            .iter()
            .filter_map(|index| state.made.remove(index))
            .collect(),
    })
}

struct Builder<'a> {
    request: &'a Request<'a>,
    records: Records,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// Not started yet.
    open: BTreeSet<usize>,
    running: usize,
    made: BTreeMap<usize, Made>,
}

/// What a dictum reads, resolved.
struct Inputs {
    identified: Vec<Input>,
    sources: Vec<Seen>,
    made: Vec<Output>,
    /// The order in which `%<` names them.
    order: Vec<String>,
}

impl Builder<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        while !state.open.is_empty() {
            let Some(index) = self.next(&state) else {
                assert!(
                    state.running > 0,
                    "an ordered graph always has a next dictum"
                );
                state = self
                    .wake
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.open.remove(&index);
            state.running += 1;
            let skipped = self.request.graph.needs(index).iter().any(|needed| {
                state
                    .made
                    .get(needed)
                    .is_some_and(|made| made.record().is_none())
            });
            drop(state);
            let made = self.make(index, skipped);
            state = self.lock();
            state.running -= 1;
            state.made.insert(index, made);
            self.wake.notify_all();
        }
    }

    /// The first open dictum all of whose needs are done with.
    fn next(&self, state: &State) -> Option<usize> {
        let ready = |index: &&usize| {
            self.request
                .graph
                .needs(**index)
                .iter()
                .all(|needed| state.made.contains_key(needed))
        };
        state.open.iter().find(ready).copied()
    }

    fn make(&self, index: usize, skipped: bool) -> Made {
        let dictum = &self.request.graph.dictums()[index];
        let start = Instant::now();
        let outcome = match skipped {
            true => Outcome::Skipped,
            false => self.settle(dictum).unwrap_or_else(Outcome::Failed),
        };
        let duration = start.elapsed();
        let name = dictum.name.clone();
        (self.request.progress)(Progress::Ended {
            dictum: &name,
            outcome: &outcome,
            duration,
        });
        Made {
            name,
            outcome,
            duration,
        }
    }

    /// An input that somebody saves meanwhile costs a second try, not the build.
    fn settle(&self, dictum: &Dictum) -> Result<Outcome, Error> {
        match self.obtain(dictum) {
            Err(error) if error.kind() == Kind::Changed => self.obtain(dictum),
            other => other,
        }
    }

    fn obtain(&self, dictum: &Dictum) -> Result<Outcome, Error> {
        supported(dictum)?;
        let inputs = self.inputs(dictum)?;
        let outputs: Vec<String> = dictum
            .products
            .iter()
            .map(|made| made.path.clone())
            .collect();
        manifest::check_numbers(
            dictum,
            Paths {
                inputs: &inputs.order,
                outputs: &outputs,
            },
        )
        .map_err(|error| Error::new(Kind::Missing, error.to_string()).at(dictum.span))?;
        let text = manifest::dictum(dictum);
        let tools = match self.tools(dictum) {
            Ok(tools) => tools,
            Err(error) => {
                let made_elsewhere = self.made_elsewhere(&text, &inputs.identified);
                return made_elsewhere.map(Outcome::Reused).ok_or(error);
            }
        };
        let versions: Vec<Tool> = tools
            .iter()
            .map(|tool| Tool {
                name: tool.name.clone(),
                digest: tool.digest,
            })
            .collect();
        let execution = manifest::execution(text.digest, &inputs.identified, &versions);
        let known = self.records.of_key(&execution.digest);
        if let Some(kept) = known.into_iter().find(|kept| self.is_of_use(kept)) {
            return Ok(Outcome::Reused(kept));
        }
        self.execute(dictum, &inputs, tools, (text, execution))
            .map(Outcome::Built)
    }

    /// Whether a record is of a success whose outputs are all in the store, undamaged.
    fn is_of_use(&self, kept: &Kept) -> bool {
        let there = |output: &Output| self.request.store.open_verified(&output.digest).is_ok();
        kept.record.succeeded() && kept.record.outputs.iter().all(there)
    }

    /// Where a tool is missing, what was made of the same inputs by some version of it will do:
    /// nothing better can be had here, and the record says which version it was.
    fn made_elsewhere(&self, text: &Manifest, inputs: &[Input]) -> Option<Kept> {
        let mut sorted = inputs.to_vec();
        sorted.sort();
        let mut found: Vec<Kept> = self.records.all();
        found.retain(|kept| kept.record.dictum == text.digest && kept.record.inputs == sorted);
        found.sort_by_key(|kept| std::cmp::Reverse(kept.record.started_unix_ms));
        found.into_iter().find(|kept| self.is_of_use(kept))
    }

    fn tools(&self, dictum: &Dictum) -> Result<Vec<UsedTool>, Error> {
        let Request { host, tree, .. } = self.request;
        let ask = |name: &String| {
            host.tool(name, tree.root())
                .ok_or_else(|| missing_program(name, dictum))
        };
        dictum.tools.keys().map(ask).collect()
    }

    fn inputs(&self, dictum: &Dictum) -> Result<Inputs, Error> {
        let mut inputs = Inputs {
            identified: Vec::new(),
            sources: Vec::new(),
            made: Vec::new(),
            order: Vec::new(),
        };
        let mut taken = BTreeSet::new();
        for need in &dictum.needs {
            for path in self.paths(dictum, need)? {
                if taken.insert(path.clone()) {
                    inputs.order.push(path.clone());
                    self.take(need, path, &mut inputs)?;
                }
            }
        }
        inputs.identified.sort();
        Ok(inputs)
    }

    /// Everything that `need` matches, made or lying in the tree, bytewise sorted.
    fn paths(&self, dictum: &Dictum, need: &Need) -> Result<Vec<String>, Error> {
        let Request { graph, tree, .. } = self.request;
        let mut paths = tree
            .matches(&need.pattern)
            .map_err(|error| error.at(need.span))?;
        // What a dictum makes is what is meant, whatever lies in the tree under that name.
        paths.retain(|path| graph.maker(path).is_none());
        for (product, _) in graph.made_for(need) {
            let inside = format!("{}/", product.path);
            let whole = need.pattern == product.path || begat_core::glob::is_glob(&need.pattern);
            let state = self.lock();
            let made = graph
                .maker(&product.path)
                .and_then(|maker| state.made.get(&maker)?.record());
            let outputs = made.into_iter().flat_map(|kept| &kept.record.outputs);
            paths.extend(outputs.map(|output| output.path.clone()).filter(|path| {
                *path == need.pattern
                    || whole && (*path == product.path || path.starts_with(&inside))
            }));
        }
        paths.sort_unstable();
        paths.dedup();
        if paths.is_empty() && !need.optional {
            let message = format!(
                "build `{}`: nothing matches `{}`",
                dictum.name, need.pattern
            );
            let help = format!("looked below {}", tree.root().display());
            return Err(Error::new(Kind::Missing, message)
                .at(need.span)
                .with_help(help));
        }
        Ok(paths)
    }

    fn take(&self, need: &Need, path: String, inputs: &mut Inputs) -> Result<(), Error> {
        let Request { graph, tree, .. } = self.request;
        if let Some(maker) = graph.maker(&path) {
            let state = self.lock();
            let made = state.made.get(&maker).and_then(Made::record);
            let output =
                made.and_then(|kept| kept.record.outputs.iter().find(|out| out.path == path));
            if let Some(output) = output {
                let Output {
                    digest, executable, ..
                } = *output;
                inputs.identified.push(Input {
                    path,
                    digest,
                    executable,
                });
                inputs.made.push(output.clone());
            }
            return Ok(());
        }
        let seen = tree.see(&path).map_err(|error| error.at(need.span))?;
        inputs.identified.push(Input {
            path,
            digest: seen.digest,
            executable: seen.executable,
        });
        inputs.sources.push(seen);
        Ok(())
    }

    fn execute(
        &self,
        dictum: &Dictum,
        inputs: &Inputs,
        tools: Vec<UsedTool>,
        (text, execution): (Manifest, Manifest),
    ) -> Result<Kept, Error> {
        let Request {
            begat,
            store,
            tree,
            host,
            cancel,
            progress,
            ..
        } = self.request;
        progress(Progress::Started {
            dictum: &dictum.name,
        });
        let work = Work::make(begat)?;
        let paths = lay_out(inputs, &work, store)?;
        let (started, clock) = (SystemTime::now(), Instant::now());
        let run = Run {
            dictum,
            work: &work,
            tree: tree.root(),
            host,
            inputs: &paths,
            cancel,
        };
        let exit = run.run()?;
        let duration = clock.elapsed();
        if let Some(changed) = inputs.sources.iter().find(|source| !source.holds()) {
            return Err(changed_meanwhile(dictum, &changed.name));
        }
        let outputs = match exit {
            Exit::Code(0) => collect(dictum, &work, store)?,
            _ => Vec::new(),
        };
        let kept = self.records.add(Record {
            key: execution.digest,
            name: dictum.name.clone(),
            dictum: text.digest,
            dictum_text: text.text,
            execution_text: execution.text,
            inputs: inputs.identified.clone(),
            outputs,
            tools,
            environment: host.recorded(),
            exit,
            started_unix_ms: unix_ms(started),
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            log: work.keep_log(store),
        })?;
        if exit == Exit::Code(0) {
            Ok(kept)
        } else {
            Err(failed(dictum, exit, &work))
        }
    }
}

/// Copies what other dictums made to where this one can read it; returns the paths for `%<`.
fn lay_out(inputs: &Inputs, work: &Work, store: &Store) -> Result<Vec<String>, Error> {
    let path = |path: &String| match inputs.made.iter().find(|made| made.path == *path) {
        Some(made) => work.lay(store, made),
        None => Ok(path.clone()),
    };
    inputs.order.iter().map(path).collect()
}

fn supported(dictum: &Dictum) -> Result<(), Error> {
    if dictum.container == "host" {
        return Ok(());
    }
    let message = format!(
        "build `{}` in container `{}`",
        dictum.name, dictum.container
    );
    Err(Error::new(Kind::Unsupported, message)
        .at(dictum.span)
        .with_help("so far dictums run on the machine itself: write `host`"))
}

fn changed_meanwhile(dictum: &Dictum, path: &str) -> Error {
    let message = format!(
        "build `{}`: {path} changed while it was being used",
        dictum.name
    );
    Error::new(Kind::Changed, message)
        .at(dictum.span)
        .with_help("it was tried twice; run it again once nobody writes there")
}

fn failed(dictum: &Dictum, exit: Exit, work: &Work) -> Error {
    let how = match exit {
        Exit::Code(code) => format!("its command ended with {code}"),
        Exit::Signal(signal) => format!("its command was ended by signal {signal}"),
    };
    Error::new(Kind::Failed, format!("build `{}`: {how}", dictum.name))
        .at(dictum.span)
        .with_output(work.tail())
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
