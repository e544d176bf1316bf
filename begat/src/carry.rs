//! Carries executions to another machine: records and what they made, in one stream.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;

use crux_core::digest::Digest;
use crux_net::store::{Store, stream};

use crate::error::Error;
use crate::records::{Kept, Records};

/// What has been carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// Records.
    pub records: usize,
    /// Blobs.
    pub blobs: usize,
}

/// Folder of the stream's named parts that holds records.
const FOLDER: &str = "begat/";

/// Writes `records` and everything they made to `writer`; records whose outputs are gone are left.
///
/// # Errors
/// If the store or the writer fails.
pub fn export(
    begat: &Path,
    store: &Store,
    kept: &[Kept],
    writer: &mut dyn Write,
) -> Result<Carried, Error> {
    let records = Records::open(begat)?;
    let mut carried = Carried::default();
    let mut done: BTreeSet<Digest> = BTreeSet::new();
    let mut stream = stream::Writer::start(writer)?;
    for kept in kept.iter().filter(|kept| kept.record.succeeded()) {
        let digests: Vec<Digest> = kept.record.outputs.iter().map(|made| made.digest).collect();
        if !digests.iter().all(|digest| store.has(digest)) {
            continue;
        }
        // Blobs first: a reader that is cut off has no record whose outputs are missing.
        let log = kept.record.log.filter(|log| store.has(log));
        for digest in digests.into_iter().chain(log) {
            if done.insert(digest) {
                stream.blob(store, &digest)?;
                carried.blobs += 1;
            }
        }
        stream.named(&format!("{FOLDER}{}", kept.name), &records.bytes(kept)?)?;
        carried.records += 1;
    }
    stream.finish()?;
    Ok(carried)
}

/// Takes in what [`export`] wrote. What was there stays; what is damaged is refused.
///
/// A record is believed: whoever brings a stream says what was made of what.
///
/// # Errors
/// If the stream is damaged, or the store or begat's directory fails; what came before stays.
pub fn import(begat: &Path, store: &Store, reader: &mut dyn Read) -> Result<Carried, Error> {
    let records = Records::open(begat)?;
    let mut carried = Carried::default();
    let mut stream = stream::Reader::start(reader)?;
    while let Some(part) = stream.next_part(store)? {
        match part {
            stream::Part::Blob(_) => carried.blobs += 1,
            stream::Part::Named { name, bytes } if name.starts_with(FOLDER) => {
                records.adopt(&bytes)?;
                carried.records += 1;
            }
            // Parts of later versions.
            stream::Part::Named { .. } => {}
        }
    }
    Ok(carried)
}
