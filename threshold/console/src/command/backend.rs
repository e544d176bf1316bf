//! `radix backend`: the backends there are, what each can do here, and whether it keeps its promises.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use underverse_conformance::{Choice, DirectoryFixture, Report, Row, run as run_suite};
use underverse_plugin::{Launch, PluginBelow, find};

use crate::args::{BackendCheck, BackendCommand};
use crate::failure::{Failure, Fault, Outcome};
use crate::output::{self, Format};
use crate::suite::LocalBelow;

/// The backend that is linked in.
const LOCAL: &str = "local";
/// The word by which this binary is `local` as a plug-in.
pub(crate) const PLUGIN_WORD: &str = "plugin-local";

#[derive(Debug, Serialize)]
struct Backend {
    name: String,
    linked: bool,
    program: Option<PathBuf>,
    rnodes: Option<String>,
}

/// Runs the command.
pub(crate) fn run(command: &BackendCommand) -> Outcome<()> {
    match command {
        BackendCommand::List { format } => list(*format),
        BackendCommand::Check(asked) => check(asked),
    }
}

fn list(format: Format) -> Outcome<()> {
    let machine = underverse_local::limits::Machine::read();
    let room = |count: u32| underverse_local::limits::check(count, 0, &machine).is_ok();
    // The largest power of two of rnodes that fit: an order of size, not a promise.
    let largest = (0..13)
        .map(|power| 1_u32 << power)
        .take_while(|count| room(*count))
        .last();
    let rnodes = largest.map_or_else(
        || "none fit now".to_owned(),
        |count| format!("{count} or more fit now"),
    );
    let mut backends = vec![Backend {
        name: LOCAL.to_owned(),
        linked: true,
        program: None,
        rnodes: Some(rnodes),
    }];
    let found = find::all(&find::folders())
        .into_iter()
        .filter(|(name, _)| name != LOCAL);
    backends.extend(found.map(|(name, program)| Backend {
        name,
        linked: false,
        program: Some(program),
        rnodes: None,
    }));
    if format == Format::Json {
        return output::json(&backends);
    }
    let row = |backend: &Backend| {
        let program = backend
            .program
            .as_ref()
            .map(|path| path.display().to_string());
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        vec![
            backend.name.clone(),
            text(&backend.rnodes),
            program.unwrap_or_else(|| "linked in".to_owned()),
        ]
    };
    let rows: Vec<_> = backends.iter().map(row).collect();
    output::table(&["BACKEND", "RNODES", "PROGRAM"], &rows);
    Ok(())
}

fn check(asked: &BackendCheck) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime =
        runtime.map_err(|error| Failure::failed("cannot start the runtime").because(&error))?;
    let report = runtime.block_on(report(asked))?;
    match asked.format {
        Format::Json => output::json(&report.json())?,
        Format::Text if asked.counts => output::line(&report.summary()),
        Format::Text => output::line(report.to_string().trim_end()),
    }
    match report.is_sound() {
        true => Ok(()),
        false => Err(Failure::new(
            Fault::Failed,
            format!(
                "{} breaks promises: {} cases failed",
                asked.name,
                report.count("failed")
            ),
        )),
    }
}

async fn report(asked: &BackendCheck) -> Outcome<Report> {
    let fixture = fixture(asked).await?;
    let choice = Choice {
        only: asked.only.clone().unwrap_or_default(),
        ..Choice::default()
    };
    let mut watch = |row: &Row| {
        if output::watched() {
            output::talk(&format!("{:8} {}", row.verdict.word(), row.name));
        }
    };
    Ok(run_suite(&fixture, &choice, &mut watch).await)
}

async fn fixture(asked: &BackendCheck) -> Outcome<DirectoryFixture> {
    let ourselves = std::env::current_exe()?;
    let launch = match asked.name.as_str() {
        LOCAL if !asked.plug_in => {
            return Ok(DirectoryFixture::new(
                "local, linked in",
                LocalBelow::new(ourselves),
            ));
        }
        LOCAL => Launch::at(LOCAL, ourselves).arg(PLUGIN_WORD),
        name => Launch::find(name).map_err(|error| {
            Failure::usage(error.to_string()).hint("`radix backend list` shows what is found")
        })?,
    };
    let launch = launch.log(Arc::new(|name, line| {
        output::talk(&format!("{name}: {line}"))
    }));
    // What does not even begin is told once, not by every case.
    let greeted = launch.clone().start().await;
    drop(greeted.map_err(|error| {
        let program = launch.program().display();
        Failure::failed(format!(
            "{program} is no backend that can be used: {}",
            error.chain()
        ))
        .hint("docs/backend-authors.md says what its `main` is")
    })?);
    let below = PluginBelow::new(launch)
        .await
        .map_err(|cannot| Failure::failed(format!("{}: {cannot}", asked.name)))?;
    Ok(DirectoryFixture::new(
        format!("{}, as a plug-in", asked.name),
        below,
    ))
}
