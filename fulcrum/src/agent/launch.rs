//! Starting an execution: resolve, verify, write to the memoir, then ask the keeper. The only way to start anything.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use crux_core::adf::rexec::Program;
use crux_net::task::{self, Policy};
use crux_wire::document::v1::Pin;
use crux_wire::keeper::v1::{EnvironmentVariable, Execution, Limits, Spawn, User};
use tonic::Status;

use super::access;
use super::context::{Agent, BASE, RADIX, fields};
use super::fetch;
use super::limits::{ARGS_BYTES_MAX, ARGS_MAX, EXECUTION_ID_MAX, FETCH_RETRY, START_WAIT};
use super::paths::{Place, digest};
use super::verified::{Error, Verifier};
use crate::keeper::client::CallError;
use crate::keeper::packet::TOLD_BYTES_MAX;

/// A search path that holds on every Linux.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Names of the environment that only the agent and the keeper set.
const RESERVED: [&str; 3] = ["RADIX_RNODE", "RADIX_AGENT_FD", "RADIX_KEEPER_FD"];

/// Everything about an execution that is to be started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Launch {
    /// Its id.
    pub(crate) execution: String,
    /// `application/class/index`, or empty.
    pub(crate) instance: String,
    /// The configuration that allows it.
    pub(crate) configuration: String,
    /// The command in it.
    pub(crate) command: String,
    /// Arguments, the program not among them.
    pub(crate) args: Vec<String>,
    /// Variables besides those every execution gets.
    pub(crate) env: Vec<EnvironmentVariable>,
    /// As whom it runs, if not as we do.
    pub(crate) user: Option<User>,
    /// What it may use.
    pub(crate) limits: Option<Limits>,
    /// Whether it outlives its keeper.
    pub(crate) detached: bool,
    /// After this it is asked to end, then killed; 0: it may take any time.
    pub(crate) time_limit_ms: u64,
    /// Opaque, told again in listings.
    pub(crate) label: Vec<u8>,
    /// Who asked, for the memoir.
    pub(crate) caller: String,
}

/// A command of a signed configuration.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    /// Its pinned file.
    pub(crate) pin: Pin,
    /// The document that allows it.
    pub(crate) generation: u64,
}

impl Agent {
    /// The commands of the one configuration of this rnode, by the newest document; empty before the first.
    pub(crate) fn commands(&self) -> Vec<Command> {
        let namespace = self.me.namespace.as_str();
        let Some(newest) = self.documents.acting(namespace) else {
            return Vec::new();
        };
        let generation = newest.document.generation;
        let pins = newest
            .document
            .pins
            .iter()
            .filter(|pin| !pin.command.is_empty());
        pins.map(|pin| Command {
            pin: pin.clone(),
            generation,
        })
        .collect()
    }

    /// Finds a command by the name of its configuration.
    ///
    /// # Errors
    /// `NotFound`, saying what is known.
    pub(crate) fn resolve(&self, configuration: &str, command: &str) -> Result<Command, Status> {
        let known = self.configuration();
        if known.as_deref() != Some(configuration) {
            let known = known.unwrap_or_else(|| "none".to_owned());
            return Err(Status::not_found(format!(
                "find configuration {configuration}: this rnode has {known}"
            )));
        }
        let commands = self.commands();
        let found = commands
            .iter()
            .find(|known| known.pin.command == command)
            .cloned();
        found.ok_or_else(|| {
            let known: Vec<&str> = commands
                .iter()
                .map(|known| known.pin.command.as_str())
                .collect();
            Status::not_found(format!(
                "find command {command}: configuration {configuration} has {}",
                known.join(", ")
            ))
        })
    }

    /// The words that a command puts before a caller's, if those are allowed by its pattern.
    ///
    /// # Errors
    /// `PermissionDenied` if the pattern does not allow `args`.
    pub(crate) fn words_before(
        &self,
        command: &Command,
        args: &[String],
    ) -> Result<Vec<String>, Status> {
        if self.is_base() {
            return Ok(Vec::new());
        }
        let application = self.applications.get(self, command.generation);
        let application = application
            .ok_or_else(|| Status::failed_precondition("read the configuration's document"))?;
        let name = &command.pin.command;
        let allowed = application.adf.rexec.command(name);
        let allowed = allowed
            .ok_or_else(|| Status::not_found(format!("find command {name}: it is not allowed")))?;
        let pattern = allowed.value.pattern.as_ref();
        if pattern.is_some_and(|pattern| !pattern.value.allows(args)) {
            return Err(Status::permission_denied(format!(
                "start {name}: its configuration does not allow these arguments"
            )));
        }
        Ok(match &allowed.value.program.value {
            Program::Builtin(word) => vec![word.clone()],
            Program::Path(_) | Program::Digest(_) => Vec::new(),
        })
    }

    /// Waits until a pinned file is here, fetching it if need be.
    ///
    /// # Errors
    /// `Unavailable` when it is not present in time.
    pub(crate) async fn wait_for(&self, pin: &Pin) -> Result<(), Status> {
        let Some(wanted) = digest(&pin.digest) else {
            return Ok(());
        };
        if self.has_file(&wanted) {
            return Ok(());
        }
        let mut reason = "no source gave it".to_owned();
        let fetching = async {
            loop {
                match fetch::fetch(self, &wanted, pin.executable, &fetch::sources(self)).await {
                    Ok(_) => return,
                    Err(error) => reason = error,
                }
                tokio::time::sleep(FETCH_RETRY).await;
            }
        };
        if tokio::time::timeout(START_WAIT, fetching).await.is_ok() {
            return Ok(());
        }
        Err(Status::unavailable(format!(
            "find {}: it is not yet present: {reason}",
            pin.path
        )))
    }

    /// Starts an execution of `pin`; the start is in the memoir, durable, before anything runs.
    ///
    /// # Errors
    /// The status that a caller of rexec gets.
    ///
    /// # Cancel safety
    /// What was begun is finished and listed all the same, so whoever asks next finds it: a backend gives up a pass
    /// in the middle when it is asked for something else.
    pub(crate) async fn launch(
        self: &Arc<Self>,
        launch: Launch,
        pin: &Pin,
        stdin: Option<OwnedFd>,
    ) -> Result<Arc<Execution>, Status> {
        check(&launch)?;
        let file = match self.open(pin).await {
            Ok(file) => file,
            Err(error) => {
                self.note_refused(&launch, error.to_string()).await;
                return Err(match error {
                    Error::Missing(_) => Status::unavailable(format!(
                        "start {}: its file is not yet present: {error}",
                        launch.command
                    )),
                    Error::Differs { .. } | Error::Io(..) => {
                        Status::failed_precondition(format!("start {}: {error}", launch.command))
                    }
                });
            }
        };
        if let Some(user) = launch.user
            && let Err(reason) = access::check_program(self, user, &pin.path, &file).await
        {
            self.note_refused(&launch, reason.clone()).await;
            let text = format!("start {}: required is that {reason}", launch.command);
            return Err(Status::failed_precondition(text));
        }
        let spawn = self.spawn_of(&launch, pin);
        let begun = self.executions.begin().await;
        let (agent, digest) = (Arc::clone(self), pin.digest.clone());
        let started = task::spawn("launch", Policy::DRAIN, async move {
            let started = agent
                .start(launch, &digest, (spawn, file.into()), stdin)
                .await;
            drop(begun);
            started
        });
        let ended = |error| Status::internal(format!("start an execution: {error}"));
        started.await.map_err(ended)?
    }

    async fn note_refused(&self, launch: &Launch, reason: String) {
        let record = fields! {
            "execution": launch.execution.clone(), "configuration": launch.configuration.clone(),
            "command": launch.command.clone(), "caller": launch.caller.clone(),
            "reason": reason,
        };
        self.note("exec.refused", record).await;
    }

    /// Writes the start to the memoir while the keeper prepares it; it executes when both are durable.
    async fn start(
        &self,
        launch: Launch,
        digest: &str,
        (spawn, file): (Spawn, OwnedFd),
        stdin: Option<OwnedFd>,
    ) -> Result<Arc<Execution>, Status> {
        let record = self.record(
            "exec.start",
            fields! {
                "execution": launch.execution.clone(), "instance": launch.instance,
                "configuration": launch.configuration, "command": launch.command,
                "argv": spawn.argv.clone(), "digest": digest,
                "caller": launch.caller, "uid": spawn.user.as_ref().map(|user| user.uid),
            },
        );
        let started = self.executions.spawn(spawn, (file, stdin), record).await;
        let started =
            started.map_err(|error| Status::internal(format!("write the memoir: {error}")))?;
        if let Err(error) = &started {
            let reason = error.to_string();
            let execution = launch.execution;
            self.note(
                "exec.failed",
                fields! { "execution": execution, "reason": reason },
            )
            .await;
        }
        started.map_err(|error| call_status(&error))
    }

    /// Opens a pinned file where the application sees it, else in the store.
    async fn open(&self, pin: &Pin) -> Result<File, Error> {
        let unknown = || Error::Missing(pin.path.clone());
        let wanted = digest(&pin.digest).ok_or_else(unknown)?;
        let place = self.paths.place(&pin.path);
        let own =
            (wanted == self.config.executable.digest).then(|| self.config.executable.path.clone());
        let store = Arc::clone(&self.store);
        let verifier = Arc::clone(&self.verifier);
        let opened = tokio::task::spawn_blocking(move || {
            open(&verifier, place, &wanted).or_else(|error| match error {
                // At a path of ours, other content is an alarm; elsewhere the store is as good.
                Error::Differs { .. } | Error::Io(..) => Err(error),
                Error::Missing(_) => match store.open_verified(&wanted) {
                    Ok((file, _)) => Ok(file),
                    Err(_) => match own {
                        Some(own) => verifier.open(&own, &wanted),
                        None => Err(Error::Missing(wanted.short())),
                    },
                },
            })
        });
        opened.await.map_err(|_| unknown())?
    }

    fn spawn_of(&self, launch: &Launch, pin: &Pin) -> Spawn {
        let mut argv = Vec::with_capacity(launch.args.len() + 1);
        argv.push(pin.path.clone());
        argv.extend(launch.args.iter().cloned());
        Spawn {
            execution: launch.execution.clone(),
            instance: launch.instance.clone(),
            configuration: launch.configuration.clone(),
            command: launch.command.clone(),
            argv,
            env: self.environment(launch),
            working_directory: "/".to_owned(),
            user: launch.user,
            limits: launch.limits,
            detached: launch.detached,
            agent_socket: true,
            label: launch.label.clone(),
            stdin: false,
            held: false,
            time_limit_ms: launch.time_limit_ms,
            output_bytes_max: 0,
            digest: pin.digest.clone(),
        }
    }

    /// The whole environment of an execution: what it was given, and what every one gets.
    fn environment(&self, launch: &Launch) -> Vec<EnvironmentVariable> {
        let mut env: Vec<EnvironmentVariable> = Vec::new();
        let mut set = |name: &str, value: String| {
            env.retain(|known: &EnvironmentVariable| known.name != name);
            env.push(EnvironmentVariable {
                name: name.to_owned(),
                value,
            });
        };
        set("PATH", PATH.to_owned());
        set(
            "HOME",
            if launch.user.is_some() {
                PathBuf::from("/")
            } else {
                self.dir.clone()
            }
            .display()
            .to_string(),
        );
        if self.is_base()
            && launch.configuration == RADIX
            && let Some(home) = self.dir.parent()
        {
            set("RADIX_HOME", home.display().to_string());
        }
        for variable in &launch.env {
            if !RESERVED.contains(&variable.name.as_str()) {
                set(&variable.name, variable.value.clone());
            }
        }
        set("RADIX_RNODE", self.mark());
        env
    }

    /// An execution id that no other of this rnode has.
    pub(crate) fn new_execution(&self, stem: &str) -> String {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let plain: String = stem
            .chars()
            .map(|next| {
                if next.is_ascii_alphanumeric() || next == '_' {
                    next
                } else {
                    '-'
                }
            })
            .take(64)
            .collect();
        format!("{plain}-{}-{next}", self.me.incarnation)
    }
}

fn open(
    verifier: &Verifier,
    place: Option<Place>,
    wanted: &crux_core::digest::Digest,
) -> Result<File, Error> {
    match place {
        Some(Place::Written(path)) => verifier.open(&path, wanted),
        Some(Place::Outside(path)) => verifier
            .open(&path, wanted)
            .map_err(|error| Error::Missing(error.to_string())),
        None => Err(Error::Missing("its path".to_owned())),
    }
}

/// Checks what a caller may choose.
fn check(launch: &Launch) -> Result<(), Status> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let id = &launch.execution;
    if id.is_empty() || id.len() > EXECUTION_ID_MAX || id.starts_with('.') || !id.bytes().all(plain)
    {
        return Err(Status::invalid_argument(
            "take the execution id: 1 to 128 of letters, digits, - _ . are allowed",
        ));
    }
    for (what, bytes) in [
        ("label", launch.label.len()),
        ("instance", launch.instance.len()),
    ] {
        if bytes > TOLD_BYTES_MAX {
            return Err(Status::invalid_argument(format!(
                "take the {what}: it has {bytes} bytes, at most {TOLD_BYTES_MAX} are allowed"
            )));
        }
    }
    let env_bytes: usize = launch
        .env
        .iter()
        .map(|variable| variable.name.len() + variable.value.len() + 2)
        .sum();
    let arg_bytes: usize = launch.args.iter().map(|arg| arg.len() + 1).sum();
    if launch.args.len() > ARGS_MAX || env_bytes + arg_bytes > ARGS_BYTES_MAX {
        return Err(Status::invalid_argument(format!(
            "take the arguments: at most {ARGS_MAX} of them and {ARGS_BYTES_MAX} bytes in all"
        )));
    }
    let nul = launch.args.iter().any(|arg| arg.contains('\0'));
    let bad_name = launch.env.iter().any(|variable| {
        variable.name.is_empty()
            || variable.name.contains(['=', '\0'])
            || variable.value.contains('\0')
    });
    if nul || bad_name {
        return Err(Status::invalid_argument(
            "take the arguments: one is not a C string",
        ));
    }
    Ok(())
}

/// A keeper's answer as a status.
pub(crate) fn call_status(error: &CallError) -> Status {
    use crux_wire::keeper::v1::RefusedKind;
    let text = error.to_string();
    match error {
        CallError::Refused { kind, .. } => match kind {
            RefusedKind::NotFound => Status::not_found(text),
            RefusedKind::Invalid => Status::invalid_argument(text),
            RefusedKind::Limit => Status::resource_exhausted(text),
            RefusedKind::Unsupported => Status::unimplemented(text),
            RefusedKind::Io | RefusedKind::Unspecified => Status::internal(text),
        },
        CallError::TooLarge(_) => Status::invalid_argument(text),
        CallError::Lost | CallError::Silent(_) | CallError::Unexpected => Status::unavailable(text),
    }
}

/// Whether an execution may be detached: only the base's own.
pub(crate) fn may_detach(agent: &Agent, configuration: &str) -> bool {
    agent.me.namespace == BASE && configuration == RADIX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_or_an_instance_that_no_listing_could_hold_is_refused() {
        let launch = |label: usize, instance: usize| Launch {
            execution: "e".to_owned(),
            label: vec![7; label],
            instance: "i".repeat(instance),
            ..Launch::default()
        };
        check(&launch(TOLD_BYTES_MAX, TOLD_BYTES_MAX)).unwrap();
        for (launch, what) in [
            (launch(TOLD_BYTES_MAX + 1, 0), "label"),
            (launch(0, TOLD_BYTES_MAX + 1), "instance"),
        ] {
            let refused = check(&launch).expect_err("it is too long");
            assert_eq!(refused.code(), tonic::Code::InvalidArgument);
            assert!(refused.message().contains(what), "{refused}");
        }
    }
}
