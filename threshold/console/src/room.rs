//! Whether the state directory and the machine have room for what is to be started, before anything is.

use std::collections::BTreeMap;

use crux_wire::document::v1::Document;
use crux_wire::fulcrum::v1::HordeState;
use nix::sys::statvfs::statvfs;
use underverse::ByteCount;
use underverse_local::limits::{self, Machine};

use crate::failure::{Failure, Fault, Outcome};
use crate::home::Home;

/// Room that a base rnode takes: memoir, identity, logs. 8 MiB, of which an idle one uses the smaller part.
const BASE_BYTES: u64 = 8 << 20;
/// Room that a nested rnode takes before it has any file of the application. 2 MiB.
const RNODE_BYTES: u64 = 2 << 20;

/// Refuses to start `rnodes` more rnodes of `document` where not even one copy of each of its files would fit.
///
/// More than that may be needed, since each rnode holds the files of what runs on it; what then does not fit is told
/// by the rnode that wants it.
pub(crate) fn check(home: &Home, document: &Document, rnodes: u32) -> Outcome<()> {
    if rnodes == 0 {
        return Ok(());
    }
    let needed = needed(document, rnodes);
    let seen = statvfs(home.root()).map_err(std::io::Error::from)?;
    let available = seen.blocks_available() * seen.fragment_size();
    if available >= needed {
        return Ok(());
    }
    let text = format!(
        "no room is left in {}: {} of {} that {rnodes} rnodes need at least",
        home.root().display(),
        ByteCount::bytes(available),
        ByteCount::bytes(needed),
    );
    Err(Failure::usage(text)
        .hint("free some space, or set RADIX_HOME to a directory on another file system"))
}

/// How many rnodes of a namespace need no more room: those that run, or were accepted with `present` and may run again.
pub(crate) fn held(present: Option<&Document>, hordes: &[HordeState]) -> u32 {
    let Some(present) = present else {
        return 0;
    };
    let ours = hordes
        .iter()
        .filter(|horde| horde.namespace == present.namespace);
    let running = ours
        .flat_map(|horde| &horde.rnodes)
        .filter(|rnode| rnode.state == "running");
    let running = u32::try_from(running.count()).unwrap_or(u32::MAX);
    running.max(present.rnodes_wanted)
}

/// Refuses more rnodes than `machine` can hold, of which `held` need no more room.
pub(crate) fn check_machine(wanted: u32, held: u32, machine: &Machine) -> Outcome<()> {
    limits::check(wanted, held, machine).map_err(|error| {
        Failure::new(Fault::Unsatisfiable, format!("{wanted} rnodes do not fit"))
            .because(&error)
            .hint("lower `n` in the .rnodes file, or choose a larger underverse")
    })
}

fn needed(document: &Document, rnodes: u32) -> u64 {
    let files: BTreeMap<&str, u64> = document
        .pins
        .iter()
        .map(|pin| (pin.digest.as_str(), pin.size))
        .collect();
    let files: u64 = files.values().sum();
    BASE_BYTES + u64::from(rnodes) * RNODE_BYTES + files
}

#[cfg(test)]
mod tests {
    use crux_wire::document::v1::Pin;
    use crux_wire::fulcrum::v1::HordeRnode;

    use super::*;

    #[test]
    fn a_file_that_is_named_twice_is_counted_once() {
        let pin = |digest: &str, size| Pin {
            digest: digest.into(),
            size,
            ..Pin::default()
        };
        let document = Document {
            pins: vec![pin("a", 10), pin("b", 5), pin("a", 10)],
            ..Document::default()
        };
        assert_eq!(needed(&document, 2), BASE_BYTES + 2 * RNODE_BYTES + 15);
    }

    fn horde(namespace: &str, states: &[&str]) -> HordeState {
        let rnode = |state: &&str| HordeRnode {
            state: (*state).to_owned(),
            ..HordeRnode::default()
        };
        HordeState {
            namespace: namespace.to_owned(),
            rnodes: states.iter().map(rnode).collect(),
            ..HordeState::default()
        }
    }

    #[test]
    fn where_memory_is_short_only_what_a_namespace_has_not_yet_is_refused() {
        let full = Machine {
            cpus: 2,
            memory: ByteCount::mebibytes(4096),
            memory_available: ByteCount::mebibytes(1),
            tasks_max: 32_768,
            tasks: 300,
        };
        let present = Document {
            namespace: "stix".into(),
            rnodes_wanted: 3,
            ..Document::default()
        };
        let hordes = [horde("stix", &["running"; 4]), horde("other", &["running"])];
        // One of four is to go and runs still; of a base that has only just begun, none is known yet.
        assert_eq!(held(Some(&present), &hordes), 4);
        assert_eq!(held(Some(&present), &[]), 3);
        assert_eq!(held(None, &hordes), 0);
        for (wanted, held, fits) in [(3, 3, true), (2, 3, true), (4, 3, false), (1, 0, false)] {
            let checked = check_machine(wanted, held, &full);
            assert_eq!(checked.is_ok(), fits, "{wanted} of which {held} are there");
        }
    }
}
