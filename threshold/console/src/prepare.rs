//! From a checked description to a document: build, pin, draft.

use crux_wire::document::v1::Document;

use crate::application::Described;
use crate::base_start::{Ourselves, open_store};
use crate::document::{self, Content};
use crate::failure::{Failure, Outcome};
use crate::home::Home;
use crate::pins::{self, Sources, Value};
use crate::{build, operator};

/// Builds and pins everything that `described` needs; nothing is started.
pub(crate) fn draft(
    home: &Home,
    described: &Described,
    ourselves: &Ourselves,
) -> Outcome<Document> {
    let application = &described.application;
    operator::label("a namespace", &application.name)?;
    let owner = operator::owner_id(home)?;
    let store = open_store(home)?;
    let needs = pins::needs(application);
    let hosts: Vec<_> = needs
        .iter()
        .filter_map(|need| match &need.value {
            Value::Path(path) => Some(pins::on_host(&described.mounts, path)),
            Value::Content(_) | Value::Ourselves(_) => None,
        })
        .collect();
    let products = build::products(home, described, &store, Some(&hosts))?;
    let sources = Sources {
        mounts: &described.mounts,
        built: &products.built,
        store: &store,
        ourselves,
    };
    let pins = pins::resolve(application, &needs, &sources)
        .map_err(|diagnostics| Failure::diagnostics(&diagnostics))?;
    let content = Content {
        owner,
        namespace: application.name.clone(),
        backend: described.backend.clone(),
        pins,
        builds: products.builds,
        rnodes_wanted: described.rnodes_wanted(),
        directory: described.directory.display().to_string(),
    };
    Ok(document::draft(application, content))
}
