//! `radix backend list`: the backends of this binary and what each can do here.

use serde::Serialize;

use crate::args::BackendCommand;
use crate::failure::Outcome;
use crate::output::{self, Format};

#[derive(Debug, Serialize)]
struct Backend {
    name: &'static str,
    rnodes: String,
}

/// Runs the command.
pub(crate) fn run(command: &BackendCommand) -> Outcome<()> {
    let BackendCommand::List { format } = *command;
    let machine = underverse_local::limits::Machine::read();
    let room = |count: u32| underverse_local::limits::check(count, 0, &machine).is_ok();
    // The largest power of two of rnodes that fit: an order of size, not a promise.
    let largest = (0..13)
        .map(|power| 1_u32 << power)
        .take_while(|count| room(*count))
        .last();
    let backends = [Backend {
        name: "local",
        rnodes: largest.map_or_else(
            || "none fit now".to_owned(),
            |count| format!("{count} or more fit now"),
        ),
    }];
    if format == Format::Json {
        return output::json(&backends);
    }
    let rows: Vec<_> = backends
        .iter()
        .map(|backend| vec![backend.name.to_owned(), backend.rnodes.clone()])
        .collect();
    output::table(&["BACKEND", "RNODES"], &rows);
    Ok(())
}
