//! Capability records and strengths on the wire.

use underverse::{Capabilities, Capability, Strength};

use crate::wire;

pub(super) fn strength(of: &Strength, capability: &str) -> wire::Strength {
    let kind = match of {
        Strength::Absent(_) => wire::StrengthKind::Absent,
        Strength::Weak(_) => wire::StrengthKind::Weak,
        Strength::Enforced => wire::StrengthKind::Enforced,
    };
    wire::Strength {
        capability: capability.to_owned(),
        kind: kind.into(),
        reason: of.reason().unwrap_or_default().to_owned(),
    }
}

impl From<&Strength> for wire::Strength {
    fn from(of: &Strength) -> Self {
        strength(of, "")
    }
}

impl From<wire::Strength> for Strength {
    /// What is not known promises nothing.
    fn from(told: wire::Strength) -> Self {
        match wire::StrengthKind::try_from(told.kind) {
            Ok(wire::StrengthKind::Enforced) => Self::Enforced,
            Ok(wire::StrengthKind::Weak) => Self::Weak(told.reason),
            Ok(wire::StrengthKind::Absent) => Self::Absent(told.reason),
            Ok(wire::StrengthKind::Unspecified) | Err(_) => {
                Self::Absent(format!("told with an unknown strength, {}", told.kind))
            }
        }
    }
}

/// The whole record, so that what a newer caller knows and we do not state is absent there.
pub(crate) fn strengths(record: &Capabilities) -> Vec<wire::Strength> {
    record
        .iter()
        .map(|(capability, held)| strength(&held, capability.word()))
        .collect()
}

/// The record as told; capabilities that we do not know are left out.
pub(crate) fn capabilities(told: Vec<wire::Strength>) -> Capabilities {
    told.into_iter().fold(Capabilities::new(), |record, told| {
        let known = Capability::ALL
            .into_iter()
            .find(|capability| capability.word() == told.capability);
        known.map_or_else(
            || record.clone(),
            |capability| record.clone().with(capability, told.into()),
        )
    })
}
