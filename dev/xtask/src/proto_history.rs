//! Protos only grow: every field and method once promised is still there, unchanged.
//!
//! `dev/xtask/promises.tsv` lists them; `cargo xtask fix` adds new ones and never takes one away.

use std::collections::BTreeSet;
use std::path::PathBuf;

use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto};

use crate::cargo::root;
use crate::proto::{contracts, plugin};

fn path() -> PathBuf {
    root().join("dev/xtask/promises.tsv")
}

/// Checks that every promise holds and that every field is promised; returns how many.
///
/// # Errors
///
/// Lists what was broken, or what `cargo xtask fix` has still to write down.
pub(crate) fn compare() -> Result<usize, String> {
    let (promised, present) = (promised()?, present()?);
    let broken: Vec<_> = promised.difference(&present).cloned().collect();
    if !broken.is_empty() {
        return Err(format!(
            "protos only grow; changed or gone:\n  {}",
            broken.join("\n  ")
        ));
    }
    let unlisted: Vec<_> = present.difference(&promised).cloned().collect();
    if !unlisted.is_empty() {
        let list = unlisted.join("\n  ");
        return Err(format!(
            "not in promises.tsv yet, run `cargo xtask fix`:\n  {list}"
        ));
    }
    Ok(present.len())
}

/// Adds what is new to the list of promises.
///
/// # Errors
///
/// When a proto does not parse or the list cannot be written.
pub(crate) fn write() -> Result<(), String> {
    let mut all = promised()?;
    all.extend(present()?);
    let text: String = all.iter().flat_map(|line| [line, "\n"]).collect();
    std::fs::write(path(), text).map_err(|error| format!("failed to write promises.tsv: {error}"))
}

fn promised() -> Result<BTreeSet<String>, String> {
    match std::fs::read_to_string(path()) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(format!("failed to read promises.tsv: {error}")),
    }
}

fn present() -> Result<BTreeSet<String>, String> {
    let mut lines = BTreeSet::new();
    for file in contracts()?.file.iter().chain(&plugin()?.file) {
        if file.package().starts_with("radix.") {
            collect(file, &mut lines);
        }
    }
    Ok(lines)
}

fn collect(file: &FileDescriptorProto, lines: &mut BTreeSet<String>) {
    for message in &file.message_type {
        collect_message(file.package(), message, lines);
    }
    for numbers in &file.enum_type {
        collect_enum(file.package(), numbers, lines);
    }
    for service in &file.service {
        for method in &service.method {
            let stream = |is: bool| if is { "stream " } else { "" };
            lines.insert(format!(
                "{}.{}/{}\t{}{}\t{}{}",
                file.package(),
                service.name(),
                method.name(),
                stream(method.client_streaming()),
                method.input_type(),
                stream(method.server_streaming()),
                method.output_type(),
            ));
        }
    }
}

fn collect_message(scope: &str, message: &DescriptorProto, lines: &mut BTreeSet<String>) {
    let name = format!("{scope}.{}", message.name());
    for field in &message.field {
        let label = field
            .label()
            .as_str_name()
            .trim_start_matches("LABEL_")
            .to_lowercase();
        let kind = field
            .r#type()
            .as_str_name()
            .trim_start_matches("TYPE_")
            .to_lowercase();
        let kind = if field.type_name().is_empty() {
            kind
        } else {
            field.type_name().to_owned()
        };
        lines.insert(format!(
            "{name} {}\t{}\t{label} {kind}",
            field.number(),
            field.name()
        ));
    }
    for nested in &message.nested_type {
        collect_message(&name, nested, lines);
    }
    for numbers in &message.enum_type {
        collect_enum(&name, numbers, lines);
    }
}

fn collect_enum(scope: &str, numbers: &EnumDescriptorProto, lines: &mut BTreeSet<String>) {
    for value in &numbers.value {
        lines.insert(format!(
            "{scope}.{} {}\t{}",
            numbers.name(),
            value.number(),
            value.name()
        ));
    }
}
