//! Names and sizes that cannot be wrong once made.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Kind};

/// Longest name of a horde or role, in bytes: it becomes part of directory and execution names.
pub const NAME_BYTES_MAX: usize = 63;

fn check(what: &'static str, text: &str) -> Result<(), Error> {
    let invalid = |reason: String| Err(Error::new(Kind::Invalid, what, reason));
    if text.is_empty() {
        return invalid("the name is empty".to_owned());
    }
    if text.len() > NAME_BYTES_MAX {
        return invalid(format!(
            "the name has {} bytes, at most {NAME_BYTES_MAX}",
            text.len()
        ));
    }
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !text.bytes().all(good) || !text.as_bytes()[0].is_ascii_alphanumeric() {
        return invalid(format!(
            "{text:?} is not a name: letters, digits, '_' and '-', a letter or digit first"
        ));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// `Invalid` if it is empty, too long, or has characters other than letters, digits, `_`, `-`.
            pub fn new(text: impl Into<String>) -> Result<Self, Error> {
                let text = text.into();
                check($what, &text)?;
                Ok(Self(text))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                Self::new(text)
            }
        }
    };
}

name! {
    /// Names a horde, unique within its owner.
    HordeName, "name a horde"
}
name! {
    /// Names a role within a horde: what one execable is.
    Role, "name a role"
}

/// Identifies one running container; given by the underverse, unique for ever.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

impl ContainerId {
    /// Takes an id as the underverse wrote it; only backends make one.
    #[must_use]
    pub fn from_backend(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A text that is no number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotBytes;

impl fmt::Display for NotBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("read a number of bytes: write 20G, 500M, 64K, or bytes in digits")
    }
}

impl std::error::Error for NotBytes {}

/// A number of bytes. Displays in binary units ("25.0 MiB"); reads as digits with or without one of `K M G T`, also
/// binary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteCount(u64);

impl ByteCount {
    /// Takes a count of bytes.
    #[must_use]
    pub const fn bytes(count: u64) -> Self {
        Self(count)
    }

    /// Takes decimal megabytes, 10^6 bytes, as the Chronicles' storage calls count.
    #[must_use]
    pub const fn megabytes(count: u64) -> Self {
        Self(count.saturating_mul(1_000_000))
    }

    /// Takes binary mebibytes, 2^20 bytes.
    #[must_use]
    pub const fn mebibytes(count: u64) -> Self {
        Self(count.saturating_mul(1 << 20))
    }

    /// The count.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// This much, `count` times; saturates.
    #[must_use]
    pub const fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(count))
    }
}

impl std::str::FromStr for ByteCount {
    type Err = NotBytes;

    fn from_str(text: &str) -> Result<Self, NotBytes> {
        let (digits, shift) = match text.as_bytes().last() {
            Some(b'K') => (&text[..text.len() - 1], 10),
            Some(b'M') => (&text[..text.len() - 1], 20),
            Some(b'G') => (&text[..text.len() - 1], 30),
            Some(b'T') => (&text[..text.len() - 1], 40),
            _ => (text, 0),
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotBytes);
        }
        let count: u64 = digits.parse().map_err(|_| NotBytes)?;
        let count = count.checked_mul(1 << shift).ok_or(NotBytes)?;
        Ok(Self(count))
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut scaled = self.0;
        let mut rest = 0;
        let mut unit = "B";
        for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
            if scaled < 1024 {
                break;
            }
            rest = scaled % 1024;
            scaled /= 1024;
            unit = next;
        }
        if unit == "B" {
            write!(formatter, "{scaled} B")
        } else {
            write!(formatter, "{scaled}.{} {unit}", rest * 10 / 1024)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_bytes_is_read_with_its_unit() {
        let read = |text: &str| text.parse().map(ByteCount::get);
        assert_eq!(read("0"), Ok(0));
        assert_eq!(read("17"), Ok(17));
        assert_eq!(read("64K"), Ok(64 << 10));
        assert_eq!(read("20G"), Ok(20 << 30));
        assert_eq!(read("2T"), Ok(2 << 40));
        for wrong in ["", "G", "-1", "+1", "1.5G", "20 G", "20GB", "99999999T"] {
            assert_eq!(read(wrong), Err(NotBytes), "{wrong}");
        }
    }

    #[test]
    fn a_name_that_could_leave_its_directory_is_refused() {
        for bad in ["", ".", "..", "a/b", "-x", "a b", "é", &"x".repeat(64)] {
            assert_eq!(
                HordeName::new(bad).map_err(|e| e.kind()),
                Err(Kind::Invalid),
                "{bad:?}"
            );
        }
        assert_eq!(
            HordeName::new("the_shire")
                .map(|n| n.to_string())
                .ok()
                .as_deref(),
            Some("the_shire")
        );
    }

    #[test]
    fn sizes_read_in_binary_units() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (26_214_400, "25.0 MiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(ByteCount::bytes(bytes).to_string(), text);
        }
        assert_eq!(ByteCount::megabytes(200_000).get(), 200_000_000_000);
    }
}
