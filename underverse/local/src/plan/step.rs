//! What a plan is made of.

use underverse::{Action, PlannedStep};

use crate::label::rnode_label;
use crate::network::At;
use crate::record::{Door, ProbedState};
use crate::servers::Numbered;
use crate::storage::Allotment;

/// Subject of steps that concern the whole horde.
pub(crate) const COMMON: &str = "horde";

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Writes down what is wanted, before anything is made.
    Record,
    /// Writes down that these are asked to end.
    Mark(Vec<u32>),
    /// Ends a forwarder.
    EndForward {
        execution: String,
        at: At,
        reason: &'static str,
    },
    /// Ends a cell and all in it.
    EndCell {
        execution: String,
        ordinal: u32,
        reason: &'static str,
    },
    /// Confirms the death of a cell and tells it.
    Bury {
        execution: String,
        ordinal: u32,
        how: String,
    },
    /// Removes a rnode's directory.
    RemoveDirectory { ordinal: u32 },
    /// Takes numbers, addresses and forwarders out of the record that are no longer wanted.
    Forget { ordinals: Vec<u32>, doors: Vec<At> },
    /// Tells what became of servers, and of the machine if a boot is named.
    News {
        news: Vec<Numbered>,
        boot: Option<String>,
    },
    /// Gives back storage that nobody asks for any more.
    Free(Vec<Allotment>),
    /// Allots storage.
    Allot(Allotment),
    /// Gives these an address.
    Lease(Vec<u32>),
    /// Gives these the number of their next start.
    Number {
        cells: Vec<(u32, u32)>,
        forwards: Vec<(Door, u32)>,
    },
    /// Writes a rnode's directory.
    Prepare { ordinal: u32 },
    /// Starts a cell.
    StartCell { ordinal: u32, reason: &'static str },
    /// Tells the starts of these.
    Announce(Vec<u32>),
    /// Starts a forwarder.
    StartForward { door: Door },
    /// Tries what the network lets through.
    Probe(ProbedState),
    /// Removes all that is left of the horde.
    RemoveHorde,
}

impl Step {
    /// The step for people; `None` for book-keeping they need not see.
    pub(crate) fn planned(&self) -> Option<PlannedStep> {
        let step = |action, subject: String, reason: &str| {
            Some(PlannedStep {
                action,
                subject,
                reason: reason.to_owned(),
            })
        };
        match self {
            Self::Record
            | Self::Mark(_)
            | Self::Forget { .. }
            | Self::Lease(_)
            | Self::Number { .. }
            | Self::Bury { .. }
            | Self::News { .. }
            | Self::Announce(_)
            | Self::Probe(_) => None,
            Self::EndForward { at, reason, .. } => step(Action::Stop, format!("port {at}"), reason),
            Self::EndCell {
                ordinal, reason, ..
            } => step(Action::Stop, rnode_label(*ordinal), reason),
            Self::RemoveDirectory { ordinal } => step(
                Action::Remove,
                rnode_label(*ordinal),
                "it is not asked for any more",
            ),
            Self::Free(freed) => step(
                Action::Remove,
                COMMON.to_owned(),
                &format!(
                    "{} allotments of storage are not asked for any more",
                    freed.len()
                ),
            ),
            Self::Allot(one) => step(
                Action::Create,
                self.subject(),
                &format!("its storage {} in {}", one.id, one.source),
            ),
            Self::Prepare { ordinal } => step(
                Action::Create,
                rnode_label(*ordinal),
                "its directory and address",
            ),
            Self::StartCell { ordinal, reason } => {
                step(Action::Start, rnode_label(*ordinal), reason)
            }
            Self::StartForward { door } => step(
                Action::Start,
                format!("port {}", door.at()),
                "it is asked for",
            ),
            Self::RemoveHorde => step(Action::Remove, "horde".to_owned(), "it is dissolved"),
        }
    }

    /// What the step is about.
    pub(crate) fn subject(&self) -> String {
        match self {
            Self::EndCell { ordinal, .. }
            | Self::Bury { ordinal, .. }
            | Self::RemoveDirectory { ordinal }
            | Self::Prepare { ordinal }
            | Self::StartCell { ordinal, .. } => rnode_label(*ordinal),
            Self::EndForward { at, .. } => format!("port {at}"),
            Self::StartForward { door } => format!("port {}", door.at()),
            Self::Allot(Allotment {
                container: Some(ordinal),
                ..
            }) => rnode_label(*ordinal),
            _ => COMMON.to_owned(),
        }
    }

    /// Whether it forgets what earlier steps must have ended.
    pub(crate) const fn forgets(&self) -> bool {
        matches!(
            self,
            Self::Forget { .. } | Self::Free(_) | Self::RemoveHorde
        )
    }
}
