//! `radix begat`: build without running, records, and carrying them elsewhere.

use std::fs::File;
use std::io::BufWriter;

use begat::{Kept, Records};

use crate::application::Described;
use crate::args::BegatCommand;
use crate::base_start::open_store;
use crate::build::{self, begat_directory};
use crate::failure::{Failure, Outcome};
use crate::home::Home;
use crate::output;

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
        BegatCommand::Why { product } => why(&home, &product),
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
fn why(home: &Home, product: &str) -> Outcome<()> {
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
    let bytes = records
        .bytes(kept)
        .map_err(|error| Failure::failed("cannot read the record").because(&error))?;
    output::bytes(&bytes);
    if bytes.last() != Some(&b'\n') {
        output::line("");
    }
    Ok(())
}
