//! Records in files, each replaced whole: what was asked, which generation was seen, the last number given.

use std::io;
use std::path::Path;

use crux_net::durable;
use prost::Message as _;
use underverse::{Effect, Error, Generation, HordeSpec, Kind};

use crate::wire;

fn failed(path: &Path, error: &io::Error) -> Error {
    let message = error.to_string();
    Error::new(Kind::Io, "keep a record", message)
        .with("path", path.display())
        .effect(Effect::Unknown)
}

/// Writes a file beside, syncs it, renames it over; makes its folder.
///
/// # Errors
/// `Io`; the old content, or the new, is there.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let write = || -> io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        durable::replace(path, bytes)
    };
    write().map_err(|error| failed(path, &error))
}

/// Keeps what was asked under which generation.
///
/// # Errors
/// `Io`.
pub fn keep(path: &Path, generation: Generation, spec: &HordeSpec) -> Result<(), Error> {
    let record = wire::RealiseRequest {
        generation: Some(generation.into()),
        spec: Some(spec.into()),
        deadline_ms: 0,
    };
    replace(path, &record.encode_to_vec())
}

/// Removes what was kept of a horde, whole.
///
/// # Errors
/// `Io`.
pub fn forget(folder: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(folder, &error)),
        _ => Ok(()),
    }
}

/// What [`keep`] kept; `None` if there is nothing, or nothing that can be read.
#[must_use]
pub fn kept(path: &Path) -> Option<(Generation, HordeSpec)> {
    let record = wire::RealiseRequest::decode(std::fs::read(path).ok()?.as_slice()).ok()?;
    Some((record.generation?.into(), record.spec?.try_into().ok()?))
}

/// Refuses a generation below the one that was seen.
///
/// # Errors
/// `Stale`.
pub fn check(path: &Path, generation: Generation) -> Result<(), Error> {
    let seen = seen(path);
    match generation < seen {
        true => {
            let message = format!("generation {generation} is older than {seen}, which was seen");
            Err(Error::new(Kind::Stale, "change a horde", message))
        }
        false => Ok(()),
    }
}

/// The highest generation that was seen.
#[must_use]
pub fn seen(path: &Path) -> Generation {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut numbers = text
        .split_whitespace()
        .map(|word| word.parse().unwrap_or(0));
    Generation {
        document: numbers.next().unwrap_or(0),
        term: numbers.next().unwrap_or(0),
    }
}

/// Keeps the highest generation that was seen.
///
/// # Errors
/// `Io`.
pub fn see(path: &Path, generation: Generation) -> Result<(), Error> {
    replace(
        path,
        format!("{} {}\n", generation.document, generation.term).as_bytes(),
    )
}

/// A number that was never given before, also not to a process that died.
///
/// # Errors
/// `Io`.
pub fn number(path: &Path) -> Result<u64, Error> {
    let last = std::fs::read_to_string(path).unwrap_or_default();
    let next = last.trim().parse::<u64>().unwrap_or(0) + 1;
    replace(path, format!("{next}\n").as_bytes())?;
    Ok(next)
}

/// The directories below `folder`, by name.
#[must_use]
pub fn directories(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = directories
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}
