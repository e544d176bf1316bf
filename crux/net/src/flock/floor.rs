//! What must never fall across restarts, in one small file: `DIR/flock`, and the reset key beside it.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crux_core::flock::Floor;
use ring::rand::SecureRandom as _;

/// Reads the floor; the default where there is none yet.
pub(crate) fn read(directory: &Path) -> io::Result<Floor> {
    let text = match fs::read_to_string(directory.join("flock")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Floor::default()),
        Err(error) => return Err(error),
    };
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it does not hold three numbers");
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [incarnation, sequence, term] = numbers[..] else { return Err(damaged()) };
    Ok(Floor { incarnation, sequence, term })
}

/// Writes the floor; it is durable when this returns.
pub(crate) fn write(directory: &Path, floor: Floor) -> io::Result<()> {
    let text = format!("{} {} {}\n", floor.incarnation, floor.sequence, floor.term);
    replace(directory, "flock", text.as_bytes())
}

/// The key of stateless resets, made at the first call.
pub(crate) fn reset_key(directory: &Path) -> io::Result<[u8; 32]> {
    if let Ok(bytes) = fs::read(directory.join("flock.reset"))
        && let Ok(key) = bytes.as_slice().try_into()
    {
        return Ok(key);
    }
    let mut key = [0; 32];
    ring::rand::SystemRandom::new()
        .fill(&mut key)
        .map_err(|_| io::Error::other("no random bytes"))?;
    replace(directory, "flock.reset", &key)?;
    Ok(key)
}

fn replace(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let staged = directory.join(format!(".{name}.new"));
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&staged, directory.join(name))?;
    fs::File::open(directory)?.sync_all()
}
