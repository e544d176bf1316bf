//! From a document to the horde it asks for.

use std::path::Path;

use crux_core::adf::{self, Diagnostic, Source};
use crux_wire::document::v1::Document;
use underverse::{Error, FromRnodes, Generation, HordeName, HordeSpec, Kind, from_rnodes};

/// What one document asks of this backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The horde's name: the namespace.
    pub name: HordeName,
    /// The document's generation.
    pub generation: Generation,
    /// What to make; `None` to end the horde.
    pub spec: Option<HordeSpec>,
}

/// Reads what `document` asks of the backend named `backend`.
///
/// # Errors
/// `Invalid`, with every finding of the description in the message.
pub fn asked(document: &Document, backend: &str) -> Result<Asked, Error> {
    let name = HordeName::new(document.namespace.clone())?;
    let generation = Generation::of_document(document.generation);
    if document.dissolved {
        return Ok(Asked {
            name,
            generation,
            spec: None,
        });
    }
    let sources = |library: bool| {
        let files = document
            .files
            .iter()
            .filter(move |file| file.library == library);
        files.map(|file| Source::new(file.name.clone(), file.text.clone()))
    };
    let own: Vec<Source> = sources(false).collect();
    let library: Vec<Source> = sources(true).collect();
    let find = |wanted: &str| {
        let found = library.iter().find(|source| source.name == wanted)?;
        Some(found.bytes.clone())
    };
    let (application, found) = adf::parse(&document.application, &own, &find);
    let errors: Vec<&Diagnostic> = found.iter().filter(|found| found.is_error()).collect();
    if !errors.is_empty() {
        return Err(refused(&name, errors));
    }
    let request = FromRnodes {
        name: &name,
        backend,
        directory: Path::new(&document.directory),
        files: &application.files,
    };
    match from_rnodes(&application.rnodes, &request) {
        Ok(spec) => Ok(Asked {
            name,
            generation,
            spec: Some(spec),
        }),
        Err(found) => Err(refused(&name, found.iter())),
    }
}

fn refused<'a>(name: &HordeName, found: impl IntoIterator<Item = &'a Diagnostic>) -> Error {
    let text: Vec<String> = found.into_iter().map(ToString::to_string).collect();
    Error::new(
        Kind::Invalid,
        "read the document's description",
        text.join("\n").trim_end(),
    )
    .with("horde", name)
}
