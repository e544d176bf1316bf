//! The gate and other developer commands: `cargo xtask NAME`.
//!
//! Read `check.rs` for the gate, `tidy.rs` for the house rules that no lint can see.
//! Nothing here is linked into what users run.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's business is to print"
)]

mod bench;
mod cargo;
mod check;
mod fix;
mod openapi;
mod proto;
mod proto_history;
mod requirements;
mod services;
mod sim;
mod tidy;
mod tree;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  check [--quick]           the gate: everything that must hold; edits nothing
  fix                       what `check` can mend by itself: formatting, generated files
  tidy                      only the house rules
  proto                     write crux/wire/src/generated from the protos
  sim --seed N              repeat one seed of the simulator
  sim --measure [SIZE...]   convergence times and bytes of simulated flocks
  bench [NAME]              one benchmark beside its peer; without NAME, the list
  services up|down|status   the real components that live tests and benches use";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["check"] => check::run(check::Depth::Full),
        ["check", "--quick"] => check::run(check::Depth::Quick),
        ["fix"] => fix::run(),
        ["tidy"] => tidy::run(),
        ["proto"] => proto::generate(),
        ["sim", words @ ..] => sim::run(words),
        ["bench"] => bench::list(),
        ["bench", name, rest @ ..] => bench::run(name, rest),
        ["services", word @ ("up" | "down" | "status")] => services::run(word),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
