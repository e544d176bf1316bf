//! The gate and other developer commands: `cargo xtask NAME`.

mod proto;

use std::process::ExitCode;

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let result = match name.as_str() {
        "proto" => proto::generate(),
        _ => Err(format!("unknown command `{name}`; known: proto")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
