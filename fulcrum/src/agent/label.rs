//! What is written into the label of an instance's execution, so that a new agent adopts it exactly.

use crux_core::digest::Digest;
use crux_wire::keeper::v1::Execution;
use serde::{Deserialize, Serialize};

use super::reconcile::InstanceId;

/// The label, as JSON. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InstanceLabel {
    /// Class of the instance.
    pub(crate) class: String,
    /// Its index.
    pub(crate) index: u32,
    /// How many of its class there were when it was started.
    pub(crate) count: u32,
    /// Digest of what it runs, in hex.
    pub(crate) spec: String,
    /// Generation of the document it was started by.
    pub(crate) generation: u64,
    /// Term of the leader that assigned it.
    pub(crate) term: u64,
    /// Its application.
    pub(crate) application: String,
}

impl InstanceLabel {
    /// The bytes that travel with the execution.
    pub(crate) fn encode(&self) -> Vec<u8> {
        // A struct of plain fields always serialises.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The label of an execution; `None` if it is not an instance's.
    pub(crate) fn of(execution: &Execution) -> Option<Self> {
        if execution.instance.is_empty() {
            return None;
        }
        serde_json::from_slice(&execution.label).ok()
    }

    /// The instance it names.
    pub(crate) fn instance(&self) -> InstanceId {
        InstanceId {
            class: self.class.clone(),
            index: self.index,
        }
    }

    /// Digest of what it runs.
    pub(crate) fn spec(&self) -> Option<Digest> {
        self.spec.parse().ok()
    }
}
