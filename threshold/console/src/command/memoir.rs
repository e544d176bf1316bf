//! `radix memoir read`: the audit log of a rnode, verified, also when the rnode is gone.

use std::path::PathBuf;

use fulcrum::memoir::Record;
use serde::Serialize;

use crate::args::MemoirCommand;
use crate::failure::{Failure, Outcome};
use crate::home::Home;
use crate::output::{self, Format};

#[derive(Debug, Serialize)]
struct Found {
    name: String,
    records: u64,
    verified: bool,
    note: String,
}

/// Runs the command.
pub(crate) fn run(command: MemoirCommand) -> Outcome<()> {
    let MemoirCommand::Read { name, format } = command;
    let memoirs = memoirs(&Home::locate()?)?;
    let Some(name) = name else {
        return list(&memoirs, format);
    };
    let matching: Vec<_> = memoirs
        .iter()
        .filter(|(known, _)| *known == name || known.rsplit('/').next() == Some(name.as_str()))
        .collect();
    match matching.as_slice() {
        [] => Err(
            Failure::usage(format!("no memoir of a rnode `{name}` is kept"))
                .hint("`radix memoir read` without a name lists the memoirs"),
        ),
        [(_, path)] => print(path, format),
        several => Err(
            Failure::usage(format!("`{name}` names {} memoirs", several.len())).hint(format!(
                "give one of: {}",
                several
                    .iter()
                    .map(|(known, _)| known.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            )),
        ),
    }
}

/// Every memoir below the state directory as (`namespace/label`, directory), sorted.
fn memoirs(home: &Home) -> Outcome<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let Ok(namespaces) = std::fs::read_dir(home.join("memoirs")) else {
        return Ok(found);
    };
    for namespace in namespaces.filter_map(Result::ok) {
        for rnode in std::fs::read_dir(namespace.path())?.filter_map(Result::ok) {
            let directory = rnode.path();
            if directory.is_dir() {
                let name = format!(
                    "{}/{}",
                    namespace.file_name().to_string_lossy(),
                    rnode.file_name().to_string_lossy()
                );
                found.push((name, directory));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn list(memoirs: &[(String, PathBuf)], format: Format) -> Outcome<()> {
    let found: Vec<_> = memoirs
        .iter()
        .map(|(name, path)| match fulcrum::memoir::verify(path) {
            Ok(sound) => Found {
                name: name.clone(),
                records: sound.records,
                verified: true,
                note: String::new(),
            },
            Err(error) => Found {
                name: name.clone(),
                records: 0,
                verified: false,
                note: error.to_string(),
            },
        })
        .collect();
    if format == Format::Json {
        return output::json(&found);
    }
    let rows: Vec<_> = found
        .iter()
        .map(|memoir| {
            vec![
                memoir.name.clone(),
                memoir.records.to_string(),
                if memoir.verified {
                    "verified"
                } else {
                    "BROKEN"
                }
                .to_owned(),
                memoir.note.clone(),
            ]
        })
        .collect();
    output::table(&["MEMOIR", "RECORDS", "CHAIN", "NOTE"], &rows);
    Ok(())
}

fn print(path: &std::path::Path, format: Format) -> Outcome<()> {
    let failed = |error| Failure::failed(format!("cannot read {}", path.display())).because(&error);
    let mut reader = fulcrum::memoir::Reader::open(path, 0).map_err(failed)?;
    while let Some(record) = reader.next().map_err(failed)? {
        output::line(&if format == Format::Json {
            json(&record)?
        } else {
            text(&record)
        });
    }
    match fulcrum::memoir::verify(path) {
        Ok(sound) => {
            output::talk(&format!("{} records, chain verified", sound.records));
            Ok(())
        }
        Err(error) => {
            Err(Failure::failed(format!("{} does not verify", path.display())).because(&error))
        }
    }
}

fn json(record: &Record) -> Outcome<String> {
    let value = serde_json::json!({
        "seq": record.seq,
        "prev": record.prev.to_string(),
        "time_unix_ms": record.time_unix_ms,
        "kind": record.kind,
        "fields": record.fields,
        "hash": record.hash.to_string(),
    });
    serde_json::to_string(&value)
        .map_err(|error| Failure::failed(format!("failed to write JSON: {error}")))
}

/// One record for people: number, time, kind, then the fields.
fn text(record: &Record) -> String {
    let fields: Vec<_> = record
        .fields
        .iter()
        .map(|(name, value)| match value {
            serde_json::Value::String(text) => format!("{name}={text}"),
            other => format!("{name}={other}"),
        })
        .collect();
    format!(
        "{} {} {} {}",
        record.seq,
        crate::clock::shown(record.time_unix_ms),
        record.kind,
        fields.join(" ")
    )
}
