//! One lookup's answer, as it is shown to people and kept on the blackboard.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::table::Row;

/// Who answers, from what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The instance: `stix/prog1/0`.
    pub worker: String,
    /// The rnode it runs on.
    pub rnode: String,
    /// BLAKE3 of the CSV.
    pub csv: String,
}

/// An answer with everything that tells where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The value of the first column that was asked for.
    pub key: String,
    /// Number of the row, counted from 1 below the header.
    pub row_number: u64,
    /// The row's fields by column.
    pub row: BTreeMap<String, String>,
    /// The instance that answered.
    pub worker: String,
    /// The rnode it runs on.
    pub rnode: String,
    /// BLAKE3 of the CSV it answered from.
    pub csv: String,
    /// The instance that asked; empty when a person did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub asked_by: String,
    /// How many answers that instance has had, this one among them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub count: u64,
    /// When it was had, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub at_unix_ms: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Answer {
    /// What `origin` says about `row`.
    #[must_use]
    pub fn new(key: &str, row: Row<'_>, origin: &Origin) -> Self {
        Self {
            key: key.to_owned(),
            row_number: row.number(),
            row: row.columns(),
            worker: origin.worker.clone(),
            rnode: origin.rnode.clone(),
            csv: origin.csv.clone(),
            asked_by: String::new(),
            count: 0,
            at_unix_ms: 0,
        }
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let fields: Vec<&str> = self.row.values().map(String::as_str).collect();
        let csv = self.csv.get(..12).unwrap_or(&self.csv);
        format!(
            "{} #{} asked {} on {}: row {} of csv {csv}: {}",
            self.asked_by,
            self.count,
            self.worker,
            self.rnode,
            self.row_number,
            fields.join(" | ")
        )
    }
}
