//! Names and permanent ids: labels people choose, and hashes nobody can choose.
//!
//! Not for digests of content: see [`crate::digest`].

use std::fmt;
use std::str::FromStr;

/// Most characters a [`Label`] may have.
pub const LABEL_CHARACTERS_MAX: usize = 64;

/// A name people choose: of a rnode, a namespace, an application, a class.
///
/// 1 to 64 ASCII letters, digits, `_`, `-` and `.`, beginning with a letter, digit or `_`: every name that the
/// description files allow, and always the name of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Box<str>);

/// Why a text is not a label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// It is empty.
    #[error("read a label: it is empty")]
    Empty,
    /// It has more than [`LABEL_CHARACTERS_MAX`] characters.
    #[error("read a label: it has {0} characters, more than 64")]
    Long(usize),
    /// A character is not allowed where it stands.
    #[error("read a label: '{0}' may not stand at position {1}")]
    Character(char, usize),
}

impl Label {
    /// Checks `text`.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, LabelError> {
        if text.is_empty() {
            return Err(LabelError::Empty);
        }
        if text.len() > LABEL_CHARACTERS_MAX {
            return Err(LabelError::Long(text.chars().count()));
        }
        for (at, character) in text.chars().enumerate() {
            let inner = at > 0 && matches!(character, '-' | '.');
            if !character.is_ascii_alphanumeric() && character != '_' && !inner {
                return Err(LabelError::Character(character, at + 1));
            }
        }
        Ok(Self(text.into()))
    }

    /// The label of the rnodes that host others: `base`.
    #[must_use]
    pub fn base() -> Self {
        Self("base".into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl AsRef<str> for Label {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        Self::new(text)
    }
}

impl TryFrom<&str> for Label {
    type Error = LabelError;

    fn try_from(text: &str) -> Result<Self, LabelError> {
        Self::new(text)
    }
}

impl PartialEq<str> for Label {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for Label {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

/// Why a text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("read an id: it is not 64 hex digits")]
pub struct ParseIdError;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Displays as 64 lower-case hex digits; [`short`](Self::short) gives the first 8.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Takes 32 bytes that are such an id already.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first 8 hex digits, for people and marks.
            #[must_use]
            pub fn short(&self) -> String {
                self.0[..4].iter().map(|byte| format!("{byte:02x}")).collect()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }
    };
}

id!(
    /// The permanent name of a rnode: the hash of its first public key.
    RnodeId
);
id!(
    /// The permanent name of an owner: the hash of its first root keys.
    OwnerId
);
id!(
    /// A namespace: the hash of its owner and its label.
    NamespaceId
);
id!(
    /// An invitation: the hash of its throwaway public key.
    InvitationId
);
id!(
    /// Any key, whatever its role: the hash of its public key. Denies name keys so.
    KeyId
);

impl NamespaceId {
    /// The namespace that `owner` calls `label`.
    #[must_use]
    pub fn of(owner: &OwnerId, label: &Label) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("radix 2026 namespace id");
        hasher
            .update(owner.as_bytes())
            .update(label.as_str().as_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}

fn parse_hex(text: &str) -> Result<[u8; 32], ParseIdError> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return Err(ParseIdError);
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Ok(bytes)
}

const fn hex_digit(digit: u8) -> Result<u8, ParseIdError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(ParseIdError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_checked_where_they_are_made() {
        for good in [
            "n1",
            "base",
            "the_shire",
            "A-b_9",
            "0",
            "_x",
            "v1.2",
            &"x".repeat(64),
        ] {
            assert_eq!(
                Label::new(good).map(|label| label.to_string()).as_deref(),
                Ok(good)
            );
        }
        assert_eq!(Label::new(""), Err(LabelError::Empty));
        assert_eq!(Label::new(&"x".repeat(65)), Err(LabelError::Long(65)));
        for bad in ["-n", ".n", "n/1", "n 1", "é", "n\n", ".."] {
            assert!(
                matches!(Label::new(bad), Err(LabelError::Character(..))),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn ids_read_back_what_they_print() {
        let id = NamespaceId::of(&OwnerId::from_bytes([7; 32]), &Label::base());
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().starts_with(&id.short()));
        assert_eq!("+f".repeat(32).parse::<NamespaceId>(), Err(ParseIdError));
        assert_ne!(
            id,
            NamespaceId::of(&OwnerId::from_bytes([8; 32]), &Label::base())
        );
    }
}
