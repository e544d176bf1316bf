//! Tickets: names that only those know who were told.

use crux_core::digest::Digest;
use ring::rand::{SecureRandom, SystemRandom};

use super::error::{Error, Kind};

/// A new ticket: 256 random bits as hex digits.
///
/// # Errors
/// [`Kind::Io`] when the system has no randomness to give.
pub fn ticket() -> Result<String, Error> {
    let mut bytes = [0; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::new(Kind::Io, "make a ticket: the system gives no randomness"))?;
    Ok(Digest::from_bytes(bytes).to_string())
}
