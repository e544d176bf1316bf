//! How a plug-in is started.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use underverse::{Error, Kind};

use crate::find;
use crate::plugin::Plugin;

/// How long a plug-in may be silent: over a call, between two tidings of a `dissolve`, beyond the deadline of a `realise`. 5 min:
/// clouds are slow. One that lives and says nothing is ended then, as if it had died.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Takes a line that a plug-in wrote: its name, the line.
pub type Log = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// How a plug-in is started: its program, with words and environment added.
#[derive(Clone)]
pub struct Launch {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) log: Log,
    pub(crate) patience: Duration,
}

impl Launch {
    /// The plug-in `name` at `program`.
    #[must_use]
    pub fn at(name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        let log = |name: &str, line: &str| tracing::info!(plugin = name, "{line}");
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            log: Arc::new(log),
            patience: PATIENCE,
        }
    }

    /// The plug-in `name`, wherever it is found.
    ///
    /// # Errors
    /// `NotFound`, naming the file and the folders that were searched, or the file that may not be executed.
    pub fn find(name: &str) -> Result<Self, Error> {
        let folders = find::folders();
        let program = find::in_folders(name, &folders).ok_or_else(|| {
            let searched: Vec<String> = folders
                .iter()
                .map(|folder| folder.display().to_string())
                .collect();
            let message = match find::not_executable(name, &folders) {
                Some(path) => format!("{} may not be executed", path.display()),
                None => format!(
                    "there is no {}{name} in {}",
                    find::PREFIX,
                    searched.join(":")
                ),
            };
            Error::new(Kind::NotFound, "find a plug-in", message)
        })?;
        Ok(Self::at(name, program))
    }

    /// How long it may be silent, instead of [`PATIENCE`].
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Adds a word.
    #[must_use]
    pub fn arg(mut self, word: impl Into<OsString>) -> Self {
        self.args.push(word.into());
        self
    }

    /// Adds a variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Takes what it writes, instead of our own log.
    #[must_use]
    pub fn log(mut self, log: Log) -> Self {
        self.log = log;
        self
    }

    /// Where its program is.
    #[must_use]
    pub fn program(&self) -> &std::path::Path {
        &self.program
    }

    /// Starts it and greets it.
    ///
    /// # Errors
    /// `NotFound` if it cannot be started, `Unsupported` if no version of the protocol is common to both, `Unavailable`
    /// if it does not answer.
    ///
    /// # Cancel safety
    /// Dropping the future ends the process.
    pub async fn start(self) -> Result<Plugin, Error> {
        Plugin::start(self).await
    }
}

impl fmt::Debug for Launch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Launch")
            .field("name", &self.name)
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}
