//! How a long call tells where it is, and the plan it follows.

use std::fmt;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use crate::effective::Effective;
use crate::error::{Error, Kind};

/// What `realise` and `dissolve` return: steps, then exactly one [`Progress::End`], then nothing.
pub type ProgressStream<'a> = BoxStream<'a, Progress>;

/// One item of a [`ProgressStream`].
#[derive(Debug)]
pub enum Progress {
    /// A step was taken.
    Step(StepDone),
    /// How it ended; the last item.
    End(Box<End>),
}

/// A step that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepDone {
    /// What was done.
    pub step: PlannedStep,
    /// Its place, from 1.
    pub number: u32,
    /// How many the plan has.
    pub of: u32,
    /// Why it failed; `None` if it did not.
    pub failure: Option<String>,
}

/// How `realise` or `dissolve` ended.
#[derive(Debug)]
pub enum End {
    /// Everything asked holds.
    Done(Effective),
    /// What could be had holds; each part that does not is named. Running it again may complete it.
    Partial(Effective, Vec<Failure>),
    /// Nobody knows what holds; only the same call may be repeated.
    Unknown(Error),
    /// Nothing was changed.
    Refused(Error),
}

impl End {
    /// Whether everything asked holds.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

/// One part that was not obtained.
#[derive(Debug)]
pub struct Failure {
    /// What it is about: "n3", "port 8080".
    pub subject: String,
    /// Why.
    pub error: Error,
}

/// Takes a stream to its end and returns how it ended.
///
/// # Cancel safety
/// Dropping the future drops the stream: the pass stops where it is, and running it again finishes it.
pub async fn finish(mut progress: ProgressStream<'_>) -> End {
    while let Some(item) = progress.next().await {
        if let Progress::End(end) = item {
            return *end;
        }
    }
    End::Unknown(Error::new(
        Kind::Bug,
        "finish a pass",
        "the stream ended without saying how",
    ))
}

/// What would change, without changing it. Empty: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HordePlan {
    /// The steps, in order.
    pub steps: Vec<PlannedStep>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStep {
    /// What is done.
    pub action: Action,
    /// To what: "n3", "port 8080".
    pub subject: String,
    /// Why.
    pub reason: String,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Makes something that does not exist.
    Create,
    /// Starts it.
    Start,
    /// Ends it.
    Stop,
    /// Removes what is left of it.
    Remove,
}

impl fmt::Display for PlannedStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.action {
            Action::Create => "+ create",
            Action::Start => "+ start",
            Action::Stop => "- stop",
            Action::Remove => "- remove",
        };
        write!(formatter, "{sign} {}: {}", self.subject, self.reason)
    }
}

impl fmt::Display for HordePlan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps
            .iter()
            .try_for_each(|step| writeln!(formatter, "{step}"))
    }
}
