//! Whether the state directory has room for what is to be started, before anything is.

use std::collections::BTreeMap;

use crux_wire::document::v1::Document;
use nix::sys::statvfs::statvfs;
use underverse::ByteCount;

use crate::failure::{Failure, Outcome};
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
}
