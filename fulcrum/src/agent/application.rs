//! An application as its signed document describes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crux_core::adf;
use crux_core::adf::begat::{Ready, Restart as WrittenRestart, RunRule};
use crux_core::adf::rexec::Program;
use crux_core::adf::rnodes::UserSource;
use crux_core::adf::{Source, Values};
use crux_core::digest::Digest;
use crux_wire::document::v1::{Document, Pin};

use super::documents::Accepted;
use super::probe::Readiness;
use super::reconcile::Restart;

/// A document with its description files read.
#[derive(Debug)]
pub(crate) struct Application {
    /// The document.
    pub(crate) accepted: Arc<Accepted>,
    /// Its files.
    pub(crate) adf: adf::Application,
    /// Its placement.
    pub(crate) program: khan::Program,
    /// The radix that we run, for `builtin:` commands.
    own: Pin,
}

impl Application {
    /// Reads the description files of a document.
    ///
    /// # Errors
    /// The first finding, for people: documents are checked before they are signed, so this is an older or newer radix.
    pub(crate) fn load(accepted: &Arc<Accepted>, own: Pin) -> Result<Self, String> {
        let document = &accepted.document;
        if document.dissolved {
            // It asks for nothing, and so needs no files.
            return Self::compiled(accepted, adf::Application::default(), own);
        }
        let of = |library: bool| {
            document
                .files
                .iter()
                .filter(move |file| file.library == library)
        };
        let sources: Vec<Source> = of(false)
            .map(|file| Source::new(&file.name, file.text.as_bytes()))
            .collect();
        let library: BTreeMap<&str, &str> = of(true)
            .map(|file| (file.name.as_str(), file.text.as_str()))
            .collect();
        let find = |name: &str| library.get(name).map(|text| text.as_bytes().to_vec());
        let (adf, findings) = adf::parse(&document.application, &sources, &find);
        let error = findings
            .iter()
            .find(|finding| finding.severity == adf::Severity::Error);
        match error {
            Some(finding) => Err(format!("the document does not check: {}", finding.message)),
            None => Self::compiled(accepted, adf, own),
        }
    }

    fn compiled(accepted: &Arc<Accepted>, adf: adf::Application, own: Pin) -> Result<Self, String> {
        let program = khan::compile(&adf).map_err(|findings| {
            let first = findings.first().map(|finding| finding.message.clone());
            format!(
                "the document does not compile: {}",
                first.unwrap_or_default()
            )
        })?;
        Ok(Self {
            accepted: Arc::clone(accepted),
            adf,
            program,
            own,
        })
    }

    /// The document.
    pub(crate) fn document(&self) -> &Document {
        &self.accepted.document
    }

    /// The rule of a class.
    pub(crate) fn class(&self, name: &str) -> Option<&RunRule> {
        self.adf.class(name).map(|rule| &rule.value)
    }

    /// The pinned file that a class runs.
    pub(crate) fn executable(&self, rule: &RunRule) -> Option<&Pin> {
        let command = &rule.command.value;
        let pinned = self
            .document()
            .pins
            .iter()
            .find(|pin| pin.command == *command);
        pinned.or_else(|| self.builtin(rule).map(|_| &self.own))
    }

    /// The pinned files that a class needs: its executable first, then its data.
    pub(crate) fn pins(&self, rule: &RunRule) -> Vec<Pin> {
        let pins = &self.document().pins;
        let data = rule.files().filter_map(|file| {
            let path = file.value;
            let digest = path.strip_prefix("blake3:");
            pins.iter()
                .find(|pin| pin.path == path || digest == Some(pin.digest.as_str()))
        });
        self.executable(rule)
            .into_iter()
            .chain(data)
            .cloned()
            .collect()
    }

    /// The words that come before a class's own arguments: a builtin's.
    pub(crate) fn builtin(&self, rule: &RunRule) -> Option<&str> {
        match &self.adf.program(rule)?.value.program.value {
            Program::Builtin(word) => Some(word),
            Program::Path(_) | Program::Digest(_) => None,
        }
    }

    /// Digest of what an instance of a class runs: another one means that it must be replaced.
    pub(crate) fn spec(&self, class: &str) -> Digest {
        let pins = self
            .document()
            .pins
            .iter()
            .filter_map(|pin| Some((pin.path.clone(), pin.digest.parse().ok()?)))
            .collect();
        let user = self.class(class).and_then(RunRule::user_id);
        // A class without a spec has no files or no rule, and is held back for that.
        khan::spec::digest(&self.adf, class, user, &pins).unwrap_or_else(|_| Digest::of(b""))
    }

    /// Arguments and environment of one instance.
    ///
    /// # Errors
    /// The value that is missing, for people.
    pub(crate) fn words(&self, rule: &RunRule, builtins: &Values) -> Result<Words, String> {
        let begat = &self.adf.begat;
        let arguments = begat
            .arguments(rule, builtins.clone())
            .map_err(|error| error.to_string())?;
        let environment = begat
            .environment(rule, builtins.clone())
            .map_err(|error| error.to_string())?;
        Ok((arguments, environment))
    }

    /// Whether the user that a class asks for is one of our choosing.
    pub(crate) fn user_is_auto(&self, rule: &RunRule) -> Option<String> {
        let user = rule.user_id()?;
        let block = self.adf.block()?;
        let given = block
            .value
            .users
            .iter()
            .find(|given| given.value.name.value == user)?;
        (given.value.source.value == UserSource::Auto).then(|| user.to_owned())
    }
}

/// Arguments, and the environment by name.
pub(crate) type Words = (Vec<String>, Vec<(String, String)>);

/// How an instance of a class shows that it is ready.
pub(crate) fn readiness(rule: &RunRule) -> Readiness {
    match rule.ready() {
        None => Readiness::Alive,
        Some(Ready::Register) => Readiness::Register,
        Some(Ready::Tcp(port)) => Readiness::Tcp(*port),
        Some(Ready::Http { port, path }) => Readiness::Http {
            port: *port,
            path: path.clone(),
        },
    }
}

/// What follows the end of an instance of a class.
pub(crate) fn restart(rule: &RunRule) -> Restart {
    match rule.restart() {
        WrittenRestart::Always => Restart::Always,
        WrittenRestart::OnFailure => Restart::OnFailure,
        WrittenRestart::Never => Restart::Never,
    }
}

/// The applications of the generations that are in use, read once each.
#[derive(Debug, Default)]
pub(crate) struct Applications {
    read: std::sync::Mutex<BTreeMap<u64, Result<Arc<Application>, String>>>,
}

impl Applications {
    /// The application of a generation of our namespace's document; `None` if it is not held or cannot be read.
    pub(crate) fn get(
        &self,
        agent: &super::context::Agent,
        generation: u64,
    ) -> Option<Arc<Application>> {
        let mut read = self
            .read
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(known) = read.get(&generation) {
            return known.as_ref().ok().cloned();
        }
        let held = agent
            .documents
            .generation(agent.me.namespace.as_str(), generation)?;
        let loaded = Application::load(&held, agent.own_pin()).map(Arc::new);
        if let Err(reason) = &loaded {
            tracing::error!(reason, generation, "a document cannot be carried out");
            agent.trouble.set("document", vec![reason.clone()]);
        } else {
            agent.trouble.set("document", Vec::new());
        }
        while read.len() >= super::limits::GENERATIONS_KEPT {
            read.pop_first();
        }
        read.insert(generation, loaded.clone());
        loaded.ok()
    }
}
