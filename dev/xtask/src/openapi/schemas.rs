//! Messages and enums as JSON schemas, by the proto3 JSON mapping.

use prost_types::field_descriptor_proto::Type;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
};
use serde_json::{Map, Value, json};

use super::comments::Comments;
use super::number;

/// Kinds of errors, as `crux_wire::status::Kind::name` writes them: a test there and the fuzzer here compare.
const KINDS: [&str; 16] = [
    "cancelled",
    "unknown",
    "invalid",
    "timeout",
    "not_found",
    "exists",
    "refused",
    "limit",
    "precondition",
    "conflict",
    "range",
    "unsupported",
    "bug",
    "unavailable",
    "damaged",
    "unauthenticated",
];
/// Base64 with padding, as it is written; the last letter of a group carries no spare bits.
const BASE64: &str =
    "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";

type Schemas = Map<String, Value>;

/// A reference to the schema of a message or enum, given as descriptors name it: with a dot before.
pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{}", name.trim_start_matches('.')) })
}

/// Every schema of every file, and those that all share.
pub(super) fn all(files: &[FileDescriptorProto]) -> Schemas {
    let mut schemas = shared();
    for file in files {
        let comments = Comments::of(file);
        for (index, message) in file.message_type.iter().enumerate() {
            let context = Context {
                comments: &comments,
                scope: file.package(),
            };
            context.message(message, &[4, number(index)], &mut schemas);
        }
        for (index, values) in file.enum_type.iter().enumerate() {
            let name = format!("{}.{}", file.package(), values.name());
            schemas.insert(name, enumeration(values, comments.at(&[5, number(index)])));
        }
    }
    schemas
}

fn shared() -> Schemas {
    let error = json!({
        "type": "object",
        "required": ["kind", "effect", "message"],
        "properties": {
            "kind": { "type": "string", "enum": KINDS },
            "effect": {
                "type": "string",
                "enum": ["none", "done", "unknown"],
                "description": "what became of the state; after `unknown` repeat only what is idempotent",
            },
            "message": { "type": "string", "description": "for people; reads after \"failed to\"" },
            "line": { "type": "integer", "minimum": 0, "description": "where in the body, from 1" },
            "column": { "type": "integer", "minimum": 0, "description": "where in the line, from 1" },
        },
        "additionalProperties": false,
    });
    let integer = |format: &str, pattern: String| json!({ "type": "string", "format": format, "pattern": pattern });
    let unsigned = at_most("18446744073709551615");
    let (positive, negative) = (
        at_most("9223372036854775807"),
        at_most("9223372036854775808"),
    );
    Schemas::from_iter([
        ("Error".to_owned(), error),
        (
            "Uint64".to_owned(),
            integer("uint64", format!("^({unsigned})$")),
        ),
        (
            "Int64".to_owned(),
            integer("int64", format!("^({positive}|-({negative}))$")),
        ),
        (
            "Bytes".to_owned(),
            json!({ "type": "string", "contentEncoding": "base64", "pattern": BASE64 }),
        ),
    ])
}

/// A pattern of the decimal numbers from 0 to `most`, without leading zeros.
fn at_most(most: &str) -> String {
    let mut ways = vec![
        "0".to_owned(),
        format!("[1-9][0-9]{{0,{}}}", most.len() - 2),
    ];
    for (index, digit) in most.char_indices() {
        let first = if index == 0 { '1' } else { '0' };
        if digit > first {
            let below = char::from(digit as u8 - 1);
            let rest = most.len() - index - 1;
            ways.push(format!(
                "{}[{first}-{below}][0-9]{{{rest}}}",
                &most[..index]
            ));
        }
    }
    ways.push(most.to_owned());
    ways.join("|")
}

fn enumeration(values: &EnumDescriptorProto, about: Option<String>) -> Value {
    let names: Vec<_> = values.value.iter().map(|value| value.name()).collect();
    described(json!({ "type": "string", "enum": names }), about)
}

fn described(mut schema: Value, about: Option<String>) -> Value {
    if let Some(about) = about {
        schema["description"] = about.into();
    }
    schema
}

struct Context<'a> {
    comments: &'a Comments,
    scope: &'a str,
}

impl Context<'_> {
    fn message(&self, message: &DescriptorProto, path: &[i32], schemas: &mut Schemas) {
        let name = format!("{}.{}", self.scope, message.name());
        let below = |kind: i32, index: usize| [path, &[kind, number(index)]].concat();
        let mut properties = Map::new();
        for (index, field) in message.field.iter().enumerate() {
            let about = self.comments.at(&below(2, index));
            let schema = described(schema(field, message, &name), about);
            properties.insert(field.json_name().to_owned(), schema);
        }
        let mut schema = json!({
            "type": "object",
            "properties": properties,
            "additionalProperties": false,
        });
        let exclusive = exclusive(message);
        if !exclusive.is_empty() {
            schema["not"] = json!({ "anyOf": exclusive });
        }
        let inner = Context {
            scope: &name,
            ..*self
        };
        for (index, nested) in message.nested_type.iter().enumerate() {
            // An entry of a map has no schema of its own.
            if !nested
                .options
                .as_ref()
                .is_some_and(|options| options.map_entry())
            {
                inner.message(nested, &below(3, index), schemas);
            }
        }
        for (index, values) in message.enum_type.iter().enumerate() {
            let about = self.comments.at(&below(4, index));
            schemas.insert(
                format!("{name}.{}", values.name()),
                enumeration(values, about),
            );
        }
        schemas.insert(name.clone(), described(schema, self.comments.at(path)));
    }
}

/// Every pair of fields of one oneof: no two of them together.
fn exclusive(message: &DescriptorProto) -> Vec<Value> {
    let mut pairs = Vec::new();
    let of = |field: &FieldDescriptorProto| field.oneof_index.filter(|_| !field.proto3_optional());
    for (index, left) in message.field.iter().enumerate() {
        for right in &message.field[index + 1..] {
            if of(left).is_some() && of(left) == of(right) {
                pairs.push(json!({ "required": [left.json_name(), right.json_name()] }));
            }
        }
    }
    pairs
}

fn schema(field: &FieldDescriptorProto, message: &DescriptorProto, name: &str) -> Value {
    let entry = message.nested_type.iter().find(|nested| {
        nested
            .options
            .as_ref()
            .is_some_and(|options| options.map_entry())
            && field.type_name() == format!(".{name}.{}", nested.name())
    });
    if let Some(value) =
        entry.and_then(|entry| entry.field.iter().find(|field| field.number() == 2))
    {
        return json!({ "type": "object", "additionalProperties": single(value) });
    }
    if field.label() == prost_types::field_descriptor_proto::Label::Repeated {
        return json!({ "type": "array", "items": single(field) });
    }
    single(field)
}

fn single(field: &FieldDescriptorProto) -> Value {
    let shared = |name: &str| reference(name);
    match field.r#type() {
        Type::Bool => json!({ "type": "boolean" }),
        Type::String => json!({ "type": "string" }),
        Type::Bytes => shared("Bytes"),
        Type::Double | Type::Float => json!({ "type": "number" }),
        Type::Int32 | Type::Sint32 | Type::Sfixed32 => {
            json!({ "type": "integer", "format": "int32", "minimum": i32::MIN, "maximum": i32::MAX })
        }
        Type::Uint32 | Type::Fixed32 => {
            json!({ "type": "integer", "format": "uint32", "minimum": 0, "maximum": u32::MAX })
        }
        Type::Int64 | Type::Sint64 | Type::Sfixed64 => shared("Int64"),
        Type::Uint64 | Type::Fixed64 => shared("Uint64"),
        Type::Enum | Type::Message | Type::Group => reference(field.type_name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_of_a_number_ends_at_its_largest() {
        assert_eq!(at_most("20"), "0|[1-9][0-9]{0,0}|[1-1][0-9]{1}|20");
        assert!(
            at_most("18446744073709551615")
                .ends_with("|1844674407370955161[0-4][0-9]{0}|18446744073709551615")
        );
    }
}
