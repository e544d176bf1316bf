//! `sim --seed N [SIZE]` repeats one run; `sim --measure [SIZE…]` prints times and bytes.

use std::process::ExitCode;

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command prints its result"
)]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("--seed") => seed(arguments.get(1), arguments.get(2)),
        Some("--measure") => measure(&arguments[1..]),
        _ => Err("usage: sim --seed N [SIZE] | --measure [SIZE...]".to_owned()),
    };
    match result {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("sim: {text}");
            ExitCode::FAILURE
        }
    }
}

fn seed(text: Option<&String>, size: Option<&String>) -> Result<String, String> {
    let text = text.ok_or("--seed needs a number")?;
    let seed = text
        .parse()
        .map_err(|error| format!("seed `{text}`: {error}"))?;
    let size = size.map(|size| size.parse()).transpose();
    let size = size.map_err(|error| format!("size: {error}"))?;
    let outcome = sim::chaos::run_sized(seed, size)?;
    Ok(format!(
        "healed after {:?}, trace {}\n{:#?}",
        outcome.healed_after, outcome.trace, outcome.fired
    ))
}

fn measure(sizes: &[String]) -> Result<String, String> {
    let sizes: Result<Vec<usize>, _> = sizes.iter().map(|size| size.parse()).collect();
    let mut sizes = sizes.map_err(|error| format!("size: {error}"))?;
    if sizes.is_empty() {
        sizes = vec![6, 20, 50];
    }
    let lines: Result<Vec<String>, String> = sizes
        .into_iter()
        .map(|size| sim::measure::measure(1, size).map(|measured| measured.to_string()))
        .collect();
    Ok(lines?.join("\n"))
}
