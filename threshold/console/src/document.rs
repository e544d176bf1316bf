//! The document of a namespace: what is signed, and when two say the same.

use crux_core::adf::Application;
use crux_core::digest::Digest;
use crux_wire::document::v1::{Build, Document, Pin, SourceFile};
use prost::Message as _;

/// What a document is made of before it has a place in history.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) owner: String,
    pub(crate) namespace: String,
    pub(crate) backend: String,
    pub(crate) pins: Vec<Pin>,
    pub(crate) builds: Vec<Build>,
    pub(crate) rnodes_wanted: u32,
    pub(crate) directory: String,
}

/// A document with everything but generation, base and time.
pub(crate) fn draft(application: &Application, content: Content) -> Document {
    let files = application
        .files
        .files()
        .iter()
        .map(|file| SourceFile {
            name: file.name.clone(),
            text: file.text.clone(),
            library: file.library,
        })
        .collect();
    let mut document = Document {
        owner: content.owner,
        namespace: content.namespace,
        application: application.name.clone(),
        files,
        pins: content.pins,
        builds: content.builds,
        backend: content.backend,
        rnodes_wanted: content.rnodes_wanted,
        directory: content.directory,
        ..Document::default()
    };
    document.digest = digest(&document).to_string();
    document
}

/// The draft with the built-in programs that run already: a newer radix alone is no change of the application.
pub(crate) fn keep_builtins(mut draft: Document, present: Option<&Document>) -> Document {
    let held = present.map(|present| present.pins.as_slice());
    let held = held.unwrap_or_default();
    for pin in &mut draft.pins {
        let same = |held: &&Pin| held.path == pin.path && held.command == pin.command;
        if pin.path.starts_with(BUILTIN)
            && let Some(held) = held.iter().find(same)
        {
            *pin = held.clone();
        }
    }
    draft.digest = digest(&draft).to_string();
    draft
}

/// How the path of a pin begins that stands for `radix` itself.
pub(crate) const BUILTIN: &str = "builtin:";

/// A document that asks for nothing: the end of its namespace.
pub(crate) fn dissolution(of: &Document) -> Document {
    let mut document = Document {
        owner: of.owner.clone(),
        namespace: of.namespace.clone(),
        application: of.application.clone(),
        backend: of.backend.clone(),
        dissolved: true,
        ..Document::default()
    };
    document.digest = digest(&document).to_string();
    document
}

/// The digest of what is asked for, whenever and by whomever.
///
/// Builds are left out: the same product from another execution asks for the same.
pub(crate) fn digest(document: &Document) -> Digest {
    let mut content = document.clone();
    content.generation = 0;
    content.base = 0;
    content.digest = String::new();
    content.signed_unix_ms = 0;
    content.builds = Vec::new();
    Digest::of(&content.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_radix_alone_asks_for_the_same() {
        let pin = |path: &str, digest: &str| Pin {
            path: path.into(),
            digest: digest.into(),
            ..Pin::default()
        };
        let document = |pins: [Pin; 2]| {
            let document = Document {
                pins: pins.into(),
                ..Document::default()
            };
            keep_builtins(document, None)
        };
        let present = document([pin("builtin:kv", "old"), pin("/a", "old")]);
        let newer = document([pin("builtin:kv", "new"), pin("/a", "old")]);
        assert_ne!(newer.digest, present.digest);
        assert_eq!(keep_builtins(newer, Some(&present)), present);
        let other = document([pin("builtin:kv", "new"), pin("/a", "new")]);
        let kept = keep_builtins(other, Some(&present));
        assert_eq!(kept.pins[0].digest, "old");
        assert_eq!(kept.pins[1].digest, "new");
        assert_ne!(kept.digest, present.digest);
    }

    #[test]
    fn history_does_not_change_the_digest_and_content_does() {
        let document = Document {
            application: "stix".into(),
            ..Document::default()
        };
        let later = Document {
            generation: 7,
            base: 6,
            signed_unix_ms: 1,
            ..document.clone()
        };
        let other = Document {
            rnodes_wanted: 3,
            ..document.clone()
        };
        assert_eq!(digest(&document), digest(&later));
        assert_ne!(digest(&document), digest(&other));
    }
}
