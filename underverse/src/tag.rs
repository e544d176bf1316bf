//! Tags of servers and containers, and the rules that choose by them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Kind};

/// Longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 128;

/// A significant property of a server or container: "GPU".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// Checks and takes a tag.
    ///
    /// # Errors
    /// `Invalid` if it is empty, too long, has white space, control characters or commas, or begins with `!`.
    pub fn new(text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        let invalid = |reason| Err(Error::new(Kind::Invalid, "read a tag", reason));
        if text.is_empty() || text.len() > TAG_BYTES_MAX {
            return invalid(format!("{text:?} must have 1 to {TAG_BYTES_MAX} bytes"));
        }
        if text.starts_with('!') {
            return invalid(format!(
                "{text:?} begins with '!', which only a requirement may"
            ));
        }
        if text
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || c == ',')
        {
            return invalid(format!(
                "{text:?} has white space, a comma or a control character"
            ));
        }
        Ok(Self(text))
    }

    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::new(text)
    }
}

/// One requirement on a server's tags. Written `GPU`, or `!old` to exclude.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TagRule {
    /// The server has this tag.
    Has(Tag),
    /// The server does not have this tag.
    Lacks(Tag),
}

impl TagRule {
    /// Whether the rule holds for a server with `tags`.
    #[must_use]
    pub fn holds(&self, tags: &BTreeSet<Tag>) -> bool {
        match self {
            Self::Has(tag) => tags.contains(tag),
            Self::Lacks(tag) => !tags.contains(tag),
        }
    }
}

impl fmt::Display for TagRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Has(tag) => write!(formatter, "{tag}"),
            Self::Lacks(tag) => write!(formatter, "!{tag}"),
        }
    }
}

impl FromStr for TagRule {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        match text.strip_prefix('!') {
            Some(rest) => Ok(Self::Lacks(Tag::new(rest)?)),
            None => Ok(Self::Has(Tag::new(text)?)),
        }
    }
}

/// The first rule of `rules` that does not hold for `tags`; `None` if all hold.
#[must_use]
pub fn first_broken<'a>(rules: &'a [TagRule], tags: &BTreeSet<Tag>) -> Option<&'a TagRule> {
    rules.iter().find(|rule| !rule.holds(tags))
}
