//! `radix`: the one binary, and the names it answers to.
//!
//! `main` picks what to be: the console, or one of the hidden programs that rnodes are made of
//! (`keep`, `agent`, `cell`, `backend`, `forward`, `kv`). Those must start fast and small, so they
//! are chosen before the command line is parsed. Read `args` for the words, `command/` for each.

mod application;
mod args;
mod base_start;
mod build;
mod clock;
mod command;
mod connection;
mod document;
mod failure;
mod hidden;
mod home;
mod host_pid;
mod kv;
mod library;
mod living;
mod operator;
mod output;
mod pins;
mod prepare;
mod proposal;
mod room;
mod suite;
mod vantage;
mod view;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser as _;
use failure::{Failure, Outcome};

fn main() -> ExitCode {
    let mut words: Vec<std::ffi::OsString> = std::env::args_os().collect();
    hidden::name_to_word(&mut words);
    if let Some(code) = hidden::run(&words) {
        return code;
    }
    log();
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    finish(run(cli.command))
}

/// Says what failed and turns it into the exit code.
fn finish(result: Outcome<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let text = failure.to_string();
            if !text.trim_end().ends_with("error:") {
                output::talk(text.trim_end());
            }
            ExitCode::from(failure.fault.code())
        }
    }
}

/// Talk of the libraries goes to stderr when `RADIX_LOG` names a level.
fn log() {
    let level = std::env::var("RADIX_LOG")
        .ok()
        .and_then(|text| text.parse().ok());
    if let Some(level) = level {
        let level: tracing::Level = level;
        tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(std::io::stderr)
            .init();
    }
}

fn run(command: Command) -> Outcome<()> {
    match command {
        Command::Check(args) => command::check::run(&args),
        Command::Fmt(args) => command::fmt::run(&args),
        Command::Completions { shell } => command::completions::run(shell),
        Command::Memoir(args) => command::memoir::run(args),
        Command::Backend(args) => command::backend::run(&args),
        Command::Begat(args) => command::begat::run(args),
        Command::Myriad(args) => command::myriad::run(args),
        talking => {
            // A thread of its own for connections: while a build runs or a question waits for its answer on this one,
            // somebody has to tell the other side that we are still there.
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .map_err(|error| Failure::failed("cannot start the runtime").because(&error))?;
            let result = runtime.block_on(async {
                match run_talking(talking).await {
                    Err(failure) if failure.is_broken() => {
                        Err(connection::Base::explain(failure).await)
                    }
                    result => result,
                }
            });
            runtime.shutdown_background();
            result
        }
    }
}

/// The commands that talk to rnodes.
async fn run_talking(command: Command) -> Outcome<()> {
    if matches!(command, Command::Up(_) | Command::Down(_)) {
        crux_net::boundary::begin("radix");
    }
    match command {
        Command::Login(args) => command::ca::login(&args).await,
        Command::Api(args) => command::api::run(args).await,
        Command::Ca(args) => command::ca::run(args).await,
        Command::Up(args) => command::up::run(args).await,
        Command::Plan(args) => command::plan::run(args).await,
        Command::Down(args) => command::down::run(args).await,
        Command::Server(args) => command::server::run(args).await,
        Command::Status(args) => command::status::run(args).await,
        Command::Ps(args) => command::ps::run(args).await,
        Command::Rnodes(args) => command::rnodes::run(args).await,
        Command::Flock(args) => command::flock::run(args).await,
        Command::Services(args) => command::services::run(args).await,
        Command::Events(args) => command::events::run(args).await,
        Command::Logs(args) => command::logs::run(args).await,
        Command::Exec(args) => command::exec::run(args).await,
        Command::Cp(args) => command::cp::run(args).await,
        Command::Need(args) => command::need::run(args).await,
        Command::Data(args) => command::data::run(args).await,
        Command::Rnode(args) => command::rnode::run(args).await,
        other => run(other),
    }
}
