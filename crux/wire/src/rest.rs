//! The REST twins of our methods, as far as they are a mapping: paths, message shapes, proto3 JSON and back, errors.
//!
//! Not for sockets: `crux_net::rpc` answers requests with it. No method is named here; all come from a descriptor set.
//! Read [`Api`] first, then `rest/json.rs` for messages and `rest/problem.rs` for errors.

mod json;
mod problem;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use prost_reflect::{DescriptorError, DescriptorPool, MethodDescriptor};

pub use json::{Malformed, Place};
pub use problem::Problem;

use crate::generated::descriptors::DESCRIPTORS;

/// What the services of a rnode look like over REST, as an OpenAPI 3.1 document.
///
/// Made by `cargo xtask fix` from the same protos; the file is docs/formats/openapi.json.
pub const OPENAPI: &str = include_str!("openapi.json");
/// Path of the OpenAPI document.
pub const OPENAPI_PATH: &str = "/openapi.json";

static RADIX: LazyLock<Api> = LazyLock::new(|| {
    let set = DESCRIPTORS.concat();
    Api::new(&set)
        .expect("what xtask committed decodes: a test reads every method of it")
        .described_by(OPENAPI)
});

/// The methods of some services, by path.
#[derive(Clone)]
pub struct Api {
    methods: BTreeMap<String, Method>,
    openapi: Option<&'static str>,
}

impl Api {
    /// Reads an encoded `FileDescriptorSet` that holds everything it imports.
    ///
    /// # Errors
    /// When it does not decode or lacks an import.
    pub fn new(descriptor_set: &[u8]) -> Result<Self, DescriptorError> {
        let pool = DescriptorPool::decode(descriptor_set)?;
        let methods = pool
            .services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .map(|method| Method::new(&method))
            .map(|method| (method.path.clone(), method))
            .collect();
        Ok(Self {
            methods,
            openapi: None,
        })
    }

    /// Every service of Radix. The first call reads the descriptors; who never calls pays nothing.
    #[must_use]
    pub fn radix() -> &'static Self {
        &RADIX
    }

    /// The same, served with this OpenAPI document.
    #[must_use]
    pub const fn described_by(mut self, openapi: &'static str) -> Self {
        self.openapi = Some(openapi);
        self
    }

    /// The OpenAPI document, if there is one.
    #[must_use]
    pub const fn openapi(&self) -> Option<&'static str> {
        self.openapi
    }

    /// The method at `/package.Service/Method`.
    #[must_use]
    pub fn method(&self, path: &str) -> Option<&Method> {
        self.methods.get(path)
    }

    /// Every method, by path.
    pub fn methods(&self) -> impl Iterator<Item = &Method> {
        self.methods.values()
    }

    /// The methods that `word` may mean: a path, with or without its slash, or any last part of it at a border.
    ///
    /// `Describe`, `Fulcrum/Describe` and `radix.fulcrum.v1.Fulcrum/Describe` mean the same. Sorted by path.
    #[must_use]
    pub fn find(&self, word: &str) -> Vec<&Method> {
        let word = word.trim_start_matches('/');
        let means = |method: &&Method| {
            let path = method.path.trim_start_matches('/');
            path == word
                || path
                    .strip_suffix(word)
                    .is_some_and(|before| before.ends_with(['/', '.']))
        };
        if word.is_empty() {
            return Vec::new();
        }
        self.methods().filter(means).collect()
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.methods.keys()).finish()
    }
}

/// How many messages go one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Exactly one: `application/json`.
    One,
    /// Any number: `application/x-ndjson`, one a line.
    Stream,
}

impl Shape {
    const fn of(streams: bool) -> Self {
        if streams { Self::Stream } else { Self::One }
    }

    /// The media type of a body of this shape.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::One => "application/json",
            Self::Stream => "application/x-ndjson",
        }
    }
}

/// One method.
#[derive(Debug, Clone)]
pub struct Method {
    path: String,
    descriptor: MethodDescriptor,
}

impl Method {
    fn new(descriptor: &MethodDescriptor) -> Self {
        let service = descriptor.parent_service().full_name().to_owned();
        Self {
            path: format!("/{service}/{}", descriptor.name()),
            descriptor: descriptor.clone(),
        }
    }

    /// `/package.Service/Method`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `Service/Method`.
    #[must_use]
    pub fn short_name(&self) -> &str {
        let slash = self.path.rfind('/').unwrap_or(0);
        let from = self.path[..slash].rfind('.').map_or(1, |dot| dot + 1);
        &self.path[from..]
    }

    /// Whether only a process may call it, over the socket it inherited: no port serves it.
    #[must_use]
    pub fn is_for_processes(&self) -> bool {
        self.path.starts_with("/radix.process.v1.")
    }

    /// How many requests one call takes.
    #[must_use]
    pub fn requests(&self) -> Shape {
        Shape::of(self.descriptor.is_client_streaming())
    }

    /// How many replies one call gives.
    #[must_use]
    pub fn replies(&self) -> Shape {
        Shape::of(self.descriptor.is_server_streaming())
    }

    /// Full name of its request message.
    #[must_use]
    pub fn request_type(&self) -> String {
        self.descriptor.input().full_name().to_owned()
    }

    /// Full name of its reply message.
    #[must_use]
    pub fn reply_type(&self) -> String {
        self.descriptor.output().full_name().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_every_service_is_there_with_its_shape() {
        let api = Api::radix();
        assert!(api.methods().count() > 30);
        let shape = |path: &str| {
            let method = api.method(path).unwrap();
            (method.requests(), method.replies())
        };
        assert_eq!(
            shape("/radix.fulcrum.v1.Fulcrum/Describe"),
            (Shape::One, Shape::One)
        );
        assert_eq!(
            shape("/radix.fulcrum.v1.Fulcrum/Events"),
            (Shape::One, Shape::Stream)
        );
        assert_eq!(
            shape("/radix.fileio.v1.FileIo/Put"),
            (Shape::Stream, Shape::One)
        );
        assert_eq!(
            shape("/radix.rexec.v1.Rexec/Run"),
            (Shape::Stream, Shape::Stream)
        );
    }

    #[test]
    fn the_document_has_every_method_kind_and_code() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let on_the_port = |method: &&Method| !method.is_for_processes();
        for method in Api::radix().methods().filter(on_the_port) {
            let responses = &paths[method.path()]["post"]["responses"];
            for kind in crate::status::Kind::all() {
                // A caller who gave up reads no answer.
                let told = kind == crate::status::Kind::Cancelled
                    || responses.get(kind.http().to_string()).is_some();
                assert!(told, "{} {kind}", method.path());
            }
        }
        let kinds = &document["components"]["schemas"]["Error"]["properties"]["kind"]["enum"];
        let names: Vec<_> = crate::status::Kind::all().map(|kind| kind.name()).collect();
        assert_eq!(*kinds, serde_json::json!(names));
    }

    #[test]
    fn a_method_is_found_by_any_last_part_of_its_path() {
        let found = |word: &str| -> Vec<&str> {
            let found = Api::radix().find(word);
            found.into_iter().map(Method::short_name).collect()
        };
        for word in [
            "Describe",
            "Fulcrum/Describe",
            "v1.Fulcrum/Describe",
            "/radix.fulcrum.v1.Fulcrum/Describe",
        ] {
            assert_eq!(found(word), ["Fulcrum/Describe"], "{word}");
        }
        assert_eq!(found("Put"), ["FileIo/Put", "Process/Put"]);
        assert!(found("escribe").is_empty());
        assert!(found("").is_empty());
        assert!(found("/").is_empty());
    }
}
