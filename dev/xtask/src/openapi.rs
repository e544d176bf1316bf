//! Writes docs/formats/openapi.json from the protos and their comments; no method or message is named here.
//!
//! `crux-wire` embeds the file, agents serve it, `radix api --openapi` prints it. Paths, shapes and error codes are
//! what `crux_wire::rest` does; docs/formats/rest.md says it in words.

mod comments;
mod schemas;

use prost_types::{FileDescriptorProto, MethodDescriptorProto, ServiceDescriptorProto};
use serde_json::{Map, Value, json};

use crate::cargo::root;
use crate::proto::contracts;
use comments::Comments;

const PATH: &str = "docs/formats/openapi.json";
/// Served to a process over the socket it inherited, never on the port that the document is about.
const ELSEWHERE: &str = "radix.process.v1";

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

/// Code, name of the component, when. What gRPC says in HTTP stands in crux/wire/src/status.rs.
const ERRORS: [(u16, &str, &str); 13] = [
    (
        400,
        "Invalid",
        "the body or an argument is wrong, or the body broke off",
    ),
    (401, "Unauthenticated", "the certificate no longer passes"),
    (
        403,
        "Refused",
        "the caller is known but may not, or the request has an Origin",
    ),
    (404, "NotFound", "nothing of that name is here"),
    (408, "TooSlow", "the body was not there in time"),
    (409, "Conflict", "the state does not allow it"),
    (413, "TooLarge", "a message is over the limit"),
    (
        415,
        "MediaType",
        "not the media type or character set of this method, or compressed",
    ),
    (429, "Limit", "a limit is reached"),
    (
        500,
        "Bug",
        "a fault of ours, or damaged data: also an upload that does not hash to its digest",
    ),
    (501, "Unsupported", "not offered on this rnode, or not yet"),
    (503, "Unavailable", "not now"),
    (504, "Timeout", "it took longer than allowed"),
];

/// Writes the document.
///
/// # Errors
///
/// When a proto does not parse or the file cannot be written.
pub(crate) fn write() -> Result<(), String> {
    std::fs::write(root().join(PATH), text()?).map_err(|error| format!("{PATH}: {error}"))
}

/// Compares the committed document with what the protos give now.
///
/// # Errors
///
/// When they differ.
pub(crate) fn compare() -> Result<(), String> {
    let committed = std::fs::read_to_string(root().join(PATH)).unwrap_or_default();
    if committed == text()? {
        Ok(())
    } else {
        Err(format!("{PATH} differs, run `cargo xtask fix`"))
    }
}

fn text() -> Result<String, String> {
    let document = document(&contracts()?.file);
    let text = serde_json::to_string_pretty(&document).map_err(|error| error.to_string())?;
    Ok(format!("{text}\n"))
}

fn document(files: &[FileDescriptorProto]) -> Value {
    let mut paths = Map::new();
    let mut tags = Vec::new();
    paths.insert("/openapi.json".to_owned(), json!({ "get": itself() }));
    for file in files.iter().filter(|file| file.package() != ELSEWHERE) {
        let comments = Comments::of(file);
        for (index, service) in file.service.iter().enumerate() {
            let name = format!("{}.{}", file.package(), service.name());
            let about = comments
                .at(&[6, number(index)])
                .or_else(|| comments.of_file());
            tags.push(json!({ "name": name, "description": about.unwrap_or_default() }));
            for (method_index, method) in service.method.iter().enumerate() {
                let about = comments.at(&[6, number(index), 2, number(method_index)]);
                let post = operation(&name, service, method, about);
                paths.insert(
                    format!("/{name}/{}", method.name()),
                    json!({ "post": post }),
                );
            }
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Radix",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The services of a rnode. Generated from the protos; see docs/formats/rest.md.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{
            "url": "https://{host}:{port}",
            "variables": { "host": { "default": "127.0.0.1" }, "port": { "default": "7400" } },
        }],
        "security": [{ "mutualTLS": [] }],
        "tags": tags,
        "paths": paths,
        "components": {
            "securitySchemes": { "mutualTLS": {
                "type": "mutualTLS",
                "description": "TLS 1.3 with a certificate below a root of the owner's charter",
            } },
            "responses": error_responses(),
            "schemas": schemas::all(files),
        },
    })
}

fn number(index: usize) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}

fn itself() -> Value {
    json!({
        "operationId": "openapi",
        "summary": "This document",
        "responses": {
            "200": { "description": "the document", "content": { JSON: { "schema": { "type": "object" } } } },
            "401": error_reference("Unauthenticated"),
            "403": error_reference("Refused"),
            "503": error_reference("Unavailable"),
        },
    })
}

fn operation(
    tag: &str,
    service: &ServiceDescriptorProto,
    method: &MethodDescriptorProto,
    about: Option<String>,
) -> Value {
    let mut responses = Map::new();
    let reply = content(method.output_type(), method.server_streaming());
    responses.insert(
        "200".to_owned(),
        json!({ "description": "done", "content": reply }),
    );
    for (code, name, _) in ERRORS {
        // Only a single request is waited for as a whole.
        if code != 408 || !method.client_streaming() {
            responses.insert(code.to_string(), error_reference(name));
        }
    }
    let mut operation = json!({
        "operationId": format!("{}/{}", service.name(), method.name()),
        "tags": [tag],
        "requestBody": {
            "required": true,
            "content": content(method.input_type(), method.client_streaming()),
        },
        "responses": responses,
    });
    if let Some(about) = about {
        operation["description"] = about.into();
    }
    operation
}

/// A body: one message, or lines of them. No OpenAPI before 3.2 can say what a line is, so it stands beside.
fn content(message: &str, streams: bool) -> Value {
    let schema = schemas::reference(message);
    if streams {
        json!({ NDJSON: {
            "schema": { "type": "string", "description": "one JSON document a line" },
            "x-line-schema": schema,
        } })
    } else {
        json!({ JSON: { "schema": schema } })
    }
}

fn error_reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/responses/{name}") })
}

fn error_responses() -> Map<String, Value> {
    let response = |when: &str| {
        json!({
            "description": when,
            "content": { JSON: { "schema": { "$ref": "#/components/schemas/Error" } } },
        })
    };
    ERRORS
        .iter()
        .map(|(_, name, when)| ((*name).to_owned(), response(when)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_every_method_and_no_dangling_reference() {
        let files = contracts().unwrap().file;
        let document = document(&files);
        let promised = |file: &&FileDescriptorProto| file.package() != ELSEWHERE;
        let services = files.iter().filter(promised).flat_map(|file| &file.service);
        let methods: usize = services.map(|service| service.method.len()).sum();
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(paths.len(), methods + 1);
        let mut references = Vec::new();
        gather(&document, &mut references);
        assert!(references.len() > methods);
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    fn gather<'a>(value: &'a Value, out: &mut Vec<&'a str>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| gather(item, out)),
            Value::Object(fields) => {
                out.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|field| gather(field, out));
            }
            _ => {}
        }
    }

    #[test]
    fn comments_become_descriptions() {
        let text = text().unwrap();
        assert!(text.contains("idempotent under `execution`"));
        assert!(text.contains("The control service of a rnode."));
    }
}
