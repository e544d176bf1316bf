//! A case: its name, what it needs, and how it ended.

use std::fmt::{self, Debug};

use futures_util::future::BoxFuture;
use underverse::{Capability, Error};

use crate::bed::Bed;
use crate::fixture::Cannot;

/// How a case runs.
pub(crate) type Run = for<'a> fn(&'a Bed<'_>) -> BoxFuture<'a, Judged>;
/// What a case's code returns: success, or why it stopped.
pub(crate) type Judged = Result<(), Stop>;

/// One promise of the contract, as something that can be tried.
#[derive(Clone, Copy)]
pub struct Case {
    /// The name of its line in the contract: "realise.unchanged".
    pub name: &'static str,
    /// Capabilities without which the refusal is shown instead.
    pub needs: &'static [Capability],
    pub(crate) run: Run,
}

impl Debug for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

/// A case that needs `needs`.
pub(crate) const fn case(name: &'static str, needs: &'static [Capability], run: Run) -> Case {
    Case { name, needs, run }
}

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The promise was kept.
    Passed,
    /// The backend lacks what the promise is about, and refused or reported it as it must.
    Refused(Capability),
    /// It could not be judged, and why.
    Skipped(String),
    /// The promise was broken, and how.
    Failed(String),
}

impl Verdict {
    /// A fixed word for reports.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Refused(_) => "refused",
            Self::Skipped(_) => "skipped",
            Self::Failed(_) => "failed",
        }
    }
}

/// Why a case's code stopped.
#[derive(Debug)]
pub(crate) enum Stop {
    Failed(String),
    Skipped(String),
}

impl From<Cannot> for Stop {
    fn from(cannot: Cannot) -> Self {
        match cannot {
            Cannot::NotOffered(reason) => Self::Skipped(reason.to_owned()),
            Cannot::Failed(reason) => Self::Failed(format!("the ground failed: {reason}")),
        }
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(format!("{:?}: {}", error.kind(), error.chain()))
    }
}

/// Stops the case with `message` unless `holds`.
pub(crate) fn ensure(holds: bool, message: impl FnOnce() -> String) -> Judged {
    if holds {
        Ok(())
    } else {
        Err(Stop::Failed(message()))
    }
}

/// Skips the case for `reason`.
pub(crate) fn skip<T>(reason: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Skipped(reason.into()))
}
