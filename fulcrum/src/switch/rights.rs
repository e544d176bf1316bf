//! Takes from a process of root, and from all it will start, the rights with which it could leave its switch.

use std::io;

use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

/// What root could enter or build other networks with, or reach other processes and devices.
const RIGHTS: [CapabilitySet; 10] = [
    CapabilitySet::SYS_ADMIN,
    CapabilitySet::NET_ADMIN,
    CapabilitySet::NET_RAW,
    CapabilitySet::SYS_PTRACE,
    CapabilitySet::SYS_MODULE,
    CapabilitySet::SYS_RAWIO,
    CapabilitySet::MKNOD,
    CapabilitySet::DAC_READ_SEARCH,
    CapabilitySet::BPF,
    CapabilitySet::PERFMON,
];

/// Takes the rights away, from the next program executed on.
///
/// # Errors
/// `PermissionDenied` where this process could not have them either.
pub(crate) fn give_up() -> io::Result<()> {
    for right in RIGHTS {
        remove_capability_from_bounding_set(right)?;
    }
    Ok(())
}
