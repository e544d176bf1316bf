//! A flock's name: an outcome, never a setting.

use std::fmt;

const CONSONANTS: &[u8; 16] = b"bdfghjklmnprstvz";
const VOWELS: &[u8; 4] = b"aiou";

/// A flock: 128 random bits of its founder. Displays as a word that can be said, a hash of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlockId([u8; 16]);

impl FlockId {
    pub(crate) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for FlockId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = blake3::hash(&self.0);
        for byte in &hash.as_bytes()[..5] {
            let consonant = CONSONANTS[usize::from(byte & 15)];
            let vowel = VOWELS[usize::from(byte >> 4 & 3)];
            write!(formatter, "{}{}", char::from(consonant), char::from(vowel))?;
        }
        Ok(())
    }
}

impl fmt::Debug for FlockId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "FlockId({self})")
    }
}
