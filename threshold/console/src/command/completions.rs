//! `radix completions`: scripts for shells.

use clap::CommandFactory as _;

use crate::args::Cli;
use crate::failure::Outcome;
use crate::output;

/// Runs the command.
pub(crate) fn run(shell: clap_complete::Shell) -> Outcome<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "radix", &mut script);
    output::bytes(&script);
    Ok(())
}
