//! `radix begat`: build without running, records, and carrying them elsewhere.

use std::fs::File;
use std::io::BufWriter;
use std::time::Duration;

use begat::{Kept, Records};
use begat_core::record::{Exit, Record};

use crate::application::Described;
use crate::args::BegatCommand;
use crate::base_start::open_store;
use crate::build::{self, begat_directory};
use crate::failure::{Failure, Outcome};
use crate::home::Home;
use crate::output::{self, Format};

/// Runs the command.
pub(crate) fn run(command: BegatCommand) -> Outcome<()> {
    let home = Home::open()?;
    match command {
        BegatCommand::Build(target) => {
            let described = Described::load(&target.dir, "local")?;
            let store = open_store(&home)?;
            let products = build::products(&home, &described, &store, None)?;
            for (path, digest) in &products.built {
                let shown = path.strip_prefix(&described.directory).unwrap_or(path);
                output::line(&format!("{digest} {}", shown.display()));
            }
            Ok(())
        }
        BegatCommand::Why { product, format } => why(&home, &product, format),
        BegatCommand::Export { file } => {
            let records = open_records(&home)?.all();
            let mut writer = BufWriter::new(File::create(&file).map_err(|error| {
                Failure::usage(format!("cannot write {}", file.display())).because(&error)
            })?);
            let store = open_store(&home)?;
            let carried = begat::export(&begat_directory(&home), &store, &records, &mut writer)
                .map_err(|error| Failure::failed("cannot export").because(&error))?;
            std::io::Write::flush(&mut writer)?;
            output::line(&format!(
                "{} records, {} products",
                carried.records, carried.blobs
            ));
            Ok(())
        }
        BegatCommand::Import { file } => {
            let mut reader = File::open(&file).map_err(|error| {
                Failure::usage(format!("cannot read {}", file.display())).because(&error)
            })?;
            let store = open_store(&home)?;
            let carried = begat::import(&begat_directory(&home), &store, &mut reader)
                .map_err(|error| Failure::failed("cannot import").because(&error))?;
            output::line(&format!(
                "{} records, {} products",
                carried.records, carried.blobs
            ));
            Ok(())
        }
    }
}

fn open_records(home: &Home) -> Outcome<Records> {
    Records::open(&begat_directory(home))
        .map_err(|error| Failure::failed("cannot read the execution records").because(&error))
}

/// Prints the newest record whose product is named.
fn why(home: &Home, product: &str, format: Format) -> Outcome<()> {
    let records = open_records(home)?;
    let all = records.all();
    let makes = |kept: &&Kept| {
        kept.record.outputs.iter().any(|output| {
            output.path == product
                || output.path.rsplit('/').next() == Some(product)
                || (product.len() >= 8 && output.digest.to_string().starts_with(product))
        })
    };
    let found = all
        .iter()
        .filter(makes)
        .max_by_key(|kept| kept.record.started_unix_ms);
    let Some(kept) = found else {
        return Err(
            Failure::failed(format!("no recorded execution made `{product}`")).hint(
                "give a path of the description, a file name or the first digits of a digest",
            ),
        );
    };
    if format == Format::Text {
        for line in lines(&kept.record) {
            output::line(&line);
        }
        return Ok(());
    }
    let bytes = records
        .bytes(kept)
        .map_err(|error| Failure::failed("cannot read the record").because(&error))?;
    output::bytes(&bytes);
    if bytes.last() != Some(&b'\n') {
        output::line("");
    }
    Ok(())
}

/// A record for people: what came of it, how, and from what.
fn lines(record: &Record) -> Vec<String> {
    let ended = match record.exit {
        Exit::Code(0) => "well".to_owned(),
        Exit::Code(code) => format!("with exit code {code}"),
        Exit::Signal(signal) => format!("by signal {signal}"),
    };
    let seconds = Duration::from_millis(record.duration_ms).as_secs_f32();
    let began = crate::clock::shown(record.started_unix_ms);
    let mut lines = vec![format!(
        "{} was built {began}, in {seconds:.1} s, and ended {ended}",
        record.name
    )];
    let mut add = |what: &str, text: String| lines.push(format!("{what:<9} {text}"));
    for output in &record.outputs {
        add("output", format!("{} {}", output.digest, output.path));
    }
    add("execution", record.key.to_string());
    add("dictum", record.dictum.to_string());
    for command in record.dictum_text.lines().filter_map(command) {
        add("command", command);
    }
    for tool in &record.tools {
        let told = match tool.version.is_empty() {
            true => &tool.name,
            false => &tool.version,
        };
        add("tool", format!("{} {told}", tool.digest));
    }
    for (name, value) in &record.environment {
        add("env", format!("{name}={value}"));
    }
    if let Some(log) = &record.log {
        add("log", log.to_string());
    }
    for input in &record.inputs {
        add("input", format!("{} {}", input.digest, input.path));
    }
    lines
}

/// The words of a `command NUMBER KIND WORDS` line of a dictum's text.
fn command(line: &str) -> Option<String> {
    let mut words = line.strip_prefix("command ")?.splitn(3, ' ');
    let (_number, _kind) = (words.next()?, words.next()?);
    words.next().map(str::to_owned)
}
