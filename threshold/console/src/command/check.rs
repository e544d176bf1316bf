//! `radix check`: every error of all four files at once, located.

use crux_core::adf::Diagnostic;
use serde::Serialize;

use crate::application;
use crate::args;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Format};

#[derive(Debug, Serialize)]
struct Finding<'a> {
    code: &'static str,
    severity: String,
    file: &'a str,
    line: u32,
    column: u32,
    message: &'a str,
    expected: Option<&'a str>,
    help: Option<&'a str>,
}

impl<'a> Finding<'a> {
    fn of(diagnostic: &'a Diagnostic) -> Self {
        Self {
            code: diagnostic.code.as_str(),
            severity: diagnostic.severity.to_string(),
            file: &diagnostic.file,
            line: diagnostic.place.line,
            column: diagnostic.place.column,
            message: &diagnostic.message,
            expected: diagnostic.expected.as_deref(),
            help: diagnostic.help.as_deref(),
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &args::Check) -> Outcome<()> {
    let (application, mut diagnostics) = application::read(&args.target.dir)?;
    if !diagnostics.iter().any(Diagnostic::is_error) {
        diagnostics.extend(application::absent(&application, &args.target.dir)?);
    }
    let broken = diagnostics.iter().any(Diagnostic::is_error);
    if args.format == Format::Json {
        output::json(&diagnostics.iter().map(Finding::of).collect::<Vec<_>>())?;
        return if broken {
            Err(Failure::usage(
                "the description has errors; nothing was changed",
            ))
        } else {
            Ok(())
        };
    }
    if broken {
        return Err(Failure::diagnostics(&diagnostics));
    }
    for diagnostic in &diagnostics {
        output::talk(&diagnostic.to_string());
    }
    let count = application.block().and_then(|block| block.count.as_ref());
    let rnodes = count.map_or(0, |count| {
        usize::try_from(count.value).unwrap_or(usize::MAX)
    });
    output::line(&format!(
        "{}: {}, {}, {}: no errors",
        application.name,
        counted(application.begat.runs.len(), "class", "es"),
        counted(application.begat.builds.len(), "dictum", "s"),
        counted(rnodes, "rnode", "s"),
    ));
    Ok(())
}

/// A number of things, in the plural where it is one.
fn counted(count: usize, what: &str, ending: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}{ending}"),
    }
}
