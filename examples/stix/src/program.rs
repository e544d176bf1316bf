//! What every program does: says things, ends when asked, knows who it is.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use crux::Agent;
use tokio::signal::unix::{SignalKind, signal};

use crate::flags::Flags;

/// Why a program ends early.
#[derive(Debug)]
pub enum Failure {
    /// Its flags are wrong: exit code 2.
    Usage(String),
    /// It could not do its work: exit code 1.
    Failed(String),
}

impl Failure {
    /// A failure to do something, with what stood in the way.
    #[must_use]
    pub fn to(what: &str, error: impl std::error::Error) -> Self {
        Self::Failed(format!("failed to {what}: {}", chain(&error)))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Failed(text) => formatter.write_str(text),
        }
    }
}

/// An error and its sources on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Writes one line to standard output. A reader that is gone is no reason to stop working.
pub fn say(line: impl fmt::Display) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// The exit code of a finished program; says what went wrong.
#[must_use]
pub fn finish(result: Result<(), Failure>) -> ExitCode {
    let code = match &result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(_)) => 2,
        Err(Failure::Failed(_)) => 1,
    };
    if let Err(failure) = result {
        let _ = writeln!(std::io::stderr().lock(), "{failure}");
    }
    ExitCode::from(code)
}

/// Which instance this process is, and the agent that says so.
#[derive(Debug, Clone)]
pub struct Me {
    /// The agent; `None` when it runs alone.
    pub agent: Option<Agent>,
    /// `stix/prog1/0`; the task's name when it runs alone.
    pub instance: String,
    /// `prog1`; the task's name when it runs alone.
    pub class: String,
    /// Which of its class it is, from 0.
    pub index: u32,
    /// Label of its rnode.
    pub rnode: String,
}

impl Me {
    /// Asks the agent, unless the flags say that there is none.
    ///
    /// # Errors
    /// [`Failure::Failed`] if no agent answers.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn learn(flags: &Flags) -> Result<Self, Failure> {
        if flags.alone() {
            return Ok(Self {
                agent: None,
                instance: flags.task.clone(),
                class: flags.task.clone(),
                index: 0,
                rnode: flags.rnode.clone(),
            });
        }
        let agent = Agent::inherited().map_err(|error| Failure::to("find the agent", error))?;
        let who = agent.whoami().await;
        let who = who.map_err(|error| Failure::to("learn who this process is", error))?;
        Ok(Self {
            agent: Some(agent),
            instance: format!("{}/{}/{}", who.application, who.class, who.index),
            class: who.class,
            index: who.index,
            rnode: who.rnode_label,
        })
    }
}

/// Waits until this process is asked to end.
///
/// # Errors
/// [`Failure::Failed`] if signals cannot be received.
///
/// # Cancel safety
/// Dropping it changes nothing.
pub async fn asked_to_end() -> Result<(), Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::to("listen for signals", error));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
