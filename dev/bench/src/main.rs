//! Radix beside its peers: `cargo xtask bench NAME`.
//!
//! Each scenario interleaves its rounds with the peer's on the same machine, takes medians, and
//! prints rows for docs/numbers.md. A peer that is not installed is reported as missing, never
//! estimated. Read `scenario.rs` for the list, `measure.rs` for how figures are taken.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's business is to print"
)]

mod measure;
mod peer;
mod process;
mod radix;
mod row;
mod scenario;
mod session;

use std::process::ExitCode;

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    if name == "list" || name.is_empty() {
        for scenario in scenario::ALL {
            println!("{:<8} {}", scenario.name, scenario.about);
        }
        return ExitCode::SUCCESS;
    }
    let Some(scenario) = scenario::ALL.iter().find(|scenario| scenario.name == name) else {
        eprintln!("bench: no scenario `{name}`; `cargo xtask bench` lists them");
        return ExitCode::from(2);
    };
    match (scenario.run)() {
        Ok(rows) if rows.is_empty() => ExitCode::SUCCESS,
        Ok(rows) => {
            println!("\n{}", row::HEAD);
            for row in rows {
                println!("{}", row.markdown(scenario.name));
            }
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("bench {name}: {message}");
            ExitCode::FAILURE
        }
    }
}
