//! `the_shire`: the example of the Chronicles, §3.4, as a plain program against the `Underverse` contract.
//!
//! It asks for three hobbits behind one port, each with storage of its own, tells truthfully what was obtained, keeps
//! them alive, and gives everything back on Ctrl-C. Read `shire.rs` for the horde, `report.rs` for what is told.

mod backend;
mod report;
mod shire;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser};
use futures_util::StreamExt as _;
use underverse::{End, Horde, Keep, Underverse};

use backend::Backend;

/// Between two passes while the horde is up: a hobbit that died is back after that.
const TEND: Duration = Duration::from_secs(2);
/// Time the hobbits are given to answer for the first time.
const FIRST_ANSWER: Duration = Duration::from_secs(30);

/// Three hobbits behind one port.
#[derive(Debug, Parser)]
struct Options {
    /// The underverse to ask.
    #[arg(long, default_value = "local")]
    backend: String,
    /// Where the backend keeps its state; if it is not given, in `the_shire` below RADIX_HOME.
    #[arg(long)]
    home: Option<PathBuf>,
    /// The port that the world sees.
    #[arg(long, default_value_t = 28735)]
    port: u16,
    /// Asks so many times through the port, prints the answers, gives everything back and ends.
    #[arg(long, value_name = "VISITS")]
    once: Option<u32>,
}

impl Options {
    /// The state directory: never the one of `radix` itself, whose base and hordes live beside ours.
    fn home(&self) -> Option<PathBuf> {
        let below = || Some(PathBuf::from(std::env::var_os("RADIX_HOME")?).join("the_shire"));
        self.home.clone().or_else(below)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    let Some(home) = options.home() else {
        let missing = "give --home, or set RADIX_HOME";
        let kind = clap::error::ErrorKind::MissingRequiredArgument;
        Options::command().error(kind, missing).exit();
    };
    match run(&options, &home).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(4),
        Err(error) => {
            // Without a standard error there is nobody to tell.
            let _ = writeln!(io::stderr(), "the_shire: failed to {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

/// Builds, realises, tells, tends and releases; says whether everything that was asked was had.
async fn run(options: &Options, home: &Path) -> Result<bool, underverse::Error> {
    let backend = backend::named(&options.backend, home).await?;
    let underverse = backend.underverse.as_ref();
    shire::expose(&backend, home).await?;
    let door = shire::address(underverse).await?;
    report::say(&format!(
        "servicing requests on {}:{}",
        door.shown(),
        options.port
    ));
    let horde = shire::horde(underverse, &door, options.port)?;
    let end = horde.realise(underverse).await;
    let whole = match &end {
        End::Done(_) => true,
        End::Partial(..) => false,
        End::Unknown(error) | End::Refused(error) => {
            report::say(&format!("failed to realise horde: {}", error.chain()));
            release(&horde, &backend, &door).await;
            return Ok(false);
        }
    };
    report::say(&format!("horde {} up and running", horde.name()));
    report::obtained(&horde, underverse, &end).await?;
    match options.once {
        Some(visits) => {
            let address = door.reached(options.port);
            report::visits(address, (visits, shire::HOBBITS.len()), FIRST_ANSWER).await;
        }
        None => tend(&horde, underverse).await,
    }
    Ok(release(&horde, &backend, &door).await && whole)
}

/// Keeps the horde as it should be, and tells what happens, until Ctrl-C.
async fn tend(horde: &Horde, underverse: &dyn Underverse) {
    let mut events = horde.from_underverse(underverse, None);
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    report::say("Ctrl-C gives everything back");
    loop {
        tokio::select! {
            _ = &mut interrupted => return,
            Some(event) = events.next() => report::say(&event.to_string()),
            () = tokio::time::sleep(TEND) => {
                if let End::Partial(_, failures) = horde.realise(underverse).await {
                    report::failures(&failures);
                }
            }
        }
    }
}

/// Gives everything back; says whether nothing is left.
async fn release(horde: &Horde, backend: &Backend, door: &shire::Door) -> bool {
    let end = horde
        .release(backend.underverse.as_ref(), Keep::Nothing)
        .await;
    let given = match &door.id {
        Some(id) => backend.underverse.release_address(id).await,
        None => Ok(()),
    };
    let withdrawn = shire::withdraw(backend).await;
    for error in [given.err(), withdrawn.err()].into_iter().flatten() {
        report::say(&format!("failed to {}", error.chain()));
    }
    match end {
        End::Done(_) => {
            report::say(&format!("horde {} released", horde.name()));
            true
        }
        End::Partial(_, failures) => {
            report::failures(&failures);
            false
        }
        End::Unknown(error) | End::Refused(error) => {
            report::say(&format!("failed to release: {}", error.chain()));
            false
        }
    }
}
