//! `radix myriad run` and `clean`: the processes of a `.rnodes` file with nothing else of Radix.

use underverse_local::Home as LocalHome;
use underverse_local::myriad::{self, Request};

use crate::args::MyriadCommand;
use crate::failure::{Failure, Outcome};
use crate::home::Home;
use crate::output;

/// Runs the command.
pub(crate) fn run(command: MyriadCommand) -> Outcome<()> {
    let home = Home::open()?;
    let local = LocalHome::new(home.root());
    match command {
        MyriadCommand::Run { file } => {
            let radix = std::env::current_exe()?;
            let request = Request {
                home: &local,
                file: &file,
                radix: &radix,
            };
            let mut run = myriad::run(&request).map_err(|error| {
                Failure::usage(format!("cannot run {}", file.display())).because(&error)
            })?;
            for weaker in &run.weaker {
                output::talk(&format!("weaker than asked: {weaker}"));
            }
            for process in &run.processes {
                output::line(&format!("{} {}", process.label, process.address));
            }
            for (label, status) in run.wait()? {
                output::talk(&format!("{label} ended: {status}"));
            }
            Ok(())
        }
        MyriadCommand::Clean => {
            let cleaned = myriad::clean(&local)
                .map_err(|error| Failure::failed("cannot clean up").because(&error))?;
            output::line(&format!(
                "{} runs, {} processes ended",
                cleaned.runs.len(),
                cleaned.ended
            ));
            Ok(())
        }
    }
}
