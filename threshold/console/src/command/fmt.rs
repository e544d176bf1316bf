//! `radix fmt`: description files in the house form.

use crux_core::adf::{FileKind, format};
use crux_net::durable;

use crate::args;
use crate::failure::{Failure, Outcome};
use crate::output;

/// Runs the command.
pub(crate) fn run(args: &args::Fmt) -> Outcome<()> {
    let directory = &args.target.dir;
    let mut entries: Vec<_> = std::fs::read_dir(directory)
        .map_err(|error| {
            Failure::usage(format!("cannot read the directory {}", directory.display()))
                .because(&error)
        })?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .collect();
    entries.sort();
    let mut unformatted = Vec::new();
    let mut wrong = Vec::new();
    for path in entries {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let Some(kind) = FileKind::of_name(&name) else {
            continue;
        };
        let before = read(&path)?;
        match format(kind, &name, &before) {
            Ok(text) if text == before => {}
            Ok(text) => unformatted.push((path, text)),
            Err(diagnostics) => wrong.extend(diagnostics),
        }
    }
    if !wrong.is_empty() {
        return Err(Failure::diagnostics(&wrong));
    }
    for (path, text) in &unformatted {
        if !args.check {
            let permissions = std::fs::metadata(path)?.permissions();
            durable::replace(path, text.as_bytes())?;
            std::fs::set_permissions(path, permissions)?;
        }
        output::line(&path.display().to_string());
    }
    if args.check && !unformatted.is_empty() {
        return Err(Failure::failed("not all files are formatted")
            .hint(format!("radix fmt {}", directory.display())));
    }
    Ok(())
}

/// A description file's text; the formatter refuses what is too long with its place.
fn read(path: &std::path::Path) -> Outcome<String> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read {}", path.display())).because(&error))
}
